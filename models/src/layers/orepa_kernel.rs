//! The branches of an OREPA block and the kernel that they make: with Burn's operations, so that it
//! has gradients, and in `f64`, for the fold.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::buffer::Buffer;
use super::conv_spec::{host, host_kernel};
use crate::algebra::{ConvParams, Kernel, merge_1x1_kxk};

/// The branches of a kernel above 1x1, besides the plain one.
#[derive(Module, Debug)]
pub struct OrepaBranches {
    /// The 1x1 kernel before the mean over the window, `[out, in / groups, 1, 1]`.
    pub average: Param<Tensor<4>>,
    /// `1 / K^2` at every tap, `[K, K]`.
    pub constant_window: Buffer<2>,
    /// The 1x1 kernel before the frequency filters, `[out, in / groups, 1, 1]`.
    pub frequency: Param<Tensor<4>>,
    /// The frequency filters, `[out, K, K]`.
    pub constant_prior: Buffer<3>,
    /// The 1x1 kernel that opens the sequence, less the identity, `[internal, in / groups, 1, 1]`.
    pub sequence1: Param<Tensor<4>>,
    /// That identity: row `t` passes on input `t mod (in / groups)` of its group.
    pub constant_identity: Buffer<4>,
    /// The KxK kernel that follows, `[out, internal / groups, K, K]`.
    pub sequence2: Param<Tensor<4>>,
    /// A 1x1 kernel, `[out, in / groups, 1, 1]`.
    pub pointwise: Param<Tensor<4>>,
    /// Depthwise filters, eight for every input, `[8 in, 1, K, K]`.
    pub depthwise: Param<Tensor<4>>,
    /// The 1x1 kernel that follows them, `[out, 8 in / groups, 1, 1]`. Its rows are interleaved:
    /// output `j` of group `g` has row `j groups + g`, as in the authors' code.
    pub separable: Param<Tensor<4>>,
}

/// The kernel, `[out, in / groups, K, K]`.
pub(crate) fn of_branches(
    origin: Tensor<4>,
    vector: Tensor<2>,
    branches: &OrepaBranches,
    groups: usize,
) -> Tensor<4> {
    let [outputs, per_group, size, _] = origin.dims();
    let taps = size * size;
    let scale = |branch: usize| scale(&vector, branch);
    let matrix = |weight: Tensor<4>| weight.reshape([outputs, per_group, 1]);
    let window = branches.constant_window.value().reshape([1, 1, taps]);
    let prior = branches.constant_prior.value().reshape([outputs, 1, taps]);

    let average = matrix(branches.average.val() * scale(1)) * window;
    let frequency = matrix(branches.frequency.val() * scale(2)) * prior;
    let sequence = sequence(branches, groups, [outputs, per_group, size]);
    let separable = separable(branches, groups, [outputs, per_group, size]);
    // A 1x1 kernel lies in the centre of the window.
    let half = size / 2;
    let pointwise = (branches.pointwise.val() * scale(4))
        .pad([(half, half), (half, half)], burn::tensor::ops::PadMode::Constant(0.0));
    let low_rank = (average + frequency).reshape([outputs, per_group, size, size]);
    origin * scale(0) + sequence * scale(3) + separable * scale(5) + low_rank + pointwise
}

/// The kernel of a 1x1 convolution, `[out, in, 1, 1]`.
pub(crate) fn of_product(
    origin: Tensor<4>,
    vector: Tensor<2>,
    first: Tensor<4>,
    second: Tensor<4>,
) -> Tensor<4> {
    let shape = origin.dims();
    let matrix = |weight: Tensor<4>| {
        let [rows, columns, ..] = weight.dims();
        weight.reshape([rows, columns])
    };
    let product = matrix(second).matmul(matrix(first)).reshape(shape);
    origin * scale(&vector, 0) + product * scale(&vector, 1)
}

/// A row of the vector, `[out, 1, 1, 1]`.
fn scale(vector: &Tensor<2>, branch: usize) -> Tensor<4> {
    let [_, outputs] = vector.dims();
    vector.clone().narrow(0, branch, 1).reshape([outputs, 1, 1, 1])
}

