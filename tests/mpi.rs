//! Training on ranks that `mpirun` starts: the same steps as in one process, and no way to end but
//! together. Not part of the suite, since it needs an MPI:
//!
//! ```text
//! cargo test --release --workspace --features mpi --test mpi -- --test-threads 1
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dbb_models::Implementation;
use dbb_models::weights::WeightsFile;
use dbb_training::config::Config;
use dbb_training::device;
use dbb_training::run::directory::RunDir;
use dbb_training::run::progress::read_progress;
use dbb_training::train::Trainer;
use dbb_training::train::observer::Silent;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

#[path = "support/calls.rs"]
mod calls;
#[allow(dead_code)] // this program uses a part
#[path = "support/runs.rs"]
mod runs;
use runs::*;

/// The program as `ranks` processes on this machine, each with one thread.
fn mpirun(ranks: usize) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "-n", &ranks.to_string(), DBB]);
    command.env("DBB_MPI_TIMEOUT", "60");
    command
}

fn train(mut command: Command, config: &str, keys: &[&str], out: &Path) -> Command {
    command.args(["train", config, "--json", "--threads", "1", "--out"]).arg(out);
    command.args(TINY.iter().chain(keys).flat_map(|key| ["--set", key]));
    command
}

fn alone() -> Command {
    Command::new(DBB)
}

/// Trains in this process, of one thread, by Burn's operations alone.
fn train_plain(config: &str, keys: &[&str], out: &Path) {
    device::start_threads(Some(1)).expect("a thread");
    let device = device::open("flex").expect("the device");
    let keys: Vec<_> = TINY.iter().chain(keys).map(ToString::to_string).collect();
    let config = Config::load(Path::new(config), &keys).expect("the configuration");
    Implementation::Plain.during(|| {
        let mut trainer = Trainer::new(config, RunDir::new(out), &device).expect("the run");
        trainer.fit(&mut Silent).expect("it trains");
    });
}

fn resume(mut command: Command, run: &Path) -> Command {
    command.arg("train").arg(run).args(["--resume", "--json", "--threads", "1"]);
    command
}

/// Ten steps of one epoch.
const TEN: [&str; 3] = ["train.epochs=1", "augment.hflip=true", "augment.pad_crop=1"];

/// Weights and statistics of the newest checkpoint.
fn network(run: &Path) -> BTreeMap<String, Vec<f32>> {
    let file = WeightsFile::read(&RunDir::network(&newest(run))).expect("the network");
    let values = |data: &burn::tensor::TensorData| data.iter::<f32>().collect();
    file.tensors.iter().map(|(name, data)| (name.clone(), values(data))).collect()
}

/// Largest difference of the tensors with names that are `compared`, relative to the largest value
/// of each.
fn apart(one: &Path, other: &Path, compared: impl Fn(&str) -> bool) -> f32 {
    let (one, other) = (network(one), network(other));
    assert!(one.keys().eq(other.keys()));
    let mut worst = 0.0f32;
    for (name, values) in one.iter().filter(|(name, _)| compared(name)) {
        let largest = values.iter().fold(1e-3f32, |largest, value| largest.max(value.abs()));
        for (value, other) in values.iter().zip(&other[name]) {
            worst = worst.max((value - other).abs() / largest);
        }
    }
    worst
}

/// Parts of a batch are the batches of `train.accumulate`: N ranks step as one process with N times
/// as many batches of an N-th of the size, where no block reads its running statistics.
#[test]
fn ranks_step_as_accumulated_batches_do() {
    let folder = folder();
    for ranks in [2, 3] {
        let (together, single) =
            (folder.path().join(format!("r{ranks}")), folder.path().join(format!("a{ranks}")));
        let limit = format!("data.limit_train={}", 120 * ranks);
        let keys = [&TEN[..], &[&limit]].concat();
        let (whole, part) = (format!("train.batch_size={}", 12 * ranks), "train.batch_size=12");
        let accumulate = format!("train.accumulate={ranks}");
        succeeds(&mut train(
            mpirun(ranks),
            QUICK_BASE,
            &[&keys[..], &[&whole]].concat(),
            &together,
        ));
        succeeds(&mut train(
            alone(),
            QUICK_BASE,
            &[&keys[..], &[part, &accumulate]].concat(),
            &single,
        ));
        assert_eq!(read_progress(&newest(&together)).expect("progress").step, 10);
        let apart = apart(&single, &together, |name| !name.contains("running_"));
        println!("{ranks} ranks against accumulated batches after ten steps: {apart:.1e}");
        assert!(apart < 1e-5, "{apart}");
    }
}

