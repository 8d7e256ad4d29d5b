//! The register tile: some positions times two vectors of output channels.

use super::BLOCK;
use super::activation::Activate;
use crate::Activation;
use crate::gemm::{self, Isa};
use crate::simd::WIDEST;

/// Weights of one or two vectors of output channels times inputs, at positions side by side.
#[derive(Clone, Copy)]
pub(super) struct Product<'a> {
    /// The place of the first of `run` inputs of each tap, from that of the position.
    pub taps: &'a [usize],
    pub run: usize,
    /// The place of the first position. The next one is [`BLOCK`] values, or one value, behind it.
    pub x: *const f32,
    /// `[taps, run, vectors * LANES]`.
    pub weight: *const f32,
    pub vectors: usize,
    /// Added per channel, and per value, with the places of `y`.
    pub bias: *const f32,
    pub residual: Option<*const f32>,
    pub activation: Activation,
    /// The first vector of channels at the first position. The next position is [`BLOCK`] values behind
    /// it, the second vector `vector_stride`.
    pub y: *mut f32,
    pub vector_stride: usize,
}

impl Product<'_> {
    /// Computes `positions` positions; `STEP` is the distance of their inputs.
    ///
    /// # Safety
    /// The processor has `I`; the pointers are valid for what is described, and nothing else writes `y`.
    #[inline(always)]
    pub unsafe fn run<I: Isa, const STEP: usize>(&self, positions: usize) {
        let parts = positions.div_ceil(I::ROWS);
        for part in 0..parts {
            let range = gemm::part(0..positions, 1, part, parts);
            // SAFETY: as the caller promises.
            unsafe { tile_of::<I, STEP>(range.len(), self.vectors)(self, range.start) };
        }
    }

    /// Applies bias, residual and activation to the sums `[positions, vectors, LANES]` of positions from
    /// `first` on, and writes them.
    ///
    /// # Safety
    /// Inside `enter`; otherwise as for [`Self::run`].
    #[inline(always)]
    unsafe fn finish<I: Isa>(&self, first: usize, sums: &[f32]) {
        // SAFETY: as the caller promises.
        unsafe {
            let activate = Activate::<I>::new(self.activation);
            for vector in 0..self.vectors {
                let bias = I::load(self.bias.add(vector * I::LANES));
                let sums = sums[vector * I::LANES..].chunks(self.vectors * I::LANES);
                for (position, sum) in sums.enumerate() {
                    let place = (first + position) * BLOCK + vector * self.vector_stride;
                    let mut sum = I::add(I::load(sum.as_ptr()), bias);
                    if let Some(residual) = self.residual {
                        sum = I::add(sum, I::load(residual.add(place)));
                    }
                    I::store(self.y.add(place), activate.apply(sum));
                }
            }
        }
    }
}

/// Values of the largest tile.
const LARGEST: usize = 14 * 2 * WIDEST;

/// # Safety
/// As for [`Product::run`], for `POSITIONS` positions from `first` on.
unsafe fn tile<I: Isa, const POSITIONS: usize, const VECTORS: usize, const STEP: usize>(
    product: &Product,
    first: usize,
) {
    // SAFETY: as the caller promises.
    unsafe {
        I::enter(
            #[inline(always)]
            || {
                let Product { taps, run, .. } = *product;
                let x = product.x.add(first * STEP);
                let mut weight = product.weight;
                let mut sums = [[I::splat(0.0); VECTORS]; POSITIONS];
                for &tap in taps {
                    let mut x = x.add(tap);
                    for _ in 0..run {
                        let channels: [_; VECTORS] = std::array::from_fn(
                            #[inline(always)]
                            |vector| I::load(weight.add(vector * I::LANES)),
                        );
                        for (position, sums) in sums.iter_mut().enumerate() {
                            let value = I::splat(*x.add(position * STEP));
                            for (sum, &channels) in sums.iter_mut().zip(&channels) {
                                *sum = I::mul_add(value, channels, *sum);
                            }
                        }
                        x = x.add(1);
                        weight = weight.add(VECTORS * I::LANES);
                    }
                }
                let activate = Activate::<I>::new(product.activation);
                if product.residual.is_none() && !activate.is_hard_swish() {
                    for (position, sums) in sums.iter().enumerate() {
                        for (vector, &sum) in sums.iter().enumerate() {
                            let bias = I::load(product.bias.add(vector * I::LANES));
                            let place = (first + position) * BLOCK + vector * product.vector_stride;
                            I::store(product.y.add(place), activate.clamp(I::add(sum, bias)));
                        }
                    }
                    return;
                }
                // Through memory, so that the sums stay in registers until here.
                let mut buffer = [0.0; LARGEST];
                for (position, sums) in sums.iter().enumerate() {
                    for (vector, &sum) in sums.iter().enumerate() {
                        let place = (position * VECTORS + vector) * I::LANES;
                        I::store(buffer.as_mut_ptr().add(place), sum);
                    }
                }
                product.finish::<I>(first, &buffer[..POSITIONS * VECTORS * I::LANES]);
            },
        )
    }
}

/// The function for tiles of so many positions and vectors.
fn tile_of<I: Isa, const STEP: usize>(
    positions: usize,
    vectors: usize,
) -> unsafe fn(&Product, usize) {
    macro_rules! sizes {
        ($($positions:literal)*) => {
            match (positions, vectors) {
                $(
                    ($positions, 2) => tile::<I, $positions, 2, STEP>,
                    ($positions, 1) => tile::<I, $positions, 1, STEP>,
                )*
                _ => unreachable!("a tile of {positions} positions and {vectors} vectors"),
            }
        };
    }
    sizes!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
}
