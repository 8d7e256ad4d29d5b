//! `dbb compare` for long studies: study files, what is started again after it was stopped, runs side by
//! side.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dbb_training::compare::Plan;
use serde_json::Value;

use crate::calls::*;
use crate::setup::*;

/// Three arms, the last with as much time as the second.
const STUDY: &str = r#"
seeds = 2
set = ["data.limit_train=160", "data.limit_val=40", "data.size=8", "model.width=0.25",
       "train.epochs=5", "train.batch_size=16", "optim.lr=0.01", "train.checkpoint_steps=3"]

[primary]
arm = "dbb"
baseline = "base"

[[comparisons]]
arm = "dbb"
baseline = "longer"

[[arms]]
name = "base"
config = "BASE"

[[arms]]
name = "dbb"
config = "BASE"
set = ["model.block=dbb"]

[[arms]]
name = "longer"
config = "BASE"
same_time_as = "dbb"
"#;

/// The same without the arm whose epochs depend on a clock.
fn study(folder: &Folder) -> String {
    let start = STUDY.find("[[comparisons]]").expect("the comparison");
    let end = STUDY.find("[[arms]]").expect("the arms");
    let arms = &STUDY[end..STUDY.find("[[arms]]\nname = \"longer\"").expect("the arm")];
    write(folder, &format!("{}{arms}", &STUDY[..start]))
}

fn write(folder: &Folder, text: &str) -> String {
    folder.file("study.toml", text.replace("BASE", QUICK_BASE).as_bytes())
}

fn compare(study: &str, out: &str, more: &[&str]) -> Command {
    let mut command = Command::new(DBB);
    command.args(["compare", "--study", study, "--out", out, "--json"]).args(more);
    command
}

/// `compare.csv` by lines and columns, without what a clock or the memory decides, and the command.
fn table(out: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(format!("{out}/compare.csv")).expect("a table");
    let lines: Vec<Vec<String>> =
        text.lines().map(|line| line.split(',').map(String::from).collect()).collect();
    let kept: Vec<usize> = (0..lines[0].len())
        .filter(|&at| {
            !["train_seconds", "seconds", "peak_memory_mib", "command"].contains(&&*lines[0][at])
        })
        .collect();
    lines.iter().map(|line| kept.iter().map(|&at| line[at].clone()).collect()).collect()
}

fn weights(out: &str, runs: &[&str]) -> Vec<Vec<u8>> {
    let read =
        |run: &&str| fs::read(format!("{out}/{run}/export/deploy.safetensors")).expect("weights");
    runs.iter().map(read).collect()
}

/// Waits until a path is there.
fn wait_for(path: &Path, child: &mut Child) {
    let started = Instant::now();
    while !path.exists() && child.try_wait().expect("a process").is_none() {
        assert!(started.elapsed() < Duration::from_secs(60), "no {}", path.display());
        sleep(Duration::from_millis(1));
    }
}

const RUNS: [&str; 4] = ["base-seed0", "dbb-seed0", "base-seed1", "dbb-seed1"];

/// Killed within its first, second, third and last run, once by SIGTERM, and started again each time: the
/// table and the weights are those of the study that was not, bit for bit.
#[cfg(unix)]
#[test]
fn a_study_that_was_killed_ends_as_if_it_had_not_been() {
    let folder = Folder::new();
    let study = study(&folder);
    let (whole, killed) = (folder.at("whole"), folder.at("killed"));
    call(&mut compare(&study, &whole, &["--threads", "1"])).succeeds();
    for (run, signal) in [(0, "-KILL"), (1, "-TERM"), (2, "-KILL"), (3, "-KILL")] {
        let mut command = compare(&study, &killed, &["--threads", "1"]);
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a process");
        let first = PathBuf::from(format!("{killed}/{}/checkpoints/00001", RUNS[run]));
        wait_for(&first, &mut child);
        let kill = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(kill.expect("kill").success());
        let status = child.wait().expect("it ends");
        if signal == "-TERM" {
            assert_eq!(status.code(), Some(143));
        }
    }
    let finished = |run: &str| exists(&format!("{killed}/{run}/result.json"));
    assert!(finished(RUNS[0]), "what was finished stays");
    let before = fs::metadata(format!("{killed}/{}/metrics.jsonl", RUNS[0])).expect("metrics");
    let last = call(&mut compare(&study, &killed, &["--threads", "1"])).succeeds();
    last.says(&["of 4 runs finished already"]);
    let after = fs::metadata(format!("{killed}/{}/metrics.jsonl", RUNS[0])).expect("metrics");
    assert_eq!(before.modified().expect("a time"), after.modified().expect("a time"));
    assert_eq!(table(&killed), table(&whole));
    assert!(weights(&killed, &RUNS) == weights(&whole, &RUNS), "the weights differ");

    // Once more: everything is read, nothing is trained.
    let again = call(&mut compare(&study, &killed, &["--threads", "1"])).succeeds();
    again.says(&["4 of 4 runs finished already"]);
    assert!(!again.stderr.contains("epoch"), "{}", again.all());
    assert_eq!(again.json()["comparisons"], last.json()["comparisons"]);
}