#[test]
fn synchronised_ranks_step_as_one_process_on_the_whole_batch() {
    let folder = folder();
    for (config, ranks) in [(QUICK_BASE, 2), (QUICK_BASE, 3), (QUICK_DBB, 2), (QUICK_DBB, 3)] {
        let name = format!("{}{ranks}", config.len());
        let (together, single) =
            (folder.path().join(format!("r{name}")), folder.path().join(format!("s{name}")));
        let keys = [&TEN[..], &["data.limit_train=360", "train.batch_size=36"]].concat();
        let synchronised = [&keys[..], &["train.sync_batch_norm=true"]].concat();
        succeeds(&mut train(mpirun(ranks), config, &synchronised, &together));
        succeeds(&mut train(alone(), config, &keys, &single));
        let apart = apart(&single, &together, |_| true);
        println!("{ranks} synchronised ranks against one process after ten steps: {apart:.1e}");
        // One process has kernels for whole blocks, which round otherwise than Burn's operations.
        let plain = folder.path().join(format!("p{name}"));
        train_plain(config, &keys, &plain);
        let rounding = self::apart(&single, &plain, |_| true);
        println!("Burn's operations alone against the kernels: {rounding:.1e}");
        assert!(apart < rounding.max(1e-5), "{config}: {apart}, kernels {rounding}");
        assert!(rounding < 1e-4, "{config}: {rounding}");
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
    // The images of an epoch do not depend on the ranks.
    let (other, _) = run("other", 2);
    let images = |run: &Path| metrics(run).iter().map(|r| r["images"].clone()).collect::<Vec<_>>();
    assert_eq!(images(&first), images(&other));
    assert_eq!(images(&first), vec![serde_json::Value::from(147); 2]);
}

/// The processes of a rank, by the number that the launcher gave it.
fn rank_processes(launcher: &Child) -> BTreeMap<usize, u32> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let parent = String::from_utf8_lossy(&read("status"))
            .lines()
            .find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok());
        if parent != Some(launcher.id()) {
            continue;
        }
        let environment = String::from_utf8_lossy(&read("environ")).into_owned();
        let rank = environment
            .split('\0')
            .find_map(|entry| entry.strip_prefix("OMPI_COMM_WORLD_RANK=")?.parse().ok());
        found.extend(rank.map(|rank| (rank, id)));
    }
    found
}

fn signal(name: &str, process: u32) {
    let status = Command::new("kill").args([name, &process.to_string()]).status().expect("kill");
    assert!(status.success(), "{process} has ended before {name}");
}

fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("mpirun starts")
}

/// Waits for another checkpoint, then for a random time.
fn wait_for_progress(run: &Path, rng: &mut ChaCha8Rng) {
    let newest = || RunDir::new(run).checkpoint_ids().unwrap_or_default().last().copied();
    let (before, started) = (newest(), Instant::now());
    while newest() == before {
        assert!(started.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_micros(rng.random_range(0..100_000)));
}

/// Waits for the end of a job; its exit code, what it printed, and how long it took.
fn end(child: Child) -> (Option<i32>, String, Duration) {
    let started = Instant::now();
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text, started.elapsed())
}

/// A checkpoint after every step.
fn long() -> Vec<&'static str> {
    [&FULL[..], &["train.epochs=60", "train.checkpoint_steps=1", "train.keep_last=2"]].concat()
}

#[test]
fn a_rank_that_is_killed_ends_the_job_and_the_resumed_run_is_the_same() {
    let folder = folder();
    let (whole, run) = (folder.path().join("whole"), folder.path().join("killed"));
    succeeds(&mut train(mpirun(2), QUICK_DBB, &long(), &whole));
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut longest = Duration::ZERO;
    for kill in 0..10 {
        let child = match run.exists() {
            false => spawn(train(mpirun(2), QUICK_DBB, &long(), &run)),
            true => spawn(resume(mpirun(2), &run)),
        };
        wait_for_progress(&run, &mut rng);
        signal("-KILL", rank_processes(&child)[&(kill % 2)]);
        let (code, text, took) = end(child);
        longest = longest.max(took);
        assert_ne!(code, Some(0), "{text}");
        assert!(text.contains(&format!("rank {}", kill % 2)), "{text}");
        read_progress(&newest(&run)).expect("the newest checkpoint is whole");
    }
    println!("ten kills; the job ended within {longest:.1?} of each");
    assert!(longest < Duration::from_secs(15), "{longest:?}");
    succeeds(&mut resume(mpirun(2), &run));
    assert!(state(&run) == state(&whole), "the resumed run differs");
    assert!(weights(&run) == weights(&whole));
}

