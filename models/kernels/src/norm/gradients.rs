//! From the sums to the gradients: the algebra per channel, and the second backward pass.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::Dims;
use super::branches::{Branch, MAX_BRANCHES, for_branches, load_branches};
use super::gate::{Gate, for_gate};
use super::reduce::Sums;
use crate::arithmetic::to_f32;
use crate::instruction_set;
use crate::planes;
use crate::profile::{self, Work};
use crate::shape::map_len;
use crate::shared::Shared;
use crate::simd::{Lanes, sweep};

/// Gradients of scale and shift of the norms, and how those of the maps are made.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// Of the scales, `[branches, channels]`.
    pub gamma: Vec<f32>,
    /// Of the shifts, `[channels]`: the same for all branches.
    pub beta: Vec<f32>,
    /// `do_i = coefficients[0] g + coefficients[1] (o_i - mean_i) + coefficients[2]`, with the
    /// rounded mean in the fourth place; `[branches, channels]`.
    coefficients: Vec<[f32; 4]>,
}

impl Gradients {
    /// From the sums of [`reduce`](super::reduce()) over `count` values a channel (batch times
    /// positions).
    ///
    /// `gamma`, `mean` and `inv_std = 1 / sqrt(var + epsilon)` are `[branches, channels]`. `fixed`
    /// states for each branch whether mean and variance are constants rather than statistics of the
    /// batch.
    ///
    /// # Panics
    /// If lengths differ or the count is zero.
    pub fn new(
        gamma: &[f32],
        mean: &[f64],
        inv_std: &[f64],
        fixed: &[bool],
        sums: &Sums,
        count: usize,
    ) -> Self {
        let len = sums.products.len();
        assert!(count > 0, "a norm over no values");
        let (channels, count) = (sums.gradient.len(), count as f64);
        assert!([gamma.len(), mean.len(), inv_std.len()] == [len; 3], "one value per channel");
        assert_eq!(fixed.len() * channels, len, "one value per branch");
        let coefficients = (0..len)
            .map(|index| {
                let inv_std = inv_std[index];
                let scale = f64::from(gamma[index]) * inv_std;
                if fixed[index / channels] {
                    return [scale as f32, 0.0, 0.0, 0.0];
                }
                let slope = -scale * inv_std * inv_std * sums.products[index] / count;
                let rounded = mean[index] as f32;
                let constant = -scale * sums.gradient[index % channels] / count
                    - slope * (mean[index] - f64::from(rounded));
                [scale as f32, slope as f32, constant as f32, rounded]
            })
            .collect();
        Self { gamma: Vec::new(), beta: Vec::new(), coefficients }.with_parameters_of(sums, inv_std)
    }

    /// The same with the gradients of scale and shift that other sums give: those of a part of the
    /// batch.
    pub(crate) fn with_parameters_of(self, sums: &Sums, inv_std: &[f64]) -> Self {
        let gamma = sums
            .products
            .iter()
            .zip(inv_std)
            .map(|(sum, inv_std)| (sum * inv_std) as f32)
            .collect();
        Self { gamma, beta: to_f32(&sums.gradient), ..self }
    }
}

