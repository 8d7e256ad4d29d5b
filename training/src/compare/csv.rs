//! `compare.csv`: a line per run.

use super::result::{Comparison, Row};

/// A column: its name and its value.
type Column = (&'static str, fn(&Row) -> String);

/// The columns. Those that timm's tables of results have come first and mean the same there: percent
/// for accuracies, millions of (deployed) parameters. Numbers have all their digits, so that equal runs
/// are equal lines, but for `train_seconds`, `seconds` and `peak_memory_mib`.
const COLUMNS: [Column; 28] = [
    ("model", |row| row.arch.clone()),
    ("img_size", |row| match row.image_size {
        [height, width] if height == width => height.to_string(),
        [height, width] => format!("{height}x{width}"),
    }),
    ("top1", |row| row.top1.to_string()),
    ("top1_err", |row| percent_of_errors(row.top1, row)),
    ("top5", |row| row.top5.to_string()),
    ("top5_err", |row| percent_of_errors(row.top5, row)),
    ("param_count", |row| format!("{:.6}", row.params_deploy as f64 / 1e6)),
    ("arm", |row| row.name.clone()),
    ("block", |row| row.block.clone()),
    ("seed", |row| row.seed.to_string()),
    ("epochs", |row| row.epochs.to_string()),
    ("test_loss", |row| row.test_loss.to_string()),
    ("train_loss", |row| row.train_loss.to_string()),
    ("top1_train_form", |row| row.top1_train.to_string()),
    ("fold_difference", |row| format!("{:e}", row.fold_max_rel_diff)),
    ("test_images", |row| row.test_images.to_string()),
    ("params_train", |row| row.params_train.to_string()),
    ("params_deploy", |row| row.params_deploy.to_string()),
    ("blocks_folded", |row| row.blocks_folded.to_string()),
    ("train_seconds", |row| format!("{:.2}", row.train_seconds)),
    ("seconds", |row| format!("{:.2}", row.seconds)),
    ("peak_memory_mib", |row| row.peak_memory_mib.map_or_else(String::new, |m| format!("{m:.0}"))),
    ("version", |row| row.version.clone()),
    ("commit", |row| row.commit.clone().unwrap_or_default()),
    ("device", |row| row.device.clone()),
    ("machine", |row| row.machine.clone()),
    ("threads", |row| row.threads.to_string()),
    ("instruction_set", |row| row.instruction_set.clone()),
];

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
        let mut text = line(COLUMNS.iter().map(|(name, _)| name.to_string()).collect());
        for row in &self.rows {
            text += &line(COLUMNS.iter().map(|(_, value)| quoted(value(row))).collect());
        }
        text
    }
}

/// A field as RFC 4180 writes it: in quotes where it needs them.
fn quoted(field: String) -> String {
    match field.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field,
    }
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::row;
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
        let text = Comparison::of(vec![row], Vec::new()).csv();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("model,img_size,top1,top1_err,top5,top5_err,param_count,arm,")
        );
        assert_eq!(
            lines[1],
            "resnet20,14,87.45,12.55,99.5,0.5,0.067562,dbb,dbb,3,2,0.5,0.25,0,4.2e-7,2000,2,67562,0,0.75,\
             1.00,92,0.1.0,\"a\"\"b\",flex,\"a processor, fast\",1,avx2"
        );
        assert_eq!(lines.len(), 2);
    }
}
