//! Where a data set's images come from.

use std::{borrow::Cow, path::PathBuf};

use crate::{DataError, Image};

/// An image and its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The image, as stored.
    pub image: Image,
    /// Index into the data set's classes.
    pub label: usize,
}

/// Where a data set's images come from: the trait to implement for a new layout.
///
/// Indices run from 0 to [`len`](Self::len); methods may panic beyond.
pub trait Source: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Class of a sample, without reading its image.
    fn label(&self, index: usize) -> usize;

    /// Reads an image. Its channels are those of [`channels`](Self::channels).
    ///
    /// # Errors
    ///
    /// A [`DataError`] that names the file, and the record where a file holds many.
    fn image(&self, index: usize) -> Result<Image, DataError>;

    /// Channels of every image: 1 or 3. By default 3, as decoded files have.
    fn channels(&self) -> usize {
        3
    }

    /// Height and width of every image; `None`, the default, where they differ or are unknown before
    /// decoding.
    fn image_size(&self) -> Option<(usize, usize)> {
        None
    }

    /// The file of a sample, where every sample has its own.
    fn file(&self, _index: usize) -> Option<PathBuf> {
        None
    }

    /// Bytes that distinguish a sample from others: its pixels, or its name and size where reading
    /// all pixels would be slow.
    fn identity(&self, index: usize) -> Cow<'_, [u8]>;
}
