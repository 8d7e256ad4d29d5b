//! Copies between planes and strips in which images are interleaved: transposes of blocks of as many
//! positions and images as a vector has lanes.

use pulp::{Simd, WithSimd};

use super::grid::INTERLEAVED;
use super::planes::{Planes, TargetPlanes};
use super::shuffle::{Square, transpose, transpose_back};
use crate::Activation;
use crate::activation::{IDENTITY, Vectors, with_kind};
use crate::simd::{Full, Lanes, WIDEST, add, load, prefetch, with_lanes};

/// Copies planes less `shift` into strips, through the derivative of an activation if there is one, and adds
/// them to `summed`. Images that are missing become zeros.
pub(super) struct Interleave<'a> {
    pub planes: Planes<'a>,
    /// Where each value of the first plane goes.
    pub places: &'a [usize],
    pub shift: f32,
    pub activation: Activation,
    /// The values that the derivative needs.
    pub gate: Option<Planes<'a>>,
    pub strips: &'a mut [f32],
    /// As long as a plane, with room for a whole vector at each value.
    pub summed: Option<&'a mut [f32]>,
}

impl WithSimd for Interleave<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        with_kind!(self.activation, |KIND| self.run::<S, KIND>(simd))
    }
}

impl Interleave<'_> {
    #[inline(always)]
    fn run<S: Simd, const KIND: u8>(mut self, simd: S) {
        let len = self.planes.len();
        assert_eq!(self.places.len(), len, "a place for each value");
        // The rows of missing images stay zero.
        let mut squares = [[[0.0; WIDEST]; WIDEST]; 2];
        for start in (0..len).step_by(S::F32_LANES) {
            with_lanes!(simd, len - start, |lanes| {
                self.block::<S, KIND>(simd, lanes, start, &mut squares);
            });
        }
    }

    #[inline(always)]
    fn block<S: Simd, const KIND: u8>(
        &mut self,
        simd: S,
        lanes: impl Lanes<S>,
        start: usize,
        [rows, columns]: &mut [Square; 2],
    ) {
        let activation = Vectors::new(simd, self.activation);
        let shift = simd.splat_f32s(self.shift);
        let mut sum = simd.splat_f32s(0.0);
        for (image, row) in rows[..self.planes.count()].iter_mut().enumerate() {
            prefetch(self.planes.next(image), start);
            // SAFETY: the lanes are values of the plane from `start` on.
            let value = unsafe { lanes.load(simd, self.planes.plane(image)[start..].as_ptr()) };
            let value = match (KIND, self.gate) {
                (IDENTITY, _) | (_, None) => lanes.keep(simd, simd.sub_f32s(value, shift)),
                (_, Some(gate)) => {
                    prefetch(gate.next(image), start);
                    // SAFETY: as above.
                    let at = unsafe { lanes.load(simd, gate.plane(image)[start..].as_ptr()) };
                    activation.backward::<KIND>(at, value)
                }
            };
            sum = simd.add_f32s(sum, value);
            // SAFETY: a row holds any vector.
            unsafe { Full.store(simd, row.as_mut_ptr(), value) }
        }
        transpose(simd, rows, columns);
        let count = S::F32_LANES.min(self.places.len() - start);
        for (column, &place) in columns.iter().zip(&self.places[start..][..count]) {
            self.strips[place..][..INTERLEAVED].copy_from_slice(column);
        }
        if let Some(summed) = &mut self.summed {
            let summed = &mut summed[start..][..S::F32_LANES];
            // SAFETY: the slice is one vector long.
            unsafe { add(simd, summed.as_mut_ptr(), sum) }
        }
    }
}

/// Copies strips into planes, through an activation.
pub(super) struct Deinterleave<'p, 'a> {
    pub strips: &'p [f32],
    /// Where each value of the first plane lies.
    pub places: &'p [usize],
    pub activation: Activation,
    pub planes: &'p mut TargetPlanes<'a>,
}

impl WithSimd for Deinterleave<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        with_kind!(self.activation, |KIND| self.run::<S, KIND>(simd))
    }
}

impl Deinterleave<'_, '_> {
    #[inline(always)]
    fn run<S: Simd, const KIND: u8>(mut self, simd: S) {
        let len = self.planes.len();
        assert_eq!(self.places.len(), len, "a place for each value");
        let mut squares = [[[0.0; WIDEST]; WIDEST]; 2];
        for start in (0..len).step_by(S::F32_LANES) {
            with_lanes!(simd, len - start, |lanes| {
                self.block::<S, KIND>(simd, lanes, start, &mut squares);
            });
        }
    }

    #[inline(always)]
    fn block<S: Simd, const KIND: u8>(
        &mut self,
        simd: S,
        lanes: impl Lanes<S>,
        start: usize,
        [columns, rows]: &mut [Square; 2],
    ) {
        let count = S::F32_LANES.min(self.places.len() - start);
        for (column, &place) in columns.iter_mut().zip(&self.places[start..][..count]) {
            column.copy_from_slice(&self.strips[place..][..INTERLEAVED]);
        }
        transpose_back(simd, columns, rows);
        let activation = Vectors::new(simd, self.activation);
        for (image, row) in rows[..self.planes.count()].iter().enumerate() {
            let to = &mut self.planes.plane_mut(image)[start..];
            // SAFETY: a row holds any vector; the lanes are values of the plane from `start` on.
            unsafe {
                let value = activation.apply::<KIND>(load(simd, row, 0));
                lanes.store(simd, to.as_mut_ptr(), value);
            }
        }
    }
}
