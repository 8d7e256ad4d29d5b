//! The steps of ranks are those of one process.

use std::collections::BTreeMap;

use super::*;
use dbb_models::weights::WeightsFile;

/// Ten steps of one epoch.
const TEN: [&str; 3] = ["train.epochs=1", "augment.hflip=true", "augment.pad_crop=1"];

type Tensors = BTreeMap<String, Vec<f32>>;

fn tensors(file: &Path) -> Tensors {
    let file = WeightsFile::read(file).expect("weights");
    let values = |data: &burn::tensor::TensorData| data.iter::<f32>().collect();
    file.tensors.iter().map(|(name, data)| (name.clone(), values(data))).collect()
}

/// The weights of the newest checkpoint, without statistics.
fn checkpoint(run: &Path) -> Tensors {
    let mut network = tensors(&RunDir::network(&newest(run)));
    network.retain(|name, _| !name.contains("running_"));
    network
}

/// The folded weights, which the statistics are a part of.
///
/// Some weights of a DBB have no effect, so that rounding alone moves them: here the 1x1 convolution
/// of the stem, which reads one channel and whose norm cancels its scale. Folding leaves them out.
fn folded(run: &Path) -> Tensors {
    tensors(&RunDir::new(run).deploy_weights())
}

/// Largest difference of two networks, relative to the largest value of each tensor.
fn apart(one: &Tensors, other: &Tensors) -> f32 {
    assert!(one.keys().eq(other.keys()));
    let mut worst = 0.0f32;
    for (name, values) in one {
        let largest = values.iter().fold(1e-3f32, |largest, value| largest.max(value.abs()));
        for (value, other) in values.iter().zip(&other[name]) {
            worst = worst.max((value - other).abs() / largest);
        }
    }
    worst
}

/// Checks that two runs of ten steps are equal to rounding, with one of a few seeds.
///
/// A ReLU whose input is within rounding of zero lets a gradient through in one run and not in the
/// other, and ten steps amplify that. It happens with some seeds, and with these it happens in one
/// process, too: with two threads instead of one, ResNet-20 of width 0.25 changes by 3e-2 with the
/// seed 0 and by 4e-7 with the seed 1. Other sums than those of the whole batch would change all.
fn equal_to_rounding(what: &str, run: impl Fn(&str) -> f32) {
    let mut found = Vec::new();
    while found.len() < 6 {
        let apart = run(&format!("seed={}", found.len()));
        println!("{what}: {apart:.1e} after ten steps");
        if apart < 1e-5 {
            return;
        }
        found.push(apart);
    }
    panic!("{what}: {found:?}");
}

/// Parts of a batch are the batches of `train.accumulate`: N ranks step as one process with N times
/// as many batches of an N-th of the size, where no block reads its running statistics.
#[test]
fn ranks_step_as_accumulated_batches_do() {
    for ranks in [2, 3] {
        equal_to_rounding(&format!("{ranks} ranks against accumulated batches"), |seed| {
            let folder = folder();
            let (together, single) = (folder.path().join("ranks"), folder.path().join("single"));
            let limit = format!("data.limit_train={}", 120 * ranks);
            let keys = [&TEN[..], &[&limit, seed]].concat();
            let batch_size = format!("train.batch_size={}", 12 * ranks);
            let whole = [&keys[..], &[&batch_size]].concat();
            succeeds(&mut train(mpirun(ranks), QUICK_BASE, &whole, &together));
            let accumulate = format!("train.accumulate={ranks}");
            let parts = [&keys[..], &["train.batch_size=12", &accumulate]].concat();
            succeeds(&mut train(alone(), QUICK_BASE, &parts, &single));
            assert_eq!(read_progress(&newest(&together)).expect("progress").step, 10);
            apart(&checkpoint(&single), &checkpoint(&together))
        });
    }
}

