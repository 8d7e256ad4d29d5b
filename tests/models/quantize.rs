//! Networks in 8 bits, against integers computed here.

use crate::support::{Array, redraw::redraw};
use burn::module::Module;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor};
use dbb_models::blocks::{Activation, Block, ConvSpec, ConvUnit, Epilogue};
use dbb_models::quantize::{
    Calibration, Int8Network, Range, RangeError, RangeMethod, Ranges, WeightRange,
};
use dbb_models::walk::Interpreter;
use dbb_models::{Arch, BlockKind, ConfigError, Form, ModelConfig, Reparameterize, Walk};

const CHANNELS: usize = 4;
const CLASSES: usize = 3;
const SIZE: usize = 9;

/// One layer of every kind.
#[derive(Module, Debug, Reparameterize)]
struct Net {
    stem: ConvUnit,
    max_pool: MaxPool2d,
    depthwise: ConvUnit,
    pointwise: ConvUnit,
    pool: AdaptiveAvgPool2d,
    hidden: Linear,
    linear: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let unit = |spec: ConvSpec| {
            let unit = ConvUnit::new(&spec, &Block::Folded, device).expect("a convolution");
            let ConvUnit::Folded(mut conv) = unit else { unreachable!("asked for") };
            let bias = Array::random(&[spec.channels[1]], [-0.5, 0.5], 3).tensor(device);
            conv.bias = Some(burn::module::Param::from_tensor(bias));
            ConvUnit::Folded(conv)
        };
        let net = Self {
            stem: unit(ConvSpec::square([2, CHANNELS], 3, 1)),
            max_pool: MaxPool2dConfig::new([3, 3])
                .with_strides([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(),
            depthwise: unit(ConvSpec::square([CHANNELS; 2], 3, 1).with_groups(CHANNELS)),
            pointwise: unit(ConvSpec::square([CHANNELS; 2], 1, 1)),
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            hidden: LinearConfig::new(CHANNELS, CHANNELS).init(device),
            linear: LinearConfig::new(CHANNELS, CLASSES).init(device),
        };
        redraw(net, 5)
    }
}

impl Walk for Net {
    fn features<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, images: I::Map) -> I::Map {
        let map = walk.unit(&"stem", &self.stem, images, Activation::Relu6.into());
        let input = walk.max_pool(&"max_pool", &self.max_pool, map);
        let epilogue = Epilogue::new(input.clone(), Activation::Relu);
        let units = [&self.depthwise, &self.pointwise];
        walk.separable([&"depthwise", &"pointwise"], units, input, Activation::Relu, epilogue)
    }

    fn head<'n, I: Interpreter<'n>>(&'n self, walk: &mut I, map: I::Map) -> I::Features {
        let features = walk.means(&"pool", &self.pool, map);
        let features = walk.linear(&"hidden", &self.hidden, features, Some(Activation::Relu));
        walk.linear(&"linear", &self.linear, features, None)
    }
}

/// Integers with the numbers they stand for: `scale * (q - zero)`.
#[derive(Clone)]
struct Map {
    /// Channels, height and width.
    shape: [usize; 3],
    integers: Vec<i64>,
    scale: f64,
    zero: i64,
}

/// Scale and zero point by the definition: the range, which holds zero, has 255 steps.
fn scale_and_zero(Range { low, high }: Range) -> (f64, i64) {
    let (low, high) = (f64::from(low.min(0.0)), f64::from(high.max(0.0)));
    let scale = (high - low) / 255.0;
    (scale, (-low / scale).round_ties_even() as i64)
}

impl Map {
    fn of(range: Range, shape: [usize; 3], numbers: &[f64]) -> Self {
        let (scale, zero) = scale_and_zero(range);
        let integer =
            |number: &f64| ((number / scale).round_ties_even() as i64 + zero).clamp(0, 255);
        Self { shape, integers: numbers.iter().map(integer).collect(), scale, zero }
    }

