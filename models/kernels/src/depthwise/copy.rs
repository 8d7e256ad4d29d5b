//! Copies between planes and strips, in whole vectors.
//!
//! The last vector of a row of strips runs over what follows it, zeros into padding or values
//! into rows that are written later. Planes are read and written to the row's end exactly.

use pulp::{Arch, Simd, WithSimd};

use super::grid::Grid;
use super::vector::{
    Cut, WIDEST, add, deinterleave, interleave, keep, load, load_lanes, load_some, prefetch, store,
    store_lanes, store_some,
};
use crate::Activation;
use crate::activation::{CLAMP, HARD_SWISH, IDENTITY, Vectors};

/// Copies a plane less `shift` into strips whose padding is zero, and adds it to `summed`.
/// Meanwhile `next`, the plane to be touched after it, is brought into the cache.
pub(super) fn pad(
    arch: Arch,
    grid: &Grid,
    [plane, next]: [&[f32]; 2],
    shift: f32,
    strips: &mut [f32],
    summed: Option<&mut [f32]>,
) {
    struct Pad<'a> {
        grid: &'a Grid,
        plane: &'a [f32],
        next: &'a [f32],
        shift: f32,
        strips: &'a mut [f32],
        summed: Option<&'a mut [f32]>,
    }

    impl Pad<'_> {
        /// # Safety
        /// The position must be that of an input column.
        #[inline(always)]
        unsafe fn put<S: Simd>(&mut self, simd: S, at: usize, value: S::f32s) {
            // SAFETY: all strips have room for a vector at every input column.
            unsafe {
                store(simd, self.strips.as_mut_ptr(), at, value);
                if let Some(summed) = &mut self.summed {
                    add(simd, summed.as_mut_ptr(), at, value);
                }
            }
        }
    }

    impl WithSimd for Pad<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(mut self, simd: S) {
            let (grid, width) = (self.grid, self.grid.cols.size);
            let (cut, zero) = (Cut::new(simd, width), simd.splat_f32s(0.0));
            let shift = simd.splat_f32s(self.shift);
            for y in 0..grid.rows.size {
                let start = y * width;
                let row = self.plane[start..start + width].as_ptr();
                for x in (0..width).step_by(WIDEST) {
                    prefetch(self.next, start + x);
                }
                match grid.cols.stride {
                    1 => {
                        let strip = grid.strip_of(y, 0);
                        let mut x = 0;
                        // SAFETY: `x` is a column of the row.
                        unsafe {
                            while x < cut.whole {
                                let value = simd.sub_f32s(load(simd, row, x), shift);
                                self.put(simd, strip + x, value);
                                x += S::F32_LANES;
                            }
                            if let Some(lanes) = cut.rest {
                                let value = load_lanes(simd, row, x, lanes);
                                let value = simd.sub_f32s(value, shift);
                                self.put(simd, strip + x, simd.select_f32s(lanes, value, zero));
                            }
                        }
                    }
                    2 => {
                        // Even columns go to one strip, odd ones to another.
                        let strips = [0, 1.min(width - 1)].map(|x| grid.strip_of(y, x));
                        let [evens, odds] = [width.div_ceil(2), width / 2];
                        for x in (0..evens).step_by(S::F32_LANES) {
                            let [first, second] = [2 * x, 2 * x + S::F32_LANES];
                            // SAFETY: no more columns are loaded than the row has left.
                            unsafe {
                                let a = load_some(simd, row, first, width - first);
                                let b = load_some(
                                    simd,
                                    row,
                                    second.min(width),
                                    width.saturating_sub(second),
                                );
                                let [even, odd] = deinterleave(simd, a, b);
                                let even = simd.sub_f32s(even, shift);
                                self.put(simd, strips[0] + x, keep(simd, even, evens - x));
                                if x < odds {
                                    let odd = simd.sub_f32s(odd, shift);
                                    self.put(simd, strips[1] + x, keep(simd, odd, odds - x));
                                }
                            }
                        }
                    }
                    _ => {
                        for x in 0..width {
                            let at = grid.strip_of(y, x);
                            self.strips[at] = self.plane[start + x] - self.shift;
                            if let Some(summed) = &mut self.summed {
                                summed[at] += self.strips[at];
                            }
                        }
                    }
                }
            }
        }
    }

    assert_eq!(plane.len(), grid.input(), "plane");
    assert!(strips.len() >= grid.strips_len(), "strips");
    assert!(summed.as_ref().is_none_or(|summed| summed.len() >= grid.strips_len()), "sums");
    arch.dispatch(Pad { grid, plane, next, shift, strips, summed });
}

