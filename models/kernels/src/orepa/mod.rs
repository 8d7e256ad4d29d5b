//! The kernel of an OREPA block (Hu et al., Online Convolutional Re-parameterization, CVPR 2022)
//! from the weights of its branches, and their gradients from that of the kernel.
//!
//! For output `o` of group `g`, input `i` of the group, tap `t` and `v_r` the row `r` of the scales:
//!
//! ```text
//! W[o,i,t] = v0[o] origin[o,i,t] + v1[o] average[o,i] window[t] + v2[o] frequency[o,i] prior[o,t]
//!          + v3[o] sum_m second[o,m,t] (first + identity)[m,i] + v4[o] pointwise[o,i] at the centre
//!          + v5[o] sum_e separable[r(o),i,e] depthwise[i,e,t]
//! ```
//!
//! The sum over the internal channels `m` is a matrix product with `t` outermost; everything else
//! takes one pass over the kernel.

mod parts;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use crate::buffer::{self, Buffer};
use crate::conv::{Matrix, matmul};
use crate::profile::{self, Work};

pub use parts::{OrepaConstants, OrepaParts};

/// Rows of the scales.
const BRANCHES: usize = 6;

/// Multiply-adds of a group from which on its product is worth a call of its own.
const LEAST_PRODUCT: usize = 1 << 14;

/// The extents of the kernel and its branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrepaShape {
    /// Output channels.
    pub outputs: usize,
    /// Input channels of a group.
    pub per_group: usize,
    /// Taps of the window.
    pub taps: usize,
    /// Groups.
    pub groups: usize,
    /// Internal channels of a group between the two kernels of the sequence.
    pub internal: usize,
    /// Depthwise filters for every input.
    pub expansion: usize,
}

impl OrepaShape {
    /// The lengths of the parts.
    pub fn lengths(&self) -> OrepaParts<usize> {
        let Self { outputs, per_group, taps, groups, internal, expansion } = *self;
        let pairs = outputs * per_group;
        OrepaParts {
            origin: pairs * taps,
            average: pairs,
            frequency: pairs,
            first: groups * internal * per_group,
            second: outputs * internal * taps,
            pointwise: pairs,
            depthwise: groups * per_group * expansion * taps,
            separable: pairs * expansion,
            scales: BRANCHES * outputs,
        }
    }

    /// The kernel, `[outputs, per group, taps]`.
    ///
    /// # Panics
    /// If a length does not fit the shape, an extent is 0, or the groups do not divide the outputs.
    pub fn forward(
        &self,
        parts: &OrepaParts<&[f32]>,
        constants: &OrepaConstants<'_>,
        kernel: &mut [f32],
    ) {
        let _span = profile::work(Work::Orepa);
        self.check(parts, constants, kernel.len());
        let first = self.effective_first(parts, constants);
        let second = self.taps_outermost(parts.second, self.internal, |_, value| value);
        let mut product = buffer::take(kernel.len());
        self.product(Product::Forward, [&second, &first], &mut product);
        let Self { per_group, taps, .. } = *self;
        let centre = taps / 2;
        kernel.par_chunks_exact_mut(per_group * taps).enumerate().for_each(|(output, kernel)| {
            let row = self.row(parts, constants, output);
            let product = &product[output * per_group * taps..][..per_group * taps];
            for (input, values) in kernel.chunks_exact_mut(taps).enumerate() {
                let origin = &row.origin[input * taps..][..taps];
                let average = row.scales[1] * row.average[input];
                let frequency = row.scales[2] * row.frequency[input];
                for (tap, value) in values.iter_mut().enumerate() {
                    *value = row.scales[0] * origin[tap]
                        + average * constants.window[tap]
                        + frequency * row.prior[tap]
                        + row.scales[3] * product[tap * per_group + input];
                }
                values[centre] += row.scales[4] * row.pointwise[input];
                let filters = row.filters(self, input).chunks_exact(taps);
                for (weight, filter) in row.separable(self, input).iter().zip(filters) {
                    let weight = row.scales[5] * weight;
                    values.iter_mut().zip(filter).for_each(|(value, f)| *value += weight * f);
                }
            }
        });
    }

