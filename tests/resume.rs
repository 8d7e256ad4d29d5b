//! A run that is stopped, killed or damaged: what has been saved is whole, damage is found, and the
//! resumed run is, bit for bit, the uninterrupted run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use burn::store::burn_pack::{Bytes, Reader, Tensor, Writer};
use burn::tensor::Device;
use dbb_training::Error;
use dbb_training::cancel::CancelToken;
use dbb_training::config::Config;
use dbb_training::run::directory::RunDir;
use dbb_training::run::manifest;
use dbb_training::run::progress::read_progress;
use dbb_training::train::Trainer;
use dbb_training::train::observer::{Observer, Step};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use serde_json::Value;

#[path = "support/calls.rs"]
mod calls;
#[allow(dead_code)] // this program uses a part
#[path = "support/runs.rs"]
mod runs;
use runs::*;

/// Starts a training of many epochs and kills it once it has saved the first.
fn killed_after_its_first_epoch(keys: &[&str], out: &Path) {
    let mut command = training(keys, out);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let first = RunDir::new(out).checkpoint(after(1));
    // On a busy machine this process may wake up too late.
    for _ in 0..5 {
        let mut child = command.spawn().expect("the program starts");
        let started = Instant::now();
        while !first.exists() {
            assert!(started.elapsed() < Duration::from_secs(60), "no checkpoint of {command:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().expect("the process can be killed");
        child.wait().expect("it ends");
        if !RunDir::new(out).deploy_weights().exists() {
            return;
        }
        fs::remove_dir_all(out).expect("the run");
    }
    panic!("{command:?} always ends before it is killed");
}

// ---- Determinism and resuming --------------------------------------------------------------

#[test]
fn equal_runs_are_equal_to_the_bit_whoever_loads_the_images() {
    let folder = folder();
    let run = |name: &str, keys: &[&str]| {
        let out = folder.path().join(name);
        succeeds(&mut training(&[&["train.epochs=2"], keys].concat(), &out));
        out
    };
    let first = run("first", &[]);
    for (name, keys) in [
        ("second", &[][..]),
        ("no worker", &["data.workers=0"]),
        ("three workers", &["data.workers=3"]),
    ] {
        let other = run(name, keys);
        assert_eq!(metrics(&other), metrics(&first), "{name}");
        assert!(weights(&other) == weights(&first), "the weights differ: {name}");
    }
    let seed = run("another seed", &["seed=1"]);
    assert!(weights(&seed) != weights(&first), "the seed changes nothing");
}

/// Bit-equal weights, each epoch once, whatever the optimizer holds.
fn a_killed_run_ends_as_if_it_had_not_been(keys: &[&str]) {
    let folder = folder();
    let keys = [&["train.epochs=5"], keys].concat();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    succeeds(&mut training(&keys, &whole));
    killed_after_its_first_epoch(&keys, &killed);

    // What a process killed in the middle of a save leaves.
    let leftover = killed.join("checkpoints/.00005.partial");
    fs::create_dir_all(&leftover).expect("a folder");
    fs::write(leftover.join("network.bpk"), b"half of it").expect("a file");
    assert_eq!(eval(&killed, &[])["form"], "train", "the complete checkpoint is used");

    let resumed = call(&mut resuming(&killed)).succeeds();
    resumed.says(&["resuming after", "of 5"]);
    assert!(!resumed.stderr.contains("epoch 1/5"), "{}", resumed.all());
    assert_eq!(epochs(&killed), [1.0, 2.0, 3.0, 4.0, 5.0]);
    for (resumed, whole) in metrics(&killed).iter().zip(metrics(&whole)) {
        for (key, value) in whole.as_object().expect("an object") {
            let (a, b) = (number(resumed, key), value.as_f64().expect("a number"));
            assert!((a - b).abs() <= 1e-12 * b.abs(), "{key}: {resumed} against {whole}");
        }
    }
    assert!(weights(&killed) == weights(&whole), "the weights differ with {keys:?}");
    assert!(!leftover.exists(), "{} is left", leftover.display());
}

#[test]
fn a_resumed_sgd_run_ends_as_the_uninterrupted_one() {
    a_killed_run_ends_as_if_it_had_not_been(&[
        "optim.nesterov=true",
        "optim.decay=weights",
        "optim.weight_decay=0.1",
        "optim.bias_lr=2",
    ]);
}

#[test]
fn a_resumed_adamw_run_ends_as_the_uninterrupted_one() {
    a_killed_run_ends_as_if_it_had_not_been(&[
        "optim.kind=adamw",
        "optim.lr=0.002",
        "optim.weight_decay=0.1",
        "train.label_smoothing=0.1",
    ]);
}

#[test]
fn a_run_without_a_checkpoint_starts_anew_and_a_finished_one_stays() {
    let folder = folder();
    let (run, empty) = (folder.path().join("run"), folder.path().join("empty"));
    let result = succeeds(&mut training(&["train.epochs=2"], &run));
    fs::create_dir(&empty).expect("a folder");
    fs::copy(RunDir::new(&run).config(), RunDir::new(&empty).config()).expect("a copy");
    succeeds(&mut resuming(&empty));
    assert_eq!(metrics(&empty), metrics(&run));
    assert!(weights(&empty) == weights(&run));

    let (before, tensors) = (snapshot(run.join("checkpoints")), weights(&run));
    assert_eq!(succeeds(&mut resuming(&run))["top1"], result["top1"]);
    assert!(before == snapshot(run.join("checkpoints")) && tensors == weights(&run));
}

// ---- Checkpoints ---------------------------------------------------------------------------

#[test]
fn the_best_and_the_last_checkpoint_are_kept() {
    let folder = folder();
    let run = folder.path().join("run");
    // A rate that spoils what the first epoch learnt.
    let spoil = ["schedule.kind=step", "schedule.milestones=[1]", "schedule.gamma=20"];
    let result = succeeds(&mut training(&[&["train.epochs=4"], &spoil[..]].concat(), &run));
    let records = metrics(&run);
    let top1 = |record: &&Value| number(record, "top1");
    // The earliest of equal ones.
    let best = records
        .iter()
        .reduce(|best, record| if top1(&record) > top1(&best) { record } else { best })
        .expect("an epoch");
    let mut kept = vec![after(number(best, "epoch") as usize).to_string(), "00004".into()];
    kept.dedup();
    assert_eq!(checkpoints(&run), kept, "{records:?}");
    assert_eq!(number(&result, "best_top1"), number(best, "top1"));
    let top1 = |which| eval(&run, &["--deploy", "--checkpoint", which])["top1"].clone();
    assert_eq!((&top1("best"), &top1("last")), (&best["top1"], &records[3]["top1"]));
}

#[test]
fn a_checkpoint_appears_whole_and_clears_what_is_left_behind() {
    let folder = folder();
    let run = RunDir::new(folder.path());
    let _lock = run.lock().expect("the lock");
    let save = |epoch: usize, keep: usize| {
        run.save_checkpoint::<std::io::Error>(after(epoch), &[after(keep)], |folder| {
            fs::write(folder.join("content"), epoch.to_string())
        })
    };
    assert!(checkpoints(folder.path()).is_empty());
    for epoch in 1..=4 {
        save(epoch, 2).expect("a checkpoint");
    }
    assert_eq!(checkpoints(folder.path()), ["00002", "00004"]);

    let failed = run.save_checkpoint(after(5), &[after(4)], |folder| {
        fs::write(folder.join("content"), b"half")?;
        Err(std::io::Error::other("the disk is full"))
    });
    assert_eq!(failed.expect_err("it failed").to_string(), "the disk is full");
    assert_eq!(checkpoints(folder.path()), ["00002", "00004"]);
    let entries = fs::read_dir(folder.path().join("checkpoints")).expect("checkpoints").count();
    assert_eq!(entries, 2, "something of the failed checkpoint is left");

    // What a process leaves that is killed while it writes, and between the two renames of a
    // replacement: the next one to lock the run clears it, and puts the old one back.
    drop(_lock);
    let checkpoints_folder = folder.path().join("checkpoints");
    let leftover = checkpoints_folder.join(".00005.partial");
    fs::create_dir(&leftover).expect("a folder");
    fs::write(leftover.join("other"), b"of a killed process").expect("a file");
    fs::write(folder.path().join(".metrics.jsonl.17.partial"), b"half").expect("a file");
    let four = run.checkpoint(after(4));
    fs::rename(&four, checkpoints_folder.join(".00004.replaced")).expect("a rename");
    assert_eq!(checkpoints(folder.path()), ["00002"]);
    let _lock = run.lock().expect("the lock");
    assert_eq!(checkpoints(folder.path()), ["00002", "00004"]);
    manifest::verify(&four).expect("whole");
    save(4, 2).expect("a checkpoint in the place of another");
    let mut names: Vec<String> = fs::read_dir(folder.path())
        .expect("the run")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, [".lock", "checkpoints"]);
    assert_eq!(fs::read_dir(checkpoints_folder).expect("checkpoints").count(), 2);
}

#[test]
fn a_damaged_checkpoint_cannot_be_resumed() {
    let folder = folder();
    let (run, other) = (folder.path().join("run"), folder.path().join("other"));
    killed_after_its_first_epoch(&["train.epochs=9"], &run);
    succeeds(&mut training(&["train.epochs=1", "optim.kind=adamw", "model.block=base"], &other));
    let checkpoint = newest(&run);
    let foreign = newest(&other);

    // Changes a file of the checkpoint, which must end the attempt and change nothing.
    let case = |path: PathBuf, content: Option<Vec<u8>>, parts: &[&str]| {
        let before = fs::read(&path).expect("a file");
        match content {
            Some(content) => fs::write(&path, content).expect("a file"),
            None => fs::remove_file(&path).expect("a file"),
        }
        let state = snapshot(&checkpoint);
        let place = checkpoint.to_str().expect("text");
        let parts = [&["error: cannot use the checkpoint", place], parts].concat();
        fails(&mut resuming(&run), 1, &parts);
        fails(Command::new(DBB).arg("eval").arg(&run), 1, &parts);
        assert!(state == snapshot(&checkpoint), "the checkpoint has changed");
        fs::write(&path, before).expect("a file");
    };
    let paths =
        [RunDir::network(&checkpoint), RunDir::optimizer(&checkpoint), RunDir::state(&checkpoint)];
    for path in paths {
        let name = path.file_name().expect("a name").to_str().expect("text");
        let whole = fs::read(&path).expect("a file");
        case(path.clone(), Some(whole[..whole.len() / 2].to_vec()), &[name, "is damaged"]);
        case(path.clone(), None, &[name, "is missing"]);
        let other = fs::read(foreign.join(name)).expect("a file");
        case(path.clone(), Some(other), &[name, "is damaged"]);
    }
    let manifest = checkpoint.join("manifest.json");
    case(manifest.clone(), None, &["earlier version"]);
    case(manifest, Some(b"{}".to_vec()), &["manifest.json", "missing field"]);
    fails(Command::new(DBB).arg("train").arg(folder.path()).arg("--resume"), 1, &["no run"]);
}

/// A thousand flipped bits at random places, and every length of a file's beginning.
#[test]
fn damage_anywhere_in_a_checkpoint_is_found() {
    let folder = folder();
    let run = folder.path().join("run");
    succeeds(&mut training(&["train.epochs=1", "train.ema=0.9", "data.limit_train=16"], &run));
    let checkpoint = newest(&run);
    read_progress(&checkpoint).expect("whole");
    let mut files: Vec<(PathBuf, Vec<u8>)> = snapshot(&checkpoint).into_iter().collect();
    files.retain(|(path, _)| path.is_file());
    assert_eq!(files.len(), 5);
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    for round in 0..1000 {
        let (path, whole) = &files[round % files.len()];
        let at = rng.random_range(0..whole.len() * 8);
        let mut bytes = whole.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        fs::write(path, bytes).expect("a file");
        assert!(read_progress(&checkpoint).is_err(), "bit {at} of {}", path.display());
        fs::write(path, whole).expect("a file");
    }
    for (path, whole) in &files {
        for length in 0..whole.len().min(64) {
            fs::write(path, &whole[..length]).expect("a file");
            assert!(read_progress(&checkpoint).is_err(), "{length} bytes of {}", path.display());
        }
        fs::write(path, whole).expect("a file");
    }
    read_progress(&checkpoint).expect("whole");
}

/// A manifest can be made to vouch for anything; what the optimizer remembers is looked at as well.
#[test]
fn an_optimizer_state_of_no_parameter_is_refused() {
    let folder = folder();
    let run = folder.path().join("run");
    killed_after_its_first_epoch(&["train.epochs=9"], &run);
    let checkpoint = newest(&run);
    let files = snapshot(&checkpoint);
    let changes: [fn(&mut Tensor); 4] = [
        |tensor| tensor.param_id = None,
        |tensor| tensor.param_id = Some(0),
        |tensor| tensor.name = "0.momentum.velocity".into(),
        |tensor| tensor.shape = [1, 1, 1, 1, tensor.shape.num_elements()].into(),
    ];
    for change in changes {
        let genuine = files[&RunDir::optimizer(&checkpoint)].clone();
        let pack = Reader::from_bytes(Bytes::from_bytes_vec(genuine)).expect("the optimizer");
        let mut tensors = pack.into_tensors().expect("its tensors");
        change(&mut tensors[0]);
        let forged = Writer::new(tensors).into_bytes().expect("a burnpack");
        let saved = RunDir::new(&run).save_checkpoint(after(1), &[], |folder| {
            for (path, bytes) in &files {
                fs::write(folder.join(path.file_name().expect("a name")), bytes)?;
            }
            fs::write(RunDir::optimizer(folder), &*forged)
        });
        saved.expect("a checkpoint");
        fails(&mut resuming(&run), 1, &["its optimizer state", "is of no parameter"]);
    }
}

// ---- Stops ---------------------------------------------------------------------------------

/// Three epochs that remember all.
fn full() -> Vec<&'static str> {
    [&["train.epochs=3"], &FULL[..]].concat()
}

