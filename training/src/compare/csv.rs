//! `compare.csv`: a line per run, written and read.

use std::path::Path;
use std::str::FromStr;

use dbb_models::BlockKind;

use super::contrast::{Contrast, Pairing};
use super::plan::{Correction, RESOLVE};
use super::result::{Comparison, Row};
use crate::error::{Error, Result};

/// A column of a run.
struct Column {
    name: &'static str,
    write: fn(&Row) -> String,
    /// How it is read back; does nothing where other columns say the same.
    read: fn(&mut Row, &str) -> Option<()>,
}

macro_rules! columns {
    ($($name:literal: $write:expr, $read:expr;)*) => {
        [$(Column { name: $name, write: $write, read: $read }),*]
    };
}

/// The columns of a run. Those that timm's tables of results have come first and mean the same there:
/// percent for accuracies, millions of (deployed) parameters. Numbers have all their digits, so that equal
/// runs are equal lines, but for `train_seconds`, `seconds` and `peak_memory_mib`.
const COLUMNS: [Column; 28] = columns! {
    "model": |row| row.arch.clone(), |row, text| put(&mut row.arch, text);
    "img_size": |row| match row.image_size {
        [height, width] if height == width => height.to_string(),
        [height, width] => format!("{height}x{width}"),
    }, |row, text| {
        let (height, width) = text.split_once('x').unwrap_or((text, text));
        let [own_height, own_width] = &mut row.image_size;
        put(own_height, height).and(put(own_width, width))
    };
    "top1": |row| row.top1.to_string(), |row, text| percent(&mut row.top1, text);
    "top1_err": |row| percent_of_errors(row.top1, row), |_, _| Some(());
    "top5": |row| row.top5.to_string(), |row, text| percent(&mut row.top5, text);
    "top5_err": |row| percent_of_errors(row.top5, row), |_, _| Some(());
    "param_count": |row| format!("{:.6}", row.params_deploy as f64 / 1e6), |_, _| Some(());
    "arm": |row| row.name.clone(), |row, text| put(&mut row.name, text);
    "block": |row| row.block.clone(), |row, text| put(&mut row.block, text);
    "seed": |row| row.seed.to_string(), |row, text| put(&mut row.seed, text);
    "epochs": |row| row.epochs.to_string(),
        |row, text| put(&mut row.epochs, text).filter(|()| row.epochs > 0);
    "test_loss": |row| row.test_loss.to_string(), |row, text| finite(&mut row.test_loss, text);
    "train_loss": |row| row.train_loss.to_string(), |row, text| finite(&mut row.train_loss, text);
    "top1_train_form": |row| row.top1_train.to_string(), |row, text| percent(&mut row.top1_train, text);
    "fold_difference": |row| format!("{:e}", row.fold_max_rel_diff),
        |row, text| finite(&mut row.fold_max_rel_diff, text);
    "test_images": |row| row.test_images.to_string(),
        |row, text| put(&mut row.test_images, text).filter(|()| row.test_images > 0);
    "params_train": |row| row.params_train.to_string(), |row, text| put(&mut row.params_train, text);
    "params_deploy": |row| row.params_deploy.to_string(), |row, text| put(&mut row.params_deploy, text);
    "blocks_folded": |row| row.blocks_folded.to_string(), |row, text| put(&mut row.blocks_folded, text);
    "train_seconds": |row| format!("{:.2}", row.train_seconds),
        |row, text| finite(&mut row.train_seconds, text);
    "seconds": |row| format!("{:.2}", row.seconds), |row, text| finite(&mut row.seconds, text);
    "peak_memory_mib": |row| row.peak_memory_mib.map_or_else(String::new, |m| format!("{m:.0}")),
        |row, text| {
            if_any(&mut row.peak_memory_mib, text)
                .filter(|()| row.peak_memory_mib.is_none_or(f64::is_finite))
        };
    "version": |row| row.version.clone(), |row, text| put(&mut row.version, text);
    "commit": |row| row.commit.clone().unwrap_or_default(), |row, text| if_any(&mut row.commit, text);
    "device": |row| row.device.clone(), |row, text| put(&mut row.device, text);
    "machine": |row| row.machine.clone(), |row, text| put(&mut row.machine, text);
    "threads": |row| row.threads.to_string(), |row, text| put(&mut row.threads, text);
    "instruction_set": |row| row.instruction_set.clone(),
        |row, text| put(&mut row.instruction_set, text);
};

