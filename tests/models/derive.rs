//! `#[derive(Reparameterize)]` on a user's own network: blocks of every kind, Burn's own layers,
//! containers, enums, generics and plain data.

use std::collections::BTreeMap;

use crate::support::{Array, assert_close, is_on_inference_device, is_statistic, param_ids};
use burn::module::{Lora, Module, ModuleMapper, ModuleVisitor, Param};
use burn::nn::activation::Activation;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Gelu, GroupNorm, GroupNormConfig, Linear,
    LinearConfig, LinearLayout, PaddingConfig2d, Relu,
};
use burn::tensor::{Device, Tensor};
use dbb_models::Reparameterize;
use dbb_models::blocks::{Block, ConvSpec, ConvUnit};

/// A network with a nonlinearity of the user's choice.
#[derive(Module, Debug, Reparameterize)]
struct Net<A: Module> {
    stem: Stem,
    stages: Vec<Residual>,
    pair: [ConvUnit; 2],
    tail: (Conv2d, BatchNorm),
    activation: A,
    scale: Param<Tensor<1>>,
    /// No parameter: neither trained nor saved.
    mean: Tensor<1>,
    dropout: Dropout,
    pool: AdaptiveAvgPool2d,
    head: Linear,
    #[module(skip)]
    #[reparam(keep)]
    name: String,
}

/// Types and variants from a macro's list, as in the list of the zoo's own families.
macro_rules! either {
    ($($Variant:ident($Layer:ty);)*) => {
        #[derive(Module, Debug, Reparameterize)]
        #[allow(clippy::large_enum_variant, dead_code)]
        enum Either {
            $($Variant($Layer),)*
        }
    };
}
either! {
    Unit(ConvUnit);
    Residual(Residual);
}

#[derive(Module, Debug, Reparameterize)]
#[allow(clippy::large_enum_variant)]
enum Stem {
    Plain(ConvUnit),
    Pooled(PooledStem),
}

#[derive(Module, Debug, Reparameterize)]
struct PooledStem {
    conv: ConvUnit,
    pool: MaxPool2d,
}

#[derive(Module, Debug, Reparameterize)]
struct Residual {
    conv1: ConvUnit,
    conv2: ConvUnit,
    shortcut: Option<ConvUnit>,
    norm: GroupNorm,
    #[reparam(keep)]
    negated: bool,
}

const IMAGE: [usize; 4] = [2, 3, 12, 14];

fn unit(channels: [usize; 2], size: usize, stride: usize, block: Block, at: &Device) -> ConvUnit {
    ConvUnit::new(&ConvSpec::square(channels, size, stride), &block, at).expect("a unit")
}

fn dbb() -> Block {
    Block::Dbb(Default::default())
}

/// Random weights and statistics, in inference state.
fn network(pooled: bool) -> Net<Activation> {
    let device = Device::default();
    let unit = |channels, size, stride, block| unit(channels, size, stride, block, &device);
    let residual = |channels: [usize; 2], negated| Residual {
        conv1: unit(channels, 3, 1, dbb()),
        conv2: unit([channels[1]; 2], 3, 1, Block::Acb),
        shortcut: (channels[0] != channels[1]).then(|| unit(channels, 1, 1, Block::Base)),
        norm: GroupNormConfig::new(2, channels[1]).init(&device),
        negated,
    };
    let stem = unit([3, 4], 3, 1, dbb());
    let network = Net {
        stem: if pooled {
            Stem::Pooled(PooledStem { conv: stem, pool: MaxPool2dConfig::new([2, 2]).init() })
        } else {
            Stem::Plain(stem)
        },
        stages: vec![residual([4, 6], false), residual([6, 6], true)],
        pair: [unit([6, 6], 3, 2, Block::Base), unit([6, 8], 5, 1, Block::Acb)],
        tail: (
            Conv2dConfig::new([8, 8], [3, 3])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(&device),
            BatchNormConfig::new(8).init(&device),
        ),
        activation: Gelu::new().into(),
        scale: Param::from_tensor(Tensor::ones([1], &device)),
        mean: Tensor::full([1], 0.25, &device),
        dropout: DropoutConfig::new(0.5).init(),
        pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
        head: LinearConfig::new(8, 5).init(&device),
        name: "mine".into(),
    };
    randomised(network)
}

impl<A: Module> Net<A> {
    fn forward(&self, images: Tensor<4>, activation: impl Fn(&A, Tensor<4>) -> Tensor<4>) -> Array {
        let map = images - self.mean.clone().reshape([1, 1, 1, 1]);
        let mut map = match &self.stem {
            Stem::Plain(conv) => conv.forward(map),
            Stem::Pooled(stem) => stem.pool.forward(stem.conv.forward(map)),
        };
        for stage in &self.stages {
            map = activation(&self.activation, stage.forward(map));
        }
        let map = self.pair.iter().fold(map, |map, conv| conv.forward(map));
        let map = self.tail.1.forward(self.tail.0.forward(map));
        let map = map * self.scale.val().reshape([1, 1, 1, 1]);
        let features = self.pool.forward(map).flatten::<2>(1, 3);
        Array::from(self.head.forward(self.dropout.forward(features)))
    }
}

impl Residual {
    fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let map = self.norm.forward(self.conv2.forward(self.conv1.forward(input.clone())));
        let map = if self.negated { -map } else { map };
        map + self.shortcut.as_ref().map_or(input.clone(), |conv| conv.forward(input))
    }
}