/// Copies the gradient of an output plane into a strip, behind the activation where there is one,
/// and adds it to `summed`. Meanwhile the next ones are brought into the cache.
///
/// The planes of `gate` hold the values that the activation's derivative needs: its output or, for
/// hard-swish, its input.
pub(super) fn pitch(
    arch: Arch,
    grid: &Grid,
    [plane, next]: [&[f32]; 2],
    gate: Option<(Activation, [&[f32]; 2])>,
    strip: &mut [f32],
    summed: Option<&mut [f32]>,
) {
    struct Pitch<'a> {
        grid: &'a Grid,
        plane: &'a [f32],
        next: &'a [f32],
        activation: Activation,
        values: [&'a [f32]; 2],
        strip: &'a mut [f32],
        summed: Option<&'a mut [f32]>,
    }

    impl Pitch<'_> {
        /// # Safety
        /// The positions must be those of an output column in the plane and in the strip.
        #[inline(always)]
        unsafe fn put<S: Simd>(&mut self, simd: S, from: usize, to: usize, value: S::f32s) {
            prefetch(self.next, from);
            // SAFETY: the strips have room for a vector at every column.
            unsafe {
                store(simd, self.strip.as_mut_ptr(), to, value);
                if let Some(summed) = &mut self.summed {
                    add(simd, summed.as_mut_ptr(), to, value);
                }
            }
        }

        #[inline(always)]
        fn run<S: Simd, const KIND: u8>(mut self, simd: S) {
            let (pitch, width) = (self.grid.cols.len, self.grid.cols.output);
            let cut = Cut::new(simd, width);
            let activation = Vectors::new(simd, self.activation);
            let [values, next] = self.values;
            for r in 0..self.grid.rows.output {
                let (from, to) = (r * width, r * pitch);
                let mut x = 0;
                // SAFETY: `x` is a column of the row, of which all planes hold all; the strips
                // have room for a vector at every column.
                unsafe {
                    while x < cut.whole {
                        let mut value = load(simd, self.plane.as_ptr(), from + x);
                        if KIND != IDENTITY {
                            prefetch(next, from + x);
                            let at = load(simd, values.as_ptr(), from + x);
                            value = activation.backward::<KIND>(at, value);
                        }
                        self.put(simd, from + x, to + x, value);
                        x += S::F32_LANES;
                    }
                    if let Some(lanes) = cut.rest {
                        let mut value = load_lanes(simd, self.plane.as_ptr(), from + x, lanes);
                        if KIND != IDENTITY {
                            prefetch(next, from + x);
                            let at = load_lanes(simd, values.as_ptr(), from + x, lanes);
                            value = activation.backward::<KIND>(at, value);
                        }
                        self.put(simd, from + x, to + x, value);
                    }
                }
            }
        }
    }

    impl WithSimd for Pitch<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            match self.activation {
                Activation::Identity => self.run::<S, IDENTITY>(simd),
                Activation::Relu | Activation::Relu6 => self.run::<S, CLAMP>(simd),
                Activation::HardSwish => self.run::<S, HARD_SWISH>(simd),
            }
        }
    }

    assert_eq!(plane.len(), grid.output(), "plane");
    assert!(gate.is_none_or(|(_, [values, _])| values.len() == plane.len()), "values of the gate");
    assert!(strip.len() >= grid.output_buffer(), "strip");
    assert!(summed.as_ref().is_none_or(|summed| summed.len() >= grid.output_buffer()), "sums");
    let (activation, values) = gate.unwrap_or((Activation::Identity, [&[]; 2]));
    arch.dispatch(Pitch { grid, plane, next, activation, values, strip, summed });
}