fn config(keys: &[&str]) -> Config {
    let overrides: Vec<String> = TINY.iter().chain(keys).map(ToString::to_string).collect();
    Config::load(Path::new(QUICK_DBB), &overrides).expect("a configuration")
}

/// Does something after a step of the optimizer, counted over the run from 1.
struct After<F>(usize, F);

impl<F: FnMut()> Observer for After<F> {
    fn step(&mut self, step: &Step) {
        if step.run_step == self.0 {
            self.1();
        }
    }
}

/// The random numbers of a device are one sequence for all threads of a process: tests that train in this one
/// take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Trains in this process until a step is done and a signal arrives.
fn stopped_at(step: usize, mut trainer: Trainer) {
    let stop = CancelToken::default();
    trainer.stop_on(stop.clone());
    let outcome = trainer.fit(&mut After(step, || stop.request(15)));
    let error = outcome.expect_err("it was stopped");
    assert!(matches!(error, Error::Interrupted { signal: 15, .. }), "{error}");
    assert!(error.to_string().contains("the run is saved in"), "{error}");
}

/// Its batches would be of other images, and their number another one.
#[test]
fn an_epoch_does_not_go_on_with_other_batches() {
    let _turn = turn();
    let folder = folder();
    let run = folder.path().join("run");
    let device = Device::default();
    let keys = ["train.epochs=2"];
    stopped_at(2, Trainer::new(config(&keys), RunDir::new(&run), &device).expect("a run"));
    let resume = |key: &str| Trainer::resume(RunDir::new(&run), &device, true, &[key.to_string()]);
    for key in ["train.batch_size=64", "data.limit_train=32"] {
        let error = resume(key).err().expect("other batches").to_string();
        for part in ["after 2 batches of an epoch", key.split('=').next().expect("a key")] {
            assert!(error.contains(part), "no {part} in {error}");
        }
    }
    resume("optim.lr=0.001").expect("the same batches");
}

