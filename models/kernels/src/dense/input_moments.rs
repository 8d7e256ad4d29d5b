//! The moments of the input of a block, and how their gradients reach the input.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::arithmetic::{dot, to_f32};
use crate::buffer::{self, Buffer};
use crate::conv::{self, Matrix};
use crate::norm::{statistics, variance};
use crate::{ConvShape, Epilogue, instruction_set, moments, shift};

/// Mean of a map over batch and positions, and the shift about which the map is to be taken.
///
/// Where the means of an input are large in comparison with its deviations, a product with a weight
/// loses digits to cancellation. Such an input is replaced by the input less `shift`; what the
/// shift adds is known: a number for each tap that lies inside.
#[derive(Clone, Debug)]
pub(crate) struct Moments {
    /// The means, `[channels]`, or `None` if they are not far from zero.
    pub shift: Option<Vec<f32>>,
    /// Mean of the map less `shift`, `[channels]`.
    pub mean: Vec<f64>,
    /// Values per channel.
    pub count: usize,
}

/// Covariance of a map over batch and positions.
pub(crate) struct Covariance {
    /// `[channels, channels]`, of the biased kind.
    exact: Vec<f64>,
    rounded: Vec<f32>,
}

impl Moments {
    /// The moments of a map `[batch, channels, positions]`, in two passes. If `shifts` is set,
    /// there is a shift whatever the means.
    pub fn new(map: &[f32], dims: [usize; 3], shifts: bool) -> (Self, Covariance) {
        let [batch, channels, positions] = dims;
        let mut mean = statistics(map, dims).mean;
        let mut exact = moments::covariance(map, &mean, dims);
        let count = batch * positions;
        exact.iter_mut().for_each(|value| *value /= count as f64);
        let rounded = to_f32(&exact);
        // A product with a weight adds the channels, so the means of all channels are compared
        // together.
        let squares: f64 = mean.iter().map(|mean| mean * mean).sum();
        let variance: f64 = exact.iter().step_by(channels + 1).sum();
        let shift = (shifts || shift::is_far(squares.sqrt(), variance)).then(|| {
            let shift = to_f32(&mean);
            mean.iter_mut().zip(&shift).for_each(|(mean, &shift)| *mean -= f64::from(shift));
            shift
        });
        (Self { shift, mean, count }, Covariance { exact, rounded })
    }

    /// The map less the shift, where there is one.
    pub fn centred(&self, map: &[f32], positions: usize) -> Option<Buffer> {
        let shift = self.shift.as_ref()?;
        let mut centred = buffer::take(map.len());
        centred
            .par_chunks_exact_mut(positions)
            .zip(map.par_chunks_exact(positions))
            .enumerate()
            .for_each(|(plane, (centred, map))| {
                let shift = shift[plane % shift.len()];
                centred.iter_mut().zip(map).for_each(|(to, &from)| *to = from - shift);
            });
        Some(centred)
    }
}

impl Covariance {
    /// `W S` for a weight with `outputs` rows, and the dot products of its rows with those of `W`,
    /// which are the variances.
    ///
    /// Where channels are correlated, the products of a row can cancel to less than their rounding
    /// errors in `f32`. Such rows are computed again in `f64`.
    pub fn multiply(&self, weight: &[f32], outputs: usize) -> (Vec<f32>, Vec<f64>) {
        let inputs = weight.len() / outputs;
        let mut product = vec![0.0; outputs * inputs];
        let covariance = Matrix::row_major(&self.rounded, [inputs; 2]);
        let rows = Matrix::row_major(weight, [outputs, inputs]);
        conv::matmul(rows, covariance, &mut product, false);
        let mut variances: Vec<f64> = weight
            .chunks_exact(inputs)
            .zip(product.chunks_exact(inputs))
            .map(|(weight, product)| dot(weight, product))
            .collect();
        let cancels = |&output: &usize| {
            let diagonal = self.exact.iter().step_by(inputs + 1);
            let weight = weight[output * inputs..][..inputs].iter().map(|&w| f64::from(w));
            let apart: f64 = diagonal.zip(weight).map(|(var, w)| var * w * w).sum();
            variances[output] < apart / 64.0
        };
        let cancelled: Vec<usize> = (0..outputs).filter(cancels).collect();
        // Several rows at once share the loads of the covariance.
        let exact: Vec<Vec<f64>> = cancelled
            .par_chunks(8)
            .flat_map_iter(|outputs| {
                let mut exact = vec![vec![0.0; inputs]; outputs.len()];
                instruction_set::dispatch(ExactRows {
                    covariance: &self.exact,
                    weight,
                    outputs,
                    exact: &mut exact,
                });
                exact
            })
            .collect();
        for (output, exact) in cancelled.into_iter().zip(exact) {
            let row = output * inputs..(output + 1) * inputs;
            variances[output] = dot(&weight[row.clone()], &exact);
            product[row].iter_mut().zip(&exact).for_each(|(to, &from)| *to = from as f32);
        }
        variances.iter_mut().for_each(|found| *found = variance(*found));
        (product, variances)
    }
}

/// Some rows of `W S` in `f64`.
struct ExactRows<'a> {
    covariance: &'a [f64],
    weight: &'a [f32],
    outputs: &'a [usize],
    exact: &'a mut [Vec<f64>],
}

impl WithSimd for ExactRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let inputs = self.exact[0].len();
        for (input, line) in self.covariance.chunks_exact(inputs).enumerate() {
            for (exact, &output) in self.exact.iter_mut().zip(self.outputs) {
                let weight = f64::from(self.weight[output * inputs + input]);
                exact.iter_mut().zip(line).for_each(|(sum, s)| *sum += weight * s);
            }
        }
    }
}

/// Gradients of [`Moments`].
#[derive(Debug)]
pub(crate) struct MomentsGrad {
    pub mean: Vec<f64>,
    pub covariance: Vec<f32>,
}

impl MomentsGrad {
    pub fn zero(channels: usize) -> Self {
        Self { mean: vec![0.0; channels], covariance: vec![0.0; channels * channels] }
    }

    /// Adds the gradient of the map itself to `grad`: `2 / count dS (x - mu) + dmu / count`, a
    /// 1x1 convolution. `map` is less the shift.
    pub fn add_to(
        self,
        moments: &Moments,
        map: &[f32],
        [batch, channels, positions]: [usize; 3],
        grad: &mut [f32],
    ) {
        let count = moments.count as f64;
        let weight: Vec<f32> =
            self.covariance.iter().map(|&value| (2.0 * f64::from(value) / count) as f32).collect();
        let bias: Vec<f32> = weight
            .chunks_exact(channels)
            .zip(&self.mean)
            .map(|(row, mean)| (mean / count - dot(row, &moments.mean)) as f32)
            .collect();
        let shape = ConvShape::pointwise(batch, [channels; 2], positions);
        conv::forward(
            &shape,
            map,
            &weight,
            grad,
            Epilogue { bias: Some(&bias), accumulate: true, ..Epilogue::default() },
        );
    }
}
