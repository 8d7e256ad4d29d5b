//! Copies between planes and strips, in whole vectors.
//!
//! The last vector of a row of a strip extends past the row, into zeros of the padding or into rows
//! that are written later. Planes are read and written exactly up to the end of a row.

use pulp::{Arch, Simd, WithSimd};

use super::grid::Grid;
use super::interleave::{Deinterleave, Interleave};
use super::planes::{Planes, TargetPlanes};
use super::shuffle::{deinterleave, interleave};
use crate::Activation;
use crate::activation::{IDENTITY, Vectors, with_kind};
use crate::simd::{Full, Lanes, WIDEST, add, prefetch, sweep, with_lanes};

/// The length of a sum over images of planes: there is room for a whole vector at each value.
pub(super) fn sum_len(plane: usize) -> usize {
    plane + WIDEST
}

/// Checks the number and the length of planes.
#[track_caller]
fn check(grid: &Grid, count: usize, len: usize, expected: usize) {
    assert!(count <= grid.images, "more planes than images in a strip");
    assert_eq!(len, expected, "length of a plane");
}

/// Copies planes less `shift` into strips whose padding is zero, and adds them to `summed`.
/// Meanwhile it prefetches the planes that are used after these.
pub(super) fn pad(
    arch: Arch,
    grid: &Grid,
    planes: Planes<'_>,
    shift: f32,
    strips: &mut [f32],
    summed: Option<&mut [f32]>,
) {
    check(grid, planes.count(), planes.len(), grid.input());
    assert!(strips.len() >= grid.strips_len(), "strips");
    assert!(summed.as_ref().is_none_or(|summed| summed.len() >= sum_len(planes.len())), "sums");
    if grid.images > 1 {
        let (places, activation, gate) = (&grid.places[0], Activation::Identity, None);
        return arch.dispatch(Interleave {
            planes,
            places,
            shift,
            activation,
            gate,
            strips,
            summed,
        });
    }
    let [plane, next] = [planes.plane(0), planes.next(0)];
    arch.dispatch(Pad { grid, plane, next, shift, strips: Strips { values: strips, summed } });
}

/// A target in strips, and the sum over images, in the order of a plane, that it is added to.
struct Strips<'a> {
    values: &'a mut [f32],
    summed: Option<&'a mut [f32]>,
}

impl Strips<'_> {
    /// # Safety
    /// `at` is the position of a column; strips have room for a whole vector at each.
    #[inline(always)]
    unsafe fn put<S: Simd>(&mut self, simd: S, at: usize, value: S::f32s) {
        // SAFETY: as the caller promises.
        unsafe { Full.store(simd, self.values.as_mut_ptr().add(at), value) }
    }

    /// # Safety
    /// `at` is a place in a plane; sums have room for a whole vector at each.
    #[inline(always)]
    unsafe fn sum<S: Simd>(&mut self, simd: S, at: usize, value: S::f32s) {
        if let Some(summed) = &mut self.summed {
            // SAFETY: as the caller promises.
            unsafe { add(simd, summed.as_mut_ptr().add(at), value) }
        }
    }
}

struct Pad<'a> {
    grid: &'a Grid,
    plane: &'a [f32],
    next: &'a [f32],
    shift: f32,
    strips: Strips<'a>,
}

impl WithSimd for Pad<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let width = self.grid.cols.size;
        for y in 0..self.grid.rows.size {
            let start = y * width;
            for x in (0..width).step_by(WIDEST) {
                prefetch(self.next, start + x);
            }
            let row = &self.plane[start..start + width];
            match self.grid.cols.stride {
                1 => self.copy_row(simd, y, row),
                2 => self.split_row(simd, y, row),
                _ => self.scatter_row(y, row),
            }
        }
    }
}