/// `timeout` sends a signal to the process and one to its group: both ask for the same.
#[cfg(target_os = "linux")]
#[test]
fn two_signals_at_once_are_one_request() {
    let folder = folder();
    let run = folder.path().join("run");
    let mut command = training(&["train.epochs=100000"], &run);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a start");
    let started = Instant::now();
    while !RunDir::new(&run).checkpoint(after(1)).exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::sleep(Duration::from_millis(1));
    }
    let (pid, kill) = (child.id(), "kill -INT $0; kill -TERM $0");
    Command::new("sh").args(["-c", kill, &pid.to_string()]).status().expect("a shell");
    let code = child.wait().expect("it ends").code();
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
    let report = fs::read_to_string(RunDir::new(&run).report()).expect("a report");
    assert!(report.contains("the run is saved in"), "the run has not been saved");
}

/// A run that is stopped after one or two of its steps leaves, to the byte, what `whole` has left, the
/// same run without a stop.
fn stopped_run_ends_as(whole: &Path, keys: &[&str], stops: &[usize]) {
    let run = whole.with_file_name(format!("stopped{stops:?}"));
    let device = Device::default();
    let trainer = Trainer::new(config(keys), RunDir::new(&run), &device).expect("a run");
    stopped_at(stops[0], trainer);
    if let Some(second) = stops.get(1) {
        let trainer = Trainer::resume(RunDir::new(&run), &device, false, &[]);
        stopped_at(*second, trainer.expect("a run to resume"));
    }
    succeeds(&mut resuming(&run));
    let found = state(&run);
    for (name, bytes) in &state(whole) {
        assert!(found[name] == *bytes, "{name} differs after {stops:?}");
    }
    assert_eq!(metrics(&run), metrics(whole), "{stops:?}");
    assert!(weights(&run) == weights(whole), "{stops:?}");
    assert!(shown(&run) == shown(whole), "the report differs after {stops:?}");
}

