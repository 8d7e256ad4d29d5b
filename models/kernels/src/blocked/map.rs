//! The layout of maps.

use super::BLOCK;
use crate::buffer::{self, Buffer};
use crate::planes;
use crate::shape::map_len;
use crate::shared::Shared;

/// A map `[batch, channels / 16, height, width, 16]`. In the last block the values of channels that the
/// map does not have are those that zeros would give.
#[derive(Debug)]
pub struct Map {
    values: Buffer,
    len: usize,
    dims: [usize; 4],
}

/// Values that a buffer has more than its aligned part.
pub(super) const SPARE: usize = BLOCK - 1;

/// `len` values of a buffer that begin with a cache line: no vector lies in two of them.
pub(super) fn aligned(buffer: &[f32], len: usize) -> &[f32] {
    let skip = buffer.as_ptr().align_offset(4 * BLOCK);
    &buffer[skip..][..len]
}

impl Map {
    /// A map with arbitrary contents.
    ///
    /// # Panics
    /// If it is empty or longer than memory can hold.
    #[track_caller]
    pub(super) fn new(dims: [usize; 4]) -> Self {
        let [batch, channels, height, width] = dims;
        let len = map_len([batch, channels.next_multiple_of(BLOCK), height * width]);
        Self { values: buffer::take_at_least(len + SPARE), len, dims }
    }

    /// A map `[batch, channels, height, width]` in this layout; one pass.
    ///
    /// # Panics
    /// If the map is empty or has another length.
    #[track_caller]
    pub fn from_planes(values: &[f32], dims: [usize; 4]) -> Self {
        let mut map = Self::new(dims);
        let (positions, channels) = (map.positions(), map.channels());
        assert_eq!(values.len(), dims.iter().product::<usize>(), "length of the map");
        let (blocks, len) = (map.blocks(), map.block_len());
        let to = Shared::new(map.values_mut());
        planes::for_each(dims[0] * blocks, len, |range| {
            for index in range {
                // SAFETY: this task alone has the block.
                let to = unsafe { to.plane_mut(index, len) }.as_chunks_mut::<BLOCK>().0;
                let (image, first) = (index / blocks, index % blocks * BLOCK);
                for lane in 0..BLOCK {
                    if first + lane < channels {
                        let from = (image * channels + first + lane) * positions;
                        let from = &values[from..from + positions];
                        to.iter_mut().zip(from).for_each(|(to, &value)| to[lane] = value);
                    } else {
                        to.iter_mut().for_each(|to| to[lane] = 0.0);
                    }
                }
            }
        });
        map
    }

    /// The map as `[batch, channels, height, width]`; one pass.
    pub fn to_planes(&self) -> Buffer {
        let (positions, channels, blocks) = (self.positions(), self.channels(), self.blocks());
        let mut planes = buffer::take(self.dims[0] * channels * positions);
        let (from, to) = (self.values(), Shared::new(&mut planes));
        planes::for_each(self.dims[0] * blocks, self.block_len(), |range| {
            for index in range {
                let from =
                    from[index * self.block_len()..][..self.block_len()].as_chunks::<BLOCK>().0;
                let (image, first) = (index / blocks, index % blocks * BLOCK);
                for lane in 0..BLOCK.min(channels - first) {
                    // SAFETY: this task alone has the channels of the block.
                    let to = unsafe { to.plane_mut(image * channels + first + lane, positions) };
                    to.iter_mut().zip(from).for_each(|(to, from)| *to = from[lane]);
                }
            }
        });
        planes
    }

    /// Batch, channels, height and width.
    pub fn dims(&self) -> [usize; 4] {
        self.dims
    }

    pub(super) fn channels(&self) -> usize {
        self.dims[1]
    }

    /// Blocks of an image.
    pub(super) fn blocks(&self) -> usize {
        self.channels().div_ceil(BLOCK)
    }

    pub(super) fn positions(&self) -> usize {
        self.dims[2] * self.dims[3]
    }

    /// Values of a block of an image.
    pub(super) fn block_len(&self) -> usize {
        self.positions() * BLOCK
    }

    /// Values of an image.
    pub(super) fn image_len(&self) -> usize {
        self.blocks() * self.block_len()
    }

    pub(super) fn values(&self) -> &[f32] {
        aligned(&self.values, self.len)
    }

    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        let skip = self.values.as_ptr().align_offset(4 * BLOCK);
        &mut self.values[skip..][..self.len]
    }
}