    /// The gradients of the parts from that of the kernel.
    ///
    /// # Panics
    /// As [`Self::forward`].
    pub fn backward(
        &self,
        parts: &OrepaParts<&[f32]>,
        constants: &OrepaConstants<'_>,
        grad: &[f32],
    ) -> OrepaParts<Vec<f32>> {
        let _span = profile::work(Work::Orepa);
        self.check(parts, constants, grad.len());
        let Self { outputs, per_group, taps, internal, expansion, .. } = *self;
        let mut found = OrepaParts::from_list(self.lengths().into_list().map(|len| vec![0.0; len]));
        // The rows of the separable kernel are interleaved; outputs write theirs in order first.
        let mut separable = buffer::take(outputs * per_group * expansion);
        let mut scales = vec![[0.0f32; BRANCHES]; outputs];
        let rows = found
            .origin
            .par_chunks_exact_mut(per_group * taps)
            .zip(found.average.par_chunks_exact_mut(per_group))
            .zip(found.frequency.par_chunks_exact_mut(per_group))
            .zip(found.pointwise.par_chunks_exact_mut(per_group))
            .zip(separable.par_chunks_exact_mut(per_group * expansion))
            .zip(&mut scales)
            .enumerate();
        rows.for_each(
            |(output, (((((origin, average), frequency), pointwise), separable), scales))| {
                let row = self.row(parts, constants, output);
                let grad = &grad[output * per_group * taps..][..per_group * taps];
                for (input, grad) in grad.chunks_exact(taps).enumerate() {
                    let own = &row.origin[input * taps..][..taps];
                    let [mut of_origin, mut of_window, mut of_prior] = [0.0; 3];
                    for tap in 0..taps {
                        origin[input * taps + tap] = row.scales[0] * grad[tap];
                        of_origin += grad[tap] * own[tap];
                        of_window += grad[tap] * constants.window[tap];
                        of_prior += grad[tap] * row.prior[tap];
                    }
                    average[input] = row.scales[1] * of_window;
                    frequency[input] = row.scales[2] * of_prior;
                    pointwise[input] = row.scales[4] * grad[taps / 2];
                    scales[0] += of_origin;
                    scales[1] += row.average[input] * of_window;
                    scales[2] += row.frequency[input] * of_prior;
                    scales[4] += row.pointwise[input] * grad[taps / 2];
                    let filters = row.filters(self, input).chunks_exact(taps);
                    let weights = row.separable(self, input).iter();
                    let grads = separable[input * expansion..][..expansion].iter_mut();
                    for ((filter, weight), found) in filters.zip(weights).zip(grads) {
                        let sum: f32 = filter.iter().zip(grad).map(|(f, g)| f * g).sum();
                        *found = row.scales[5] * sum;
                        scales[5] += weight * sum;
                    }
                }
            },
        );
        for (output, values) in separable.chunks_exact(per_group * expansion).enumerate() {
            found.separable[self.separable_row(output) * per_group * expansion..]
                [..per_group * expansion]
                .copy_from_slice(values);
        }
        self.backward_depthwise(parts, grad, &mut found.depthwise);

        let grad = self.taps_outermost(grad, per_group, |_, value| value);
        let first = self.transposed(&self.effective_first(parts, constants));
        let mut product = buffer::take(outputs * taps * internal);
        self.product(Product::Second, [&grad, &first], &mut product);
        let scale_of = |output: usize| parts.scales[3 * outputs + output];
        found.second.par_chunks_exact_mut(internal * taps).zip(&mut scales).enumerate().for_each(
            |(output, (second, scales))| {
                let own = &parts.second[output * internal * taps..][..internal * taps];
                let product = &product[output * internal * taps..][..internal * taps];
                let scale = scale_of(output);
                for (channel, (second, own)) in
                    second.chunks_exact_mut(taps).zip(own.chunks_exact(taps)).enumerate()
                {
                    for (tap, (second, own)) in second.iter_mut().zip(own).enumerate() {
                        let value = product[tap * internal + channel];
                        *second = scale * value;
                        scales[3] += own * value;
                    }
                }
            },
        );
        let scaled =
            self.taps_outermost(parts.second, internal, |output, value| scale_of(output) * value);
        self.product(Product::First, [&scaled, &grad], &mut found.first);
        for (output, of_output) in scales.iter().enumerate() {
            for (branch, value) in of_output.iter().enumerate() {
                found.scales[branch * outputs + output] = *value;
            }
        }
        found
    }

