//! `BatchNorm` against its definition in `f64`: outputs, running statistics with PyTorch's
//! conventions, gradients against finite differences; and what a model needs to be saved, loaded,
//! copied, frozen and validated in the middle of training.

use crate::support::{Array, assert_close, is_statistic, randomise};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use dbb_models::blocks::{BatchNorm, Block, BlockKind, ConvSpec, ConvUnit};
use dbb_models::weights::{KeyMap, StateDict};

const SHAPE: [usize; 4] = [3, 4, 5, 6];
const CHANNELS: usize = SHAPE[1];

/// Scale and shift of a norm, one value per channel.
struct Affine {
    gamma: Array,
    beta: Array,
}

impl Affine {
    fn random() -> Self {
        let gamma = Array::random(&[CHANNELS], [-1.5, 1.5], 1);
        Self { gamma, beta: Array::random(&[CHANNELS], [-1.0, 1.0], 2) }
    }

    fn norm(&self, device: &Device) -> BatchNorm {
        let mut norm = BatchNorm::new(CHANNELS, device);
        norm.gamma = norm.gamma.map(|_| self.gamma.tensor(device).require_grad());
        norm.beta = norm.beta.map(|_| self.beta.tensor(device).require_grad());
        norm
    }

    /// The definition: normalised with the given mean and (biased) variance of each channel.
    fn apply(&self, input: &Array, mean: &Array, var: &Array, epsilon: f64) -> Array {
        let value = |(i, x): (usize, &f64)| {
            let c = channel(input, i);
            let std = (var.data[c] + epsilon).sqrt();
            (x - mean.data[c]) / std * self.gamma.data[c] + self.beta.data[c]
        };
        Array::new(&input.shape, input.data.iter().enumerate().map(value).collect())
    }
}

fn channel(map: &Array, index: usize) -> usize {
    index / (map.shape[2] * map.shape[3]) % map.shape[1]
}

/// Mean and biased variance of each channel.
fn statistics(input: &Array) -> [Array; 2] {
    let of = |f: &dyn Fn(usize, f64) -> f64| {
        let mut sums = vec![0.0; input.shape[1]];
        input.data.iter().enumerate().for_each(|(i, &x)| sums[channel(input, i)] += f(i, x));
        let count = (input.data.len() / input.shape[1]) as f64;
        Array::new(&[input.shape[1]], sums.into_iter().map(|sum| sum / count).collect())
    };
    let mean = of(&|_, x| x);
    let var = of(&|i, x| (x - mean.data[channel(input, i)]).powi(2));
    [mean, var]
}

fn batch(seed: u64) -> Array {
    Array::random(&SHAPE, [-1.0, 3.0], seed).rounded()
}

fn running(norm: &BatchNorm) -> [Array; 2] {
    [norm.running_mean.value().into(), norm.running_var.value().into()]
}

fn training() -> Device {
    Device::default().autodiff()
}

#[test]
fn training_normalises_with_the_batch_and_records_it() {
    let affine = Affine::random();
    for (momentum, epsilon) in [(0.1, 1e-5), (0.3, 1e-2)] {
        let norm = BatchNorm { momentum, epsilon, ..affine.norm(&training()) };
        let mut mean = Array::new(&[CHANNELS], vec![0.0; CHANNELS]);
        let mut var = Array::new(&[CHANNELS], vec![1.0; CHANNELS]);
        let count = (SHAPE[0] * SHAPE[2] * SHAPE[3]) as f64;
        for step in 0..4 {
            let input = batch(10 + step);
            let [batch_mean, batch_var] = statistics(&input);
            let output = norm.forward(input.tensor(&training())).into();
            let expected = affine.apply(&input, &batch_mean, &batch_var, epsilon);
            assert_close("train output", &output, &expected, 2e-6, 1.0);

            for c in 0..CHANNELS {
                let unbiased = batch_var.data[c] * count / (count - 1.0);
                mean.data[c] += momentum * (batch_mean.data[c] - mean.data[c]);
                var.data[c] += momentum * (unbiased - var.data[c]);
            }
            let [running_mean, running_var] = running(&norm);
            assert_close("running mean", &running_mean, &mean, 1e-6, 1.0);
            assert_close("running variance", &running_var, &var, 1e-6, 1.0);
        }

        let input = batch(20);
        let output = norm.valid().forward(input.tensor(&Device::default())).into();
        let expected = affine.apply(&input, &mean, &var, epsilon);
        assert_close("inference output", &output, &expected, 2e-6, 1.0);
    }
}

