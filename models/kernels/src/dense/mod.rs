//! The dense Diverse Branch Block in training (Ding et al., CVPR 2021), with every batch
//! statistic, border value and gradient of its definition.
//!
//! Two things make it cheaper than its definition. The norms after the 1x1 convolutions that
//! open two of the branches come from the moments of the block's input, which both share: see
//! [`PaddedNorm`]. And then everything up to the closing norm of each branch is linear:
//!
//! - 1x1, norm, KxK is one KxK convolution with the kernel `W2 A`, over the same windows as the
//!   first branch: both are one convolution of twice the outputs. What the padding adds, `W2`'s
//!   answer to the constant `d - p`, varies at the border alone. Where an image has fewer
//!   positions than merging costs, `A x + d - p` is computed instead.
//! - 1x1, norm, average pool is a 1x1 convolution with `A` of the pooled input.
//!
//! Four maps remain, the inputs of the closing norms; they, the input and the output are all that
//! is kept for the backward pass.

mod border;
mod matrix;
mod opening;

use crate::closing::{self, Closing, ClosingGrad};
use crate::{BatchStatistics, ConvNorm, ConvNormGrad, ConvShape, Epilogue, Norm};
use crate::{buffer, conv, moments, pool};
use border::Border;
use opening::{Affine, Moments, MomentsGrad};

#[cfg(test)]
mod tests;

pub use opening::{PaddedNorm, PaddedNormGrad};

/// A dense block with its four branches.
#[derive(Clone, Copy, Debug)]
pub struct DenseBlock<'a> {
    /// Geometry of the KxK convolution; one group.
    pub shape: ConvShape,
    /// KxK convolution and norm.
    pub kxk: ConvNorm<'a>,
    /// 1x1 convolution and norm.
    pub pointwise: ConvNorm<'a>,
    /// 1x1 convolution, norm, KxK convolution, norm.
    pub pointwise_kxk: (PaddedNorm<'a>, ConvNorm<'a>),
    /// 1x1 convolution, norm, average pool, norm.
    pub average: (PaddedNorm<'a>, Norm<'a>),
}

/// The batch statistics of every norm of a block.
#[derive(Clone, Debug)]
pub struct DenseStatistics {
    /// Of the KxK branch.
    pub kxk: BatchStatistics,
    /// Of the 1x1 branch.
    pub pointwise: BatchStatistics,
    /// Of the first and the closing norm of the 1x1-KxK branch.
    pub pointwise_kxk: [BatchStatistics; 2],
    /// Of the first and the closing norm of the average branch.
    pub average: [BatchStatistics; 2],
}

/// What the backward pass needs besides input and output.
#[derive(Clone, Debug)]
pub struct DenseSaved {
    moments: Moments,
    merged: Affine,
    averaged: Affine,
    maps: Maps,
    /// `A x + d - p`, where the kernels are not merged.
    between: Option<Vec<f32>>,
    closing: Closing,
}

/// The inputs of the closing norms, or their gradients.
#[derive(Clone, Debug)]
struct Maps {
    /// Of the KxK branch and, where the kernels are merged, of the 1x1-KxK branch after it, image
    /// by image.
    windows: Vec<f32>,
    /// Of the 1x1-KxK branch, where the kernels are not merged.
    second: Option<Vec<f32>>,
    pointwise: Vec<f32>,
    average: Vec<f32>,
}

/// Gradients of a block.
#[derive(Clone, Debug)]
pub struct DenseGrad {
    /// Of the input, if it was wanted.
    pub input: Option<Vec<f32>>,
    /// Of the residual, if it was wanted.
    pub residual: Option<Vec<f32>>,
    /// Of the KxK branch.
    pub kxk: ConvNormGrad,
    /// Of the 1x1 branch.
    pub pointwise: ConvNormGrad,
    /// Of the 1x1-KxK branch.
    pub pointwise_kxk: (PaddedNormGrad, ConvNormGrad),
    /// Of the average branch: its 1x1, and scale and shift of the closing norm.
    pub average: (PaddedNormGrad, [Vec<f32>; 2]),
}

