//! Outputs that tasks on several threads fill jointly.

use std::marker::PhantomData;
use std::ops::Range;

/// An output that tasks fill, each at its own places.
///
/// It is created once, from the exclusive borrow of the output, and holds that borrow: as long as a
/// copy lives, all writes go through it, and the compiler prevents other access to the slice. A
/// `&mut` to the slice that a function holds meanwhile would make the writes undefined behaviour.
pub(crate) struct Shared<'a, T = f32> {
    start: *mut T,
    len: usize,
    output: PhantomData<&'a mut [T]>,
}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<'_, T> {}

// SAFETY: tasks write to places of their own, as the functions that hand them out demand; `Shared`
// itself touches none.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub fn new(output: &'a mut [T]) -> Self {
        Self { start: output.as_mut_ptr(), len: output.len(), output: PhantomData }
    }

    /// A part of the output as an output of its own.
    pub fn part(self, range: Range<usize>) -> Self {
        Self { len: range.len(), start: self.range(range), output: PhantomData }
    }

    /// The first of these places, all of which lie in the output.
    #[inline(always)]
    pub fn range(self, range: Range<usize>) -> *mut T {
        assert!(range.start <= range.end && range.end <= self.len, "places outside the output");
        self.start.wrapping_add(range.start)
    }

    /// The first place of a plane of `len` values, one of those that the output consists of.
    #[inline(always)]
    pub fn plane(self, index: usize, len: usize) -> *mut T {
        self.range(index * len..(index + 1) * len)
    }

    /// These places.
    ///
    /// # Safety
    /// Nothing else uses one of them as long as the slice lives.
    #[inline(always)]
    pub unsafe fn slice_mut(self, range: Range<usize>) -> &'a mut [T] {
        let len = range.len();
        // SAFETY: the places lie in the output, and are the caller's alone.
        unsafe { std::slice::from_raw_parts_mut(self.range(range), len) }
    }

    /// A plane of `len` values.
    ///
    /// # Safety
    /// Nothing else uses it as long as the slice lives.
    #[inline(always)]
    pub unsafe fn plane_mut(self, index: usize, len: usize) -> &'a mut [T] {
        // SAFETY: as the caller promises.
        unsafe { self.slice_mut(index * len..(index + 1) * len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_planes_lie_where_they_say() {
        let mut values: Vec<u32> = (0..12).collect();
        let output = Shared::new(&mut values);
        // SAFETY: the places are disjoint.
        unsafe {
            output.plane_mut(2, 3).fill(100);
            output.part(2..6).slice_mut(1..3).fill(200);
            *output.plane(3, 3) = 300;
        }
        assert_eq!(values, [0, 1, 2, 200, 200, 5, 100, 100, 100, 300, 10, 11]);
    }

    #[test]
    #[should_panic(expected = "places outside the output")]
    fn places_outside_a_part_are_refused() {
        Shared::new(&mut [0.0; 4]).part(1..3).range(1..3);
    }
}