    /// The gradient of the depthwise filters: sums over the outputs of a group, for a few inputs at a
    /// time.
    fn backward_depthwise(&self, parts: &OrepaParts<&[f32]>, grad: &[f32], found: &mut [f32]) {
        const INPUTS: usize = 16;
        let Self { outputs, per_group, taps, groups, expansion, .. } = *self;
        let of_group = outputs / groups;
        let of_input = expansion * taps;
        let found = found.par_chunks_exact_mut(per_group * of_input).enumerate();
        found.for_each(|(group, found)| {
            let parts_of = found.par_chunks_mut(INPUTS * of_input).enumerate();
            parts_of.for_each(|(part, found)| {
                for output in group * of_group..(group + 1) * of_group {
                    let scale = parts.scales[5 * outputs + output];
                    let row = self.separable_row(output) * per_group * expansion;
                    for (place, found) in found.chunks_exact_mut(of_input).enumerate() {
                        let input = part * INPUTS + place;
                        let grad = &grad[(output * per_group + input) * taps..][..taps];
                        let weights = &parts.separable[row + input * expansion..][..expansion];
                        for (found, weight) in found.chunks_exact_mut(taps).zip(weights) {
                            let weight = scale * weight;
                            found.iter_mut().zip(grad).for_each(|(f, g)| *f += weight * g);
                        }
                    }
                }
            });
        });
    }

    fn check(&self, parts: &OrepaParts<&[f32]>, constants: &OrepaConstants<'_>, kernel: usize) {
        let Self { outputs, taps, groups, .. } = *self;
        let extents = [outputs, self.per_group, taps, groups, self.internal, self.expansion];
        assert!(extents.iter().all(|&extent| extent > 0), "every extent is at least 1: {self:?}");
        assert!(outputs.is_multiple_of(groups), "groups divide the outputs: {self:?}");
        let lengths = self.lengths();
        assert_eq!(kernel, lengths.origin, "values of the kernel");
        let constants = [constants.window.len(), constants.prior.len(), constants.identity.len()];
        assert_eq!(constants, [taps, outputs * taps, lengths.first], "values of the constants");
        let given = parts.clone().into_list().map(<[f32]>::len);
        assert_eq!(given, lengths.into_list(), "values of the parts");
    }

    fn separable_row(&self, output: usize) -> usize {
        let of_group = self.outputs / self.groups;
        output % of_group * self.groups + output / of_group
    }

    fn effective_first(
        &self,
        parts: &OrepaParts<&[f32]>,
        constants: &OrepaConstants<'_>,
    ) -> Buffer {
        let mut first = buffer::take(parts.first.len());
        let values = parts.first.iter().zip(constants.identity);
        first.iter_mut().zip(values).for_each(|(sum, (weight, one))| *sum = weight + one);
        first
    }

    /// `[groups, internal, per group]` as `[groups, per group, internal]`.
    fn transposed(&self, first: &[f32]) -> Buffer {
        let Self { per_group, internal, .. } = *self;
        let mut to = buffer::take(first.len());
        let groups =
            to.chunks_exact_mut(per_group * internal).zip(first.chunks_exact(per_group * internal));
        for (to, from) in groups {
            for (place, to) in to.iter_mut().enumerate() {
                *to = from[place % internal * per_group + place / internal];
            }
        }
        to
    }

