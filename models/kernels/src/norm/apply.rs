//! The forward pass over the maps.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::branches::{Branch, affine, for_branches, load_branches, splat_branches};
use crate::instruction_set;
use crate::planes;
use crate::shape::map_len;
use crate::shared::Shared;
use crate::simd::{Lanes, sweep};

/// `y = act(sum_i scale_i * o_i + shift + residual)`; one pass.
///
/// `scale` is `[branches, channels]`, `shift` `[channels]`, `residual` a map.
///
/// # Panics
/// If a length does not fit `dims` or there are not one to four branches.
pub fn apply(
    maps: &[&[f32]],
    scale: &[f32],
    shift: &[f32],
    residual: Option<&[f32]>,
    relu: bool,
    dims: [usize; 3],
    y: &mut [f32],
) {
    let [batch, channels, positions] = dims;
    let len = map_len(dims);
    let branches = Branch::reading(maps, dims);
    assert_eq!(y.len(), len, "length of the output");
    assert!(residual.is_none_or(|map| map.len() == len), "length of the residual");
    assert_eq!(scale.len(), branches.len() * channels, "one scale per branch and channel");
    assert_eq!(shift.len(), channels, "one shift per channel");
    let y = Shared::new(y);
    for_branches!(branches, |branches| {
        planes::for_each(batch * channels, positions, |range| {
            let op = Apply { branches, scale, shift, residual, relu, range, positions, y };
            instruction_set::dispatch(op);
        })
    });
}

pub(super) struct Apply<'a, const B: usize> {
    pub branches: [Branch<&'a [f32]>; B],
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    pub residual: Option<&'a [f32]>,
    pub relu: bool,
    pub range: Range<usize>,
    pub positions: usize,
    pub y: Shared<'a>,
}

impl<const B: usize> WithSimd for Apply<'_, B> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (self.residual, self.relu) {
            (None, false) => self.run::<S, false, false>(simd),
            (None, true) => self.run::<S, false, true>(simd),
            (Some(_), false) => self.run::<S, true, false>(simd),
            (Some(_), true) => self.run::<S, true, true>(simd),
        }
    }
}

impl<const B: usize> Apply<'_, B> {
    #[inline(always)]
    fn run<S: Simd, const RESIDUAL: bool, const RELU: bool>(self, simd: S) {
        let Self { branches, positions, y, .. } = self;
        let channels = self.shift.len();
        let zero = simd.splat_f32s(0.0);
        for plane in self.range {
            let (image, channel) = (plane / channels, plane % channels);
            let from = branches.map(|branch| branch.plane(image, channel, positions));
            let scale = splat_branches(simd, self.scale, channel, channels);
            let shift = simd.splat_f32s(self.shift[channel]);
            let residual = match self.residual {
                Some(map) => map[plane * positions..][..positions].as_ptr(),
                None => std::ptr::null(),
            };
            let to = y.plane(plane, positions);
            sweep!(S, positions, |at, lanes, _TURN| {
                // SAFETY: `sweep` stays within planes of `positions` values. This task alone has
                // the plane of `y`.
                unsafe {
                    let maps = load_branches(simd, lanes, at, &from);
                    let mut value = affine(simd, &scale, shift, &maps);
                    if RESIDUAL {
                        value = simd.add_f32s(value, lanes.load(simd, residual.add(at)));
                    }
                    if RELU {
                        // Not `max`, which may make a number of what is none.
                        let negative = simd.less_than_f32s(value, zero);
                        value = simd.select_f32s(negative, zero, value);
                    }
                    lanes.store(simd, to.add(at), value);
                }
            });
        }
    }
}