#[test]
fn a_signal_to_a_rank_or_the_launcher_stops_all_after_the_same_step() {
    let folder = folder();
    let (whole, run) = (folder.path().join("whole"), folder.path().join("stopped"));
    let keys = [&FULL[..], &["train.epochs=250"]].concat();
    succeeds(&mut train(mpirun(2), QUICK_DBB, &keys, &whole));
    for target in [Some(0), Some(1), None] {
        let mut command = match run.exists() {
            false => train(mpirun(2), QUICK_DBB, &keys, &run),
            true => resume(mpirun(2), &run),
        };
        // Open MPI's mpirun passes the signal on after so many seconds, and waits as long again.
        command.env("OMPI_MCA_odls_base_sigkill_timeout", "2");
        let child = spawn(command);
        wait_for_progress(&run, &mut ChaCha8Rng::seed_from_u64(4));
        let before = read_progress(&newest(&run)).expect("progress").step;
        signal("-TERM", target.map_or(child.id(), |rank| rank_processes(&child)[&rank]));
        let (code, text, _) = end(child);
        match target {
            Some(_) => {
                assert_eq!(code, Some(143), "{target:?}: {text}");
                let said = "error: stopped by signal 15; the run is saved";
                assert_eq!(text.matches(said).count(), 1, "{target:?}: {text}");
            }
            // It has a code of its own for being told to end, and no ear for its ranks any more.
            None => assert_ne!(code, Some(0), "{text}"),
        }
        let progress = read_progress(&newest(&run)).expect("the newest checkpoint is whole");
        assert!(before <= progress.step, "{} after {before}", progress.step);
        assert!(!RunDir::new(&run).deploy_weights().exists(), "{target:?}: the run has ended");
    }
    succeeds(&mut resume(mpirun(2), &run));
    assert!(state(&run) == state(&whole), "the resumed run differs");
}

#[test]
fn a_rank_that_hangs_ends_the_job_and_is_named() {
    let folder = folder();
    let run = folder.path().join("run");
    let mut command = train(mpirun(2), QUICK_DBB, &long(), &run);
    command.env("DBB_MPI_TIMEOUT", "2");
    let child = spawn(command);
    wait_for_progress(&run, &mut ChaCha8Rng::seed_from_u64(5));
    let hung = rank_processes(&child)[&1];
    signal("-STOP", hung);
    let (code, text, took) = end(child);
    // mpirun cannot end a stopped process gently.
    Command::new("kill").args(["-KILL", &hung.to_string()]).output().expect("kill");
    assert_ne!(code, Some(0), "{text}");
    assert!(
        text.contains("rank 1 on ") && text.contains("has not answered for 2 seconds"),
        "{text}"
    );
    assert!(took < Duration::from_secs(45), "{took:?}");
    read_progress(&newest(&run)).expect("the newest checkpoint is whole");
}

#[test]
fn another_number_of_ranks_resumes_and_is_announced() {
    let folder = folder();
    let run = folder.path().join("run");
    succeeds(&mut train(mpirun(2), QUICK_DBB, &["train.epochs=1"], &run));
    let mut more = resume(mpirun(3), &run);
    let call = call(more.args(["--force", "--set", "train.epochs=2"])).succeeds();
    call.says(&["the number of ranks was 2, is 3"]);
    assert_eq!(call.stderr.matches("resuming after epoch 1 of 2").count(), 1, "{}", call.all());
}