/// Side by side with one thread each, and one after the other with one thread.
#[test]
fn runs_side_by_side_are_those_one_after_the_other() {
    let folder = Folder::new();
    let study = study(&folder);
    let (one, two) = (folder.at("one"), folder.at("two"));
    call(&mut compare(&study, &one, &["--threads", "1"])).succeeds();
    let call_of_two =
        call(&mut compare(&study, &two, &["--threads", "2", "--jobs", "2"])).succeeds();
    call_of_two.says(&["dbb, seed 1: epoch 5/5"]);
    assert_eq!(table(&one), table(&two));
    assert!(weights(&one, &RUNS) == weights(&two, &RUNS), "the weights differ");
    let report = fs::read_to_string(format!("{two}/report.html")).expect("a report");
    assert!(report.contains("run 4 of 4") && report.contains("Difference over epochs"), "{report}");
    let first = report.find("<figcaption>").expect("a picture");
    assert!(report[first..].starts_with("<figcaption><strong>Difference over epochs"), "{report}");

    // The results are those of this number of threads.
    let says = ["the threads of a run were 1, are 2", "undo the change, or give another --out"];
    call(&mut compare(&study, &two, &["--threads", "2"])).fails(1, &says);
    let many = ["--threads", "1", "--jobs", "2"];
    call(&mut compare(&study, &folder.at("many"), &many))
        .fails(1, &["--jobs 2 is more than the 1"]);
}

#[test]
fn what_changed_since_is_refused_and_named() {
    let folder = Folder::new();
    let path = study(&folder);
    let out = folder.at("out");
    call(&mut compare(&path, &out, &[])).succeeds();
    let before = snapshot(&out);
    let text = fs::read_to_string(&path).expect("the study");
    let refused = |right: &str, wrong: &str, says: &str| {
        assert!(text.contains(right), "{right}");
        fs::write(&path, text.replacen(right, wrong, 1)).expect("a file");
        call(&mut compare(&path, &out, &[])).fails(1, &[&out, says, "give another --out"]);
    };
    refused("optim.lr=0.01", "optim.lr=0.02", "base: optim.lr was 0.01, is 0.02");
    refused("model.block=dbb", "model.block=acb", "dbb: model.block was \"dbb\", is \"acb\"");
    refused("limit_val=40", "limit_val=50", "base: the validation images have changed");
    refused("seeds = 2", "seeds = 3", "seeds was 2, is 3");
    refused("seeds = 2", "seeds = 2\ncorrection = \"none\"", "correction was holm, is none");
    assert!(before == snapshot(&out), "the study has changed");
    // Without the study file its arms are no comparison of their own.
    dbb(&[&["compare", QUICK_BASE, "--out", &out][..], &set(&TINY)].concat())
        .fails(1, &["already holds a comparison of base, dbb", "resnet20-base"]);
    // Where the data are decoded is free.
    fs::write(&path, text.replacen("optim.lr", "data.workers=2\", \"optim.lr", 1)).expect("a file");
    call(&mut compare(&path, &out, &[])).succeeds();
}