/// The columns of the comparison, the same in every line but for [`BASELINES`].
const BASELINES: &str = "baselines";
const CORRECTION: &str = "correction";
const COMMAND: &str = "command";

/// Between the baselines of an arm.
const BETWEEN: &str = "; ";
/// After a baseline, in parentheses.
const PRIMARY: &str = "primary";
const UNPAIRED: &str = "unpaired";

fn put<T: FromStr>(place: &mut T, text: &str) -> Option<()> {
    *place = text.parse().ok()?;
    Some(())
}

fn finite(place: &mut f64, text: &str) -> Option<()> {
    put(place, text).filter(|()| place.is_finite())
}

fn percent(place: &mut f64, text: &str) -> Option<()> {
    put(place, text).filter(|()| (0.0..=100.0).contains(place))
}

fn if_any<T: FromStr>(place: &mut Option<T>, text: &str) -> Option<()> {
    *place = match text {
        "" => None,
        _ => Some(text.parse().ok()?),
    };
    Some(())
}

/// The percentage of the images that is missing from another one: from whole numbers of images, since
/// 100 - 87.45 is 12.549999999999997.
fn percent_of_errors(percent: f64, row: &Row) -> String {
    let images = row.test_images as f64;
    let correct = (percent * images / 100.0).round();
    (100.0 * (images - correct) / images).to_string()
}

impl Comparison {
    /// One line per run, after a header.
    pub fn csv(&self) -> String {
        let line = |cells: Vec<String>| cells.join(",") + "\n";
        let names = COLUMNS.iter().map(|column| column.name);
        let names = names.chain([BASELINES, CORRECTION, COMMAND]).map(String::from);
        let mut text = line(names.collect());
        for row in &self.rows {
            let own = COLUMNS.iter().map(|column| (column.write)(row));
            let shared =
                [self.baselines(&row.name), self.correction.name().into(), self.command.clone()];
            text += &line(own.chain(shared).map(quoted).collect());
        }
        text
    }

    /// What an arm is compared with: `base (primary); base-longer (unpaired)`.
    fn baselines(&self, arm: &str) -> String {
        let of_arm = self.contrasts.iter().filter(|contrast| contrast.arm == arm);
        let shown = of_arm.filter_map(|contrast| {
            let unpaired = match contrast.pairing {
                Pairing::BySeed => None,
                Pairing::Unpaired(_) => Some(UNPAIRED),
                Pairing::Incomparable(_) => return None,
            };
            let remarks: Vec<&str> =
                contrast.is_primary.then_some(PRIMARY).into_iter().chain(unpaired).collect();
            Some(match &remarks[..] {
                [] => contrast.baseline.clone(),
                remarks => format!("{} ({})", contrast.baseline, remarks.join(", ")),
            })
        });
        shown.collect::<Vec<_>>().join(BETWEEN)
    }

