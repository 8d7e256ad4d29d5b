//! The block computed from the four maps that its closing norms read.

use super::border::Border;
use super::input_moments::MomentsGrad;
use super::opening::Affine;
use super::{BatchStatistics, DenseBlock, MergedGrad, Openings, PaddedNormGrad, taps_of};
use crate::arithmetic::to_f32;
use crate::branch_sum::{BranchGrad, SumGrad, Wanted};
use crate::buffer::{self, Buffer};
use crate::closing::{self, Closing, ClosingGrad};
use crate::conv::{self, convolve, weight_grad};
use crate::members::Batch;
use crate::{Activation, ConvShape, Epilogue, moments, pool};

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
    /// Computes `y`. All maps are computed from the input less its shift. The statistics are those
    /// of the inputs of the closing norms, in the order of [`Self::closing_norms`].
    pub(super) fn forward_maps(
        &self,
        x: &[f32],
        residual: Option<&[f32]>,
        openings: &Openings,
        activation: Activation,
        y: &mut [f32],
    ) -> (Vec<BatchStatistics>, Maps) {
        let Openings { moments, merged, averaged } = openings;
        let (shape, border) = (&self.shape, Border::new(&self.shape));
        let centred = moments.centred(x, shape.input_positions());
        let x = centred.as_deref().unwrap_or(x);
        let mut between = None;
        let (mut windows, second) = if self.merges() {
            let kernels = [self.kxk.weight, &self.merge(merged)].concat();
            let mut windows = convolve(&self.stacked(), x, &kernels);
            let (channels, first) = (2 * shape.out_channels, shape.out_channels);
            border.subtract_outside(&mut windows, channels, first, &self.offset_taps(merged));
            (windows, None)
        } else {
            let map = between.insert(self.between(x, merged));
            let second = convolve(&self.inner(), map, self.pointwise_kxk.1.weight);
            (convolve(shape, x, self.kxk.weight), Some(second))
        };
        if let Some(shift) = &moments.shift {
            let channels = windows.len() / y.len() * shape.out_channels;
            border.subtract_outside(&mut windows, channels, 0, &self.shift_taps(shift));
        }
        let pointwise = convolve(&self.strided(), x, self.pointwise.weight);
        let mut average = convolve(&self.pooled_shape(), &self.pooled(x), &averaged.weight);
        let mean_taps = self.mean_taps(averaged);
        border.subtract_outside(&mut average, shape.out_channels, 0, &mean_taps);

        let inputs = Inputs { windows, second, pointwise, average };
        let (maps, norms, dims) = (inputs.all(), self.closing_norms(), shape.output_dims());
        let found = closing::statistics(&maps, dims);
        let (closing, mut statistics) =
            Closing::forward(&maps, &found, &norms, residual, activation, dims, y);
        self.add_constants(openings, &mut statistics);
        (statistics, Maps { inputs, between, closing })
    }

    /// Adds to the means the constants that the maps do not contain.
    fn add_constants(&self, openings: &Openings, statistics: &mut [BatchStatistics]) {
        let Openings { moments, merged, averaged } = openings;
        let window = self.shape.window();
        if let Some(shift) = &moments.shift {
            let taps = self.shift_taps(shift);
            for (mean, taps) in statistics[0].mean.iter_mut().zip(taps.chunks_exact(window)) {
                *mean += taps.iter().sum::<f64>() as f32;
            }
            let answers = self.pointwise_shift(shift);
            for (mean, answer) in statistics[2].mean.iter_mut().zip(answers) {
                *mean += answer as f32;
            }
        }
        let border_answer = taps_of(self.pointwise_kxk.1.weight, &merged.border, window);
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
    }

    /// Computes all gradients from that of `y`.
    pub(super) fn backward_maps(
        &self,
        x: &[f32],
        y: &[f32],
        openings: &Openings,
        saved: &Maps,
        grad: &[f32],
        wanted: Wanted,
    ) -> SumGrad {
        let Openings { moments, merged, .. } = openings;
        let whole = Batch::new(self.shape.batch, None);
        let (inputs, positions) = (self.shape.in_channels, self.shape.input_positions());
        let centred = moments.centred(x, positions);
        let x = centred.as_deref().unwrap_or(x);
        let Maps { inputs: maps, between, closing } = saved;
        let norms = self.closing_norms();
        let of_closing = Wanted { parameters: true, ..wanted };
        let ClosingGrad { norms, maps, residual } =
            closing.backward(&maps.all(), &norms, y, grad, of_closing, whole);
        let Ok([kxk_norm, second_norm, pointwise_norm, average_norm]) =
            <[[Vec<f32>; 2]; 4]>::try_from(norms)
        else {
            unreachable!("one for each of the four norms");
        };
        let mut pass = Backward {
            block: self,
            x,
            openings,
            border: Border::new(&self.shape),
            grads: Inputs::from_all(maps),
            input: wanted.input.then(|| buffer::take(x.len())),
            moments: MomentsGrad::zero(inputs),
        };
        let average = pass.average();
        let pointwise = pass.pointwise();
        let (mut kxk, second) = match between {
            Some(between) => pass.separate_windows(between),
            None => pass.merged_windows(),
        };
        if let Some(shift) = &moments.shift {
            pass.add_shift(shift, &mut kxk);
        }
        let Backward { mut input, moments: mut moments_grad, .. } = pass;
        let opening = self.pointwise_kxk.0.backward(
            moments,
            merged,
            &second.weight,
            &second.offset,
            &mut moments_grad,
        );
        if let Some(input) = &mut input {
            moments_grad.add_to(moments, x, [self.shape.batch, inputs, positions], input);
        }
        let branch = |weight, opening, norm| BranchGrad { weight, opening, norm: Some(norm) };
        let branches = vec![
            branch(kxk, None, kxk_norm),
            branch(pointwise, None, pointwise_norm),
            branch(second.second, Some(opening), second_norm),
            branch(Vec::new(), Some(average), average_norm),
        ];
        SumGrad {
            input: input.map(Buffer::into_vec),
            residual: residual.map(Buffer::into_vec),
            branches,
            outer: None,
        }
    }

    /// Whether the 1x1 convolution is merged into the KxK convolution that follows it. That costs
    /// one product of the kernels in the forward pass and up to three in the backward pass, instead
    /// of one and two products of the map.
    fn merges(&self) -> bool {
        let window = self.shape.window();
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
        let bias = to_f32(&merged.offset);
        let [batch, channels, positions] = self.between_dims();
        let mut between = buffer::take(batch * channels * positions);
        let epilogue = Epilogue { bias: Some(&bias), ..Epilogue::default() };
        conv::forward(&self.opening(), x, &merged.weight, &mut between, epilogue);
        between
    }
}

