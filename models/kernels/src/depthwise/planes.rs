//! The planes of a channel in a few images.

use std::ops::Range;

use crate::shared::Shared;

/// Planes of one channel in consecutive images of a map `[batch, channels, len]`.
#[derive(Clone, Copy)]
pub(super) struct Planes<'a> {
    /// From the first value of the first plane on.
    values: &'a [f32],
    /// Distance of two planes.
    step: usize,
    len: usize,
    count: usize,
    /// The planes that are used after these, and their distance.
    next: (&'a [f32], usize),
}

impl<'a> Planes<'a> {
    /// The planes of a channel in some images. The next ones are those of as many further images, or the
    /// first of the next channel.
    pub(super) fn new(
        map: &'a [f32],
        [channels, len]: [usize; 2],
        images: Range<usize>,
        channel: usize,
    ) -> Self {
        let step = channels * len;
        let start = |image: usize, channel: usize| image * step + channel * len;
        let values = &map[start(images.start, channel)..];
        assert!(values.len() >= (images.len() - 1) * step + len, "planes outside the map");
        let next = match (images.end * step < map.len(), channel + 1 < channels) {
            (true, _) => &map[start(images.end, channel)..],
            (false, true) => &map[start(0, channel + 1)..],
            (false, false) => &[],
        };
        Self { values, step, len, count: images.len(), next: (next, step) }
    }

    /// A single plane.
    pub(super) fn one(plane: &'a [f32]) -> Self {
        Self { values: plane, step: 0, len: plane.len(), count: 1, next: (&[], 0) }
    }

    /// These planes, with no others after them.
    pub(super) fn alone(self) -> Self {
        Self { next: (&[], 0), ..self }
    }

    /// These planes, after which others are written. A single one is brought into the cache; for interleaved images
    /// that took 1.1 times as long.
    pub(super) fn before(self, targets: &'a mut TargetPlanes<'_>) -> Self {
        match targets.count() {
            1 => Self { next: (targets.plane_mut(0), 0), ..self },
            _ => self.alone(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    #[inline(always)]
    pub(super) fn plane(&self, index: usize) -> &'a [f32] {
        debug_assert!(index < self.count);
        &self.values[index * self.step..][..self.len]
    }

    /// The map from the plane on that follows this one when the next planes are used.
    #[inline(always)]
    pub(super) fn next(&self, index: usize) -> &'a [f32] {
        let (values, step) = self.next;
        values.get(index * step..).unwrap_or(&[])
    }
}

/// Planes of one channel in consecutive images of an output.
pub(super) struct TargetPlanes<'a> {
    output: Shared<'a>,
    channels: usize,
    len: usize,
    images: Range<usize>,
    channel: usize,
}

impl<'a> TargetPlanes<'a> {
    /// # Safety
    /// Nothing else uses these planes as long as this value lives.
    pub(super) unsafe fn new(
        output: Shared<'a>,
        [channels, len]: [usize; 2],
        images: Range<usize>,
        channel: usize,
    ) -> Self {
        Self { output, channels, len, images, channel }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn count(&self) -> usize {
        self.images.len()
    }

    #[inline(always)]
    pub(super) fn plane_mut(&mut self, index: usize) -> &mut [f32] {
        assert!(index < self.count(), "a plane of another task");
        let plane = (self.images.start + index) * self.channels + self.channel;
        // SAFETY: the planes are this value's alone, as `new` demands.
        unsafe { self.output.plane_mut(plane, self.len) }
    }
}