/// At the first step, within an epoch, at the last step of an epoch and of the run, and twice; the
/// last part in another process.
#[test]
fn a_run_stopped_at_any_step_ends_as_the_one_that_was_not() {
    let _turn = turn();
    let folder = folder();
    let whole = folder.path().join("whole");
    succeeds(&mut training(&full(), &whole));
    assert_eq!(state(&whole).len(), 4, "network, average, optimizer, progress");
    // 150 images in batches of 16, three batches a step: four steps an epoch, the last one short.
    for stops in [&[1][..], &[6], &[8], &[12], &[2, 9]] {
        stopped_run_ends_as(&whole, &full(), stops);
    }
    // A finished run that is resumed has nothing to do, and shows what it has shown.
    let before = shown(&whole);
    assert_eq!(before[3].matches("<img").count(), 16 + 24, "a batch and the worst mistakes");
    succeeds(&mut resuming(&whole));
    assert!(shown(&whole) == before, "the report of the finished run has changed");
}

/// What dropout draws does not depend on what was drawn before the stop.
#[test]
fn a_network_with_dropout_stopped_within_an_epoch_ends_as_the_one_that_was_not() {
    let _turn = turn();
    let folder = folder();
    let whole = folder.path().join("whole");
    let keys =
        ["train.epochs=2", "model.arch=mobilenet_v2", "model.block=base", "model.width=0.125"];
    succeeds(&mut training(&keys, &whole));
    // Four steps an epoch.
    for stops in [&[3][..], &[2, 6]] {
        stopped_run_ends_as(&whole, &keys, stops);
    }
}

