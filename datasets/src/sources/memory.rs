//! Images of one size, held in memory.

use std::borrow::Cow;

use crate::{DataError, Image, Source};

/// Images and labels of one split, `[n, height, width, channels]`.
pub(crate) struct MemoryImages {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) channels: usize,
    /// `labels.len() * height * width * channels` bytes.
    pub(crate) pixels: Vec<u8>,
    pub(crate) labels: Vec<u8>,
}

impl MemoryImages {
    fn pixels_of(&self, index: usize) -> &[u8] {
        let size = self.height * self.width * self.channels;
        &self.pixels[index * size..(index + 1) * size]
    }
}

impl Source for MemoryImages {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn label(&self, index: usize) -> usize {
        usize::from(self.labels[index])
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        Image::new(self.height, self.width, self.channels, self.pixels_of(index).to_vec())
    }

    fn channels(&self) -> usize {
        self.channels
    }

    fn image_size(&self) -> Option<(usize, usize)> {
        Some((self.height, self.width))
    }

    fn identity(&self, index: usize) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.pixels_of(index))
    }
}
