//! ONNX files in another runtime, rten: it accepts them and computes what our networks compute.

#[allow(dead_code)] // its program
#[path = "../../models/examples/your_own_model.rs"]
mod your_own_model;

use std::fs;

use crate::support::{Array, assert_close, randomise};
use burn::tensor::Device;
use dbb_models::blocks::{Activation, BlockKind};
use dbb_models::onnx::{
    Description, Input, Normalization, write_onnx, write_onnx_int8, write_onnx_of,
};
use dbb_models::quantize::{Calibration, Int8Network, RangeMethod, WeightRange};
use dbb_models::summary::{self, macs};
use dbb_models::weights::{Dialect, KeyMap, Metadata};
use dbb_models::{Arch, Classifier, Form, ModelConfig, Reparameterize, Walk};
use rten::{Dimension, Model, Value};

const SIZE: [usize; 2] = [32, 40];

/// A network in training form with random weights and statistics.
fn network(model: &ModelConfig) -> Classifier {
    let network = model.init(Form::Train, &Device::default()).expect("a network");
    let keys = KeyMap::new(Dialect::Native, model, &network).expect("native names");
    randomise(network, &keys, 1)
}

fn metadata(model: &ModelConfig) -> Metadata {
    Metadata {
        model: model.clone(),
        form: Form::Train,
        keys: Dialect::Native,
        preprocess: serde_json::json!({"mean": [0.5]}),
        classes: vec!["cat".into(), "dog".into()],
    }
}

/// Height and width of the images, larger for a network that takes none of [`SIZE`].
fn size_of(network: &Classifier) -> [usize; 2] {
    if network.layers(SIZE).is_ok() { SIZE } else { [64, 72] }
}

fn written(
    model: &ModelConfig,
    network: &Classifier,
    normalization: Option<Normalization>,
) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("network.onnx");
    let input = Input { size: size_of(network), normalization };
    write_onnx(&path, network, &metadata(model), &input).expect("an ONNX file");
    fs::read(path).expect("the file just written")
}

fn run(file: &Model, images: Value) -> Array {
    let logits = file.run_one(images.into(), None).expect("a run");
    let (shape, logits) = logits.into_shape_vec::<f32, 2>().expect("floats");
    Array::new(&shape, logits.into_iter().map(f64::from).collect())
}

fn config(arch: Arch, block: BlockKind) -> ModelConfig {
    ModelConfig { width: 0.125, ..ModelConfig::new(arch, block, 10) }
}

/// Every kind of stem, block, shortcut and nonlinearity.
fn networks() -> Vec<(ModelConfig, Classifier)> {
    let relu6 = ModelConfig {
        activation: Some(Activation::Relu6),
        ..config(Arch::MobileNetV1, BlockKind::Dbb)
    };
    let models = [
        config(Arch::ResNet18, BlockKind::Dbb),
        config(Arch::ResNet50, BlockKind::Base),
        config(Arch::ResNet18Cifar, BlockKind::Acb),
        config(Arch::ResNet20, BlockKind::Dbb),
        config(Arch::MobileNetV1, BlockKind::Base),
        relu6,
        config(Arch::MobileNetV2, BlockKind::Dbb),
        config(Arch::MobileNetV3Large, BlockKind::Base),
        config(Arch::MobileNetV3Small, BlockKind::Dbb),
        config(Arch::RepVggA0, BlockKind::Acb),
        config(Arch::MobileOneS4, BlockKind::MobileOne),
        config(Arch::Vgg16, BlockKind::Dbb),
        config(Arch::Vgg16Cifar, BlockKind::Base),
        config(Arch::AlexNet, BlockKind::Dbb),
    ];
    models.into_iter().map(|model| (model.clone(), network(&model))).collect()
}

/// Random images, and what a network in training form makes of them in inference.
fn images_and_logits(network: &Classifier, batch: usize) -> (Array, Array) {
    let [height, width] = size_of(network);
    let images = Array::random(&[batch, 3, height, width], [-2.0, 2.0], 2).rounded();
    let logits = network.forward(images.tensor(&Device::default())).into();
    (images, logits)
}

#[test]
fn another_runtime_computes_the_same_logits() {
    for (model, network) in networks() {
        let file = Model::load(written(&model, &network, None)).expect("rten reads the file");
        for batch in [1, 3] {
            let (images, expected) = images_and_logits(&network, batch);
            let values: Vec<_> = images.data.iter().map(|&value| value as f32).collect();
            let images = Value::from_shape(&images.shape[..], values).expect("images");
            let what = format!("{} {}, batch {batch}", model.arch, model.block);
            assert_close(&what, &run(&file, images), &expected, 1e-4, 0.0);
        }
    }
}