/// What a report shows, without what depends on the clock: curves by step, and what the validation
/// found.
fn shown(run: &Path) -> [String; 4] {
    let report = fs::read_to_string(RunDir::new(run).report()).expect("a report");
    let part = |from: &str, to: &str| {
        let start = report.find(from).unwrap_or_else(|| panic!("no {from}"));
        let length = report[start..].find(to).unwrap_or_else(|| panic!("no {to} after {from}"));
        report[start..start + length].to_string()
    };
    let curve = |title: &str| part(&format!("<strong>{title}"), "</figure>");
    [
        curve("Training loss by step"),
        curve("Learning rate"),
        curve("Norm of the gradient"),
        part("<h2>Worst mistakes", "<h2>Epochs"),
    ]
}

#[test]
fn checkpoints_within_an_epoch_are_kept_as_the_configuration_says() {
    let folder = folder();
    let run = folder.path().join("run");
    let keys = ["train.epochs=1", "train.checkpoint_steps=1", "train.keep_last=3"];
    succeeds(&mut training(&keys, &run));
    assert_eq!(checkpoints(&run), ["00000+00002", "00000+00003", "00001"]);
    assert_eq!(eval(&run, &[])["form"], "train");
}

#[cfg(unix)]
#[test]
fn a_terminated_run_is_saved_and_goes_on() {
    saves_on("-TERM", 15);
}

