//! Weights as safetensors, burnpack and PyTorch checkpoints, zip and legacy. The network is
//! rebuilt and blocks are folded, as the commands do.
#![no_main]

use dbb_models::weights::{BlockFold, LoadOptions, WeightsFile, adopt, rebuild, write_foreign};
use dbb_models::{Arch, BlockKind, ModelConfig};
use dbb_training::device;
use dbb_training::deploy::fold::fold_blocks;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = dbb_fuzz::folder([("weights", bytes)]);
    let Ok(file) = WeightsFile::read(&folder.path().join("weights")) else { return };
    let device = device::open("flex").expect("the CPU");
    match &file.metadata {
        Some(metadata) => drop(rebuild(&file, metadata, LoadOptions { allow_nonfinite: true }, &device)),
        None => {
            let model = ModelConfig::new(Arch::ResNet20, BlockKind::Dbb, 10);
            drop(adopt(&file, &model, LoadOptions { allow_nonfinite: true }, &device));
        }
    }
    if let Ok((tensors, _)) = fold_blocks(file, &BlockFold::default(), LoadOptions::default()) {
        write_foreign(&folder.path().join("folded"), &tensors).expect("a file");
    }
});
