//! Runs that end before their last epoch: `train.patience` and `train.max_minutes`.

use std::fs;

use serde_json::Value;

use crate::calls::*;
use crate::setup::*;

const MANY: [&str; 2] = ["train.epochs=6", "schedule.min_lr=0.005"];

/// The lines of `metrics.jsonl`, without times.
fn metrics(run: &str) -> Vec<Value> {
    let text = fs::read_to_string(format!("{run}/metrics.jsonl")).expect("metrics");
    let record = |line: &str| {
        let mut record: Value = serde_json::from_str(line).expect("a JSON line");
        let fields = record.as_object_mut().expect("an object");
        fields.retain(|key, _| !key.ends_with("seconds") && key != "images_per_second");
        record
    };
    text.lines().map(record).collect()
}

fn weights(run: &str) -> Vec<u8> {
    fs::read(format!("{run}/export/deploy.safetensors")).expect("the folded weights")
}

fn resume(run: &str, keys: &[&str]) -> Call {
    dbb(&[&["train", run, "--resume", "--json"], &set(keys)[..]].concat()).succeeds()
}

#[test]
fn a_run_ends_when_top1_does_not_rise_any_more() {
    let folder = Folder::new();
    let (whole, patient) = (folder.at("whole"), folder.at("patient"));
    train(QUICK_DBB, &MANY, &whole).succeeds();
    // No top-1 rises by 99 points above another, so that the first epoch stays the highest.
    let keys = [&MANY[..], &["train.patience=2", "train.min_delta=99"]].concat();
    let call = train(QUICK_DBB, &keys, &patient).succeeds();
    call.says(&["the run ends after epoch 3 of 6", "more than 99 points for 2 epochs"]);
    let result = call.json();
    assert_eq!((&result["ended_by"], number(&result, "epochs")), (&"patience".into(), 3.0));
    let all = metrics(&whole);
    assert_eq!(metrics(&patient), all[..3], "the epochs are those of a run without patience");
    let report = fs::read_to_string(format!("{patient}/report.html")).expect("a report");
    assert!(report.contains("epoch 3 of 6") && report.contains("finished"));

    // Resumed it has nothing to do, until its patience grows.
    let again = resume(&patient, &[]);
    assert_eq!(again.json()["top1"], result["top1"]);
    assert_eq!(metrics(&patient).len(), 3);
    let longer = resume(&patient, &["train.patience=6"]);
    assert!(longer.json().get("ended_by").is_none(), "{}", longer.all());
    assert_eq!(metrics(&patient), all);
    assert!(weights(&patient) == weights(&whole), "the weights differ");
}

/// After a step, since a minute is much longer than a run; what is trained then is validated, saved
/// and exported.
#[test]
fn a_run_ends_within_an_epoch_when_its_minutes_are_over() {
    let folder = Folder::new();
    let (whole, timed) = (folder.at("whole"), folder.at("timed"));
    let keys = [&MANY[..], &["train.patience=2", "train.min_delta=99"]].concat();
    train(QUICK_DBB, &keys, &whole).succeeds();
    let timed_keys = [&keys[..], &["train.max_minutes=0.00000001"]].concat();
    let call = train(QUICK_DBB, &timed_keys, &timed).succeeds();
    call.says(&["the run ends after 1 batch of epoch 1 of 6", "minutes are over"]);
    let result = call.json();
    assert_eq!(result["ended_by"], "max_minutes");
    assert!(exists(&format!("{timed}/checkpoints/00000+00001")), "{}", call.all());
    let part = metrics(&timed);
    assert_eq!((part.len(), number(&part[0], "images")), (1, 16.0));
    assert_eq!(part[0]["top1"], result["top1"]);
    // Checkpoint and folded weights are what was validated.
    assert_eq!(json(&["eval", &timed, "--deploy"])["top1"], result["top1"]);
    let folded = folder.at("folded.safetensors");
    json(&["reparam", &timed, "--out", &folded]);
    assert!(fs::read(&folded).expect("a file") == weights(&timed), "other weights are exported");

    let again = resume(&timed, &[]);
    assert_eq!(again.json()["ended_by"], "max_minutes");
    assert_eq!(metrics(&timed), part);
    // With time it goes on as if nothing had been, and its patience counts as if nothing had been.
    let longer = resume(&timed, &["train.max_minutes=60"]);
    assert_eq!(longer.json()["ended_by"], "patience");
    assert_eq!(metrics(&timed), metrics(&whole));
    assert!(weights(&timed) == weights(&whole), "the weights differ");
}