#[test]
fn synchronised_ranks_step_as_one_process_on_the_whole_batch() {
    for (block, config) in [("base", QUICK_BASE), ("dbb", QUICK_DBB)] {
        for ranks in [2, 3] {
            equal_to_rounding(&format!("{block}, {ranks} synchronised ranks"), |seed| {
                let folder = folder();
                let (together, single) =
                    (folder.path().join("ranks"), folder.path().join("single"));
                let keys = ["data.limit_train=360", "train.batch_size=36", seed];
                let keys = [&TEN[..], &keys].concat();
                let synchronised = [&keys[..], &["train.sync_batch_norm=true"]].concat();
                succeeds(&mut train(mpirun(ranks), config, &synchronised, &together));
                succeeds(&mut train(alone(), config, &keys, &single));
                apart(&folded(&single), &folded(&together))
            });
        }
    }
}

/// Everything that a run can remember, on parts of uneven batches; the last batch has fewer images
/// than the ranks need.
#[test]
fn equal_ranks_give_equal_bits_and_other_ranks_the_same_run() {
    let folder = folder();
    let keys =
        [&FULL[..], &["train.epochs=2", "data.limit_train=147", "train.batch_size=9"]].concat();
    let run = |name: &str, ranks| {
        let out = folder.path().join(name);
        let result = succeeds(&mut train(mpirun(ranks), QUICK_DBB, &keys, &out));
        (out, result)
    };
    let ((first, _), (second, _)) = (run("first", 3), run("second", 3));
    assert!(state(&first) == state(&second), "equal ranks differ");
    assert!(weights(&first) == weights(&second));
    // What the report shows is that of the images of all ranks.
    let found = read_progress(&newest(&first)).expect("progress").validation.expect("a validation");
    let correct: usize = found.confusion.classes().iter().map(|class| class.correct).sum();
    assert_eq!([found.confusion.images(), found.calibration.images()], [40; 2]);
    let record = metrics(&first).pop().expect("a record");
    assert!(close(number(&record, "top1"), 100.0 * correct as f64 / 40.0, 1e-9), "{record}");
    // The images of an epoch do not depend on the ranks.
    let (other, _) = run("other", 2);
    let images = |run: &Path| metrics(run).iter().map(|r| r["images"].clone()).collect::<Vec<_>>();
    assert_eq!(images(&first), images(&other));
    assert_eq!(images(&first), vec![serde_json::Value::from(147); 2]);
}

#[test]
fn another_number_of_ranks_resumes_and_is_announced() {
    let folder = folder();
    let run = folder.path().join("run");
    succeeds(&mut train(mpirun(2), QUICK_DBB, &["train.epochs=1"], &run));
    let mut more = resume(mpirun(3), &run);
    let call = call(more.args(["--force", "--set", "train.epochs=2"])).succeeds();
    call.says(&["the number of ranks was 2, is 3", "results will differ"]);
    assert_eq!(call.stderr.matches("resuming after epoch 1 of 2").count(), 1, "{}", call.all());
}

/// The time of ranks differs: that of the first ends all after the same step.
#[test]
fn a_run_that_ends_early_ends_on_all_ranks() {
    let folder = folder();
    let minutes = folder.path().join("minutes");
    let keys = ["train.epochs=100000", "train.max_minutes=0.03"];
    let result = succeeds(&mut train(mpirun(3), QUICK_BASE, &keys, &minutes));
    assert_eq!(result["ended_by"], "max_minutes", "{result}");
    assert!(RunDir::new(&minutes).deploy_weights().exists());
    let patience = folder.path().join("patience");
    let keys = ["train.epochs=50", "train.patience=2", "train.min_delta=99"];
    let result = succeeds(&mut train(mpirun(3), QUICK_BASE, &keys, &patience));
    assert_eq!(result["ended_by"], "patience", "{result}");
    // The first epoch counts as a rise.
    assert_eq!(result["epochs"], 3, "{result}");
}
