//! No way to end but together, and saved.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

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
    let keys = [&FULL[..], &["train.epochs=120"]].concat();
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