/// Copies a strip of outputs into a plane, through the activation.
pub(super) fn unpitch(
    arch: Arch,
    grid: &Grid,
    strip: &[f32],
    activation: Activation,
    plane: &mut [f32],
) {
    struct Unpitch<'a> {
        grid: &'a Grid,
        strip: &'a [f32],
        activation: Activation,
        plane: &'a mut [f32],
    }

    impl Unpitch<'_> {
        #[inline(always)]
        fn run<S: Simd, const KIND: u8>(self, simd: S) {
            let (pitch, width) = (self.grid.cols.len, self.grid.cols.output);
            let cut = Cut::new(simd, width);
            let activation = Vectors::new(simd, self.activation);
            let target = self.plane.as_mut_ptr();
            for r in 0..self.grid.rows.output {
                let (from, to) = (r * pitch, r * width);
                let mut x = 0;
                // SAFETY: the strip has room for a vector at every column; no more columns are
                // written than the row has left.
                unsafe {
                    while x < cut.whole {
                        let value = load(simd, self.strip.as_ptr(), from + x);
                        store(simd, target, to + x, activation.apply::<KIND>(value));
                        x += S::F32_LANES;
                    }
                    if let Some(lanes) = cut.rest {
                        let value = load(simd, self.strip.as_ptr(), from + x);
                        store_lanes(simd, target, to + x, lanes, activation.apply::<KIND>(value));
                    }
                }
            }
        }
    }

    impl WithSimd for Unpitch<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            match self.activation {
                Activation::Identity => self.run::<S, IDENTITY>(simd),
                Activation::Relu | Activation::Relu6 => self.run::<S, CLAMP>(simd),
                Activation::HardSwish => self.run::<S, HARD_SWISH>(simd),
            }
        }
    }

    assert_eq!(plane.len(), grid.output(), "plane");
    assert!(strip.len() >= grid.output_buffer(), "strip");
    arch.dispatch(Unpitch { grid, strip, activation, plane });
}

/// Collects a plane from strips in the layout of the input, the inverse of [`pad`].
pub(super) fn crop(arch: Arch, grid: &Grid, strips: &[f32], plane: &mut [f32]) {
    struct Crop<'a> {
        grid: &'a Grid,
        strips: &'a [f32],
        plane: &'a mut [f32],
    }

    impl WithSimd for Crop<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let (grid, width, strips) = (self.grid, self.grid.cols.size, self.strips.as_ptr());
            let cut = Cut::new(simd, width);
            for y in 0..grid.rows.size {
                let row = self.plane[y * width..(y + 1) * width].as_mut_ptr();
                match grid.cols.stride {
                    1 => {
                        let strip = grid.strip_of(y, 0);
                        let mut x = 0;
                        // SAFETY: the strips have room for a vector at every column; no more
                        // columns are written than the row has left.
                        unsafe {
                            while x < cut.whole {
                                store(simd, row, x, load(simd, strips, strip + x));
                                x += S::F32_LANES;
                            }
                            if let Some(lanes) = cut.rest {
                                store_lanes(simd, row, x, lanes, load(simd, strips, strip + x));
                            }
                        }
                    }
                    2 => {
                        let [even, odd] = [0, 1.min(width - 1)].map(|x| grid.strip_of(y, x));
                        for x in (0..width.div_ceil(2)).step_by(S::F32_LANES) {
                            let [first, second] = [2 * x, 2 * x + S::F32_LANES];
                            // SAFETY: as above.
                            unsafe {
                                let even = load(simd, strips, even + x);
                                let odd = load(simd, strips, odd + x);
                                let [low, high] = interleave(simd, even, odd);
                                store_some(simd, row, first, width - first, low);
                                if second < width {
                                    store_some(simd, row, second, width - second, high);
                                }
                            }
                        }
                    }
                    _ => {
                        for x in 0..width {
                            let at = grid.strip_of(y, x);
                            self.plane[y * width + x] = self.strips[at];
                        }
                    }
                }
            }
        }
    }

    assert_eq!(plane.len(), grid.input(), "plane");
    assert!(strips.len() >= grid.strips_len(), "strips");
    arch.dispatch(Crop { grid, strips, plane });
}