    fn numbers(&self) -> Vec<f64> {
        self.integers.iter().map(|q| self.scale * (q - self.zero) as f64).collect()
    }

    /// The number at a place, with zero outside.
    fn at(&self, channel: usize, row: isize, column: isize) -> i64 {
        let [_, height, width] = self.shape;
        let inside = (0..height as isize).contains(&row) && (0..width as isize).contains(&column);
        if !inside {
            return 0;
        }
        let at = (channel * height + row as usize) * width + column as usize;
        self.integers[at] - self.zero
    }
}

/// The weights of each output as integers and their scale, and its bias in units of the sum.
fn weights(weight: &[f64], bias: &[f64], input: f64) -> Vec<(Vec<i64>, f64, i64)> {
    let row = |(row, bias): (&[f64], &f64)| {
        let scale = row.iter().fold(0.0f64, |most, w| most.max(w.abs())) / 127.0;
        let integers = row.iter().map(|w| (w / scale).round_ties_even() as i64).collect();
        (integers, scale, (bias / (input * scale)).round_ties_even() as i64)
    };
    weight.chunks(weight.len() / bias.len()).zip(bias).map(row).collect()
}

fn conv(unit: &ConvUnit, input: &Map, range: Range) -> Map {
    let ConvUnit::Folded(conv) = unit else { unreachable!("folded") };
    let spec = unit.spec();
    let weight = Array::from(conv.weight.val()).data;
    let bias = Array::from(conv.bias.as_ref().expect("a bias").val()).data;
    let [_, height, width] = input.shape;
    let (inputs, pad) = (spec.channels[0] / spec.groups, spec.padding[0] as isize);
    let mut numbers = Vec::new();
    for (output, (weight, scale, bias)) in weights(&weight, &bias, input.scale).iter().enumerate() {
        let group = output / (spec.channels[1] / spec.groups);
        for (row, column) in (0..height).flat_map(|row| (0..width).map(move |c| (row, c))) {
            let mut sum = *bias;
            for (index, weight) in weight.iter().enumerate() {
                let (channel, tap) =
                    (index / spec.kernel_size[0].pow(2), index % spec.kernel_size[0].pow(2));
                let [i, j] = [tap / spec.kernel_size[0], tap % spec.kernel_size[0]];
                let place = [row + i, column + j].map(|at| at as isize - pad);
                sum += weight * input.at(group * inputs + channel, place[0], place[1]);
            }
            numbers.push(sum as f64 * input.scale * scale);
        }
    }
    Map::of(range, [spec.channels[1], height, width], &numbers)
}

fn linear(linear: &Linear, input: &Map) -> Vec<f64> {
    let weight = Array::from(linear.weight.val().transpose()).data;
    let bias = Array::from(linear.bias.as_ref().expect("a bias").val()).data;
    let rows = weights(&weight, &bias, input.scale);
    let logit = |(weight, scale, bias): &(Vec<i64>, f64, i64)| {
        let products = weight.iter().zip(&input.integers).map(|(w, q)| w * (q - input.zero));
        (bias + products.sum::<i64>()) as f64 * input.scale * scale
    };
    rows.iter().map(logit).collect()
}

