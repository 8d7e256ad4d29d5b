//! What ranks must agree on.

use std::fs;

use super::*;

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
    };
    let refused_at_the_start = |call: Call, parts: &[&str]| {
        refused(call, parts);
        assert!(!run.exists(), "nothing is left behind");
    };
    unlike(folder.path(), [&[], &[]]).succeeds();
    fs::remove_dir_all(&run).expect("the run");

    refused_at_the_start(
        unlike(folder.path(), [&[], &["optim.lr=0.5"]]),
        &["rank 1 on ", "optim.lr is 0.5"],
    );
    class_folder(&place(1), 60);
    let parts = ["rank 1 on ", "would not train the same run as rank 0", "images' fingerprint"];
    refused_at_the_start(unlike(folder.path(), [&[], &[]]), &parts);
    class_folder(&place(1), 30);

    // The same broken file for all; only the rank that reads it finds out.
    for index in 0..2 {
        fs::write(place(index).join("data/train/bee/3.png"), b"broken").expect("a file");
    }
    refused(unlike(folder.path(), [&[], &[]]), &["train/bee/3.png"]);
    fs::remove_dir_all(&run).expect("the run");
    let skip: &[&str] = &["data.on_bad_sample=skip"];
    let call = unlike(folder.path(), [skip, skip]).succeeds();
    assert_eq!(call.stderr.matches("skipped: ").count(), 1, "{}", call.all());
    fs::remove_dir_all(&run).expect("the run");
    let none: &[&str] = &["data.on_bad_sample=skip", "data.max_bad_samples=0"];
    refused(unlike(folder.path(), [none, none]), &["max_bad_samples = 0"]);
    fs::remove_dir_all(&run).expect("the run");

    fs::remove_dir_all(place(1).join("data")).expect("the data");
    refused_at_the_start(unlike(folder.path(), [&[], &[]]), &["rank 1 on "]);
}

/// Memory is that of a rank, which has a part of every batch; the first rank alone tells of it.
#[test]
fn the_batch_that_is_found_is_that_of_all_ranks_and_a_plan_is_for_one_process() {
    let folder = folder();
    let memory = ["train.batch_size=auto", "train.memory_mb=42"];
    let keys = [&memory[..], &["train.epochs=1", "data.limit_train=640"]].concat();
    let found = |command: Command, name: &str| {
        let out = folder.path().join(name);
        let call = call(&mut train(command, QUICK_DBB, &keys, &out)).succeeds();
        for said in ["is the largest estimated to fit", "MiB of memory in training"] {
            assert_eq!(call.stderr.matches(said).count(), 1, "{}", call.all());
        }
        let progress = read_progress(&newest(&out)).expect("progress");
        progress.identity.config.train.batch_size.images().expect("a number")
    };
    let (one, two) = (found(alone(), "one"), found(mpirun(2), "two"));
    assert!(2 * one <= two && two <= 2 * one + 16, "{one} for one rank, {two} for two");

    let call = call(mpirun(2).args(["train", QUICK_DBB, "--plan"]));
    assert_eq!(call.code, Some(1), "{}", call.all());
    call.says(&["--plan measures one process", "without the launcher"]);
    assert_eq!(call.stderr.matches("error: ").count(), 1, "{}", call.all());
}
