//! The block by the four maps that its closing norms read.

use super::border::Border;
use super::opening::{Affine, Moments, MomentsGrad};
use super::{BatchStatistics, DenseBlock, DenseGrad, taps_of};
use crate::buffer::{self, Buffer};
use crate::closing::{self, Closing, ClosingGrad};
use crate::{Activation, ConvNormGrad, ConvShape, Epilogue, conv, moments, pool};

/// What the backward pass needs.
#[derive(Clone, Debug)]
pub(super) struct Maps {
    inputs: Inputs,
    /// `A x + d - p`, where the kernels are not merged.
    between: Option<Buffer>,
    closing: Closing,
}

/// The inputs of the closing norms, or their gradients.
#[derive(Clone, Debug)]
struct Inputs {
    /// Of the KxK branch and, where the kernels are merged, of the 1x1-KxK branch after it, image
    /// by image.
    windows: Buffer,
    /// Of the 1x1-KxK branch, where the kernels are not merged.
    second: Option<Buffer>,
    pointwise: Buffer,
    average: Buffer,
}

impl Inputs {
    /// Every map, in the order of the closing norms.
    fn all(&self) -> Vec<&[f32]> {
        let maps = [Some(&self.windows), self.second.as_ref(), Some(&self.pointwise)];
        maps.into_iter().flatten().chain([&self.average]).map(|map| &**map).collect()
    }

    /// The inverse of [`Self::all`].
    fn from_all(mut maps: Vec<Buffer>) -> Self {
        let second = (maps.len() == 4).then(|| maps.remove(1));
        let mut maps = maps.into_iter();
        let mut next = || maps.next().unwrap_or_default();
        Self { windows: next(), second, pointwise: next(), average: next() }
    }
}