    /// The comparison that a `compare.csv` holds: its runs, and what it compares. What differs between the
    /// configurations is not in the file.
    ///
    /// # Errors
    /// A file that cannot be read, lacks a column, or holds a value that is none of its column.
    pub fn read_csv(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::Unusable(format!("cannot read the table {}: {error}", path.display()))
        })?;
        Self::from_csv(&text).map_err(|fault| {
            Error::Unusable(format!("{} is no table of `dbb compare`: {fault}", path.display()))
        })
    }

    fn from_csv(text: &str) -> std::result::Result<Self, String> {
        let mut lines = fields(text)?.into_iter();
        let header = lines.next().ok_or("it is empty")?;
        let find = |name: &str| {
            let found = header.iter().position(|own| own == name);
            found.ok_or_else(|| {
                format!(
                    "there is no column {name}; the same command with the same --out writes the table of \
                     a finished comparison again"
                )
            })
        };
        let own = COLUMNS.iter().map(|column| Ok((find(column.name)?, column)));
        let own = own.collect::<std::result::Result<Vec<_>, String>>()?;
        let [baselines, correction, command] =
            [find(BASELINES)?, find(CORRECTION)?, find(COMMAND)?];
        let (mut rows, mut contrasts, mut shared) = (Vec::<Row>::new(), Vec::new(), None);
        for (number, line) in (2..).zip(lines) {
            if line.len() != header.len() {
                let [is, expected] = [line.len(), header.len()];
                return Err(format!("line {number} has {is} fields; expected {expected}"));
            }
            let fault = |at: usize| format!("line {number}: {}: {:?}", header[at], line[at]);
            let mut row = Row::default();
            for (at, column) in &own {
                (column.read)(&mut row, &line[*at]).ok_or_else(|| fault(*at))?;
            }
            if rows.iter().any(|other| (&other.name, other.seed) == (&row.name, row.seed)) {
                return Err(format!(
                    "line {number}: {}, seed {} is there twice",
                    row.name, row.seed
                ));
            }
            if !rows.iter().any(|other| other.name == row.name) {
                contrasts
                    .extend(contrasts_of(&row, &line[baselines]).ok_or_else(|| fault(baselines))?);
            }
            let found = [Correction::Holm, Correction::None].into_iter();
            let found = found.into_iter().find(|known| known.name() == line[correction]);
            shared = Some((found.ok_or_else(|| fault(correction))?, line[command].clone()));
            rows.push(row);
        }
        // As in the plan of a study.
        contrasts.sort_by_key(|contrast| !contrast.is_primary);
        let (correction, command) = shared.ok_or("it has no run")?;
        Ok(Self { command, ..Self::new(rows, contrasts, correction, RESOLVE) })
    }
}

/// The comparisons of an arm, from its cell.
fn contrasts_of(row: &Row, cell: &str) -> Option<Vec<Contrast>> {
    let block: BlockKind = row.block.parse().ok()?;
    let read = |entry: &str| {
        let (baseline, remarks) = match entry.split_once(" (") {
            Some((baseline, remarks)) => (baseline, remarks.strip_suffix(')')?),
            None => (entry, ""),
        };
        let remarks: Vec<&str> = remarks.split(", ").filter(|remark| !remark.is_empty()).collect();
        let is_known = remarks.iter().all(|remark| [PRIMARY, UNPAIRED].contains(remark));
        is_known.then(|| Contrast {
            arm: row.name.clone(),
            baseline: baseline.into(),
            blocks: [block; 2],
            differences: Vec::new(),
            pairing: match remarks.contains(&UNPAIRED) {
                true => Pairing::Unpaired("the table says so"),
                false => Pairing::BySeed,
            },
            is_primary: remarks.contains(&PRIMARY),
        })
    };
    cell.split(BETWEEN).filter(|entry| !entry.is_empty()).map(read).collect()
}

/// A field as RFC 4180 writes it: in quotes where it needs them.
fn quoted(field: String) -> String {
    match field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field,
    }
}