fn randomised<M: Module>(module: M) -> M {
    struct Random {
        names: Vec<String>,
        seed: u64,
    }
    impl ModuleMapper for Random {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.names.push(name.into());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.names.pop();
        }

        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            self.seed += 1;
            let is_variance = self.names.last().is_some_and(|name| name == "running_var");
            let range = if is_variance { [0.1, 3.0] } else { [-0.7, 0.7] };
            param.map(|value| {
                let shape = value.shape();
                Array::random(shape.as_slice(), range, self.seed).tensor(&value.device())
            })
        }
    }
    module.map(&mut Random { names: vec![], seed: 0 })
}

fn images(device: &Device) -> Tensor<4> {
    Array::random(&IMAGE, [-1.0, 1.0], 7).tensor(device)
}

/// The tensors of a module by path.
fn tensors(module: &impl Module) -> BTreeMap<String, Array> {
    #[derive(Default)]
    struct Tensors {
        path: Vec<String>,
        tensors: BTreeMap<String, Array>,
    }
    impl ModuleVisitor for Tensors {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.tensors.insert(self.path.join("."), Array::from(param.val()));
        }
    }
    let mut tensors = Tensors::default();
    module.visit(&mut tensors);
    tensors.tensors
}

/// From training state, just after a forward whose batch statistics Burn's norm has yet to count,
/// and from inference state.
#[test]
fn a_network_of_ones_own_folds_whole() {
    let gelu = |activation: &Activation, map| activation.forward(map);
    let input = images(&Device::default());
    for pooled in [false, true] {
        let training = network(pooled).train();
        training.forward(images(&Device::default().autodiff()), gelu);
        let inference = training.valid();
        let expected = inference.forward(input.clone(), gelu);
        let (values, ids) = (tensors(&inference), param_ids(&training));

        for network in [&training, &inference] {
            let folded = network.reparameterize();
            assert_close("logits", &folded.forward(input.clone(), gelu), &expected, 1e-4, 0.0);

            assert!(is_on_inference_device(&folded) && !folded.mean.is_autodiff(), "device");
            assert!(param_ids(&folded).iter().all(|id| !ids.contains(id)), "ids");
            assert_ne!(folded.tail.1.training.id, network.tail.1.training.id, "id of a flag");
            assert_eq!((folded.name.as_str(), folded.stages[1].negated), ("mine", true), "data");

            let folded_tensors = tensors(&folded);
            let statistics: Vec<_> =
                folded_tensors.keys().filter(|path| is_statistic(path)).collect();
            assert_eq!(statistics, ["tail.1.running_mean", "tail.1.running_var"], "the user's");

            assert!(tensors(&folded.reparameterize()) == folded_tensors, "folding twice");
            assert!(tensors(&network.valid()) == values, "values of the original");
            assert_eq!(param_ids(network), ids, "ids of the original");
        }
    }
}

#[test]
fn a_batch_norm_of_burn_keeps_its_values_and_shares_nothing() {
    let device = Device::default();
    let norm = randomised(BatchNormConfig::new(3).init(&device)).train();
    norm.forward(images(&device.clone().autodiff()));
    let folded = norm.reparameterize();
    let values = tensors(&folded);
    assert!(values == tensors(&norm.valid()), "the newest values");

    norm.forward(images(&device.clone().autodiff()));
    norm.valid();
    assert!(tensors(&folded) == values, "the original trains on");

    let before = tensors(&norm.valid());
    folded.clone().train().forward(images(&device.autodiff()));
    assert!(tensors(&norm.valid()) == before, "the copy is trained");
}

/// Parameters that are not plain tensors of their layer.
#[test]
fn a_copied_layer_keeps_what_burn_knows_of_its_parameters() {
    let device = Device::default();
    let columns = LinearConfig::new(3, 5).with_layout(LinearLayout::Col).init(&device);
    let copy = columns.reparameterize();
    let saved = |linear: &Linear| Array::from(linear.weight.transform_for_save().val());
    assert_eq!(saved(&copy).shape, [5, 3], "layout in files");
    assert_eq!(saved(&copy), saved(&columns));

    let adapted = randomised(columns.clone().apply_lora(Lora::new(2, 4.0)));
    let copy_of_adapted = adapted.reparameterize();
    assert_eq!(tensors(&copy_of_adapted).len(), 2, "weight and bias");
    let effective = Array::from(adapted.weight.val());
    assert_eq!(Array::from(copy_of_adapted.weight.base()), effective, "adapted weight");
    assert_ne!(Array::from(adapted.weight.base()), effective, "weight without its adapter");

    let frozen = columns.freeze().reparameterize().train();
    assert!(!frozen.weight.val().is_require_grad(), "frozen weights");
    assert!(copy.train().weight.val().is_require_grad(), "trainable weights");
}

/// What Burn's `Module` cannot derive, but the trait can.
#[test]
fn structs_and_variants_of_every_form() {
    #[derive(Reparameterize)]
    struct Unit;

    #[derive(Reparameterize)]
    struct Pair<T>(ConvUnit, #[reparam(keep)] T);

    #[derive(Reparameterize)]
    #[allow(clippy::large_enum_variant)]
    enum Part<'a, const N: usize> {
        Nothing,
        Named { units: [ConvUnit; N], relu: Relu },
        Several(Pair<usize>, Unit, #[reparam(keep)] &'a str),
    }

    let device = Device::default();
    let unit = || unit([2, 2], 3, 1, dbb(), &device);
    assert!(matches!(Part::<0>::Nothing.reparameterize(), Part::Nothing));
    let named = Part::Named { units: [unit(), unit()], relu: Relu::new() };
    let Part::Named { units: [ConvUnit::Folded(_), ConvUnit::Folded(_)], relu: Relu } =
        named.reparameterize()
    else {
        panic!("another variant, or not folded");
    };
    let several = Part::<0>::Several(Pair(unit(), 3), Unit, "kept");
    assert!(matches!(
        several.reparameterize(),
        Part::Several(Pair(ConvUnit::Folded(_), 3), Unit, "kept")
    ));
}
