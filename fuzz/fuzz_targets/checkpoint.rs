//! A file of a checkpoint whose manifest says that all is well: the progress, or network, average
//! and optimizer in turn.
#![no_main]

use std::collections::BTreeMap;
use std::fs;
use std::io::Error;
use std::path::Path;
use std::sync::LazyLock;

use dbb_models::{Classifier, Form, ModelConfig};
use dbb_training::run::progress::Progress;
use dbb_training::train::checkpoint::{RunState, restore};
use dbb_training::config::Config;
use dbb_training::train::average::Ema;
use dbb_training::train::optimizer::Optimizer;
use dbb_training::run::directory::RunDir;
use libfuzzer_sys::fuzz_target;

/// The run that `seeds.sh` trains, before its beginning and at its end.
struct Seed {
    config: Config,
    model: ModelConfig,
    network: Classifier,
    progress: Progress,
    files: BTreeMap<String, Vec<u8>>,
}

static SEED: LazyLock<Seed> = LazyLock::new(|| {
    let config = Config::load(&dbb_fuzz::run().config(), &[]).expect("its configuration");
    let model = config.model.resolve(10, 1);
    let device = dbb_training::device::open("flex").expect("the CPU").autodiff();
    let network = model.init(Form::Train, &device).expect("its network");
    let files = dbb_fuzz::checkpoint();
    let progress = serde_json::from_slice(&files["state.json"]).expect("its progress");
    Seed { config, model, network, progress, files }
});

fuzz_target!(|bytes: &[u8]| {
    let names: &[&str] = match bytes.first() {
        Some(b'{') => &["state.json"],
        _ => &["network.bpk", "ema.bpk", "optimizer.bpk"],
    };
    names.iter().for_each(|name| restore_with(name, bytes));
});

fn restore_with(name: &str, bytes: &[u8]) {
    let Seed { config, model, network, progress, files } = &*SEED;
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("checkpoints")).expect("a folder");
    let run = RunDir::new(folder.path());
    let write = |checkpoint: &Path| {
        files.iter().try_for_each(|(name, bytes)| fs::write(checkpoint.join(name), bytes))?;
        fs::write(checkpoint.join(name), bytes)
    };
    run.save_checkpoint::<Error>(progress.mark, &[], write).expect("a checkpoint");

    let optimizer = |network: &Classifier| Optimizer::new(&config.optim, network);
    let fresh = RunState {
        network: network.clone(),
        ema: Some(Ema::new(network, 0.9)),
        optimizer: optimizer(network),
        progress: progress.clone(),
    };
    drop(restore(&run.checkpoint(progress.mark), fresh, optimizer));
}