/// The fields of every line, as RFC 4180 writes them; empty lines are left out.
fn fields(text: &str) -> std::result::Result<Vec<Vec<String>>, String> {
    let (mut lines, mut line, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut is_quoted, mut characters) = (false, text.chars().chain(['\n']).peekable());
    while let Some(character) = characters.next() {
        match (character, is_quoted) {
            ('"', true) if characters.peek() == Some(&'"') => field.extend(characters.next()),
            ('"', _) => is_quoted = !is_quoted,
            (',', false) => line.push(std::mem::take(&mut field)),
            ('\n', false) => {
                line.push(std::mem::take(&mut field));
                lines.push(std::mem::take(&mut line));
            }
            ('\r', false) => {}
            (character, _) => field.push(character),
        }
    }
    if is_quoted {
        return Err("a quotation mark is not closed".into());
    }
    lines.retain(|line: &Vec<String>| line.iter().any(|field| !field.is_empty()));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::{contrast, row};
    use super::*;

    /// The columns of <https://github.com/huggingface/pytorch-image-models/tree/main/results>, but for
    /// `crop_pct` and `interpolation`, which are no property of a run here.
    #[test]
    fn timms_columns_come_first() {
        let row = Row {
            top1: 87.45,
            fold_max_rel_diff: 4.2e-7,
            params_deploy: 67_562,
            commit: Some("a\"b".into()),
            peak_memory_mib: Some(91.6),
            ..row("dbb", 3, 0.0)
        };
        let comparison = Comparison {
            command: "dbb compare x.toml".into(),
            ..Comparison::of(vec![row], vec![contrast("dbb", "base", Pairing::BySeed)])
        };
        let text = comparison.csv();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("model,img_size,top1,top1_err,top5,top5_err,param_count,arm,")
        );
        assert_eq!(
            lines[1],
            "resnet20,14,87.45,12.55,99.5,0.5,0.067562,dbb,dbb,3,2,0.5,0.25,0,4.2e-7,2000,2,67562,0,0.75,\
             1.00,92,0.1.0,\"a\"\"b\",flex,\"a processor, fast\",1,avx2,base,holm,dbb compare x.toml"
        );
        assert_eq!(lines.len(), 2);
    }

    /// What is read is written again as it was, and gives the same differences.
    #[test]
    fn a_table_is_read_as_it_was_written() {
        let rows = [
            Row { image_size: [14, 28], top1: 200.0 / 3.0, ..row("base", 0, 0.0) },
            Row { commit: Some("ab, \"c\"".into()), ..row("dbb", 0, 81.0) },
            Row { peak_memory_mib: Some(92.0), ..row("acb", 4, 85.5) },
            row("base", 1, 80.0),
            row("dbb", 1, 84.0),
        ];
        let contrasts = vec![
            contrast("dbb", "base", Pairing::BySeed),
            contrast("acb", "base", Pairing::Incomparable("images")),
            contrast("acb", "dbb", Pairing::Unpaired("seeds")),
        ];
        let mut own = Comparison::new(rows.to_vec(), contrasts, Correction::None, RESOLVE);
        own.contrasts[0].is_primary = true;
        own.command = "dbb compare \"a file.toml\"".into();
        let text = own.csv();
        assert!(text.contains(",base (primary),none,") && text.contains(",dbb (unpaired),none,"));
        let read = Comparison::from_csv(&text).unwrap();
        assert_eq!(read.csv(), text);
        assert_eq!(read.rows[0].top1.to_bits(), rows[0].top1.to_bits());
        let of = |comparison: &Comparison| {
            let outcome = comparison.outcome_of("dbb").unwrap();
            (outcome.n, outcome.delta, outcome.delta_ci95, outcome.p_corrected)
        };
        assert_eq!(of(&read), of(&own));
        assert!(read.comparisons[0].primary);
    }

    #[test]
    fn what_is_no_table_is_told() {
        let text = Comparison::of(vec![row("dbb", 3, 81.0)], Vec::new()).csv();
        let cases = [
            (String::new(), "it is empty"),
            (text.replacen("command", "comand", 1), "no column command"),
            (text.replacen(",81,", ",many,", 1), "line 2: top1: \"many\""),
            (text.replacen(",81,", ",NaN,", 1), "line 2: top1: \"NaN\""),
            (text.replacen(",81,", ",250,", 1), "line 2: top1: \"250\""),
            (text.clone() + text.lines().nth(1).unwrap(), "line 3: dbb, seed 3 is there twice"),
            (text.replacen(",dbb,dbb,3,2,", ",dbb,dbb,3,0,", 1), "line 2: epochs: \"0\""),
            (text.replacen(",1.00,,", ",1.00,inf,", 1), "line 2: peak_memory_mib: \"inf\""),
            (text.replacen("holm", "bonferroni", 1), "line 2: correction: \"bonferroni\""),
            (text.replacen(",,holm", ",base (best),holm", 1), "line 2: baselines: \"base (best)\""),
            (text.clone() + "1,2\n", "line 3 has 2 fields; expected 31"),
            (text.clone() + "\"", "not closed"),
            (text.lines().next().unwrap().into(), "it has no run"),
        ];
        for (wrong, says) in cases {
            let fault = Comparison::from_csv(&wrong).unwrap_err();
            assert!(fault.contains(says), "no {says:?} in {fault}");
        }
    }
}
