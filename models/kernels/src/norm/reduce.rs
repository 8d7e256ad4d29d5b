//! The sums that the gradients need: the first backward pass.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::branches::{Branch, MAX_BRANCHES, for_branches, load_branches, splat_branches};
use super::gate::{Gate, for_gate};
use super::statistics::total;
use super::{BLOCK, Dims};
use crate::arithmetic::to_f32;
use crate::instruction_set;
use crate::planes;
use crate::profile::{self, Work};
use crate::shape::map_len;
use crate::simd::{Lanes, sweep};

/// What the gradients of a norm need of its maps.
#[derive(Clone, Debug, PartialEq)]
pub struct Sums {
    /// Sum of `g`, the gradient of the activation's input, `[channels]`.
    pub gradient: Vec<f64>,
    /// Sum of `g (o_i - mean_i)`, `[branches, channels]`.
    pub products: Vec<f64>,
}

/// Sums over batch and positions of `g` and `g (o_i - mean_i)`; one pass for up to four branches.
///
/// `g` is `dy` times the derivative of the activation. `mean` is `[branches, channels]`.
///
/// # Panics
/// If a length does not fit `dims` or there is no branch.
pub fn reduce(maps: &[&[f32]], mean: &[f64], dy: &[f32], gate: Gate, dims: [usize; 3]) -> Sums {
    let _span = profile::work(Work::Norms);
    let [batch, channels, positions] = dims;
    let len = map_len(dims);
    let branches = Branch::reading(maps, dims);
    assert_eq!(dy.len(), len, "length of the gradient");
    gate.check(branches.len(), dims);
    assert_eq!(mean.len(), branches.len() * channels, "one mean per branch and channel");
    let rounded = to_f32(mean);
    let (mut gradient, mut products) = (Vec::new(), Vec::with_capacity(mean.len()));
    for (branches, about) in
        branches.chunks(MAX_BRANCHES).zip(rounded.chunks(MAX_BRANCHES * channels))
    {
        let width = 1 + branches.len();
        let sums = for_branches!(branches, |branches| planes::reduce(
            batch * channels,
            positions,
            width * channels,
            |range, sums| {
                let op = Reduce { branches, about, dy, gate, range, dims, sums };
                instruction_set::dispatch(op);
            },
        ));
        gradient = sums.iter().step_by(width).copied().collect();
        products.extend((0..about.len()).map(|index| {
            let (branch, channel) = (index / channels, index % channels);
            sums[channel * width + 1 + branch]
        }));
    }
    // The sums use the rounded mean.
    for (index, sum) in products.iter_mut().enumerate() {
        *sum -= gradient[index % channels] * (mean[index] - f64::from(rounded[index]));
    }
    Sums { gradient, products }
}

pub(super) struct Reduce<'a, const B: usize> {
    pub branches: [Branch<&'a [f32]>; B],
    pub about: &'a [f32],
    pub dy: &'a [f32],
    pub gate: Gate<'a>,
    pub range: Range<usize>,
    pub dims: Dims,
    /// `[channels, 1 + B]`.
    pub sums: &'a mut [f64],
}

impl<const B: usize> WithSimd for Reduce<'_, B> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for_gate!(self.gate, |KIND, MAP| self.run::<S, KIND, MAP>(simd))
    }
}

impl<const B: usize> Reduce<'_, B> {
    #[inline(always)]
    fn run<S: Simd, const KIND: u8, const MAP: bool>(self, simd: S) {
        let [_, channels, positions] = self.dims;
        for plane in self.range {
            let (image, channel) = (plane / channels, plane % channels);
            let map = self.branches.map(|branch| branch.plane(image, channel, positions));
            let about: [_; B] = splat_branches(simd, self.about, channel, channels);
            let dy = self.dy[plane * positions..][..positions].as_ptr();
            let gate = self.gate.of_plane::<S, B>(simd, plane, channel, self.dims);
            let sums = &mut self.sums[channel * (1 + B)..][..1 + B];
            for start in (0..positions).step_by(BLOCK) {
                let mut gradient = [simd.splat_f32s(0.0); 2];
                let mut products = [gradient; B];
                sweep!(simd, BLOCK.min(positions - start), |at, lanes, TURN| {
                    let at = start + at;
                    // SAFETY: `sweep` stays within planes of `positions` values.
                    unsafe {
                        let maps = load_branches(simd, lanes, at, &map);
                        let dy = lanes.load(simd, dy.add(at));
                        let g = gate.pass::<_, KIND, MAP>(simd, lanes, at, dy, &maps);
                        gradient[TURN] = simd.add_f32s(gradient[TURN], g);
                        for b in 0..B {
                            let value = simd.sub_f32s(maps[b], about[b]);
                            products[b][TURN] = simd.mul_add_e_f32s(g, value, products[b][TURN]);
                        }
                    }
                });
                sums[0] += total(simd, gradient);
                for b in 0..B {
                    sums[1 + b] += total(simd, products[b]);
                }
            }
        }
    }
}