impl DenseBlock<'_> {
    /// `y = act(sum of the branches of x + residual)` with `act` the identity or ReLU; `x` is
    /// `[batch, in, height, width]`, `y` and `residual` `[batch, out, height', width']`.
    ///
    /// # Panics
    /// If a length does not fit the shape, the shape has groups, or a norm has but one value per
    /// channel.
    pub fn forward(
        &self,
        x: &[f32],
        residual: Option<&[f32]>,
        relu: bool,
        y: &mut [f32],
    ) -> (DenseStatistics, DenseSaved) {
        self.check(x, y);
        let shape = &self.shape;
        let inputs = shape.in_channels;
        let moments = Moments::new(x, [shape.batch, inputs, shape.input_positions()]);
        let (opening, second) = &self.pointwise_kxk;
        let merged = opening.forward(&moments);
        let averaged = self.average.0.forward(&moments);

        let border = Border::new(shape);
        let (windows, second_map, between) = if self.merges() {
            let kernels = [self.kxk.weight, &self.merge(&merged)].concat();
            let mut map = buffer::take(2 * y.len());
            conv::forward(&self.stacked(), x, &kernels, &mut map, Epilogue::default());
            let taps = self.offset_taps(&merged);
            border.subtract_outside(&mut map, 2 * shape.out_channels, shape.out_channels, &taps);
            (map, None, None)
        } else {
            let between = self.between(x, &merged);
            let mut map = buffer::take(y.len());
            conv::forward(shape, x, self.kxk.weight, &mut map, Epilogue::default());
            let mut second_map = buffer::take(y.len());
            let inner = self.inner();
            conv::forward(&inner, &between, second.weight, &mut second_map, Epilogue::default());
            (map, Some(second_map), Some(between))
        };

        let mut pointwise = buffer::take(y.len());
        let strided = self.strided();
        conv::forward(&strided, x, self.pointwise.weight, &mut pointwise, Epilogue::default());
        let mut average = buffer::take(y.len());
        let pooled = self.pooled(x);
        let pooled_shape = self.pooled_shape();
        conv::forward(&pooled_shape, &pooled, &averaged.weight, &mut average, Epilogue::default());
        let mean_taps = self.mean_taps(&averaged);
        border.subtract_outside(&mut average, shape.out_channels, 0, &mean_taps);

        let maps = Maps { windows, second: second_map, pointwise, average };
        let dims = shape.output_dims();
        let found = closing::statistics(&maps.all(), dims);
        let norms = self.closing_norms();
        let (closing, statistics) =
            Closing::forward(&maps.all(), &found, &norms, residual, relu, dims, y);
        let Ok([kxk, mut second_closing, pointwise, mut average_closing]) =
            <[BatchStatistics; 4]>::try_from(statistics)
        else {
            unreachable!("one for each of the four norms");
        };
        // What the maps hold is without what is the same everywhere.
        let window = shape.kernel[0] * shape.kernel[1];
        let border_answer = taps_of(second.weight, &merged.border, window);
        let offset_answer = if self.merges() { self.offset_taps(&merged) } else { Vec::new() };
        for (output, mean) in second_closing.mean.iter_mut().enumerate() {
            let answer = |taps: &[f64]| -> f64 {
                taps.chunks_exact(window).nth(output).map_or(0.0, |taps| taps.iter().sum())
            };
            *mean += (answer(&border_answer) + answer(&offset_answer)) as f32;
        }
        let constants = averaged.offset.iter().zip(&averaged.border);
        for (mean, (offset, border)) in average_closing.mean.iter_mut().zip(constants) {
            *mean += (offset + border) as f32;
        }
        let statistics = DenseStatistics {
            kxk,
            pointwise,
            pointwise_kxk: [merged.statistics(), second_closing],
            average: [averaged.statistics(), average_closing],
        };
        (statistics, DenseSaved { moments, merged, averaged, maps, between, closing })
    }

    /// The gradients of everything from that of `y`.
    ///
    /// # Panics
    /// If a length does not fit the shape.
    pub fn backward(
        &self,
        x: &[f32],
        y: &[f32],
        saved: &DenseSaved,
        grad: &[f32],
        [wants_input, wants_residual]: [bool; 2],
    ) -> DenseGrad {
        self.check(x, y);
        assert_eq!(grad.len(), y.len(), "length of the output's gradient");
        let shape = &self.shape;
        let (inputs, outputs) = (shape.in_channels, shape.out_channels);
        let window = shape.kernel[0] * shape.kernel[1];
        let border = Border::new(shape);
        let (opening, second) = &self.pointwise_kxk;
        let DenseSaved { moments, merged, averaged, maps, between, closing } = saved;

        let dims = shape.output_dims();
        let norms = self.closing_norms();
        let ClosingGrad { norms, maps: grads, residual } =
            closing.backward(&maps.all(), &norms, y, grad, dims, wants_residual);
        let Ok([kxk_norm, second_norm, pointwise_norm, average_norm]) =
            <[[Vec<f32>; 2]; 4]>::try_from(norms)
        else {
            unreachable!("one for each of the four norms");
        };
        let grads = Maps::from_all(grads);

        let mut input = wants_input.then(|| buffer::take(x.len()));
        let mut moments_grad = MomentsGrad::zero(inputs);

        // 1x1 and the pooled 1x1.
        let strided = self.strided();
        let mut pointwise_weight = vec![0.0; self.pointwise.weight.len()];
        conv::backward_weight(&strided, x, &grads.pointwise, &mut pointwise_weight);
        let pooled_shape = self.pooled_shape();
        let mut averaged_weight = vec![0.0; averaged.weight.len()];
        let pooled = self.pooled(x);
        conv::backward_weight(&pooled_shape, &pooled, &grads.average, &mut averaged_weight);
        let outside = border.outside_sums(&grads.average, outputs, 0, outputs);
        // The gradient of a norm's input sums to zero, so that the interior adds nothing.
        let averaged_offset: Vec<f64> = outside
            .chunks_exact(window)
            .map(|taps| taps.iter().sum::<f64>() / window as f64)
            .collect();
        let average = self.average.0.backward(
            moments,
            averaged,
            &averaged_weight,
            &averaged_offset,
            &mut moments_grad,
        );
        if let Some(input) = &mut input {
            let mut pooled_grad = pooled;
            let weight = &averaged.weight;
            conv::backward_input(&pooled_shape, &grads.average, weight, &mut pooled_grad, false);
            self.pool_backward(&pooled_grad, input);
            conv::backward_input(&strided, &grads.pointwise, self.pointwise.weight, input, true);
        }

        // The windows.
        let (kxk_weight, second_weight, opening_weight, opening_offset) =
            match (between, &grads.second) {
                (Some(between), Some(second_grad)) => {
                    let inner = self.inner();
                    let mut kxk_weight = buffer::take(self.kxk.weight.len());
                    conv::backward_weight(shape, x, &grads.windows, &mut kxk_weight);
                    let mut second_weight = buffer::take(second.weight.len());
                    conv::backward_weight(&inner, between, second_grad, &mut second_weight);
                    let mut between_grad = buffer::take(between.len());
                    conv::backward_input(
                        &inner,
                        second_grad,
                        second.weight,
                        &mut between_grad,
                        false,
                    );
                    let opening_shape = self.opening();
                    let mut opening_weight = vec![0.0; merged.weight.len()];
                    conv::backward_weight(&opening_shape, x, &between_grad, &mut opening_weight);
                    let opening_offset = moments::sums(&between_grad, self.between_dims());
                    if let Some(input) = &mut input {
                        conv::backward_input(shape, &grads.windows, self.kxk.weight, input, true);
                        let weight = &merged.weight;
                        conv::backward_input(&opening_shape, &between_grad, weight, input, true);
                    }
                    (kxk_weight, second_weight, opening_weight, opening_offset)
                }
                _ => {
                    let stacked = self.stacked();
                    let mut both = vec![0.0; 2 * self.kxk.weight.len()];
                    conv::backward_weight(&stacked, x, &grads.windows, &mut both);
                    let merged_grad = both.split_off(self.kxk.weight.len());
                    if let Some(input) = &mut input {
                        let kernels = [self.kxk.weight, &self.merge(merged)].concat();
                        conv::backward_input(&stacked, &grads.windows, &kernels, input, true);
                    }
                    let taps_grad =
                        border.outside_sums(&grads.windows, 2 * outputs, outputs, outputs);
                    let (second_weight, opening_weight, opening_offset) =
                        self.unmerge(merged, &merged_grad, &taps_grad);
                    (both, second_weight, opening_weight, opening_offset)
                }
            };
        let opening =
            opening.backward(moments, merged, &opening_weight, &opening_offset, &mut moments_grad);
        if let Some(input) = &mut input {
            let dims = [shape.batch, inputs, shape.input_positions()];
            moments_grad.add_to(moments, x, dims, input);
        }
        DenseGrad {
            input,
            residual,
            kxk: ConvNormGrad { weight: kxk_weight, norm: kxk_norm },
            pointwise: ConvNormGrad { weight: pointwise_weight, norm: pointwise_norm },
            pointwise_kxk: (opening, ConvNormGrad { weight: second_weight, norm: second_norm }),
            average: (average, average_norm),
        }
    }

    /// Whether the 1x1 is merged into the KxK it stands before: that takes three products of the
    /// kernels a step, instead of three of the map.
    fn merges(&self) -> bool {
        let window = self.shape.kernel[0] * self.shape.kernel[1];
        self.shape.batch * self.shape.input_positions() > window * self.shape.out_channels
    }

    fn check(&self, x: &[f32], y: &[f32]) {
        let shape = &self.shape;
        assert_eq!(shape.groups, 1, "a dense block has one group");
        assert_eq!(x.len(), shape.input_len(), "length of the input");
        assert_eq!(y.len(), shape.output_len(), "length of the output");
        assert!(
            shape.batch * shape.output_positions() > 1,
            "batch norm needs more than one value per channel in training"
        );
    }

    fn closing_norms(&self) -> [Norm<'_>; 4] {
        let second = &self.pointwise_kxk.1;
        [self.kxk.norm, second.norm, self.pointwise.norm, self.average.1]
    }

    /// Channels between the 1x1 and the KxK.
    fn internal(&self) -> usize {
        self.pointwise_kxk.0.gamma.len()
    }

    fn between_dims(&self) -> [usize; 3] {
        [self.shape.batch, self.internal(), self.shape.input_positions()]
    }

    /// Two KxK convolutions over the same windows.
    fn stacked(&self) -> ConvShape {
        ConvShape { out_channels: 2 * self.shape.out_channels, ..self.shape }
    }

    /// The KxK convolution after the 1x1.
    fn inner(&self) -> ConvShape {
        ConvShape { in_channels: self.internal(), ..self.shape }
    }

    /// The 1x1 convolution before the KxK.
    fn opening(&self) -> ConvShape {
        let channels = [self.shape.in_channels, self.internal()];
        ConvShape::pointwise(self.shape.batch, channels, self.shape.input_positions())
    }

    /// The 1x1 branch.
    fn strided(&self) -> ConvShape {
        ConvShape { kernel: [1, 1], padding: [0, 0], ..self.shape }
    }

    /// The 1x1 convolution of the pooled input.
    fn pooled_shape(&self) -> ConvShape {
        let channels = [self.shape.in_channels, self.shape.out_channels];
        ConvShape::pointwise(self.shape.batch, channels, self.shape.output_positions())
    }

    fn pool_shape(&self) -> ConvShape {
        let channels = self.shape.in_channels;
        ConvShape { out_channels: channels, groups: channels, ..self.shape }
    }

    fn pooled(&self, x: &[f32]) -> Vec<f32> {
        let shape = self.pool_shape();
        let mut pooled = buffer::take(shape.output_len());
        pool::average(&shape, x, &mut pooled);
        pooled
    }

    fn pool_backward(&self, grad: &[f32], input: &mut [f32]) {
        pool::average_backward(&self.pool_shape(), grad, input, false);
    }

    fn between(&self, x: &[f32], merged: &Affine) -> Vec<f32> {
        let bias: Vec<f32> = merged.offset.iter().map(|&value| value as f32).collect();
        let [batch, channels, positions] = self.between_dims();
        let mut between = buffer::take(batch * channels * positions);
        let epilogue = Epilogue { bias: Some(&bias), ..Epilogue::default() };
        conv::forward(&self.opening(), x, &merged.weight, &mut between, epilogue);
        between
    }

    /// A 1x1 convolution over the kernels `[out, internal, kh, kw]`, seen as images: its weight is
    /// the transpose of `A`.
    fn kernel_shape(&self) -> ConvShape {
        let window = self.shape.kernel[0] * self.shape.kernel[1];
        let channels = [self.internal(), self.shape.in_channels];
        ConvShape::pointwise(self.shape.out_channels, channels, window)
    }

    /// `W2 A`, `[out, in, kh, kw]`.
    fn merge(&self, merged: &Affine) -> Vec<f32> {
        let mut kernels = buffer::take(self.kxk.weight.len());
        let weight = transpose(&merged.weight, self.internal());
        let second = self.pointwise_kxk.1.weight;
        conv::forward(&self.kernel_shape(), second, &weight, &mut kernels, Epilogue::default());
        kernels
    }

    /// The adjoint of [`Self::merge`] and of the answer to `d - p`: gradients of `W2`, `A`, `d`.
    fn unmerge(
        &self,
        merged: &Affine,
        kernels_grad: &[f32],
        taps_grad: &[f64],
    ) -> (Vec<f32>, Vec<f32>, Vec<f64>) {
        let shape = self.kernel_shape();
        let second = self.pointwise_kxk.1.weight;
        let weight = transpose(&merged.weight, self.internal());
        let mut second_grad = buffer::take(second.len());
        conv::backward_input(&shape, kernels_grad, &weight, &mut second_grad, false);
        let mut weight_grad = vec![0.0; merged.weight.len()];
        conv::backward_weight(&shape, second, kernels_grad, &mut weight_grad);
        let weight_grad = transpose(&weight_grad, self.shape.in_channels);

        let window = self.shape.kernel[0] * self.shape.kernel[1];
        let internal = self.internal();
        let mut offset_grad = vec![0.0; internal];
        let kernels = second.chunks_exact(internal * window);
        for ((kernel, grad), taps) in kernels
            .zip(second_grad.chunks_exact_mut(internal * window))
            .zip(taps_grad.chunks_exact(window))
        {
            for (index, (&value, grad)) in kernel.iter().zip(grad).enumerate() {
                let (channel, tap) = (index / window, index % window);
                *grad += (taps[tap] * merged.offset[channel]) as f32;
                offset_grad[channel] += taps[tap] * f64::from(value);
            }
        }
        (second_grad, weight_grad, offset_grad)
    }

    /// Answer of every tap of `W2` to `d - p`, `[out, kh * kw]`.
    fn offset_taps(&self, merged: &Affine) -> Vec<f64> {
        let window = self.shape.kernel[0] * self.shape.kernel[1];
        taps_of(self.pointwise_kxk.1.weight, &merged.offset, window)
    }

    /// Answer of every tap of the average to `d - p`, `[out, kh * kw]`.
    fn mean_taps(&self, averaged: &Affine) -> Vec<f64> {
        let window = self.shape.kernel[0] * self.shape.kernel[1];
        let taps = |&offset: &f64| std::iter::repeat_n(offset / window as f64, window);
        averaged.offset.iter().flat_map(taps).collect()
    }
}

