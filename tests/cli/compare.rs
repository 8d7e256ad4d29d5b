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
    let expected = ["rows", "summary", "comparisons", "correction", "resolve", "command"];
    assert_eq!(keys(&result), expected);
    let rows = result["rows"].as_array().expect("rows");
    let named: Vec<_> = rows
        .iter()
        .map(|row| (row["block"].as_str().expect("a block"), number(row, "seed") as usize))
        .collect();
    assert_eq!(named, [("base", 0), ("dbb", 0), ("base", 1), ("dbb", 1)]);
    for (row, (block, seed)) in rows.iter().zip(named) {
        let fields = ["arch", "block", "seed", "top1", "top1_train"];
        let costs = ["params_train", "params_deploy", "seconds"];
        assert_eq!(&keys(row)[..8], [&fields[..], &costs].concat());
        assert_eq!(row["name"], format!("resnet20-{block}"));
        assert_eq!(row["arch"], "resnet20");
        let run = format!("{out}/resnet20-{block}-seed{seed}");
        let config = json(&["config", "show", &format!("{run}/config.toml")]);
        assert_eq!(config["model"]["block"], block);
        assert_eq!(number(&config, "seed") as usize, seed);
        // The accuracy of both forms is what an evaluation of the run finds.
        assert_eq!(row["top1_train"], json(&["eval", &run])["top1"]);
        let folded = json(&["eval", &run, "--deploy"]);
        assert_eq!((&row["top1"], &row["top5"]), (&folded["top1"], &folded["top5"]));
        assert_eq!(row["test_images"], folded["n"]);
        assert!(close(number(row, "test_loss"), number(&folded, "loss"), 1e-6), "{row}");
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
        assert_eq!(keys(row), ["arch", "block", "n", "top1_mean", "top1_sd", "name"]);
        assert_eq!(row["name"], format!("resnet20-{block}"));
        assert_eq!((&row["arch"], &row["block"]), (&"resnet20".into(), &block.into()));
        let (a, b) = (top1(block, 0.0), top1(block, 1.0));
        assert_eq!(number(row, "n"), 2.0);
        assert!(close(number(row, "top1_mean"), (a + b) / 2.0, 1e-9), "{row}");
        assert!(close(number(row, "top1_sd"), deviation(a, b), 1e-9), "{row}");
    }
    let outcome = &result["comparisons"][0];
    assert_eq!(result["comparisons"].as_array().map(Vec::len), Some(1));
    let names = ["arm", "baseline"].map(|key| outcome[key].as_str().expect("a name"));
    assert_eq!(names, ["resnet20-dbb", "resnet20-base"]);
    assert_eq!((&outcome["paired"], number(outcome, "n")), (&true.into(), 2.0));
    assert_eq!(outcome["differences"].as_array().map(Vec::len), Some(0), "{result}");
    let [a, b] = [0.0, 1.0].map(|seed| top1("dbb", seed) - top1("base", seed));
    assert!(close(number(outcome, "delta"), (a + b) / 2.0, 1e-9), "{result}");
    // Student's t for one degree of freedom: 12.706.
    let half_width = 12.7062 * deviation(a, b) / 2f64.sqrt();
    assert!(close(number(outcome, "delta_ci95"), half_width, 1e-4), "{result}");

    let report = fs::read_to_string(format!("{out}/report.html")).expect("a report");
    let delta = format!("{:+.2} ± {:.2}", number(outcome, "delta"), number(outcome, "delta_ci95"));
    for part in ["run 4 of 4", &delta.replace('-', "−"), "resnet20-dbb-seed1/report.html"] {
        assert!(report.contains(part), "no {part:?} in {report}");
    }

    // The three tables say the same.
    let table = |name: &str| fs::read_to_string(format!("{out}/compare.{name}")).expect("a table");
    assert_eq!(serde_json::from_str::<Value>(&table("json")).expect("JSON"), result);
    let csv: Vec<Vec<String>> =
        table("csv").lines().map(|line| line.split(',').map(String::from).collect()).collect();
    let column = |name: &str| csv[0].iter().position(|field| field == name).expect("a column");
    assert_eq!(csv.len(), 5);
    for (line, row) in csv[1..].iter().zip(rows) {
        for (name, key) in [("model", "arch"), ("block", "block"), ("arm", "name")] {
            assert_eq!(line[column(name)], row[key].as_str().expect("text"));
        }
        // All digits, but for times.
        for (name, key, tolerance) in [
            ("seed", "seed", 0.0),
            ("top1", "top1", 0.0),
            ("top5", "top5", 0.0),
            ("test_loss", "test_loss", 0.0),
            ("train_loss", "train_loss", 0.0),
            ("fold_difference", "fold_max_rel_diff", 0.0),
            ("params_train", "params_train", 0.0),
            ("params_deploy", "params_deploy", 0.0),
            ("seconds", "seconds", 0.06),
        ] {
            let field: f64 = line[column(name)].parse().expect("a number");
            assert!((field - number(row, key)).abs() <= tolerance, "{key}: {line:?} {row}");
        }
    }
    let markdown = table("md");
    for row in summary {
        let (mean, sd) = (number(row, "top1_mean"), number(row, "top1_sd"));
        let block = row["block"].as_str().expect("text");
        let delta = if block == "dbb" { &delta } else { "-" };
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
        assert!(row["top1_sd"].is_null(), "{row}");
    }
    for key in ["delta", "delta_ci95", "p", "p_corrected", "unpaired_delta", "seeds_needed"] {
        assert!(result["comparisons"][0][key].is_null(), "{key} of {result}");
    }
    let markdown = fs::read_to_string(format!("{out}/compare.md")).expect("a table");
    let top1 = |at: usize| number(&result["summary"][at], "top1_mean");
    let delta = format!("| {:+.2} (one seed: no interval) | resnet20-base |", top1(1) - top1(0));
    assert!(markdown.contains(&delta), "no {delta} in {markdown}");
    dbb(&[&args[..], &["--blocks", "base,dbb"]].concat()).fails(1, &["used twice"]);
}

