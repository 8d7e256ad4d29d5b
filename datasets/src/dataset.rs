//! One split of a data set.

use std::{path::PathBuf, sync::Arc};

use burn::data::dataset::{Dataset, DatasetError};
use sha2::{Digest, Sha256};

use crate::{DataError, Sample, Source, presets::Normalization};

mod parts;

/// One split of a data set: labelled images, read when asked for.
///
/// Cloning and [limiting](Self::limit) share the images.
#[derive(Clone)]
pub struct ImageDataset {
    name: String,
    classes: Arc<[String]>,
    /// Names of the classes in the fingerprint.
    identity: Arc<[String]>,
    normalization: Normalization,
    source: Arc<dyn Source>,
    /// Positions in the source, in order.
    selection: Arc<[usize]>,
    /// Class of every label of the source.
    class_of: Arc<[usize]>,
}

impl ImageDataset {
    /// A data set over a source.
    ///
    /// `name` is what [`describe`](Self::describe) calls it, `normalization` its usual constants.
    ///
    /// # Errors
    ///
    /// [`DataError::Setting`] if the source is empty or a label has no class.
    pub fn new(
        name: impl Into<String>,
        classes: Vec<String>,
        normalization: Normalization,
        source: Arc<dyn Source>,
    ) -> Result<Self, DataError> {
        if source.is_empty() {
            return Err(DataError::setting("dataset.len", 0, "at least one image"));
        }
        let beyond = |label: &usize| *label >= classes.len();
        if let Some(label) = (0..source.len()).map(|i| source.label(i)).find(beyond) {
            return Err(DataError::setting(
                "dataset.label",
                label,
                format!("labels below {} (the number of classes)", classes.len()),
            ));
        }
        let class_of = (0..classes.len()).collect();
        let classes: Arc<[String]> = classes.into();
        Ok(Self {
            name: name.into(),
            identity: classes.clone(),
            classes,
            normalization,
            selection: (0..source.len()).collect(),
            class_of,
            source,
        })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.selection.len()
    }

    /// Whether there are no samples, which is so only after [`limit`](Self::limit) to 0.
    pub fn is_empty(&self) -> bool {
        self.selection.is_empty()
    }

    /// Class names; a label is an index into them.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Channels of every image: 1 or 3.
    pub fn channels(&self) -> usize {
        self.source.channels()
    }

    /// Height and width of every image; `None` where they differ or are unknown before decoding
    /// (class folders).
    pub fn image_size(&self) -> Option<(usize, usize)> {
        self.source.image_size()
    }

    /// The usual mean and standard deviation for this kind of data.
    pub fn normalization(&self) -> Normalization {
        self.normalization
    }

    /// Reads a sample.
    ///
    /// # Errors
    ///
    /// [`DataError::Io`] or [`DataError::Corrupt`], naming the file.
    ///
    /// # Panics
    ///
    /// If `index >= len()`, like a slice.
    pub fn get(&self, index: usize) -> Result<Sample, DataError> {
        let at = self.selection[index];
        Ok(Sample { image: self.source.image(at)?, label: self.class(at) })
    }

    /// Class of a sample, without reading its image.
    ///
    /// # Panics
    ///
    /// If `index >= len()`, like a slice.
    pub fn label(&self, index: usize) -> usize {
        self.class(self.selection[index])
    }

    /// The file of a sample, where every sample has its own (class folders).
    ///
    /// # Panics
    ///
    /// If `index >= len()`, like a slice.
    pub fn file(&self, index: usize) -> Option<PathBuf> {
        self.source.file(self.selection[index])
    }

    /// Class of a position in the source.
    fn class(&self, at: usize) -> usize {
        self.class_of[self.source.label(at)]
    }

    /// SHA-256, in hexadecimal, of the classes as the files name them, labels and images in their
    /// order.
    ///
    /// Images are distinguished by their pixels, in class folders by file name and size: enough to
    /// notice another data set, cheap enough for a million files.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            // The length keeps ("ab", "c") and ("a", "bc") apart.
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for class in self.identity.iter() {
            field(class.as_bytes());
        }
        let (height, width) = self.image_size().unwrap_or((0, 0));
        for number in [height, width, self.channels()] {
            field(&(number as u64).to_le_bytes());
        }
        for &at in self.selection.iter() {
            field(&(self.class(at) as u64).to_le_bytes());
            field(&self.source.identity(at));
        }
        hex(&hash.finalize())
    }

    /// A description in one line: name, number of images and classes, size and channels.
    pub fn describe(&self) -> String {
        let size = match self.image_size() {
            Some((height, width)) => format!("{height}x{width}"),
            None => "any size".to_owned(),
        };
        let colour = if self.channels() == 1 { "grey" } else { "RGB" };
        let (images, classes) = (self.len(), self.classes.len());
        let images_word = if images == 1 { "image" } else { "images" };
        let classes_word = if classes == 1 { "class" } else { "classes" };
        format!("{}: {images} {images_word}, {classes} {classes_word}, {size}, {colour}", self.name)
    }
}

impl std::fmt::Debug for ImageDataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ImageDataset({})", self.describe())
    }
}

/// For Burn's own data loader, whose data sets return Burn's error; the [`DataError`] is its
/// source.
impl Dataset<Sample> for ImageDataset {
    fn get(&self, index: usize) -> Result<Sample, DatasetError> {
        ImageDataset::get(self, index).map_err(DatasetError::new)
    }

    fn len(&self) -> usize {
        ImageDataset::len(self)
    }
}

/// Bytes as lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{presets, sources::memory::MemoryImages};

    /// One-pixel images whose value is their position.
    pub(super) fn dataset(labels: &[u8]) -> ImageDataset {
        let source = MemoryImages {
            height: 1,
            width: 1,
            channels: 1,
            pixels: (0..labels.len() as u8).collect(),
            labels: labels.to_vec(),
        };
        let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
        ImageDataset::new("test", classes, presets::MNIST, Arc::new(source)).unwrap()
    }

    #[test]
    fn a_fingerprint_sees_labels_order_and_pixels() {
        let base = dataset(&[0, 1, 2, 0]);
        assert_eq!(base.fingerprint(), dataset(&[0, 1, 2, 0]).fingerprint());
        assert_eq!(base.fingerprint().len(), 64);
        assert_ne!(base.fingerprint(), dataset(&[0, 1, 2, 1]).fingerprint());
        assert_ne!(base.fingerprint(), base.limit(3).fingerprint());
    }

    #[test]
    fn a_label_without_class_and_an_empty_source_are_refused() {
        for labels in [vec![0, 3], vec![]] {
            let source = MemoryImages {
                height: 1,
                width: 1,
                channels: 1,
                pixels: vec![0; labels.len()],
                labels,
            };
            let classes = ["a", "b", "c"].map(str::to_owned).to_vec();
            assert!(ImageDataset::new("x", classes, presets::MNIST, Arc::new(source)).is_err());
        }
    }

    #[test]
    fn a_description_is_one_line() {
        let text = dataset(&[0, 1]).describe();
        assert_eq!(text, "test: 2 images, 3 classes, 1x1, grey");
    }

    #[test]
    fn bytes_become_hexadecimal() {
        assert_eq!(hex(&[0, 0x0f, 0xa0, 0xff]), "000fa0ff");
    }
}