impl DenseBlock<'_> {
    /// Computes `y`. All maps are those of the input less its shift. The statistics are those of
    /// the closing norms' inputs in the order of [`Self::closing_norms`].
    pub(super) fn forward_maps(
        &self,
        x: &[f32],
        residual: Option<&[f32]>,
        moments: &Moments,
        [merged, averaged]: [&Affine; 2],
        activation: Activation,
        y: &mut [f32],
    ) -> (Vec<BatchStatistics>, Maps) {
        let shape = &self.shape;
        let second = &self.pointwise_kxk.1;
        let border = Border::new(shape);
        let centred = moments.centred(x, shape.input_positions());
        let x = centred.as_deref().unwrap_or(x);
        let (mut windows, second_map, between) = if self.merges() {
            let kernels = [self.kxk.weight, &self.merge(merged)].concat();
            let mut map = buffer::take(2 * y.len());
            conv::forward(&self.stacked(), x, &kernels, &mut map, Epilogue::default());
            let taps = self.offset_taps(merged);
            border.subtract_outside(&mut map, 2 * shape.out_channels, shape.out_channels, &taps);
            (map, None, None)
        } else {
            let between = self.between(x, merged);
            let mut map = buffer::take(y.len());
            conv::forward(shape, x, self.kxk.weight, &mut map, Epilogue::default());
            let mut second_map = buffer::take(y.len());
            let inner = self.inner();
            conv::forward(&inner, &between, second.weight, &mut second_map, Epilogue::default());
            (map, Some(second_map), Some(between))
        };
        if let Some(shift) = &moments.shift {
            let channels = windows.len() / y.len() * shape.out_channels;
            border.subtract_outside(&mut windows, channels, 0, &self.shift_taps(shift));
        }

        let mut pointwise = buffer::take(y.len());
        let strided = self.strided();
        conv::forward(&strided, x, self.pointwise.weight, &mut pointwise, Epilogue::default());
        let mut average = buffer::take(y.len());
        let pooled = self.pooled(x);
        let pooled_shape = self.pooled_shape();
        conv::forward(&pooled_shape, &pooled, &averaged.weight, &mut average, Epilogue::default());
        let mean_taps = self.mean_taps(averaged);
        border.subtract_outside(&mut average, shape.out_channels, 0, &mean_taps);

        let maps = Inputs { windows, second: second_map, pointwise, average };
        let dims = shape.output_dims();
        let found = closing::statistics(&maps.all(), dims);
        let norms = self.closing_norms();
        let (closing, mut statistics) =
            Closing::forward(&maps.all(), &found, &norms, residual, activation, dims, y);
        // What the maps hold is without what is the same everywhere.
        let window = shape.kernel[0] * shape.kernel[1];
        if let Some(shift) = &moments.shift {
            for (mean, taps) in
                statistics[0].mean.iter_mut().zip(self.shift_taps(shift).chunks_exact(window))
            {
                *mean += taps.iter().sum::<f64>() as f32;
            }
            let answers = self.pointwise_shift(shift);
            for (mean, answer) in statistics[2].mean.iter_mut().zip(answers) {
                *mean += answer as f32;
            }
        }
        let border_answer = taps_of(second.weight, &merged.border, window);
        let offset_answer = if self.merges() { self.offset_taps(merged) } else { Vec::new() };
        for (output, mean) in statistics[1].mean.iter_mut().enumerate() {
            let answer = |taps: &[f64]| -> f64 {
                taps.chunks_exact(window).nth(output).map_or(0.0, |taps| taps.iter().sum())
            };
            *mean += (answer(&border_answer) + answer(&offset_answer)) as f32;
        }
        let constants = averaged.offset.iter().zip(&averaged.border);
        for (mean, (offset, border)) in statistics[3].mean.iter_mut().zip(constants) {
            *mean += (offset + border) as f32;
        }
        (statistics, Maps { inputs: maps, between, closing })
    }

    /// The gradients of everything from that of `y`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn backward_maps(
        &self,
        x: &[f32],
        y: &[f32],
        moments: &Moments,
        [merged, averaged]: [&Affine; 2],
        saved: &Maps,
        grad: &[f32],
        [wants_input, wants_residual]: [bool; 2],
    ) -> DenseGrad {
        let shape = &self.shape;
        let (inputs, outputs) = (shape.in_channels, shape.out_channels);
        let window = shape.kernel[0] * shape.kernel[1];
        let border = Border::new(shape);
        let (opening, second) = &self.pointwise_kxk;
        let Maps { inputs: maps, between, closing } = saved;
        let centred = moments.centred(x, shape.input_positions());
        let x = centred.as_deref().unwrap_or(x);

        let dims = shape.output_dims();
        let norms = self.closing_norms();
        let ClosingGrad { norms, maps: grads, residual } =
            closing.backward(&maps.all(), &norms, y, grad, dims, wants_residual, true);
        let Ok([kxk_norm, second_norm, pointwise_norm, average_norm]) =
            <[[Vec<f32>; 2]; 4]>::try_from(norms)
        else {
            unreachable!("one for each of the four norms");
        };
        let grads = Inputs::from_all(grads);

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
        let (mut kxk_weight, second_weight, opening_weight, opening_offset) =
            match (between, &grads.second) {
                (Some(between), Some(second_grad)) => {
                    let inner = self.inner();
                    let mut kxk_weight = vec![0.0; self.kxk.weight.len()];
                    conv::backward_weight(shape, x, &grads.windows, &mut kxk_weight);
                    let mut second_weight = vec![0.0; second.weight.len()];
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
        if let Some(shift) = &moments.shift {
            // The gradient of a norm's input sums to zero: inside it sums to minus the outside.
            let channels = grads.windows.len() / y.len() * outputs;
            let outside = border.outside_sums(&grads.windows, channels, 0, outputs);
            for (output, grad) in kxk_weight.chunks_exact_mut(inputs * window).enumerate() {
                let sums = &outside[output * window..][..window];
                for (grad, &shift) in grad.chunks_exact_mut(window).zip(shift) {
                    for (grad, sum) in grad.iter_mut().zip(sums) {
                        *grad += (f64::from(shift) * sum) as f32;
                    }
                }
            }
        }
        let opening =
            opening.backward(moments, merged, &opening_weight, &opening_offset, &mut moments_grad);
        if let Some(input) = &mut input {
            let dims = [shape.batch, inputs, shape.input_positions()];
            moments_grad.add_to(moments, x, dims, input);
        }
        DenseGrad {
            input: input.map(Buffer::into_vec),
            residual: residual.map(Buffer::into_vec),
            kxk: ConvNormGrad { weight: kxk_weight, norm: kxk_norm },
            pointwise: ConvNormGrad { weight: pointwise_weight, norm: pointwise_norm },
            pointwise_kxk: (opening, ConvNormGrad { weight: second_weight, norm: second_norm }),
            average: (average, average_norm),
        }
    }

    /// Whether the 1x1 is merged into the KxK it stands before: that costs one product of the
    /// kernels forward and up to three backward, instead of one and two of the map.
    fn merges(&self) -> bool {
        let window = self.shape.kernel[0] * self.shape.kernel[1];
        self.shape.batch * self.shape.input_positions() > window * self.shape.out_channels
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

    fn pooled(&self, x: &[f32]) -> Buffer {
        let shape = self.pool_shape();
        let mut pooled = buffer::take(shape.output_len());
        pool::average(&shape, x, &mut pooled);
        pooled
    }

    fn pool_backward(&self, grad: &[f32], input: &mut [f32]) {
        pool::average_backward(&self.pool_shape(), grad, input, false);
    }

    fn between(&self, x: &[f32], merged: &Affine) -> Buffer {
        let bias: Vec<f32> = merged.offset.iter().map(|&value| value as f32).collect();
        let [batch, channels, positions] = self.between_dims();
        let mut between = buffer::take(batch * channels * positions);
        let epilogue = Epilogue { bias: Some(&bias), ..Epilogue::default() };
        conv::forward(&self.opening(), x, &merged.weight, &mut between, epilogue);
        between
    }
}