impl Drop for Maps {
    fn drop(&mut self) {
        let Self { windows, second, pointwise, average } = self;
        let maps = [Some(windows), second.as_mut(), Some(pointwise), Some(average)];
        maps.into_iter().flatten().for_each(|map| buffer::give(std::mem::take(map)));
    }
}

impl Drop for DenseSaved {
    fn drop(&mut self) {
        buffer::give(self.between.take().unwrap_or_default());
    }
}

impl Maps {
    /// Every map, in the order of the closing norms.
    fn all(&self) -> Vec<&[f32]> {
        let maps = [Some(&self.windows), self.second.as_ref(), Some(&self.pointwise)];
        maps.into_iter().flatten().chain([&self.average]).map(Vec::as_slice).collect()
    }

    /// The inverse of [`Self::all`].
    fn from_all(mut maps: Vec<Vec<f32>>) -> Self {
        let second = (maps.len() == 4).then(|| maps.remove(1));
        let mut maps = maps.into_iter();
        let mut next = || maps.next().unwrap_or_default();
        Self { windows: next(), second, pointwise: next(), average: next() }
    }
}

/// Every tap's answer to a map that is constant in each channel, `[out, kh * kw]`.
fn taps_of(weight: &[f32], constant: &[f64], window: usize) -> Vec<f64> {
    let mut taps = Vec::with_capacity(weight.len() / constant.len());
    for kernel in weight.chunks_exact(constant.len() * window) {
        let start = taps.len();
        taps.resize(start + window, 0.0);
        for (channel, &constant) in kernel.chunks_exact(window).zip(constant) {
            for (tap, &value) in taps[start..].iter_mut().zip(channel) {
                *tap += f64::from(value) * constant;
            }
        }
    }
    taps
}

/// The transpose of a matrix of the given number of rows.
fn transpose(matrix: &[f32], rows: usize) -> Vec<f32> {
    let columns = matrix.len() / rows;
    (0..matrix.len()).map(|index| matrix[index % rows * columns + index / rows]).collect()
}