/// Gradients of all maps of a norm, and of the residual where it is wanted; one pass for up to
/// four branches.
///
/// `d_maps` have the lengths of the maps; `dy` and `gate` are those of [`reduce`](super::reduce()).
///
/// # Panics
/// If a length does not fit `dims` or there is no branch.
pub fn backward_input(
    maps: &[&[f32]],
    gradients: &Gradients,
    dy: &[f32],
    gate: Gate,
    dims: [usize; 3],
    d_maps: &mut [&mut [f32]],
    d_residual: Option<&mut [f32]>,
) {
    let _span = profile::work(Work::Norms);
    let [batch, channels, positions] = dims;
    let len = map_len(dims);
    assert!(
        maps.iter().map(|map| map.len()).eq(d_maps.iter().map(|map| map.len())),
        "lengths of the maps' gradients"
    );
    let branches = Branch::reading(maps, dims);
    let outputs = Branch::writing(d_maps, dims);
    let both: Vec<_> = branches.into_iter().zip(outputs).collect();
    assert_eq!(dy.len(), len, "length of the gradient");
    gate.check(both.len(), dims);
    assert!(d_residual.as_ref().is_none_or(|map| map.len() == len), "length of the residual");
    let coefficients = gradients.coefficients.as_slice();
    assert_eq!(coefficients.len(), both.len() * channels, "gradients of other norms");
    let mut d_residual = d_residual.map(Shared::new);
    for (branches, coefficients) in
        both.chunks(MAX_BRANCHES).zip(coefficients.chunks(MAX_BRANCHES * channels))
    {
        // The first pass writes it.
        let d_residual = d_residual.take();
        for_branches!(branches, |branches| {
            planes::for_each(batch * channels, positions, |range| {
                let op =
                    BackwardInput { branches, coefficients, dy, gate, range, dims, d_residual };
                instruction_set::dispatch(op);
            })
        });
    }
}

pub(super) struct BackwardInput<'a, const B: usize> {
    pub branches: [(Branch<&'a [f32]>, Branch<Shared<'a>>); B],
    pub coefficients: &'a [[f32; 4]],
    pub dy: &'a [f32],
    pub gate: Gate<'a>,
    pub range: Range<usize>,
    pub dims: Dims,
    pub d_residual: Option<Shared<'a>>,
}

impl<const B: usize> WithSimd for BackwardInput<'_, B> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.d_residual {
            None => for_gate!(self.gate, |KIND, MAP| self.run::<S, KIND, MAP, false>(simd)),
            Some(_) => for_gate!(self.gate, |KIND, MAP| self.run::<S, KIND, MAP, true>(simd)),
        }
    }
}

impl<const B: usize> BackwardInput<'_, B> {
    #[inline(always)]
    fn run<S: Simd, const KIND: u8, const MAP: bool, const RESIDUAL: bool>(self, simd: S) {
        let [_, channels, positions] = self.dims;
        for plane in self.range {
            let (image, channel) = (plane / channels, plane % channels);
            let from = self.branches.map(|(map, _)| map.plane(image, channel, positions));
            let to = self.branches.map(|(_, d_map)| d_map.plane(image, channel, positions));
            let mut coefficients = [[simd.splat_f32s(0.0); 4]; B];
            for (b, of_branch) in coefficients.iter_mut().enumerate() {
                let [scale, slope, constant, mean] = self.coefficients[b * channels + channel];
                *of_branch = [
                    simd.splat_f32s(scale),
                    simd.splat_f32s(slope),
                    simd.splat_f32s(constant),
                    simd.splat_f32s(mean),
                ];
            }
            let dy = self.dy[plane * positions..][..positions].as_ptr();
            let gate = self.gate.of_plane::<S, B>(simd, plane, channel, self.dims);
            let d_residual =
                self.d_residual.map_or(std::ptr::null_mut(), |map| map.plane(plane, positions));
            sweep!(simd, positions, |at, lanes, _TURN| {
                // SAFETY: `sweep` stays within planes of `positions` values, and this task alone
                // has those that are written.
                unsafe {
                    let maps = load_branches(simd, lanes, at, &from);
                    let dy = lanes.load(simd, dy.add(at));
                    let g = gate.pass::<_, KIND, MAP>(simd, lanes, at, dy, &maps);
                    for b in 0..B {
                        let [scale, slope, constant, mean] = coefficients[b];
                        let value = simd.sub_f32s(maps[b], mean);
                        let rest = simd.mul_add_e_f32s(slope, value, constant);
                        lanes.store(simd, to[b].add(at), simd.mul_add_e_f32s(scale, g, rest));
                    }
                    if RESIDUAL {
                        lanes.store(simd, d_residual.add(at), g);
                    }
                }
            });
        }
    }
}