/// Two recipes of equal architecture and block, the second with its own name, epochs and rate.
#[test]
fn any_two_configurations_are_compared_and_what_differs_is_said() {
    let folder = Folder::new();
    let out = folder.at("comparison");
    let quick = fs::read_to_string(QUICK_BASE).expect("a recipe");
    let short = folder.file("short.toml", quick.replace("epochs = 6", "epochs = 1").as_bytes());
    let other = format!("name = \"steep\"\n{}", quick.replace("lr = 0.05", "lr = 0.1"));
    let other = folder.file("other.toml", other.replace("epochs = 6", "epochs = 2").as_bytes());
    let keys = ["data.limit_train=64", "data.limit_val=40", "data.size=8", "model.width=0.25"];
    let args = ["compare", &short, &other, "--seeds", "2", "--out", &out, "--json"];
    let call = dbb(&[&args[..], &set(&keys)].concat()).succeeds();
    let sentence = "steep against short: what differs: optim.lr = 0.1 (short: 0.05), train.epochs = 2 \
                    (short: 1); paired by seed";
    call.says(&[sentence, "run 1 of 4: short, seed 0", "run 4 of 4: steep, seed 1"]);
    let result = call.json();
    let steep = &result["comparisons"][0];
    assert_eq!((&steep["arm"], &steep["paired"]), (&"steep".into(), &true.into()));
    let differences = serde_json::json!([
        {"key": "optim.lr", "baseline": 0.05, "own": 0.1},
        {"key": "train.epochs", "baseline": 1, "own": 2},
    ]);
    assert_eq!(steep["differences"], differences);
    assert!(exists(&format!("{out}/steep-seed1/export/deploy.safetensors")));
    assert_eq!(result["rows"][1]["run_dir"], format!("{out}/steep-seed0"));
    for name in ["compare.md", "report.html"] {
        let text = fs::read_to_string(format!("{out}/{name}")).expect("a table");
        assert!(text.contains(sentence), "{name}: {text}");
    }
}

/// Other training images: independent runs. Other validation images: nothing to compare.
#[test]
fn only_what_shares_images_and_seeds_is_paired() {
    let folder = Folder::new();
    let out = folder.at("comparison");
    let quick = fs::read_to_string(QUICK_BASE).expect("a recipe");
    let quick = quick.replace("epochs = 6", "epochs = 1").replace("width = 0.5", "width = 0.25");
    let with = |name: &str, data: &str, top: &str| {
        let text = quick.replace("size = 14", &format!("size = 8\n{data}"));
        folder.file(&format!("{name}.toml"), format!("{top}{text}").as_bytes())
    };
    let configs = [
        with("first", "limit_train = 64\nlimit_val = 40", ""),
        with("more", "limit_train = 96\nlimit_val = 40", ""),
        with("later", "limit_train = 64\nlimit_val = 40", "seed = 1\n"),
        with("elsewhere", "limit_train = 64\nlimit_val = 50", ""),
    ];
    let configs: Vec<&str> = configs.iter().map(String::as_str).collect();
    let args = [&["compare"], &configs[..], &["--seeds", "2", "--out", &out, "--json"]].concat();
    let call = dbb(&args).succeeds();
    call.says(&[
        "more against first: what differs: data.limit_train = 96 (first: 64); not paired, since they \
         train on different images",
        "later against first: what differs: seed = 1 (first: 0); not paired, since they have different \
         seeds",
        "elsewhere against first: what differs: data.limit_val = 50 (first: 40); no delta, since they \
         validate on different images",
    ]);
    let result = call.json();
    let top1 = |arm: usize| [arm, arm + 4].map(|row| number(&result["rows"][row], "top1"));
    for at in [1, 2] {
        let row = &result["comparisons"][at - 1];
        assert_eq!(row["paired"], false, "{row}");
        let [[a, b], [c, d]] = [top1(0), top1(at)];
        assert!(close(number(row, "delta"), (c + d - a - b) / 2.0, 1e-9), "{result}");
        // Welch: of two values the variance is half the square of their distance.
        let (v, w) = ((a - b).powi(2) / 4.0, (c - d).powi(2) / 4.0);
        // Two values each have between 1 and 2 degrees of freedom; t is 12.706 and 4.303 there.
        let error = (v + w).sqrt();
        if error == 0.0 {
            assert_eq!(row["delta_ci95"], Value::Null, "{result}");
            continue;
        }
        let half = number(row, "delta_ci95");
        assert!((4.302 * error..=12.707 * error).contains(&half), "{result}");
    }
    let elsewhere = &result["comparisons"][2];
    for key in ["paired", "delta", "delta_ci95"] {
        assert!(elsewhere[key].is_null(), "{key} of {elsewhere}");
    }
    let markdown = fs::read_to_string(format!("{out}/compare.md")).expect("a table");
    for part in [", unpaired | first |", "| none: they validate on different images | first |"] {
        assert!(markdown.contains(part), "no {part:?} in {markdown}");
    }
}