    /// `[outputs, channels, taps]` as `[outputs, taps, channels]`; `value` sees the output.
    fn taps_outermost(
        &self,
        from: &[f32],
        channels: usize,
        value: impl Fn(usize, f32) -> f32 + Sync,
    ) -> Buffer {
        let mut to = buffer::take(from.len());
        let taps = self.taps;
        to.par_chunks_exact_mut(channels * taps)
            .zip(from.par_chunks_exact(channels * taps))
            .enumerate()
            .for_each(|(output, (to, from))| {
                for (tap, to) in to.chunks_exact_mut(channels).enumerate() {
                    for (channel, to) in to.iter_mut().enumerate() {
                        *to = value(output, from[channel * taps + tap]);
                    }
                }
            });
        to
    }

    /// A product of the sequence, group by group. All matrices are row-major, except that the first
    /// factor of [`Product::First`] is the transpose of one.
    fn product(&self, which: Product, [a, b]: [&[f32]; 2], c: &mut [f32]) {
        let Self { outputs, per_group, taps, groups, internal, .. } = *self;
        let rows = outputs / groups * taps;
        let [m, k, n] = match which {
            Product::Forward => [rows, internal, per_group],
            Product::Second => [rows, per_group, internal],
            Product::First => [internal, rows, per_group],
        };
        let factors = |group: usize| {
            let (a, b) = (&a[group * m * k..][..m * k], &b[group * k * n..][..k * n]);
            let a = match which {
                Product::First => Matrix::row_major(a, [k, m]).transposed(),
                _ => Matrix::row_major(a, [m, k]),
            };
            (a, Matrix::row_major(b, [k, n]))
        };
        if m * k * n >= LEAST_PRODUCT {
            for (group, c) in c.chunks_exact_mut(m * n).enumerate() {
                let (a, b) = factors(group);
                matmul(a, b, c, false);
            }
            return;
        }
        c.par_chunks_exact_mut(m * n).enumerate().for_each(|(group, c)| {
            let (a, b) = factors(group);
            for (place, value) in c.iter_mut().enumerate() {
                let term = |inner: usize| a.at(place / n, inner) * b.at(inner, place % n);
                *value = (0..k).map(term).sum();
            }
        });
    }

    fn row<'a>(
        &self,
        parts: &OrepaParts<&'a [f32]>,
        constants: &OrepaConstants<'a>,
        output: usize,
    ) -> Row<'a> {
        let Self { outputs, per_group, taps, groups, expansion, .. } = *self;
        let pairs = output * per_group..(output + 1) * per_group;
        let group = output / (outputs / groups);
        let filters = per_group * expansion * taps;
        let separable = self.separable_row(output) * per_group * expansion;
        Row {
            origin: &parts.origin[output * per_group * taps..][..per_group * taps],
            average: &parts.average[pairs.clone()],
            frequency: &parts.frequency[pairs.clone()],
            pointwise: &parts.pointwise[pairs],
            prior: &constants.prior[output * taps..][..taps],
            filters: &parts.depthwise[group * filters..][..filters],
            separable: &parts.separable[separable..][..per_group * expansion],
            scales: std::array::from_fn(|branch| parts.scales[branch * outputs + output]),
        }
    }
}

/// A product of the sequence: the kernel, or the gradient of one of its two factors.
#[derive(Clone, Copy)]
enum Product {
    Forward,
    Second,
    First,
}

/// What one output channel is made of.
struct Row<'a> {
    origin: &'a [f32],
    average: &'a [f32],
    frequency: &'a [f32],
    pointwise: &'a [f32],
    prior: &'a [f32],
    /// Of all inputs of its group.
    filters: &'a [f32],
    separable: &'a [f32],
    scales: [f32; BRANCHES],
}

impl Row<'_> {
    fn filters(&self, shape: &OrepaShape, input: usize) -> &[f32] {
        let len = shape.expansion * shape.taps;
        &self.filters[input * len..][..len]
    }

    fn separable(&self, shape: &OrepaShape, input: usize) -> &[f32] {
        &self.separable[input * shape.expansion..][..shape.expansion]
    }
}