/// A folder of two classes.
fn class_folder(folder: &Path, shade: u8) {
    for (split, class) in [("train", "ant"), ("train", "bee"), ("val", "ant"), ("val", "bee")] {
        let folder = folder.join("data").join(split).join(class);
        fs::create_dir_all(&folder).expect("a folder");
        for index in 0..8 {
            let value = |x: u32| image::Rgb([shade + 9 * index + x as u8; 3]);
            let picture = image::RgbImage::from_fn(12, 10, |x, _| value(x));
            picture.save(folder.join(format!("{index}.png"))).expect("an image");
        }
    }
}

/// Two ranks, each with its own working directory or keys.
fn unlike(folder: &Path, keys: [&[&str]; 2]) -> Call {
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe"]);
    for (index, keys) in keys.iter().enumerate() {
        let place = folder.join(index.to_string());
        command.args(if index > 0 { &[":"][..] } else { &[] });
        command.args(["-n", "1", "-wdir"]).arg(place).arg(DBB);
        command
            .args(["train", QUICK_DBB, "--json", "--threads", "1", "--out"])
            .arg(folder.join("run"));
        let own = ["data.source=data", "data.size=8", "model.width=0.25", "train.epochs=1"];
        let own = own.iter().chain(&["train.batch_size=4"]).chain(*keys);
        command.args(own.flat_map(|key| ["--set", key]));
    }
    call(&mut command)
}

#[test]
fn ranks_that_disagree_are_refused_and_bad_images_follow_the_policy_on_all() {
    let folder = folder();
    let place = |index: usize| folder.path().join(index.to_string());
    let run = folder.path().join("run");
    (0..2).for_each(|index| class_folder(&place(index), 30));
    let refused = |call: Call, parts: &[&str]| {
        assert_eq!(call.code, Some(1), "{}", call.all());
        call.says(parts);
        assert_eq!(call.stderr.matches("error: ").count(), 1, "{}", call.all());
        fs::remove_dir_all(&run).ok();
    };
    unlike(folder.path(), [&[], &[]]).succeeds();
    fs::remove_dir_all(&run).expect("the run");

    refused(unlike(folder.path(), [&[], &["optim.lr=0.5"]]), &["rank 1 on ", "lr = 0.5"]);
    class_folder(&place(1), 60);
    let parts = ["rank 1 on ", "would train another run than rank 0", "images' fingerprint"];
    refused(unlike(folder.path(), [&[], &[]]), &parts);
    class_folder(&place(1), 30);

    // The same broken file for all; only the rank that reads it finds out.
    for index in 0..2 {
        fs::write(place(index).join("data/train/bee/3.png"), b"broken").expect("a file");
    }
    refused(unlike(folder.path(), [&[], &[]]), &["train/bee/3.png"]);
    let skip: &[&str] = &["data.on_bad_sample=skip"];
    let call = unlike(folder.path(), [skip, skip]).succeeds();
    assert_eq!(call.stderr.matches("skipped: ").count(), 1, "{}", call.all());
    fs::remove_dir_all(&run).expect("the run");
    let none: &[&str] = &["data.on_bad_sample=skip", "data.max_bad_samples=0"];
    refused(unlike(folder.path(), [none, none]), &["max_bad_samples = 0"]);

    fs::remove_dir_all(place(1).join("data")).expect("the data");
    refused(unlike(folder.path(), [&[], &[]]), &["rank 1 on "]);
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
    let keys = ["train.epochs=50", "train.patience=2", "train.min_delta=100"];
    let result = succeeds(&mut train(mpirun(3), QUICK_BASE, &keys, &patience));
    assert_eq!(result["ended_by"], "patience", "{result}");
    // The first epoch counts as a rise.
    assert_eq!(result["epochs"], 3, "{result}");
}

/// On a tmpfs, which needs root.
#[test]
#[ignore = "needs root for a tmpfs"]
fn a_full_disk_at_the_first_rank_ends_all() {
    let folder = folder();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).expect("a folder");
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&disk);
    assert!(mount.status().expect("mount").success(), "mounting needs root");
    let keys = [&long()[..], &["train.keep_last=40"]].concat();
    let call = call(&mut train(mpirun(2), QUICK_DBB, &keys, &disk.join("run")));
    let kept = read_progress(&newest(&disk.join("run"))).map(|progress| progress.step);
    Command::new("umount").arg(&disk).status().expect("umount");
    assert_eq!(call.code, Some(1), "{}", call.all());
    call.says(&["cannot write", "No space left"]);
    assert!(kept.expect("the newest checkpoint is whole") > 0);
}
