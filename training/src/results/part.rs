//! What a part of a page can be.

use std::path::{Path, PathBuf};

use super::{picture, tables};
use crate::compare::{Comparison, Outcome, Row, SummaryRow};
use crate::error::{Error, Result};
use crate::statistics::mean;

/// The text of a part, and its picture.
pub(super) struct Own {
    pub markdown: String,
    pub picture: Option<(PathBuf, String)>,
}

/// A part of a page: its kind and what follows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    kind: Kind,
    folder: PathBuf,
    words: Vec<String>,
}

/// The kinds of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Arms,
    Comparisons,
    Sources,
    Differences,
    Runs,
    Top1,
    Delta,
    P,
    Seeds,
    Epochs,
    Time,
    Memory,
}

/// Name, arguments and meaning of every kind.
const KINDS: [(&str, Kind, &str, &str); 12] = [
    ("arms", Kind::Arms, "CSV", "table of the arms with their top-1 and cost"),
    ("comparisons", Kind::Comparisons, "CSV...", "table of the comparisons of one or more files"),
    ("sources", Kind::Sources, "CSV...", "table of the files: runs, command, commit, machine"),
    (
        "differences",
        Kind::Differences,
        "SVG CSV...",
        "picture of the comparisons with their intervals",
    ),
    ("runs", Kind::Runs, "SVG CSV", "picture of the top-1 of every run, by arm"),
    ("top1", Kind::Top1, "CSV ARM", "mean top-1 and its standard deviation"),
    ("delta", Kind::Delta, "CSV ARM BASELINE", "difference of top-1 and its 95 % interval"),
    ("p", Kind::P, "CSV ARM BASELINE", "corrected p-value"),
    ("seeds", Kind::Seeds, "CSV ARM", "number of seeds"),
    ("epochs", Kind::Epochs, "CSV ARM", "number of epochs"),
    ("time", Kind::Time, "CSV ARM BASELINE", "training time of an epoch over that of the baseline"),
    ("memory", Kind::Memory, "CSV ARM", "peak memory"),
];

impl Part {
    /// Every kind of part with its arguments, and what it becomes.
    pub fn kinds() -> impl Iterator<Item = (String, &'static str)> {
        KINDS.iter().map(|(name, _, arguments, meaning)| (format!("{name} {arguments}"), *meaning))
    }

    /// A part from its words; paths are relative to `folder`.
    pub(super) fn read(words: &[&str], folder: &Path) -> std::result::Result<Self, String> {
        let (name, words) = words.split_first().map_or(("", words), |(name, words)| (*name, words));
        let Some((_, kind, arguments, _)) = KINDS.iter().find(|(known, ..)| *known == name) else {
            let known: Vec<&str> = KINDS.iter().map(|(name, ..)| *name).collect();
            return Err(format!("\"{name}\" is no part; expected one of {}", known.join(", ")));
        };
        let expected = arguments.split(' ').count();
        let fits = match arguments.ends_with("...") {
            true => words.len() >= expected,
            false => words.len() == expected,
        };
        // A forgotten SVG must not turn the first CSV into a picture.
        let has_svg = words.first().is_some_and(|word| word.to_lowercase().ends_with(".svg"));
        match fits && has_svg == arguments.starts_with("SVG") {
            true => Ok(Self {
                kind: *kind,
                folder: folder.into(),
                words: words.iter().map(ToString::to_string).collect(),
            }),
            false => Err(format!("expected <!-- dbb {name} {arguments} -->")),
        }
    }

    /// The part as the tables say.
    pub(super) fn fill(&self) -> Result<Own> {
        let picture = match self.kind {
            Kind::Differences => picture::differences(&self.studies(1)?),
            Kind::Runs => picture::runs(&self.study(1)?),
            _ => return Ok(Own { markdown: self.markdown()?, picture: None }),
        };
        // Their number is checked when the part is read.
        let place = &self.words[0];
        let markdown = format!("![{}]({place})", picture.description);
        Ok(Own { markdown, picture: Some((self.folder.join(place), picture.svg)) })
    }

    fn markdown(&self) -> Result<String> {
        Ok(match self.kind {
            Kind::Comparisons => tables::comparisons(&self.studies(0)?),
            Kind::Sources => tables::sources(&self.studies(0)?),
            _ => {
                let study = self.study(0)?;
                let arm = |at: usize| study.arm(&self.words[at]);
                match self.kind {
                    Kind::Arms => tables::arms(&study.comparison),
                    Kind::Top1 => arm(1)?.top1(),
                    Kind::Seeds => arm(1)?.n.to_string(),
                    Kind::Epochs => tables::epochs(&study.rows(&self.words[1])?),
                    Kind::Memory => {
                        let memory = study.mean(&self.words[1], |row| row.peak_memory_mib)?;
                        format!("{memory:.0} MiB")
                    }
                    Kind::Time => {
                        let [own, baseline] = [1, 2].map(|at| {
                            study.mean(&self.words[at], |row| {
                                Some(row.train_seconds / row.epochs as f64)
                            })
                        });
                        format!("{:.2}", own? / baseline?)
                    }
                    Kind::Delta => study.outcome(&self.words[1], &self.words[2])?.interval(),
                    _ => study.outcome(&self.words[1], &self.words[2])?.p_shown(),
                }
            }
        })
    }

    /// The study whose file is the word at an index.
    fn study(&self, at: usize) -> Result<Study> {
        Study::read(&self.folder, &self.words[at])
    }

    fn studies(&self, from: usize) -> Result<Vec<Study>> {
        self.words[from..].iter().map(|word| Study::read(&self.folder, word)).collect()
    }
}

/// A table of a comparison, under the name of its file.
pub(super) struct Study {
    /// As the page names it.
    pub place: String,
    /// The name of the file without its extension.
    pub name: String,
    pub comparison: Comparison,
}

impl Study {
    fn read(folder: &Path, place: &str) -> Result<Self> {
        let path = folder.join(place);
        let comparison = Comparison::read_csv(&path)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { place: place.into(), name, comparison })
    }

    fn arm(&self, name: &str) -> Result<&SummaryRow> {
        let arms = &self.comparison.summary;
        arms.iter().find(|arm| arm.name == name).ok_or_else(|| {
            let known: Vec<&str> = arms.iter().map(|arm| arm.name.as_str()).collect();
            Error::Unusable(format!(
                "{} has no arm \"{name}\"; expected one of {}",
                self.place,
                known.join(", ")
            ))
        })
    }

    fn outcome(&self, arm: &str, baseline: &str) -> Result<&Outcome> {
        let outcomes = &self.comparison.comparisons;
        outcomes.iter().find(|o| o.arm == arm && o.baseline == baseline).ok_or_else(|| {
            let known: Vec<String> =
                outcomes.iter().map(|o| format!("{} {}", o.arm, o.baseline)).collect();
            Error::Unusable(format!(
                "{} does not compare {arm} with {baseline}; expected one of {}",
                self.place,
                known.join(", ")
            ))
        })
    }

    fn rows(&self, arm: &str) -> Result<Vec<&Row>> {
        self.arm(arm)?;
        Ok(self.comparison.rows.iter().filter(|row| row.name == arm).collect())
    }

    /// The mean of a value over the runs of an arm.
    fn mean(&self, arm: &str, value: fn(&Row) -> Option<f64>) -> Result<f64> {
        let values: Option<Vec<f64>> = self.rows(arm)?.into_iter().map(value).collect();
        let missing = || Error::Unusable(format!("{}: a run of {arm} lacks the value", self.place));
        Ok(mean(&values.ok_or_else(missing)?))
    }
}
