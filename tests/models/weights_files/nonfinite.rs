//! A network takes no weight that is NaN or infinite, whatever the file, unless it is told to.

use std::fs;

use burn::tensor::DType;

use super::*;
use crate::support::fixture::{self, Fixture, NetworkConfig};

/// The state dict with another value at one place.
fn with_value(mut state: StateDict, key: &str, value: f32) -> StateDict {
    let mut values: Vec<f32> = state[key].iter().collect();
    values[1] = value;
    let shape = state[key].shape().to_vec();
    state.insert(key.into(), TensorData::new(values, shape));
    state
}

/// That an error names one value of one tensor of a file.
#[track_caller]
fn assert_names(error: WeightsError, file: &Path, key: &str, expected: f32) {
    let message = error.to_string();
    let WeightsError::NonFinite { path, tensor, value, count, values, other_tensors } = error
    else {
        panic!("{message}");
    };
    assert_eq!((path.as_deref(), tensor.as_str()), (Some(file), key));
    assert_eq!((count, other_tensors), (1, 0));
    assert!(values > 1 && value.to_string() == expected.to_string(), "{message}");
    assert!(message.contains(key) && message.contains(file.to_str().unwrap()), "{message}");
}

#[test]
fn a_network_of_finite_values_only() {
    let folder = TempDir::new().expect("a folder");
    let model = config(Arch::ResNet18Cifar, BlockKind::Dbb);
    let good = network(&model, Form::Train);
    let native = KeyMap::new(Dialect::Native, &model, &good).expect("native names");
    for (key, value) in [
        ("stage1.0.conv1.origin.conv.weight", f32::NAN),
        ("stage2.0.shortcut.bn.running_var", f32::INFINITY),
        ("linear.bias", f32::NEG_INFINITY),
    ] {
        let state = with_value(native.save(&good), key, value);
        let bad = native.load(good.clone(), &state).expect("the keys are the network's own");
        for way in WAYS {
            let path = folder.path().join("weights");
            let metadata = way.write(&path, &model, Form::Train, &bad);
            let file = WeightsFile::read(&path).expect("a file");
            let foreign = KeyMap::new(way.dialect(), &model, &good).expect("names");
            // The one tensor that differs between the good and the bad network.
            let names = foreign.save(&good);
            let name = names.iter().find(|(name, data)| file.tensors[*name] != **data);
            let (name, _) = name.expect("a tensor that differs");

            let options = LoadOptions::default();
            let error = rebuild(&file, &metadata, options, &device()).expect_err(key);
            assert_names(error, &path, name, value);
            let error = adopt(&file, &model, options, &device()).expect_err(key);
            assert_names(error, &path, name, value);

            let options = LoadOptions { allow_nonfinite: true };
            let read = rebuild(&file, &metadata, options, &device()).expect("told to");
            let values: Vec<f32> = native.save(&read)[key].iter().collect();
            assert_eq!(values[1].to_string(), value.to_string(), "{way:?} {key}");
            adopt(&file, &model, options, &device()).expect("told to");
        }
    }
}

/// A value that only `f64` can hold becomes infinite in a network.
#[test]
fn a_value_beyond_f32() {
    let folder = TempDir::new().expect("a folder");
    let model = config(Arch::ResNet18Cifar, BlockKind::Base);
    let mut state = native_state(&model, &network(&model, Form::Deploy));
    let wide = state["linear.bias"].clone().convert_dtype(DType::F64);
    state.insert("linear.bias".into(), wide);
    let path = folder.path().join("wide.safetensors");
    let adopt = |state: &StateDict| {
        write_foreign(&path, state).expect("written");
        let file = WeightsFile::read(&path).expect("read");
        adopt(&file, &model, LoadOptions::default(), &device())
    };
    adopt(&state).expect("f64 within the range of f32");
    let mut values = vec![0.0; 10];
    values[3] = 1e300;
    state.insert("linear.bias".into(), TensorData::new(values, [10]));
    let error = adopt(&state).expect_err("1e300").to_string();
    assert!(error.contains("linear.bias: 1 of 10 values"), "{error}");
}

/// The bytes of a tensor in a checkpoint of PyTorch, changed in place. (The zip archives of newer
/// versions have checksums over them.)
#[test]
fn a_pytorch_checkpoint_of_finite_values_only() {
    let checkpoint = fs::read(fixture::folder().join("mobilenet_dbb_w0125_legacy.pth"));
    let checkpoint = checkpoint.expect("the checkpoint");
    let twin = Fixture::read(&fixture::folder().join("mobilenet_dbb_w0125.safetensors"));
    let model = twin.config::<NetworkConfig>().model(&twin);
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("nan.pth");
    for (key, value) in [
        ("stem.0.depthwise.dbb_origin.conv.weight", f32::NAN),
        ("stem.0.pointwise.bn.running_var", f32::INFINITY),
    ] {
        let own = twin.get(key).as_bytes();
        let mut bytes = checkpoint.clone();
        let at = bytes.windows(own.len()).position(|part| part == own).expect("the tensor");
        bytes[at + 4..at + 8].copy_from_slice(&value.to_le_bytes());
        fs::write(&path, bytes).expect("written");
        let file = WeightsFile::read(&path).expect("read");
        let error = adopt(&file, &model, LoadOptions::default(), &device()).expect_err(key);
        assert_names(error, &path, key, value);
    }
}