/// The backward pass up to the closing norms.
struct Backward<'a> {
    block: &'a DenseBlock<'a>,
    /// Less the shift.
    x: &'a [f32],
    openings: &'a Openings,
    border: Border,
    /// The gradients of the maps.
    grads: Inputs,
    /// The gradient of the input, if it is wanted. [`Self::average`] writes it, the others add.
    input: Option<Buffer>,
    moments: MomentsGrad,
}

impl Backward<'_> {
    /// The gradients of the norm that opens the average branch.
    fn average(&mut self) -> PaddedNormGrad {
        let Self { block, openings: Openings { moments, averaged, .. }, grads, .. } = self;
        let (shape, outputs) = (block.pooled_shape(), block.shape.out_channels);
        let window = block.shape.window();
        let mut pooled = block.pooled(self.x);
        let weight = weight_grad(&shape, &pooled, &grads.average);
        // The gradient of a norm's input sums to zero, so the interior contributes nothing.
        let outside = self.border.outside_sums(&grads.average, outputs, 0, outputs);
        let offset: Vec<f64> = outside
            .chunks_exact(window)
            .map(|taps| taps.iter().sum::<f64>() / window as f64)
            .collect();
        if let Some(input) = &mut self.input {
            conv::backward_input(&shape, &grads.average, &averaged.weight, &mut pooled, false);
            block.pool_backward(&pooled, input);
        }
        block.average.0.backward(moments, averaged, &weight, &offset, &mut self.moments)
    }

    /// The gradient of the weight of the 1x1 branch.
    fn pointwise(&mut self) -> Vec<f32> {
        let (shape, grad) = (self.block.strided(), &self.grads.pointwise);
        if let Some(input) = &mut self.input {
            conv::backward_input(&shape, grad, self.block.pointwise.weight, input, true);
        }
        weight_grad(&shape, self.x, grad)
    }

    /// The gradients of the weight of the KxK branch and of what [`DenseBlock::merge`] merges.
    fn merged_windows(&mut self) -> (Vec<f32>, MergedGrad) {
        let (block, merged, grad) = (self.block, &self.openings.merged, &self.grads.windows);
        let (stacked, outputs) = (block.stacked(), block.shape.out_channels);
        let mut kxk = weight_grad(&stacked, self.x, grad);
        let kernels_grad = kxk.split_off(block.kxk.weight.len());
        if let Some(input) = &mut self.input {
            let kernels = [block.kxk.weight, &block.merge(merged)].concat();
            conv::backward_input(&stacked, grad, &kernels, input, true);
        }
        let taps_grad = self.border.outside_sums(grad, 2 * outputs, outputs, outputs);
        (kxk, block.unmerge(merged, &kernels_grad, &taps_grad))
    }

    /// The same where the kernels are not merged.
    fn separate_windows(&mut self, between: &[f32]) -> (Vec<f32>, MergedGrad) {
        let (block, merged) = (self.block, &self.openings.merged);
        let (shape, inner, opening) = (&block.shape, block.inner(), block.opening());
        let second_grad = self.grads.second.as_deref().unwrap_or_default();
        let mut between_grad = buffer::take(between.len());
        let second_weight = block.pointwise_kxk.1.weight;
        conv::backward_input(&inner, second_grad, second_weight, &mut between_grad, false);
        if let Some(input) = &mut self.input {
            conv::backward_input(shape, &self.grads.windows, block.kxk.weight, input, true);
            conv::backward_input(&opening, &between_grad, &merged.weight, input, true);
        }
        let grad = MergedGrad {
            second: weight_grad(&inner, between, second_grad),
            weight: weight_grad(&opening, self.x, &between_grad),
            offset: moments::sums(&between_grad, block.between_dims()),
        };
        (weight_grad(shape, self.x, &self.grads.windows), grad)
    }

    /// Adds what the shift adds to the gradient of the weight of the KxK branch.
    fn add_shift(&self, shift: &[f32], kxk: &mut [f32]) {
        let shape = &self.block.shape;
        let (inputs, outputs) = (shape.in_channels, shape.out_channels);
        let window = shape.window();
        // The gradient of a norm's input sums to zero, so the sum over the positions where a tap
        // lies inside is minus the sum over the others.
        let channels = self.grads.windows.len() / shape.output_len() * outputs;
        let outside = self.border.outside_sums(&self.grads.windows, channels, 0, outputs);
        for (output, grad) in kxk.chunks_exact_mut(inputs * window).enumerate() {
            let sums = &outside[output * window..][..window];
            for (grad, &shift) in grad.chunks_exact_mut(window).zip(shift) {
                for (grad, sum) in grad.iter_mut().zip(sums) {
                    *grad += (f64::from(shift) * sum) as f32;
                }
            }
        }
    }
}
