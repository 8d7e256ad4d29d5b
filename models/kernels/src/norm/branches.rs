//! The branches of a sum in their buffers, and vectors at the same position of all branches.

use pulp::Simd;

use super::Dims;
use crate::shape::map_len;
use crate::shared::Shared;
use crate::simd::Lanes;

/// The largest number of branches of one pass. A sum of more takes several passes.
pub(crate) const MAX_BRANCHES: usize = 4;

/// A branch in its buffer.
#[derive(Clone, Copy)]
pub(super) struct Branch<M> {
    map: M,
    /// Channels of the buffer.
    channels: usize,
    /// First channel of the branch.
    first: usize,
}

impl<M: Copy> Branch<M> {
    /// The branches of a sum, from the buffers and their lengths.
    ///
    /// # Panics
    /// If a buffer does not hold whole branches, or there is none.
    fn all(buffers: impl Iterator<Item = (M, usize)>, dims: Dims) -> Vec<Self> {
        let [_, channels, _] = dims;
        let len = map_len(dims);
        let branches: Vec<_> = buffers
            .flat_map(|(map, size)| {
                assert!(size > 0 && size % len == 0, "length of a map");
                let count = size / len;
                (0..count).map(move |branch| Self {
                    map,
                    channels: count * channels,
                    first: branch * channels,
                })
            })
            .collect();
        assert!(!branches.is_empty(), "a sum has a branch");
        branches
    }

    /// Which plane of its buffer a plane of the branch is.
    #[inline(always)]
    fn index(&self, image: usize, channel: usize) -> usize {
        image * self.channels + self.first + channel
    }
}

impl<'a> Branch<&'a [f32]> {
    /// The branches of a sum that are read.
    pub(super) fn reading(maps: &[&'a [f32]], dims: Dims) -> Vec<Self> {
        Self::all(maps.iter().map(|map| (*map, map.len())), dims)
    }

    /// The first value of a plane.
    #[inline(always)]
    pub(super) fn plane(&self, image: usize, channel: usize, positions: usize) -> *const f32 {
        self.map[self.index(image, channel) * positions..][..positions].as_ptr()
    }
}

impl<'a> Branch<Shared<'a>> {
    /// The branches of a sum that are written.
    pub(super) fn writing(maps: &'a mut [&mut [f32]], dims: Dims) -> Vec<Self> {
        Self::all(
            maps.iter_mut().map(|map| (map.len(), map)).map(|(len, map)| (Shared::new(map), len)),
            dims,
        )
    }

    /// The first place of a plane.
    #[inline(always)]
    pub(super) fn plane(&self, image: usize, channel: usize, positions: usize) -> *mut f32 {
        self.map.plane(self.index(image, channel), positions)
    }
}

/// Calls `$body` with the branches of one pass as an array.
macro_rules! for_branches {
    ($branches:expr, |$array:ident| $body:expr) => {
        match $branches {
            [a] => {
                let $array = [*a];
                $body
            }
            [a, b] => {
                let $array = [*a, *b];
                $body
            }
            [a, b, c] => {
                let $array = [*a, *b, *c];
                $body
            }
            [a, b, c, d] => {
                let $array = [*a, *b, *c, *d];
                $body
            }
            _ => unreachable!("a pass takes one to four branches"),
        }
    };
}
pub(super) use for_branches;

/// `sum_i scale_i * o_i + shift`.
#[inline(always)]
pub(super) fn affine<S: Simd, const B: usize>(
    simd: S,
    scale: &[S::f32s; B],
    shift: S::f32s,
    maps: &[S::f32s; B],
) -> S::f32s {
    let mut value = shift;
    for b in 0..B {
        value = simd.mul_add_e_f32s(scale[b], maps[b], value);
    }
    value
}

/// The values of a channel of all branches.
///
/// This is a loop because a closure passed to `std::array::from_fn` is not always inlined, and
/// would then be compiled without the vector instructions.
#[inline(always)]
pub(super) fn splat_branches<S: Simd, const B: usize>(
    simd: S,
    values: &[f32],
    channel: usize,
    channels: usize,
) -> [S::f32s; B] {
    let mut vectors = [simd.splat_f32s(0.0); B];
    for (b, vector) in vectors.iter_mut().enumerate() {
        *vector = simd.splat_f32s(values[b * channels + channel]);
    }
    vectors
}

/// Loads the same lanes of all branches.
///
/// # Safety
/// The pointers are valid for reads of these lanes.
#[inline(always)]
pub(super) unsafe fn load_branches<S: Simd, L: Lanes<S>, const B: usize>(
    simd: S,
    lanes: L,
    at: usize,
    maps: &[*const f32; B],
) -> [S::f32s; B] {
    let mut vectors = [simd.splat_f32s(0.0); B];
    for b in 0..B {
        // SAFETY: as the caller promises.
        vectors[b] = unsafe { lanes.load(simd, maps[b].add(at)) };
    }
    vectors
}
