//! The forward pass over the maps.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::branches::{Branch, MAX_BRANCHES, affine, for_branches, load_branches, splat_branches};
use crate::activation::{Activation, Vectors, with_kind};
use crate::profile::{self, Work};
use crate::shape::map_len;
use crate::shared::Shared;
use crate::simd::{Lanes, sweep};
use crate::{instruction_set, planes};

/// `y = act(sum_i scale_i * o_i + shift + residual)`; one pass for up to four branches.
///
/// `scale` is `[branches, channels]`, `shift` `[channels]`, `residual` a map.
///
/// # Panics
/// If a length does not fit `dims` or there is no branch.
pub fn apply(
    maps: &[&[f32]],
    scale: &[f32],
    shift: &[f32],
    residual: Option<&[f32]>,
    activation: Activation,
    dims: [usize; 3],
    y: &mut [f32],
) {
    let _span = profile::work(Work::Norms);
    let [batch, channels, positions] = dims;
    let len = map_len(dims);
    let branches = Branch::reading(maps, dims);
    assert_eq!(y.len(), len, "length of the output");
    assert!(residual.is_none_or(|map| map.len() == len), "length of the residual");
    assert_eq!(scale.len(), branches.len() * channels, "one scale per branch and channel");
    assert_eq!(shift.len(), channels, "one shift per channel");
    let y = Shared::new(y);
    let zeros = vec![0.0; channels];
    let passes = branches.len().div_ceil(MAX_BRANCHES);
    for (pass, branches) in branches.chunks(MAX_BRANCHES).enumerate() {
        let scale = &scale[pass * MAX_BRANCHES * channels..];
        // Every pass but the first adds to the output.
        let (shift, added) = match pass {
            0 => (shift, residual.map_or(Added::Nothing, Added::Map)),
            _ => (zeros.as_slice(), Added::Output),
        };
        let activation = if pass + 1 == passes { activation } else { Activation::Identity };
        for_branches!(branches, |branches| {
            planes::for_each(batch * channels, positions, |range| {
                let op = Apply { branches, scale, shift, added, activation, range, positions, y };
                instruction_set::dispatch(op);
            })
        });
    }
}

/// What is added to a sum.
#[derive(Clone, Copy)]
enum Added<'a> {
    Nothing,
    Map(&'a [f32]),
    /// What the output holds.
    Output,
}

struct Apply<'a, const B: usize> {
    branches: [Branch<&'a [f32]>; B],
    scale: &'a [f32],
    shift: &'a [f32],
    added: Added<'a>,
    activation: Activation,
    range: Range<usize>,
    positions: usize,
    y: Shared<'a>,
}

impl<const B: usize> WithSimd for Apply<'_, B> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.added {
            Added::Nothing => with_kind!(self.activation, |KIND| self.run::<S, false, KIND>(simd)),
            _ => with_kind!(self.activation, |KIND| self.run::<S, true, KIND>(simd)),
        }
    }
}

impl<const B: usize> Apply<'_, B> {
    #[inline(always)]
    fn run<S: Simd, const ADDED: bool, const KIND: u8>(self, simd: S) {
        let Self { branches, positions, y, .. } = self;
        let channels = self.shift.len();
        let activation = Vectors::new(simd, self.activation);
        for plane in self.range {
            let (image, channel) = (plane / channels, plane % channels);
            let from = branches.map(|branch| branch.plane(image, channel, positions));
            let scale = splat_branches(simd, self.scale, channel, channels);
            let shift = simd.splat_f32s(self.shift[channel]);
            let to = y.plane(plane, positions);
            let added = match self.added {
                Added::Nothing => std::ptr::null(),
                Added::Map(map) => map[plane * positions..][..positions].as_ptr(),
                Added::Output => to.cast_const(),
            };
            sweep!(simd, positions, |at, lanes, _TURN| {
                // SAFETY: `sweep` stays within planes of `positions` values. This task alone has
                // the plane of `y`.
                unsafe {
                    let maps = load_branches(simd, lanes, at, &from);
                    let mut value = affine(simd, &scale, shift, &maps);
                    if ADDED {
                        value = simd.add_f32s(value, lanes.load(simd, added.add(at)));
                    }
                    lanes.store(simd, to.add(at), activation.apply::<KIND>(value));
                }
            });
        }
    }
}