/// An arm of equal time gets its epochs once; the folder remembers them.
#[test]
fn an_arm_of_equal_time_has_epochs_of_its_own() {
    let folder = Folder::new();
    let path = write(&folder, STUDY);
    let out = folder.at("out");
    let first = call(&mut compare(&path, &out, &["--predictions"])).succeeds();
    first.says(&[
        "measuring an epoch of dbb and of longer",
        "in the training time of 5 epochs of dbb",
    ]);
    let plan: Value =
        serde_json::from_str(&fs::read_to_string(format!("{out}/plan.json")).expect("a plan"))
            .expect("JSON");
    let time = &plan["equal_times"]["longer"];
    let expected = 5.0 * number(time, "reference_seconds") / number(time, "own_seconds");
    assert_eq!(number(time, "epochs"), expected.floor(), "{time}");
    let result = first.json();
    for row in result["rows"].as_array().expect("rows") {
        let epochs = if row["name"] == "longer" { number(time, "epochs") } else { 5.0 };
        assert_eq!(number(row, "epochs"), epochs, "{row}");
    }
    assert!(!exists(&format!("{out}/.timing")));
    // The primary comparison first; both corrected: the smaller p-value counts twice.
    let outcomes = result["comparisons"].as_array().expect("comparisons");
    let names: Vec<_> = outcomes.iter().map(|o| (o["baseline"].as_str(), &o["primary"])).collect();
    assert_eq!(names, [(Some("base"), &true.into()), (Some("longer"), &false.into())]);
    // The epochs of `longer` depend on the machine, and two differences of 40 images may be equal.
    let tested: Vec<_> = outcomes.iter().filter(|outcome| !outcome["p"].is_null()).collect();
    assert!(outcomes.iter().all(|o| o["p"].is_null() == o["delta_ci95"].is_null()), "{result}");
    let p = |key: &str| tested.iter().map(|outcome| number(outcome, key)).collect::<Vec<_>>();
    let (own, corrected) = (p("p"), p("p_corrected"));
    if let [first, second] = own[..] {
        let least = if first <= second { 0 } else { 1 };
        assert!(close(corrected[least], (2.0 * own[least]).min(1.0), 1e-12), "{result}");
        let larger = own[1 - least].max(corrected[least]);
        assert!(close(corrected[1 - least], larger, 1e-12), "{result}");
    }

    // A prediction for every image, which make the top-1 of the folded network.
    let csv = fs::read_to_string(format!("{out}/dbb-seed1/predictions.csv")).expect("predictions");
    let fields: Vec<Vec<&str>> =
        csv.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let correct = fields.iter().filter(|fields| fields[1] == fields[2]).count();
    assert_eq!(fields.len(), 40);
    let row = result["rows"]
        .as_array()
        .and_then(|rows| rows.iter().find(|r| r["run_dir"] == format!("{out}/dbb-seed1")));
    assert_eq!(number(row.expect("the run"), "top1"), 100.0 * correct as f64 / 40.0);

    // Predictions that were not asked for before are made of the finished runs.
    fs::remove_file(format!("{out}/dbb-seed1/predictions.csv")).expect("a file");
    let again = call(&mut compare(&path, &out, &["--predictions"])).succeeds();
    assert!(!again.stderr.contains("measuring"), "{}", again.all());
    again.says(&["5 of 6 runs finished already"]);
    assert_eq!(
        fs::read_to_string(format!("{out}/dbb-seed1/predictions.csv")).expect("a file"),
        csv
    );
    assert_eq!(again.json()["comparisons"], result["comparisons"]);
}

#[test]
fn mistakes_of_a_study_are_told() {
    let folder = Folder::new();
    let path = study(&folder);
    let out = folder.at("out");
    dbb(&["compare", "--study", &path, "--seeds", "3"]).fails(2, &["--study", "--seeds"]);
    dbb(&["compare", "--study", &path, QUICK_BASE]).fails(2, &["--study"]);
    dbb(&["compare"]).fails(2, &["<CONFIGS>"]);
    dbb(&["compare", "--study", &folder.at("none.toml")]).fails(1, &["none.toml", "cannot read"]);
    let text = fs::read_to_string(&path).expect("the study");
    fs::write(&path, text.replace("config = ", "confg = ")).expect("a file");
    let line = format!("{path}:12: arms[0].confg: unknown field `confg`");
    call(&mut compare(&path, &out, &[])).fails(1, &[&line, "did you mean `config`?"]);
    assert!(!exists(&out));
}

/// An arm whose loss is not finite is told with exit code 3, and the runs of the other are finished.
#[test]
fn a_run_that_breaks_does_not_end_the_others() {
    let folder = Folder::new();
    let path = study(&folder);
    let text = fs::read_to_string(&path).expect("the study");
    let steep = text.replace("model.block=dbb", "model.block=dbb\", \"optim.lr=1e30");
    fs::write(&path, steep).expect("a file");
    let out = folder.at("out");
    let says = ["error: dbb, seed 0: the loss is NaN", "; dbb, seed 1: the loss is NaN"];
    call(&mut compare(&path, &out, &["--jobs", "2", "--threads", "2"])).fails(3, &says);
    let table = table(&out);
    let arm = table[0].iter().position(|name| name == "arm").expect("the column");
    assert_eq!(table[1..].iter().map(|line| &*line[arm]).collect::<Vec<_>>(), ["base", "base"]);
    let report = fs::read_to_string(format!("{out}/report.html")).expect("a report");
    assert!(
        report.contains("stopped") && report.contains("dbb, seed 1: the loss is NaN"),
        "{report}"
    );
}

/// The studies in the repository are valid, with the configurations that they name.
#[test]
fn the_studies_of_the_repository_are_valid() {
    let folder = fs::read_dir(format!("{REPOSITORY}/configs/studies")).expect("the studies");
    let mut studies = 0;
    for file in folder {
        let path = file.expect("a file").path();
        let plan = Plan::study(&path).unwrap_or_else(|error| panic!("{error}"));
        assert!(plan.arms.len() > 1 && plan.is_study, "{}", path.display());
        studies += 1;
    }
    assert!(studies > 0);
}