/// A mean of a thousand standard deviations leaves three digits in single precision; a variance
/// from the mean of squares would leave none.
#[test]
fn a_large_mean_does_not_cancel_the_variance() {
    let affine = Affine::random();
    let mut input = batch(30);
    input.data.iter_mut().for_each(|x| *x += 1000.0);
    let input = input.rounded();
    let [mean, var] = statistics(&input);
    let output = affine.norm(&training()).forward(input.tensor(&training())).into();
    let expected = affine.apply(&input, &mean, &var, 1e-5);
    assert_close("train output", &output, &expected, 1e-3, 1.0);
}

#[test]
fn gradients_equal_finite_differences() {
    const STEP: f64 = 1e-5;
    let affine = Affine::random();
    let input = batch(40);
    let weight = Array::random(&SHAPE, [-1.0, 1.0], 41).rounded();

    let norm = affine.norm(&training());
    let tensor = input.tensor::<4>(&training()).require_grad();
    let loss = (norm.forward(tensor.clone()) * weight.tensor(&training())).sum();
    let gradients = loss.backward();
    let gradient_of = |tensor: Tensor<1>| Array::from(tensor.grad(&gradients).expect("a gradient"));

    let loss = |input: &Array, affine: &Affine| -> f64 {
        let [mean, var] = statistics(input);
        let output = affine.apply(input, &mean, &var, 1e-5);
        output.data.iter().zip(&weight.data).map(|(y, w)| y * w).sum()
    };
    let differences = |at: &Array, loss: &dyn Fn(&Array) -> f64| {
        let slope = |i: usize| {
            let shifted = |by: f64| {
                let mut shifted = at.clone();
                shifted.data[i] += by;
                loss(&shifted)
            };
            (shifted(STEP) - shifted(-STEP)) / (2.0 * STEP)
        };
        Array::new(&at.shape, (0..at.data.len()).map(slope).collect())
    };
    let with_gamma = |gamma: &Array| Affine { gamma: gamma.clone(), beta: affine.beta.clone() };
    let with_beta = |beta: &Array| Affine { gamma: affine.gamma.clone(), beta: beta.clone() };
    for (what, actual, expected) in [
        (
            "gradient of the input",
            tensor.grad(&gradients).expect("a gradient").into(),
            differences(&input, &|input| loss(input, &affine)),
        ),
        (
            "gradient of gamma",
            gradient_of(norm.gamma.val()),
            differences(&affine.gamma, &|gamma| loss(&input, &with_gamma(gamma))),
        ),
        (
            "gradient of beta",
            gradient_of(norm.beta.val()),
            differences(&affine.beta, &|beta| loss(&input, &with_beta(beta))),
        ),
    ] {
        assert_close(what, &actual, &expected, 5e-6, 1.0);
    }
}

#[test]
#[should_panic(
    expected = "batch norm needs more than one value per channel in training, got [1, 4, 1, 1]"
)]
fn a_single_value_per_channel_cannot_be_trained_on() {
    BatchNorm::new(4, &training()).forward(Tensor::ones([1, 4, 1, 1], &training()));
}

#[test]
fn a_single_value_per_channel_can_be_inferred() {
    let output = BatchNorm::new(4, &Device::default())
        .forward(Tensor::ones([1, 4, 1, 1], &Device::default()));
    assert_eq!(output.dims(), [1, 4, 1, 1]);
    // Two images, or two positions, are enough to train on.
    for shape in [[2, 4, 1, 1], [1, 4, 1, 2]] {
        BatchNorm::new(4, &training()).forward(Tensor::ones(shape, &training()));
    }
}

/// A unit in the middle of training, its keys and an input.
fn unit_in_training() -> (ConvUnit, KeyMap, Tensor<4>) {
    let spec = ConvSpec::square([4, CHANNELS], 3, 1);
    let unit = ConvUnit::new(&spec, &Block::Base, &training()).expect("a possible block");
    let keys = KeyMap::official_unit(&unit, BlockKind::Base);
    let unit = randomise(unit, &keys, 50);
    let input = batch(51).tensor(&training());
    unit.forward(input.clone());
    (unit, keys, input)
}

fn running_var(state: &StateDict) -> Array {
    (&state["bn.running_var"]).into()
}

