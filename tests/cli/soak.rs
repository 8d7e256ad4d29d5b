//! Faults at random moments, for minutes: not part of the suite.
//!
//! ```text
//! cargo test --release --workspace --test cli soak -- --ignored --nocapture --test-threads 1
//! ```
//!
//! `DBB_SOAK_KILLS` sets the number of kills (50); the disk that fills up needs root, for a
//! small tmpfs.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dbb_training::run::directory::RunDir;
use dbb_training::run::progress::read_progress;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::runs::*;

/// A checkpoint after every step, of a run that remembers all that a run can.
fn keys() -> Vec<&'static str> {
    let saving = ["train.epochs=150", "train.checkpoint_steps=1", "train.keep_last=2"];
    [&saving[..], &FULL].concat()
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
}

fn kills() -> usize {
    std::env::var("DBB_SOAK_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(50)
}

/// Waits until a run has saved something, then for a random time, most of which it spends saving.
fn wait(run: &Path, rng: &mut ChaCha8Rng) {
    let before = RunDir::new(run).checkpoint_ids().unwrap_or_default().last().copied();
    let started = Instant::now();
    while RunDir::new(run).checkpoint_ids().unwrap_or_default().last().copied() == before {
        assert!(started.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_micros(rng.random_range(0..150_000)));
}

#[test]
#[ignore = "minutes"]
fn a_run_killed_at_random_moments_ends_as_the_one_that_was_not() {
    let folder = folder();
    let (whole, run) = (folder.path().join("whole"), folder.path().join("killed"));
    succeeds(&mut training(&keys(), &whole));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let (mut killed, mut saving) = (0, 0);
    while killed < kills() {
        let mut child = match run.exists() {
            false => spawn(&mut training(&keys(), &run)),
            true => spawn(&mut resuming(&run)),
        };
        wait(&run, &mut rng);
        child.kill().expect("the process can be killed");
        child.wait().expect("it ends");
        killed += 1;
        let partial = fs::read_dir(run.join("checkpoints"))
            .expect("checkpoints")
            .any(|entry| entry.expect("an entry").file_name().to_string_lossy().starts_with('.'));
        saving += usize::from(partial);
        let progress = read_progress(&newest(&run)).expect("the newest checkpoint is whole");
        assert!(progress.mark.epoch < 150, "the run ended after {killed} kills: make it longer");
    }
    succeeds(&mut resuming(&run));
    let (found, expected) = (state(&run), state(&whole));
    for (name, bytes) in &expected {
        assert!(found[name] == *bytes, "{name} differs");
    }
    assert_eq!(metrics(&run), metrics(&whole));
    println!("{killed} kills, {saving} of them during a save: bit-equal");
}

#[cfg(unix)]
#[test]
#[ignore = "minutes"]
fn a_signal_at_random_moments_saves_and_ends_within_a_second() {
    let folder = folder();
    let run = folder.path().join("run");
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut longest = Duration::ZERO;
    for round in 0..20 {
        let mut child = match run.exists() {
            false => spawn(&mut training(&keys(), &run)),
            true => spawn(&mut resuming(&run)),
        };
        wait(&run, &mut rng);
        let (signal, code) = if round % 2 == 0 { ("-TERM", 143) } else { ("-INT", 130) };
        let started = Instant::now();
        let kill = Command::new("kill").arg(signal).arg(child.id().to_string()).status();
        assert!(kill.expect("kill").success());
        let status = child.wait().expect("it ends");
        longest = longest.max(started.elapsed());
        assert_eq!(status.code(), Some(code));
        read_progress(&newest(&run)).expect("whole");
    }
    println!("20 signals, each saved; the longest took {longest:.0?}");
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs root for a tmpfs"]
fn a_disk_that_fills_up_leaves_the_earlier_checkpoints() {
    let folder = folder();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).expect("a folder");
    let mount = |options: &str| {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&disk);
        assert!(command.status().expect("mount").success(), "mounting needs root");
    };
    mount("size=64m");
    let run = disk.join("run");
    let outcome = std::panic::catch_unwind(|| {
        succeeds(&mut training(&["train.epochs=1"], &run));
        let good = snapshot(newest(&run));
        let force = ["--force", "--set", "train.epochs=50"];
        let used = good.values().map(Vec::len).sum::<usize>();
        // All room but for half a checkpoint.
        let filler = disk.join("filler");
        let rest = (64 << 20) - used * 2;
        fs::write(&filler, vec![1; rest]).expect("the filler");
        let mut more = fs::File::options().append(true).open(&filler).expect("the filler");
        while std::io::Write::write_all(&mut more, &[1; 4096]).is_ok() {}
        more.set_len(more.metadata().expect("its size").len() - used as u64 / 2).expect("room");
        fails(resuming(&run).args(force), 1, &["cannot write", "No space left"]);
        assert!(snapshot(newest(&run)) == good, "the earlier checkpoint has changed");
        // An open file keeps its room.
        drop(more);
        fs::remove_file(filler).expect("room again");
        succeeds(resuming(&run).args(["--force", "--set", "train.epochs=2"]));
        println!("a full disk: the earlier checkpoint is whole, and the run resumes");
    });
    Command::new("umount").arg(&disk).status().expect("umount");
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}