/// The runtime computes a graph in 8 bits by its definition, in `f32`; the simulation with integers.
#[test]
fn another_runtime_rounds_to_the_same_integers() {
    for (model, network) in networks() {
        let network = network.reparameterize();
        let (images, _) = images_and_logits(&network, 3);
        let mut calibration = Calibration::new(RangeMethod::MinMax);
        calibration.observe(&network, images.tensor(&Device::default()));
        let ranges = calibration.ranges().expect("finite values");
        let int8 = Int8Network::new(&network, ranges, WeightRange::Full).expect("short sums");
        let first = network.layer_names()[1].clone();
        for int8 in [int8.with_float_layers(&[]), int8.with_float_layers(&[first])] {
            let int8 = int8.expect("a layer");
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("int8.onnx");
            let input = Input { size: size_of(&network), normalization: None };
            let description = Description::of(&metadata(&model));
            write_onnx_int8(&path, &int8, &description, &input).expect("an ONNX file");
            let file = Model::load_file(&path).expect("rten reads the file");
            let values: Vec<_> = images.data.iter().map(|&value| value as f32).collect();
            let values = Value::from_shape(&images.shape[..], values).expect("images");
            let expected = int8.forward(images.tensor(&Device::default())).into();
            let what = format!("{} {}", model.arch, model.block);
            assert_close(&what, &run(&file, values), &expected, 0.05, 0.0);
        }
    }
}

/// A network outside the crate has what its walk gives: the example's, with the weights of a fresh
/// network.
#[test]
fn a_network_of_ones_own() {
    let device = Device::default();
    let network = your_own_model::after::Net::new(&device).expect("a network");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("own.onnx");
    let description = Description {
        name: "own".into(),
        channels: 3,
        metadata: vec![("answer".into(), "42".into())],
    };
    let input = Input { size: SIZE, normalization: None };
    write_onnx_of(&path, &network, &description, &input).expect("an ONNX file");
    let file = Model::load_file(&path).expect("rten reads the file");
    assert_eq!(file.metadata().get("answer"), Some("42"));

    let images = Array::random(&[2, 3, SIZE[0], SIZE[1]], [-2.0, 2.0], 2).rounded();
    let expected = Array::from(network.forward(images.tensor(&device)));
    let values: Vec<_> = images.data.iter().map(|&value| value as f32).collect();
    let values = Value::from_shape(&images.shape[..], values).expect("images");
    assert_close("own network", &run(&file, values), &expected, 1e-4, 0.0);

    let [height, width] = SIZE;
    let maps = network.forward_features(images.tensor(&device));
    let sizes: Vec<_> = maps.iter().map(|map| map.dims()).collect();
    assert_eq!(sizes, [[2, 16, height, width], [2, 32, height / 2, width / 2]]);

    let layers = summary::layers(&network, SIZE).expect("images that are large enough");
    let names: Vec<_> = layers.iter().map(|layer| (&*layer.name, &*layer.block)).collect();
    assert_eq!(names, [("conv1", "dbb"), ("conv2", "dbb"), ("linear", "linear")]);
    // 3x3 convolutions at full and half size, and ten classes.
    let positions = height * width;
    let expected = 9 * 3 * 16 * positions + 9 * 16 * 32 * positions / 4 + 32 * 10;
    let deploy: u64 = layers.iter().map(|layer| layer.macs_deploy).sum();
    assert_eq!(deploy, expected as u64);
    assert_eq!(macs(&network.reparameterize(), SIZE), Ok(deploy));
}

#[test]
fn a_graph_that_takes_pixels_normalises_them() {
    let model = config(Arch::ResNet20, BlockKind::Dbb);
    let network = network(&model);
    let (mean, std) = (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]);
    let normalization = Normalization { mean: mean.clone(), std: std.clone() };
    let file = written(&model, &network, Some(normalization));
    let file = Model::load(file).expect("rten reads the file");

    let shape = [2, 3, SIZE[0], SIZE[1]];
    let plane = SIZE[0] * SIZE[1];
    let pixels: Vec<u8> = (0..2 * 3 * plane).map(|index| (index * 97 % 256) as u8).collect();
    let normalised = pixels.iter().enumerate().map(|(index, &pixel)| {
        let channel = index / plane % 3;
        (f64::from(pixel) / 255.0 - f64::from(mean[channel])) / f64::from(std[channel])
    });
    let normalised = Array::new(&shape, normalised.collect());
    let expected = network.forward(normalised.tensor(&Device::default())).into();
    let actual = run(&file, Value::from_shape(shape, pixels).expect("images"));
    assert_close("pixels", &actual, &expected, 1e-4, 0.0);
}

#[test]
fn a_file_says_what_it_is() {
    let model = config(Arch::MobileNetV2, BlockKind::Dbb);
    let network = network(&model);
    let bytes = written(&model, &network, None);
    assert!(bytes == written(&model, &network, None), "equal networks are unequal files");

    let file = Model::load(bytes).expect("rten reads the file");
    let [batch, image @ ..] = &file.input_shape(0).expect("a shape")[..] else {
        panic!("the input has no dimensions")
    };
    assert_eq!(*batch, Dimension::Symbolic("batch".into()));
    assert_eq!(*image, [3, 32, 40].map(Dimension::Fixed));
    let json = file.metadata().get("dbb_zoo").expect("metadata of this project");
    let expected = Metadata { form: Form::Deploy, ..metadata(&model) };
    assert_eq!(serde_json::from_str::<Metadata>(json).expect("metadata"), expected);
}

#[test]
fn constants_that_do_not_fit_the_images() {
    let model = config(Arch::ResNet20, BlockKind::Base);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("network.onnx");
    let normalization = Some(Normalization { mean: vec![0.5], std: vec![0.5] });
    let input = Input { size: SIZE, normalization };
    let error = write_onnx(&path, &network(&model), &metadata(&model), &input).unwrap_err();
    assert!(error.to_string().contains("one value per channel"), "{error}");
    assert!(!path.exists());
}
