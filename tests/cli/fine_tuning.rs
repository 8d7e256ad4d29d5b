//! Runs that start from the weights of a file and leave layers as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use dbb_models::weights::{Dialect, KeyMap, Metadata, StateDict, WeightsFile, write_safetensors};
use dbb_models::{Arch, BlockKind, Form, ModelConfig};
use dbb_training::run::directory::{CheckpointId, RunDir};
use dbb_training::train::Trainer;

use crate::runs::*;
use crate::stored::*;

const TRAIN: [&str; 2] = ["train", QUICK_BASE];

/// One epoch of the tiny recipe.
fn tiny(command: &[&str], out: &Path, keys: &[&str]) -> Call {
    let mut program = Command::new(DBB);
    program.args(command).arg("--out").arg(out);
    program.args(TINY.iter().chain(&["train.epochs=1"]).chain(keys).flat_map(|key| ["--set", key]));
    call(&mut program)
}

fn init_from(file: &Path) -> String {
    format!("model.init_from={}", file.display())
}

/// The network and the tensors of a narrow ResNet-20 as in [`TINY`].
fn resnet20(num_classes: usize) -> (ModelConfig, StateDict) {
    let plain = ModelConfig::new(Arch::ResNet20, BlockKind::Base, num_classes);
    let model = ModelConfig { width: 0.25, in_channels: 1, ..plain };
    let network = model.init(Form::Train, &Device::default()).expect("a network");
    let keys = KeyMap::new(Dialect::Native, &model, &network).expect("native names");
    (model, keys.save(&network))
}

/// Writes a weights file that says what it holds.
fn describing(path: &Path, model: ModelConfig, tensors: &StateDict, classes: &[&str]) {
    let metadata = Metadata {
        model,
        form: Form::Train,
        keys: Dialect::Native,
        preprocess: serde_json::Value::Null,
        classes: classes.iter().map(|name| name.to_string()).collect(),
    };
    write_safetensors(path, tensors, &metadata).expect("a weights file");
}

/// The line of standard error that begins so.
#[track_caller]
fn lines<'a>(stderr: &'a str, start: &str) -> Vec<&'a str> {
    let found: Vec<_> = stderr.lines().filter(|line| line.starts_with(start)).collect();
    assert!(!found.is_empty(), "no line {start:?} in {stderr}");
    found
}

/// A file of other classes that does not describe itself: networks of every block begin with the
/// same new head, and as the same function.
#[test]
fn every_block_starts_from_the_same_function() {
    let folder = folder();
    let (_, tensors) = resnet20(1000);
    let file = folder.path().join("foreign.safetensors");
    write_tensors(&file, &stored(&tensors), None);

    let out = folder.path().join("runs");
    let blocks = ["compare", QUICK_BASE, "--blocks", "base,dbb,acb"];
    let stderr = tiny(&blocks, &out, &[&init_from(&file)]).succeeds().stderr;
    assert_eq!(lines(&stderr, "head replaced: 1000 -> 10 classes").len(), 3, "{stderr}");
    assert_eq!(lines(&stderr, "same function as the file's").len(), 3, "{stderr}");
    let before = lines(&stderr, "before training: top-1");
    assert_eq!(before.len(), 3);
    assert!(before.iter().all(|line| *line == before[0]), "{before:?}");
}

/// Frozen layers keep the bits of the file through training, others do not, and a resumed run
/// freezes them again without the file.
#[test]
fn frozen_layers_keep_the_weights_of_the_file() {
    let folder = folder();
    let (model, tensors) = resnet20(10);
    let file = folder.path().join("plain.safetensors");
    describing(&file, model, &tensors, &[]);
    let out = folder.path().join("run");
    let freeze = "train.freeze=[\"stem\", \"stage1.*\"]";
    let block = ["model.block=dbb", "optim.decay=all"];
    let keys = [&init_from(&file), freeze, block[0], block[1]];
    let stderr = tiny(&TRAIN, &out, &keys).succeeds().stderr;
    assert!(!stderr.contains("head replaced"), "{stderr}");

    let run = RunDir::new(&out);
    let trained =
        WeightsFile::read(&RunDir::network(&run.checkpoint(CheckpointId { epoch: 1, batch: 0 })))
            .expect("a checkpoint");
    let is_frozen = |key: &str| key.starts_with("stem.") || key.starts_with("stage1.");
    for (key, data) in &tensors {
        let key_of_block = match key.rsplit_once(".conv.").or_else(|| key.rsplit_once(".bn.")) {
            Some((layer, _)) => key.replace(layer, &format!("{layer}.origin")),
            None => key.clone(),
        };
        let found = &trained.tensors[&key_of_block];
        assert_eq!(is_frozen(key), found == data, "{key}");
    }

    fs::remove_file(&file).expect("the file is there");
    let device = Device::default();
    let resumed = Trainer::resume(run, &device, false, &[]).expect("the run can be resumed");
    struct Frozen(Vec<String>, Vec<String>);
    impl ModuleVisitor for Frozen {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.to_string());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if !param.val().is_require_grad() {
                self.1.push(self.0.join("."));
            }
        }
    }
    let mut frozen = Frozen(Vec::new(), Vec::new());
    resumed.network().train().visit(&mut frozen);
    let names = |key: &&String| key.contains(".stem.") || key.contains(".stage1.");
    let is_statistic = |key: &&String| key.contains("running_");
    let learnable = frozen.1.iter().filter(|key| !is_statistic(key)).collect::<Vec<_>>();
    assert!(learnable.len() > 20 && learnable.iter().all(names), "{learnable:?}");
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let train = |file: &PathBuf, key: &str| tiny(&TRAIN, &path("run"), &[&init_from(file), key]);

    train(&path("absent.pth"), "seed=0").fails(1, &["absent.pth", "No such file"]);
    let no_file = ["model.init_from", "folder", "weights file"];
    train(&folder.path().into(), "seed=0").fails(1, &no_file);

    let (model, tensors) = resnet20(10);
    let file = path("plain.safetensors");
    describing(&file, model.clone(), &tensors, &[]);
    train(&file, "model.arch=resnet32").fails(1, &["resnet20", "resnet32", "model.init_from"]);
    train(&file, "model.width=0.5").fails(1, &["width 0.25", "width 0.5"]);
    train(&file, "train.freeze=[\"stage7.*\"]").fails(1, &["stage7.*", "stem"]);

    let with_value = |key: &str, value: f32| {
        let mut tensors = tensors.clone();
        let tensor = tensors.get_mut(key).expect("a tensor");
        tensor.as_mut_slice::<f32>().expect("floats")[0] = value;
        let file = path("changed.safetensors");
        describing(&file, model.clone(), &tensors, &[]);
        file
    };
    let file = with_value("stage2.0.conv1.conv.weight", f32::NAN);
    train(&file, "seed=0").fails(3, &["changed.safetensors", "stage2.0.conv1.conv.weight", "NaN"]);
    // Finite, but no variance: logits of NaN are equal to none.
    let file = with_value("stage2.0.conv1.bn.running_var", -1.0);
    train(&file, "seed=0").fails(3, &["model.init_from", "nothing was trained"]);
    assert!(!path("run").join("config.toml").exists(), "a refused start leaves no run");
}