/// The network of one image by the definition, in integers.
fn expected(net: &Net, ranges: &Ranges, image: &[f64]) -> Vec<f64> {
    let range = |name: &str| ranges.get(name).unwrap_or_else(|| panic!("no range of {name}"));
    let images = Map::of(range("images"), [2, SIZE, SIZE], image);
    let stem = conv(&net.stem, &images, range("stem.relu6"));
    let half = SIZE.div_ceil(2);
    let window = |index: usize| {
        let (channel, at) = (index / (half * half), index % (half * half));
        let corner = [at / half, at % half].map(|at| 2 * at as isize - 1);
        let places = (0..9).map(|tap| [corner[0] + tap / 3, corner[1] + tap % 3]);
        // After ReLU6 nothing is below the padding.
        places.map(|[row, column]| stem.at(channel, row, column) + stem.zero).max().expect("nine")
    };
    let integers = (0..CHANNELS * half * half).map(window).collect();
    let pooled = Map { shape: [CHANNELS, half, half], integers, ..stem };
    let depthwise = conv(&net.depthwise, &pooled, range("depthwise.relu"));
    let pointwise = conv(&net.pointwise, &depthwise, range("pointwise"));
    let sums: Vec<_> =
        pointwise.numbers().iter().zip(pooled.numbers()).map(|(a, b)| a + b).collect();
    let sum = Map::of(range("pointwise.add.relu"), pooled.shape, &sums);
    let means =
        sum.numbers().chunks(half * half).map(|p| p.iter().sum::<f64>() / 25.0).collect::<Vec<_>>();
    let means = Map::of(range("pool"), [CHANNELS, 1, 1], &means);
    let hidden = Map::of(range("hidden.relu"), [CHANNELS, 1, 1], &linear(&net.hidden, &means));
    linear(&net.linear, &hidden)
}

fn images(count: usize, seed: u64) -> Array {
    Array::random(&[count, 2, SIZE, SIZE], [-2.0, 2.0], seed).rounded()
}

fn calibrated(network: &impl Walk, images: Tensor<4>, method: RangeMethod) -> Ranges {
    let mut calibration = Calibration::new(method);
    calibration.observe(network, images.clone());
    if method.needs_distribution() {
        calibration = calibration.distribution().expect("finite values");
        calibration.observe(network, images);
    }
    calibration.ranges().expect("finite values")
}

#[test]
fn a_network_in_8_bits_is_sums_of_integers() {
    let device = Device::default();
    let net = Net::new(&device);
    let ranges = calibrated(&net, images(8, 1).tensor(&device), RangeMethod::MinMax);
    let int8 = Int8Network::new(&net, ranges.clone(), WeightRange::Full).expect("short sums");
    // Other images, some of whose values lie outside of the ranges.
    let images = images(6, 2);
    let found = Array::from(int8.forward(images.tensor(&device)));
    for (image, found) in images.data.chunks(2 * SIZE * SIZE).zip(found.data.chunks(CLASSES)) {
        let expected = expected(&net, &ranges, image);
        for (found, expected) in found.iter().zip(&expected) {
            // The same integers; logits are products in `f32`.
            assert!(
                (found - expected).abs() <= 1e-6 * expected.abs().max(1.0),
                "{found} {expected}"
            );
        }
    }
    let exact = Array::from(net.forward(images.tensor(&device)));
    let difference = crate::support::difference(&found, &exact) / exact.max_abs();
    assert!(difference > 1e-4 && difference < 0.1, "8 bits differ by {difference}");
}

#[test]
fn ranges_are_those_of_the_values() {
    let device = Device::default();
    let net = Net::new(&device);
    let images = images(8, 1);
    let ranges = calibrated(&net, images.tensor(&device), RangeMethod::MinMax);
    let extremes = |values: &Array| {
        let fold =
            |start: f64, of: fn(f64, f64) -> f64| values.data.iter().copied().fold(start, of);
        (fold(f64::INFINITY, f64::min) as f32, fold(f64::NEG_INFINITY, f64::max) as f32)
    };
    let found = |name: &str| ranges.get(name).map(|range| (range.low, range.high));
    assert_eq!(found("images"), Some(extremes(&images)));
    let stem = net.stem.forward_then(images.tensor(&device), Activation::Relu6);
    assert_eq!(found("stem.relu6"), Some(extremes(&Array::from(stem))));
    // The pool has the range of its input, and so have flattened features.
    assert_eq!((found("max_pool"), found("linear")), (None, None));

    let narrower = calibrated(&net, images.tensor(&device), RangeMethod::Percentile(5.0));
    let (all, cut) = (ranges.get("images"), narrower.get("images"));
    let (all, cut) = (all.expect("a range"), cut.expect("a range"));
    assert!(cut.low > all.low && cut.high < all.high, "{cut:?} in {all:?}");
}