/// The product of the 1x1 and the KxK kernel, group by group.
fn sequence(
    branches: &OrepaBranches,
    groups: usize,
    [outputs, per_group, size]: [usize; 3],
) -> Tensor<4> {
    let (first, second) = (branches.sequence1.val(), branches.sequence2.val());
    let [internal, ..] = first.dims();
    let (taps, middle) = (size * size, internal / groups);
    let first = first + branches.constant_identity.value();
    let first = first.reshape([groups, middle, per_group]);
    let second = second.reshape([outputs, middle, taps]).swap_dims(1, 2);
    let second = second.reshape([groups, outputs / groups * taps, middle]);
    let product = second.matmul(first).reshape([outputs, taps, per_group]);
    product.swap_dims(1, 2).reshape([outputs, per_group, size, size])
}

/// The product of the depthwise filters and the 1x1 kernel, input by input.
fn separable(
    branches: &OrepaBranches,
    groups: usize,
    [outputs, per_group, size]: [usize; 3],
) -> Tensor<4> {
    let (filters, weights) = (branches.depthwise.val(), branches.separable.val());
    let (taps, inputs, of_group) = (size * size, per_group * groups, outputs / groups);
    let expansion = filters.dims()[0] / inputs;
    let filters = filters.reshape([inputs, expansion, taps]);
    // `[j, g, i, t]` to `[g i, j, t]`.
    let weights = weights
        .reshape([of_group, groups, per_group, expansion])
        .permute([1, 2, 0, 3])
        .reshape([inputs, of_group, expansion]);
    let product = weights.matmul(filters).reshape([groups, per_group, of_group, size, size]);
    product.swap_dims(1, 2).reshape([outputs, per_group, size, size])
}

/// [`of_branches`] in `f64`.
pub(crate) fn exact_of_branches(
    origin: Kernel,
    vector: &[f64],
    branches: &OrepaBranches,
) -> Kernel {
    let (groups, outputs, per_group) = (origin.groups, origin.out_channels, origin.in_per_group);
    let (inputs, taps) = (per_group * groups, origin.taps());
    let side = origin.size[0];
    let centre = (side / 2) * side + side / 2;
    let exact = |weight: &Param<Tensor<4>>| host_kernel(weight.val(), groups);
    let [average, frequency, pointwise] =
        [&branches.average, &branches.frequency, &branches.pointwise].map(exact);
    let (window, prior) =
        (host(branches.constant_window.value()), host(branches.constant_prior.value()));
    let (filters, separable) = (host(branches.depthwise.val()), host(branches.separable.val()));
    let expansion = filters.len() / (inputs * taps);

    let first = branches.sequence1.val() + branches.constant_identity.value();
    let first = host_kernel(first, groups);
    let second = ConvParams::without_bias(exact(&branches.sequence2));
    let sequence = merge_1x1_kxk(&ConvParams::without_bias(first), &second).kernel;

    let mut kernel = origin;
    for (index, value) in kernel.data.iter_mut().enumerate() {
        let (place, tap) = (index / taps, index % taps);
        let (output, input) = (place / per_group, place % per_group);
        let (group, of_group) = (output / (outputs / groups), output % (outputs / groups));
        let scale = |branch: usize| vector[branch * outputs + output];
        let row = of_group * groups + group;
        let separable: f64 = (0..expansion)
            .map(|t| {
                let filter = expansion * (group * per_group + input) + t;
                let weight = separable[row * expansion * per_group + expansion * input + t];
                weight * filters[filter * taps + tap]
            })
            .sum();
        *value = scale(0) * *value
            + scale(1) * average.data[place] * window[tap]
            + scale(2) * frequency.data[place] * prior[output * taps + tap]
            + scale(3) * sequence.data[index]
            + scale(5) * separable;
        if tap == centre {
            *value += scale(4) * pointwise.data[place];
        }
    }
    kernel
}

/// [`of_product`] in `f64`.
pub(crate) fn exact_of_product(
    origin: Kernel,
    vector: &[f64],
    first: Kernel,
    second: Kernel,
) -> Kernel {
    let [first, second] = [first, second].map(ConvParams::without_bias);
    let product = merge_1x1_kxk(&first, &second).kernel;
    let (outputs, per_filter) = (origin.out_channels, origin.in_per_group);
    let mut kernel = origin;
    for (index, value) in kernel.data.iter_mut().enumerate() {
        let output = index / per_filter;
        *value = vector[output] * *value + vector[outputs + output] * product.data[index];
    }
    kernel
}