/// The last configuration is at fault: nothing before it is trained, nothing written.
#[test]
fn all_configurations_and_their_data_are_checked_first() {
    let folder = Folder::new();
    let out = folder.at("comparison");
    let quick = fs::read_to_string(QUICK_BASE).expect("a recipe");
    let arm = ["error: wrong: ", "nothing was trained"];
    let line = ["wrong.toml:", "train.freeze"];
    for (right, wrong, says, place) in [
        ("\"sample\"", "\"folder:nowhere\"", "nowhere", arm),
        ("width = 0.5", "width = 0.5\nnum_classes = 7", "model.num_classes is 7", arm),
        ("width = 0.5", "width = 0.5\ninit_from = \"no.pth\"", "no.pth", arm),
        // What the configuration alone tells has a line.
        ("epochs = 6", "epochs = 6\nfreeze = [\"stage9.*\"]", "stage9.*", line),
    ] {
        let wrong = folder.file("wrong.toml", quick.replace(right, wrong).as_bytes());
        let args = ["compare", QUICK_DBB, &wrong, "--out", &out];
        let call = dbb(&[&args[..], &set(&TINY)].concat());
        assert!(!call.stderr.contains("epoch 1"), "{}", call.all());
        call.fails(1, &[says, place[0], place[1]]);
        assert!(!exists(&out), "{says}: something was written");
    }
}

/// Reports and tables of something else are not written over; the same arms may go on with other seeds.
#[test]
fn a_comparison_leaves_other_results_alone() {
    let run = Run::new(QUICK_BASE, &[]);
    let before = snapshot(&run.path);
    let own = |config: &'static str, out: &str, keys: &[&'static str]| {
        let keys = [&TINY[..], keys].concat();
        dbb(&[&["compare", config, "--out", out][..], &set(&keys)].concat())
    };
    own(QUICK_BASE, &run.path, &[]).fails(1, &[&run.path, "already holds a run"]);
    assert!(before == snapshot(&run.path), "the run has changed");
    let out = run.folder.at("comparison");
    own(QUICK_BASE, &out, &[]).succeeds();
    let others = "already holds a comparison of resnet20-base, and this one is of resnet20-dbb";
    own(QUICK_DBB, &out, &[]).fails(1, &[&out, others, "--out"]);
    own(QUICK_BASE, &out, &["seed=1"]).succeeds();
    assert!(exists(&format!("{out}/resnet20-base-seed1")));
    // A seed that no configuration could be read with.
    let out = run.folder.at("seeds");
    let seeds = ["--seeds", "2", "--set", "seed=9223372036854775807", "--out", &out];
    dbb(&[&["compare", QUICK_BASE][..], &seeds].concat())
        .fails(1, &["beyond the largest, 9223372036854775807"]);
    assert!(!exists(&out));
}

#[test]
fn a_name_is_checked_where_it_stands() {
    let folder = Folder::new();
    let quick = fs::read_to_string(QUICK_BASE).expect("a recipe");
    for name in ["", "../x", "-x", "a b", "a/b"] {
        let file = folder.file("named.toml", format!("name = \"{name}\"\n{quick}").as_bytes());
        let place = format!("{file}:1: name");
        dbb(&["config", "check", &file]).fails(1, &[&place, "expected letters, digits"]);
    }
    let file = folder.file("named.toml", format!("name = \"wide+2.a_b\"\n{quick}").as_bytes());
    assert_eq!(json(&["config", "show", &file])["name"], "wide+2.a_b");
}
