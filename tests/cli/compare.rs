//! `dbb compare`.

use std::fs;

use serde_json::Value;

use crate::calls::*;
use crate::setup::*;

#[test]
fn compare_pairs_blocks_by_seed() {
    let folder = Folder::new();
    let out = folder.at("comparison");
    let own = ["compare", QUICK_BASE, "--blocks", "base,dbb", "--seeds", "2", "--out", &out];
    let result = json(&[&own[..], &set(&TINY)].concat());
    assert_eq!(keys(&result), ["rows", "summary"]);
    let rows = result["rows"].as_array().expect("rows");
    let named: Vec<_> = rows
        .iter()
        .map(|row| (row["block"].as_str().expect("a block"), number(row, "seed") as usize))
        .collect();
    assert_eq!(named, [("base", 0), ("dbb", 0), ("base", 1), ("dbb", 1)]);
    for (row, (block, seed)) in rows.iter().zip(named) {
        let fields = ["arch", "block", "seed", "top1", "top1_deploy"];
        let costs = ["params_train", "params_deploy", "seconds"];
        assert_eq!(&keys(row)[..8], [&fields[..], &costs].concat());
        assert_eq!(row["arch"], "resnet20");
        let run = format!("{out}/resnet20-{block}-seed{seed}");
        let config = json(&["config", "show", &format!("{run}/config.toml")]);
        assert_eq!(config["model"]["block"], block);
        assert_eq!(number(&config, "seed") as usize, seed);
        // The accuracy of both forms is what an evaluation of the run finds.
        assert_eq!(row["top1"], json(&["eval", &run])["top1"]);
        assert_eq!(row["top1_deploy"], json(&["eval", &run, "--deploy"])["top1"]);
        let flags = ["--arch", "resnet20", "--width", "0.25", "--channels", "1"];
        let summary = json(&[&["summary", "--block", block], &flags[..]].concat());
        for key in ["params_train", "params_deploy"] {
            assert_eq!(row[key], summary[key]);
        }
    }

    let top1 = |block: &str, seed: f64| {
        let row = rows.iter().find(|row| row["block"] == block && number(row, "seed") == seed);
        number(row.expect("a row"), "top1")
    };
    // Two values: their deviation is their distance over the root of two.
    let deviation = |a: f64, b: f64| (a - b).abs() / 2f64.sqrt();
    let summary = result["summary"].as_array().expect("a summary");
    assert_eq!(summary.len(), 2);
    for (row, block) in summary.iter().zip(["base", "dbb"]) {
        let fields = ["arch", "block", "n", "top1_mean", "top1_sd", "delta", "delta_ci95"];
        assert_eq!(keys(row), fields);
        assert_eq!((&row["arch"], &row["block"]), (&"resnet20".into(), &block.into()));
        let (a, b) = (top1(block, 0.0), top1(block, 1.0));
        assert_eq!(number(row, "n"), 2.0);
        assert!(close(number(row, "top1_mean"), (a + b) / 2.0, 1e-9), "{row}");
        assert!(close(number(row, "top1_sd"), deviation(a, b), 1e-9), "{row}");
    }
    assert!(summary[0]["delta"].is_null() && summary[0]["delta_ci95"].is_null());
    let [a, b] = [0.0, 1.0].map(|seed| top1("dbb", seed) - top1("base", seed));
    assert!(close(number(&summary[1], "delta"), (a + b) / 2.0, 1e-9), "{result}");
    // Student's t for one degree of freedom: 12.706.
    let half_width = 12.706 * deviation(a, b) / 2f64.sqrt();
    assert!(close(number(&summary[1], "delta_ci95"), half_width, 1e-4), "{result}");

    let report = fs::read_to_string(format!("{out}/report.html")).expect("a report");
    let delta = format!("{:+.2} ± {half_width:.2}", number(&summary[1], "delta"));
    for part in ["run 4 of 4", &delta.replace('-', "−"), "resnet20-dbb-seed1/report.html"] {
        assert!(report.contains(part), "no {part:?} in {report}");
    }

    // The three tables say the same.
    let table = |name: &str| fs::read_to_string(format!("{out}/compare.{name}")).expect("a table");
    assert_eq!(serde_json::from_str::<Value>(&table("json")).expect("JSON"), result);
    let csv: Vec<Vec<String>> =
        table("csv").lines().map(|line| line.split(',').map(String::from).collect()).collect();
    assert_eq!(csv[0], &keys(&rows[0])[..8]);
    assert_eq!(csv.len(), 5);
    for (line, row) in csv[1..].iter().zip(rows) {
        assert_eq!((&*line[0], &*line[1]), ("resnet20", row["block"].as_str().expect("text")));
        for (field, (key, tolerance)) in line[2..].iter().zip([
            ("seed", 0.0),
            ("top1", 1e-4),
            ("top1_deploy", 1e-4),
            ("params_train", 0.0),
            ("params_deploy", 0.0),
            ("seconds", 0.06),
        ]) {
            let field: f64 = field.parse().expect("a number");
            assert!((field - number(row, key)).abs() <= tolerance, "{key}: {line:?} {row}");
        }
    }
    let markdown = table("md");
    for row in summary {
        let (mean, sd) = (number(row, "top1_mean"), number(row, "top1_sd"));
        let delta = match row["delta"].as_f64() {
            Some(delta) => format!("{delta:+.2} ± {:.2}", number(row, "delta_ci95")),
            None => "-".to_string(),
        };
        let block = row["block"].as_str().expect("text");
        let line = format!("| resnet20 | {block} | 2 | {mean:.2} ± {sd:.2} | {delta} |");
        assert!(markdown.contains(&line), "no {line}\n{markdown}");
    }
}

#[test]
fn compare_of_single_runs_claims_no_difference() {
    let folder = Folder::new();
    let out = folder.at("comparison");
    let args = [&["compare", QUICK_BASE, QUICK_DBB, "--out", &out][..], &set(&TINY)].concat();
    let result = json(&args);
    assert_eq!(result["rows"].as_array().map(Vec::len), Some(2), "{result}");
    for row in result["summary"].as_array().expect("a summary") {
        assert_eq!(number(row, "n"), 1.0);
        for key in ["top1_sd", "delta", "delta_ci95"] {
            assert!(row[key].is_null(), "{key} of {row}");
        }
    }
    dbb(&args).fails(1, &["resnet20-base-seed0", "already holds a run"]);
    dbb(&[&args[..], &["--blocks", "base,dbb"]].concat()).fails(1, &["named twice"]);
}