#[test]
fn a_save_in_the_middle_of_training_holds_the_newest_statistics() {
    let (unit, keys, input) = unit_in_training();
    let before = keys.save(&unit);
    unit.forward(input);
    let after = keys.save(&unit);
    let changed: Vec<_> = after.keys().filter(|key| after[*key] != before[*key]).collect();
    assert_eq!(changed, ["bn.running_mean", "bn.running_var"]);
    assert_eq!(after, keys.save(&unit.valid()), "saved with and without valid()");
    assert_eq!(after, keys.save(&unit), "saved twice");
}

/// Another thread sees them, too: nothing is parked where the forward ran.
#[test]
fn statistics_of_another_thread_are_not_lost() {
    let (unit, keys, input) = unit_in_training();
    let before = keys.save(&unit);
    let saved = std::thread::scope(|scope| {
        scope.spawn(|| unit.forward(input)).join().expect("a forward");
        keys.save(&unit)
    });
    assert_ne!(saved, before);
}

#[test]
fn a_load_in_the_middle_of_training_is_not_undone() {
    let (unit, keys, input) = unit_in_training();
    let mut state = keys.save(&unit);
    let loaded = |value: f32| burn::tensor::TensorData::from([value; CHANNELS]);
    state.insert("bn.running_mean".into(), loaded(100.0));
    state.insert("bn.running_var".into(), loaded(200.0));
    let unit = keys.load(unit, &state).expect("the keys are the unit's own");
    assert_eq!(keys.save(&unit), state, "loaded state");

    let output = unit.valid().forward(input.clone().inner());
    assert_eq!(keys.save(&unit), state, "after an inference");
    let expected = crate::support::reference::forward(&state, &unit.spec(), &input.clone().into());
    assert_close("inference after loading", &output.into(), &expected, 1e-6, 1.0);

    // The batch's own variance is some units, so that nine tenths of the loaded one show.
    unit.forward(input);
    let var = running_var(&keys.save(&unit));
    assert!(var.data.iter().all(|&v| (180.0..185.0).contains(&v)), "continued from {var:?}");
}

#[test]
fn a_clone_has_statistics_of_its_own() {
    let (unit, keys, input) = unit_in_training();
    let clone = unit.clone();
    let before = keys.save(&unit);
    clone.forward(input.clone());
    assert_eq!(keys.save(&unit), before, "the original after training its clone");
    let trained = keys.save(&clone);
    assert_ne!(trained, before, "the clone after its training");
    unit.forward(input);
    assert_eq!(keys.save(&clone), trained, "the clone after training the original");
}

#[test]
fn a_frozen_norm_uses_and_keeps_its_running_statistics() {
    let (unit, keys, input) = unit_in_training();
    let before = keys.save(&unit);
    let expected = Array::from(unit.valid().forward(input.clone().inner()));

    let frozen = unit.freeze();
    let output = frozen.forward(input.clone());
    assert!(!output.is_tracked(), "no gradient reaches frozen parameters");
    assert_close("frozen output", &output.into(), &expected, 1e-6, 1.0);
    // Frozen outlives a validation.
    let frozen = frozen.valid().train();
    frozen.forward(input.clone());
    assert_eq!(keys.save(&frozen), before, "frozen state");

    let thawed = frozen.unfreeze();
    thawed.forward(input);
    assert_ne!(keys.save(&thawed), before, "statistics after thawing");
}

#[test]
fn statistics_have_no_gradient_even_when_thawed() {
    let (unit, ..) = unit_in_training();
    let ConvUnit::Base(block) = unit.freeze().unfreeze() else { panic!("a base block") };
    for stat in [&block.bn.running_mean, &block.bn.running_var] {
        assert!(!stat.value().is_require_grad());
        assert!(!stat.value().is_tracked());
    }
    assert!(block.bn.gamma.val().is_require_grad());
}

#[test]
fn validation_and_training_alternate() {
    let (mut unit, keys, input) = unit_in_training();
    for _ in 0..3 {
        let before = keys.save(&unit);
        let valid = unit.valid();
        let output = valid.forward(input.clone().inner());
        assert!(!output.is_autodiff(), "valid() is on the inference device");
        assert_eq!(keys.save(&valid), before, "validation changes nothing");
        let expected =
            crate::support::reference::forward(&before, &valid.spec(), &input.clone().into());
        assert_close("validation output", &output.into(), &expected, 1e-6, 1.0);

        unit = valid.train();
        assert_eq!(keys.save(&unit), before, "train() changes nothing");
        let output = unit.forward(input.clone());
        assert!(output.is_tracked(), "train() is tracked again");
        let after = keys.save(&unit);
        assert!(after.keys().filter(|key| is_statistic(key)).all(|key| after[key] != before[key]));
    }
}
