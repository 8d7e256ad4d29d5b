//! Average and maximum over windows of a map, and over whole planes.
//!
//! Windows are those of a convolution with as many output as input channels; the groups have no
//! effect. Each kernel reads its input once and writes its output once.

mod average;
mod max;

use std::ops::Range;

use crate::ConvShape;
use crate::shape::Geometry;

pub use average::{average, average_backward};
pub use max::{max, max_backward};

/// The largest number of values of a window of [`max`]: a position is a byte.
pub const LARGEST_WINDOW: usize = 256;

/// The geometry of a pool over an input and an output of these lengths.
fn geometry(shape: &ConvShape, input: usize, output: usize) -> Geometry {
    assert_eq!(shape.in_channels, shape.out_channels, "a pool keeps its channels");
    // The groups have no effect.
    let shape = ConvShape { groups: shape.in_channels, ..*shape };
    let geometry = Geometry::new(&shape, input, output);
    let inside = (0..2).all(|axis| geometry.padding[axis] < geometry.kernel[axis]);
    assert!(inside, "a window lies in the padding");
    geometry
}

/// The window's rows (or columns) that lie in an input of `len`, for output `index`.
fn taps(shape: &Geometry, axis: usize, index: usize) -> Range<usize> {
    let (padding, start) = (shape.padding[axis], index * shape.stride[axis]);
    padding.saturating_sub(start)..shape.kernel[axis].min(shape.input[axis] + padding - start)
}

/// Puts a row into its padding, sorted by the remainder of the padded column modulo the stride:
/// `pitch` values for each remainder.
#[inline(always)]
fn sort_columns(from: &[f32], padding: usize, stride: usize, pitch: usize, to: &mut [f32]) {
    if stride == 1 {
        to[padding..][..from.len()].copy_from_slice(from);
        return;
    }
    if stride == 2 {
        let (even, odd) = to.split_at_mut(pitch);
        // The parity of the column without the padding.
        let (even, odd) = if padding.is_multiple_of(2) { (even, odd) } else { (odd, even) };
        let (even, odd) = (&mut even[padding / 2..], &mut odd[padding.div_ceil(2)..]);
        let (pairs, rest) = from.as_chunks::<2>();
        for ((pair, even), odd) in pairs.iter().zip(&mut *even).zip(odd) {
            [*even, *odd] = *pair;
        }
        even[pairs.len()..][..rest.len()].copy_from_slice(rest);
        return;
    }
    for column in 0..stride.min(from.len()) {
        let (phase, start) = ((column + padding) % stride, (column + padding) / stride);
        let to = &mut to[phase * pitch + start..(phase + 1) * pitch];
        let picked = from[column..].iter().step_by(stride);
        to.iter_mut().zip(picked).for_each(|(to, &value)| *to = value);
    }
}

#[cfg(test)]
mod tests;