impl Pad<'_> {
    #[inline(always)]
    fn copy_row<S: Simd>(&mut self, simd: S, y: usize, row: &[f32]) {
        let (strip, shift) = (self.grid.strip_of(y, 0), simd.splat_f32s(self.shift));
        sweep!(simd, row.len(), |x, lanes, _TURN| {
            // SAFETY: `x` is a column of the row.
            unsafe {
                let value = simd.sub_f32s(lanes.load(simd, row.as_ptr().add(x)), shift);
                let value = lanes.keep(simd, value);
                self.strips.put(simd, strip + x, value);
                self.strips.sum(simd, y * row.len() + x, value);
            }
        });
    }

    /// Even columns go to one strip, odd ones to another.
    #[inline(always)]
    fn split_row<S: Simd>(&mut self, simd: S, y: usize, row: &[f32]) {
        let (width, row, shift) = (row.len(), row.as_ptr(), simd.splat_f32s(self.shift));
        let strips = [0, 1.min(width - 1)].map(|x| self.grid.strip_of(y, x));
        let [evens, odds] = [width.div_ceil(2), width / 2];
        for x in (0..evens).step_by(S::F32_LANES) {
            let [first, second] = [2 * x, width.min(2 * x + S::F32_LANES)];
            // SAFETY: no more columns are loaded than the row has left.
            unsafe {
                let [from, rest] = [row.add(first), row.add(second)];
                let a = with_lanes!(simd, width - first, |lanes| {
                    lanes.keep(simd, simd.sub_f32s(lanes.load(simd, from), shift))
                });
                let b = with_lanes!(simd, width - second, |lanes| {
                    lanes.keep(simd, simd.sub_f32s(lanes.load(simd, rest), shift))
                });
                self.strips.sum(simd, y * width + first, a);
                self.strips.sum(simd, y * width + second, b);
                let [even, odd] = deinterleave(simd, a, b);
                self.strips.put(simd, strips[0] + x, even);
                if x < odds {
                    self.strips.put(simd, strips[1] + x, odd);
                }
            }
        }
    }

    #[inline(always)]
    fn scatter_row(&mut self, y: usize, row: &[f32]) {
        for (x, value) in row.iter().enumerate() {
            let (at, value) = (self.grid.strip_of(y, x), value - self.shift);
            self.strips.values[at] = value;
            if let Some(summed) = &mut self.strips.summed {
                summed[y * row.len() + x] += value;
            }
        }
    }
}

/// Copies the gradient of output planes into a strip, through the derivative of the activation if
/// there is one, and adds it to `summed`. Meanwhile it prefetches the next planes.
///
/// The planes of `gate` hold the values that the derivative of the activation needs: its output or,
/// for hard-swish, its input.
pub(super) fn pitch(
    arch: Arch,
    grid: &Grid,
    planes: Planes<'_>,
    gate: Option<(Activation, Planes<'_>)>,
    strip: &mut [f32],
    summed: Option<&mut [f32]>,
) {
    let alike = |gate: Planes<'_>| [gate.len(), gate.count()] == [planes.len(), planes.count()];
    check(grid, planes.count(), planes.len(), grid.output());
    assert!(gate.is_none_or(|(_, gate)| alike(gate)), "values of the gate");
    assert!(strip.len() >= grid.output_buffer(), "strip");
    assert!(summed.as_ref().is_none_or(|summed| summed.len() >= sum_len(planes.len())), "sums");
    let (activation, gate) = gate.unzip();
    let activation = activation.unwrap_or_default();
    if grid.images > 1 {
        let (places, shift, strips) = (&grid.places[1], 0.0, strip);
        return arch.dispatch(Interleave {
            planes,
            places,
            shift,
            activation,
            gate,
            strips,
            summed,
        });
    }
    let [plane, next] = [planes.plane(0), planes.next(0)];
    let values = gate.map_or([&[][..]; 2], |gate| [gate.plane(0), gate.next(0)]);
    let strip = Strips { values: strip, summed };
    arch.dispatch(Pitch { grid, plane, next, activation, values, strip });
}

struct Pitch<'a> {
    grid: &'a Grid,
    plane: &'a [f32],
    next: &'a [f32],
    activation: Activation,
    values: [&'a [f32]; 2],
    strip: Strips<'a>,
}

impl WithSimd for Pitch<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        with_kind!(self.activation, |KIND| self.run::<S, KIND>(simd))
    }
}

impl Pitch<'_> {
    #[inline(always)]
    fn run<S: Simd, const KIND: u8>(mut self, simd: S) {
        let width = self.grid.cols.output;
        let activation = Vectors::new(simd, self.activation);
        let [values, next] = self.values;
        for r in 0..self.grid.rows.output {
            sweep!(simd, width, |x, lanes, _TURN| {
                let from = r * width + x;
                // SAFETY: `x` is a column of the row, and all planes hold every column.
                unsafe {
                    let mut value = lanes.load(simd, self.plane.as_ptr().add(from));
                    if KIND != IDENTITY {
                        prefetch(next, from);
                        let at = lanes.load(simd, values.as_ptr().add(from));
                        value = activation.backward::<KIND>(at, value);
                    }
                    prefetch(self.next, from);
                    self.strip.put(simd, self.grid.output_at(r, x), value);
                    self.strip.sum(simd, from, value);
                }
            });
        }
    }
}