/// What a terminal sends that is closed.
#[cfg(target_os = "linux")]
#[test]
fn a_run_whose_terminal_is_closed_is_saved() {
    let status = fs::read_to_string("/proc/self/status").expect("the status of this process");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a mask");
    let ignored = u64::from_str_radix(ignored.trim(), 16).expect("a mask") & 1 == 1;
    // Below `nohup` the program is to outlive its terminal.
    if !ignored {
        saves_on("-HUP", 1);
    }
}

#[cfg(unix)]
fn saves_on(signal: &str, number: i32) {
    let folder = folder();
    let run = folder.path().join("run");
    let mut command = training(&["train.epochs=500"], &run);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let started = Instant::now();
    while RunDir::new(&run).checkpoint_ids().expect("checkpoints").is_empty() {
        assert!(started.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::sleep(Duration::from_millis(5));
    }
    // One process at a time.
    fails(&mut resuming(&run), 1, &["is in use by another process", &child.id().to_string()]);
    let kill = Command::new("kill").arg(signal).arg(child.id().to_string()).status();
    assert!(kill.expect("kill").success());
    let output = child.wait_with_output().expect("it ends");
    Call::new(&command, output).fails(128 + number, &["the run is saved in", "--resume"]);
    manifest::verify(&newest(&run)).expect("whole");
    let report = fs::read_to_string(RunDir::new(&run).report()).expect("the report");
    assert!(report.contains(&format!("stopped by signal {number}")));
}

// ---- Another run ---------------------------------------------------------------------------

#[test]
fn a_changed_configuration_is_named_and_needs_force() {
    let folder = folder();
    let run = folder.path().join("run");
    succeeds(&mut training(&["train.epochs=1"], &run));
    let path = RunDir::new(&run).config();
    let before = fs::read_to_string(&path).expect("the configuration");
    let edit = |from: &str, to: &str| {
        assert!(before.contains(from), "no {from:?} in {before}");
        fs::write(&path, before.replace(from, to)).expect("the configuration");
    };
    edit("epochs = 1", "epochs = 2");
    fails(&mut resuming(&run), 1, &["train.epochs was 1, is 2", "--force"]);
    edit("limit_train = 64", "limit_train = 48");
    fails(&mut resuming(&run), 1, &["data.limit_train", "the training images have changed"]);
    // Another network does not fit, whatever is accepted.
    edit("width = 0.25", "width = 0.5");
    fails(resuming(&run).arg("--force"), 1, &["cannot use the checkpoint"]);
    // Where and how often changes nothing.
    edit("workers = 1", "workers = 0");
    succeeds(&mut resuming(&run));

    fs::write(&path, &before).expect("the configuration");
    fails(resuming(&run).args(["--set", "train.epochs=2"]), 2, &["--force"]);
    let accepted = call(resuming(&run).args(["--force", "--set", "train.epochs=2"]));
    accepted.succeeds().says(&["accepted: train.epochs was 1, is 2"]);
    assert_eq!(epochs(&run), [1.0, 2.0]);
    // The accepted configuration is the run's own now.
    succeeds(&mut resuming(&run));
}

#[test]
fn a_run_whose_folder_vanishes_ends_with_an_error() {
    let _turn = turn();
    let folder = folder();
    let run = folder.path().join("run");
    let device = Device::default();
    let trainer = Trainer::new(config(&["train.epochs=2"]), RunDir::new(&run), &device);
    let remove = || fs::remove_dir_all(&run).expect("the run");
    let error = trainer.expect("a run").fit(&mut After(6, remove)).expect_err("it is gone");
    let text = error.to_string();
    assert!(text.contains("cannot write") && text.contains(run.to_str().expect("text")), "{text}");
    assert!(!run.exists(), "a run without its configuration");
}
