//! Which output of a network each class of a data set is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dbb_datasets::{ImageDataset, imagenet};
use dbb_models::ModelConfig;

use crate::config::line_of;
use crate::error::{Error, Result};
use crate::text::plural;

/// Which output of a network each class of a data set is, read from a file.
///
/// TOML (`tench = 0`) where the file name ends in `.toml`; otherwise a class, a tab and an index on
/// every line. Empty lines and lines that begin with `#` are skipped, and so are classes that the
/// data set lacks.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassMap {
    path: PathBuf,
    indices: BTreeMap<String, usize>,
}

impl ClassMap {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, or a line is not a class with its index; the error names the line.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|e| {
            Error::Unusable(format!("cannot read the class map {}: {e}", path.display()))
        })?;
        let is_toml = path.extension().is_some_and(|extension| extension == "toml");
        let indices = if is_toml { parse_toml(&text) } else { parse_lines(&text) };
        let indices = indices.map_err(|(line, fault)| {
            Error::Unusable(format!("{}:{line}: {fault}", path.display()))
        })?;
        Ok(Self { path: path.into(), indices })
    }

    /// The data set called `data` with outputs as its classes. `names` are those of the outputs, as
    /// far as they are known; an output without one takes the data set's.
    ///
    /// # Errors
    /// If a class is not in the map, or its index not among `outputs`.
    pub fn apply(
        &self,
        dataset: &ImageDataset,
        data: &str,
        outputs: Option<usize>,
        names: &[String],
    ) -> Result<ImageDataset> {
        let mut labels = Vec::new();
        for class in dataset.classes() {
            let Some(&index) = self.indices.get(class) else {
                return Err(Error::Unusable(format!(
                    "{} has no index for \"{class}\", a class of {data}",
                    self.path.display()
                )));
            };
            self.check(class, index, outputs)?;
            labels.push(index);
        }
        let most = labels.iter().max().map_or(0, |&most| most + 1);
        let mut classes: Vec<String> = (0..outputs.unwrap_or(most))
            .map(|index| names.get(index).cloned().unwrap_or_else(|| index.to_string()))
            .collect();
        for (class, &index) in dataset.classes().iter().zip(&labels) {
            if index >= names.len() {
                classes[index].clone_from(class);
            }
        }
        Ok(dataset.relabel(classes, &labels)?)
    }

    /// Names of the outputs of a network with `outputs` outputs; the classes of one output are
    /// joined.
    ///
    /// # Errors
    /// If an index is not among `outputs`.
    pub fn names(&self, outputs: usize) -> Result<BTreeMap<usize, String>> {
        let mut names = BTreeMap::<usize, String>::new();
        for (class, &index) in &self.indices {
            self.check(class, index, Some(outputs))?;
            let label = imagenet::name(class).unwrap_or(class);
            names
                .entry(index)
                .and_modify(|names| *names = format!("{names} or {label}"))
                .or_insert_with(|| label.to_string());
        }
        Ok(names)
    }

    /// Checks that a network of `outputs`, or any network, has the output of a class.
    fn check(&self, class: &str, index: usize, outputs: Option<usize>) -> Result<()> {
        let (most, outputs) = match outputs {
            Some(outputs) => ("the network has", outputs),
            None => ("a network has at most", ModelConfig::MAX_CLASSES),
        };
        if index < outputs {
            return Ok(());
        }
        Err(Error::Unusable(format!(
            "{} gives \"{class}\" the index {index}; {most} {}, from 0",
            self.path.display(),
            plural(outputs, "output")
        )))
    }
}

/// A fault and its line, from 1.
type Fault = (usize, String);

fn parse_toml(text: &str) -> std::result::Result<BTreeMap<String, usize>, Fault> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        let message = error.message().trim_end();
        (line, format!("{message}; expected a class and its index, such as n01440764 = 0"))
    })
}

fn parse_lines(text: &str) -> std::result::Result<BTreeMap<String, usize>, Fault> {
    let mut indices = BTreeMap::new();
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    for (line, number) in lines.filter(|(line, _)| !line.starts_with('#')) {
        let entry = line.split_once('\t').and_then(|(class, index)| {
            Some((class.trim().to_string(), index.trim().parse().ok()?))
        });
        let Some((class, index)) = entry else {
            let fault = format!("\"{line}\" is not a class, a tab and the index of an output");
            return Err((number, fault));
        };
        if indices.insert(class, index).is_some() {
            return Err((number, format!("\"{line}\" gives a class a second index")));
        }
    }
    Ok(indices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_toml_say_the_same() {
        let lines = parse_lines("# fish\ntench\t0\n\ngreat white shark \t 2\n").unwrap();
        let toml = parse_toml("# fish\ntench = 0\n\"great white shark\" = 2\n").unwrap();
        assert_eq!(lines, toml);
        assert_eq!(
            lines.into_iter().collect::<Vec<_>>(),
            [("great white shark".to_string(), 2), ("tench".to_string(), 0)]
        );
    }

    #[test]
    fn an_index_of_no_network_is_refused() {
        let (dataset, _) = dbb_datasets::open_pair(&dbb_datasets::DataRef::Sample).unwrap();
        let classes = dataset.classes().iter();
        let map = |index| ClassMap {
            path: "map".into(),
            indices: classes.clone().map(|class| (class.clone(), index)).collect(),
        };
        let error = |index, outputs| {
            map(index).apply(&dataset, "data", outputs, &[]).unwrap_err().to_string()
        };
        let text = error(usize::MAX, None);
        assert!(text.contains("a network has at most 1000000 outputs"), "{text}");
        let text = error(10, Some(10));
        assert!(text.contains("the network has 10 outputs"), "{text}");
    }

    #[test]
    fn outputs_have_the_names_of_their_classes() {
        let text = "cat\t1\nn01440764\t0\nkitten\t1\n";
        let map = ClassMap { path: "map".into(), indices: parse_lines(text).unwrap() };
        let names: Vec<_> = map.names(3).unwrap().into_iter().collect();
        assert_eq!(names, [(0, "tench".to_string()), (1, "cat or kitten".to_string())]);
        let error = map.names(1).unwrap_err().to_string();
        assert!(error.contains("\"cat\" the index 1; the network has 1 output,"), "{error}");
    }

    #[test]
    fn faults_have_a_line() {
        for text in ["tench\t0\nshark 2", "tench\t0\nshark\t-2", "tench\t0\ntench\t1"] {
            assert_eq!(parse_lines(text).unwrap_err().0, 2, "{text}");
        }
        for text in ["tench = 0\nshark = -2", "tench = 0\nshark = \"two\"", "tench = 0\nshark"] {
            let (line, fault) = parse_toml(text).unwrap_err();
            assert_eq!(line, 2, "{text}: {fault}");
            assert!(fault.contains("expected a class and its index"), "{fault}");
        }
    }
}