/// Copies a strip of outputs into planes, through the activation.
pub(super) fn unpitch(
    arch: Arch,
    grid: &Grid,
    strip: &[f32],
    activation: Activation,
    planes: &mut TargetPlanes<'_>,
) {
    check(grid, planes.count(), planes.len(), grid.output());
    assert!(strip.len() >= grid.output_buffer(), "strip");
    if grid.images > 1 {
        let (strips, places) = (strip, &grid.places[1]);
        return arch.dispatch(Deinterleave { strips, places, activation, planes });
    }
    arch.dispatch(Unpitch { grid, strip, activation, plane: planes.plane_mut(0) });
}

struct Unpitch<'a> {
    grid: &'a Grid,
    strip: &'a [f32],
    activation: Activation,
    plane: &'a mut [f32],
}

impl WithSimd for Unpitch<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        with_kind!(self.activation, |KIND| self.run::<S, KIND>(simd))
    }
}

impl Unpitch<'_> {
    #[inline(always)]
    fn run<S: Simd, const KIND: u8>(self, simd: S) {
        let width = self.grid.cols.output;
        let activation = Vectors::new(simd, self.activation);
        let (strip, plane) = (self.strip.as_ptr(), self.plane.as_mut_ptr());
        for r in 0..self.grid.rows.output {
            sweep!(simd, width, |x, lanes, _TURN| {
                // SAFETY: `x` is a column of the row; the strip has room for a whole vector there.
                unsafe {
                    let value = Full.load(simd, strip.add(self.grid.output_at(r, x)));
                    lanes.store(simd, plane.add(r * width + x), activation.apply::<KIND>(value));
                }
            });
        }
    }
}

/// Collects planes from strips in the layout of the input; the inverse of [`pad`].
pub(super) fn crop(arch: Arch, grid: &Grid, strips: &[f32], planes: &mut TargetPlanes<'_>) {
    check(grid, planes.count(), planes.len(), grid.input());
    assert!(strips.len() >= grid.strips_len(), "strips");
    if grid.images > 1 {
        let (places, activation) = (&grid.places[0], Activation::Identity);
        return arch.dispatch(Deinterleave { strips, places, activation, planes });
    }
    arch.dispatch(Crop { grid, strips, plane: planes.plane_mut(0) });
}

struct Crop<'a> {
    grid: &'a Grid,
    strips: &'a [f32],
    plane: &'a mut [f32],
}

impl WithSimd for Crop<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (grid, strips) = (self.grid, self.strips);
        for (y, row) in self.plane.chunks_exact_mut(grid.cols.size).enumerate() {
            match grid.cols.stride {
                1 => {
                    let (strip, row_start) = (&strips[grid.strip_of(y, 0)..], row.as_mut_ptr());
                    sweep!(simd, row.len(), |x, lanes, _TURN| {
                        // SAFETY: `x` is a column of the row; the strip has room for a whole
                        // vector there.
                        unsafe {
                            let value = Full.load(simd, strip.as_ptr().add(x));
                            lanes.store(simd, row_start.add(x), value);
                        }
                    });
                }
                2 => merge_row(
                    simd,
                    [0, 1.min(row.len() - 1)].map(|x| &strips[grid.strip_of(y, x)..]),
                    row,
                ),
                _ => {
                    for (x, value) in row.iter_mut().enumerate() {
                        *value = strips[grid.strip_of(y, x)];
                    }
                }
            }
        }
    }
}

/// Collects a row from the strips of its even and of its odd columns.
#[inline(always)]
fn merge_row<S: Simd>(simd: S, [evens, odds]: [&[f32]; 2], row: &mut [f32]) {
    let (width, row) = (row.len(), row.as_mut_ptr());
    for x in (0..width.div_ceil(2)).step_by(S::F32_LANES) {
        let [first, second] = [2 * x, 2 * x + S::F32_LANES];
        // SAFETY: the strips have room for a whole vector at every column; no more columns are
        // written than the row has left.
        unsafe {
            let even = Full.load(simd, evens.as_ptr().add(x));
            let odd = Full.load(simd, odds.as_ptr().add(x));
            let [low, high] = interleave(simd, even, odd);
            let to = row.add(first);
            with_lanes!(simd, width - first, |lanes| lanes.store(simd, to, low));
            if second < width {
                let to = row.add(second);
                with_lanes!(simd, width - second, |lanes| lanes.store(simd, to, high));
            }
        }
    }
}