#[test]
fn layers_in_f32_are_exact() {
    let device = Device::default();
    let net = Net::new(&device);
    let images = images(8, 1).tensor(&device);
    let ranges = calibrated(&net, images.clone(), RangeMethod::MinMax);
    let int8 = Int8Network::new(&net, ranges, WeightRange::Full).expect("short sums");
    let names = ["stem", "depthwise", "pointwise", "hidden", "linear"];
    assert_eq!(int8.int8_layers(), names);
    let exact = Array::from(net.forward(images.clone()));
    let error = |patterns: &[&str]| {
        let patterns: Vec<_> = patterns.iter().map(|pattern| pattern.to_string()).collect();
        let int8 = int8.with_float_layers(&patterns).expect("layers");
        crate::support::difference(&Array::from(int8.forward(images.clone())), &exact)
    };
    assert!(error(&["*"]) <= 1e-6 * exact.max_abs(), "nothing is rounded");
    let one_rounded = error(&["stem", "*wise", "hidden"]);
    assert!(one_rounded > 0.0 && one_rounded < error(&[]), "{one_rounded} {}", error(&[]));
    // One layer after the other, as if each were named.
    let spared = int8.forward_sparing(images.clone(), &int8.int8_layers());
    assert_eq!(spared.len(), names.len() + 1);
    for (patterns, logits) in [&[][..], &["stem"], &["depthwise"]].iter().zip(spared) {
        let found = crate::support::difference(&Array::from(logits), &exact);
        assert_eq!(found, error(patterns), "{patterns:?} in f32");
    }
    let unknown = int8.with_float_layers(&["stem".into(), "conv9".into()]);
    assert!(matches!(unknown, Err(ConfigError::Pattern { pattern, .. }) if pattern == "conv9"));
}

#[test]
fn what_cannot_be_calibrated_is_refused() {
    let device = Device::default();
    let net = Net::new(&device);
    let empty = Calibration::new(RangeMethod::MinMax);
    assert_eq!(empty.ranges(), Err(RangeError::NoImages));
    let mut calibration = Calibration::new(RangeMethod::Percentile(1.0));
    calibration.observe(&net, Tensor::full([1, 2, SIZE, SIZE], f32::NAN, &device));
    let error = calibration.distribution().expect_err("NaN has no range");
    assert!(matches!(error, RangeError::NonFinite { .. }), "{error}");
}

/// Every family goes through all operators in 8 bits, with images of several sizes.
#[test]
fn every_family_computes_in_8_bits() {
    let device = Device::default();
    for arch in [
        Arch::ResNet18,
        Arch::ResNet20,
        Arch::MobileNetV1,
        Arch::MobileNetV2,
        Arch::MobileNetV3Small,
        Arch::RepVggA0,
        Arch::MobileOneS4,
        Arch::Vgg16Cifar,
        Arch::AlexNet,
    ] {
        let config = ModelConfig { width: 0.125, ..ModelConfig::new(arch, BlockKind::Base, 10) };
        let network = redraw(config.init(Form::Deploy, &device).expect("a network"), 1);
        let images = |size| Array::random(&[2, 3, size, size], [-2.0, 2.0], 4).tensor(&device);
        let mut calibration = Calibration::new(RangeMethod::MinMax);
        for size in [64, 96] {
            calibration.observe(&network, images(size));
        }
        let ranges = calibration.ranges().expect("finite values");
        let int8 = Int8Network::new(&network, ranges, WeightRange::Full).expect("short sums");
        for size in [64, 96] {
            let exact = Array::from(network.forward(images(size)));
            let rounded = Array::from(int8.forward(images(size)));
            let difference = crate::support::difference(&rounded, &exact) / exact.max_abs();
            assert!(difference < 0.3, "{arch}, {size}: {difference}");
        }
    }
}
