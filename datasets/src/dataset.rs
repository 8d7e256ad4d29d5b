//! One split of a data set.

use std::{borrow::Cow, path::PathBuf, sync::Arc};

use burn::data::dataset::{Dataset, DatasetError};
use rand::seq::SliceRandom;
use sha2::{Digest, Sha256};

use crate::{
    DataError, Image,
    presets::Normalization,
    rng::{Purpose, stream},
};

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

    /// Whether there is no sample.
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

    /// Channels of every image: 1 or 3.
    fn channels(&self) -> usize;

    /// Height and width of every image; `None` where they differ or are unknown before decoding.
    fn image_size(&self) -> Option<(usize, usize)>;

    /// The file of a sample, where every sample has its own.
    fn file(&self, _index: usize) -> Option<PathBuf> {
        None
    }

    /// Bytes that tell a sample from another: its pixels, or its name and size where reading all
    /// pixels would be slow.
    fn identity(&self, index: usize) -> Cow<'_, [u8]>;
}

/// One split of a data set: labelled images, read when asked for.
///
/// Cloning and [limiting](Self::limit) share the images.
#[derive(Clone)]
pub struct ImageDataset {
    name: String,
    classes: Arc<[String]>,
    /// What the fingerprint calls the classes.
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

    /// Whether there is no sample; only after [`limit`](Self::limit) to 0.
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

    /// The same images with other classes: `labels` gives, for every class so far, its index in
    /// `classes`. Several may become one, and classes without images may come in.
    ///
    /// # Errors
    ///
    /// [`DataError::Setting`] if `labels` has not one entry per class, each below the number of
    /// `classes`.
    pub fn relabel(&self, classes: Vec<String>, labels: &[usize]) -> Result<Self, DataError> {
        if labels.len() != self.classes.len() || labels.iter().any(|new| *new >= classes.len()) {
            let (old, new) = (self.classes.len(), classes.len());
            let expected = format!("{old} labels below {new}");
            return Err(DataError::setting("dataset.labels", labels, expected));
        }
        let class_of = self.class_of.iter().map(|&class| labels[class]).collect();
        let classes: Arc<[String]> = classes.into();
        Ok(Self { identity: classes.clone(), classes, class_of, ..self.clone() })
    }

    /// The same data set with names for classes that are numbers in its files.
    pub(crate) fn named(self, names: &[&str]) -> Self {
        debug_assert_eq!(names.len(), self.classes.len());
        Self { classes: names.iter().map(|&name| name.to_owned()).collect(), ..self }
    }

    /// A class-balanced subset of at most `n` samples, always the same one.
    ///
    /// Classes take turns to give their next sample until `n` are chosen; the chosen ones keep
    /// their order. `n >= len()` keeps all, 0 leaves none.
    pub fn limit(&self, n: usize) -> Self {
        let mut by_class = vec![Vec::new(); self.classes.len()];
        for &at in self.selection.iter() {
            by_class[self.class(at)].push(at);
        }
        let most = by_class.iter().map(Vec::len).max().unwrap_or(0);
        let mut selection: Vec<usize> = (0..most)
            .flat_map(|turn| by_class.iter().filter_map(move |class| class.get(turn)))
            .take(n)
            .copied()
            .collect();
        selection.sort_unstable();
        Self { selection: selection.into(), ..self.clone() }
    }

    /// Two parts, of which the second has `share` of each class, rounded, drawn by `seed`, and the
    /// first the rest: at least one image of every class that has two. Both keep their order.
    ///
    /// # Errors
    ///
    /// [`DataError::Setting`] unless `share` lies between 0 and 1, or if it leaves a part empty.
    pub fn split(&self, share: f64, seed: u64) -> Result<(Self, Self), DataError> {
        if !(share > 0.0 && share < 1.0) {
            return Err(DataError::setting("share", share, "above 0 and below 1"));
        }
        let mut by_class = vec![Vec::new(); self.classes.len()];
        for index in 0..self.len() {
            by_class[self.label(index)].push(self.selection[index]);
        }
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for (class, mut of_class) in by_class.into_iter().enumerate() {
            of_class.shuffle(&mut stream(Purpose::Split, seed, 0, class as u64));
            let apart = (of_class.len() as f64 * share).round() as usize;
            let apart = apart.min(of_class.len().saturating_sub(1));
            second.extend(of_class.drain(..apart));
            first.append(&mut of_class);
        }
        if second.is_empty() {
            let expected = format!("a share of {} images of at least one image", self.len());
            return Err(DataError::setting("share", share, expected));
        }
        let part = |mut selection: Vec<usize>, name: &str| {
            selection.sort_unstable();
            Self {
                name: format!("{}, {name}", self.name),
                selection: selection.into(),
                ..self.clone()
            }
        };
        let percent = share * 100.0;
        Ok((part(first, "the rest"), part(second, &format!("{percent:.0}% set apart"))))
    }

    /// SHA-256, in hexadecimal, of the classes as the files name them, labels and images in their
    /// order.
    ///
    /// Images are told apart by their pixels, in class folders by file name and size: enough to
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

    /// One line for people: name, number of images and classes, size and channels.
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

/// For Burn's own data loader, which takes data sets with Burn's error: the [`DataError`] is its
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
    fn dataset(labels: &[u8]) -> ImageDataset {
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

    fn values(dataset: &ImageDataset) -> Vec<u8> {
        (0..dataset.len()).map(|i| dataset.get(i).unwrap().image.pixels()[0]).collect()
    }

    #[test]
    fn a_limit_takes_the_first_of_each_class_in_turn() {
        let all = dataset(&[0, 0, 0, 0, 1, 1, 1, 2]);
        // Turns: a0 b4 c7, a1 b5, a2 b6, a3.
        assert_eq!(values(&all.limit(4)), [0, 1, 4, 7]);
        assert_eq!(values(&all.limit(6)), [0, 1, 2, 4, 5, 7]);
        assert_eq!(values(&all.limit(99)), values(&all));
        assert_eq!(values(&all.limit(6).limit(4)), [0, 1, 4, 7]);
        assert_eq!(all.limit(4).label(3), 2);
        assert!(all.limit(0).is_empty());
    }

    #[test]
    fn a_relabelled_set_has_other_classes_and_the_same_images() {
        let names = |names: [&str; 4]| names.map(str::to_owned).to_vec();
        let all = dataset(&[0, 1, 2, 0]);
        let new = all.relabel(names(["w", "x", "y", "z"]), &[3, 1, 3]).unwrap();
        let labels = |data: &ImageDataset| (0..4).map(|i| data.label(i)).collect::<Vec<_>>();
        assert_eq!(labels(&new), [3, 1, 3, 3]);
        assert_eq!(values(&new), values(&all));
        assert_eq!(new.get(2).unwrap().label, 3);
        // One of each class that has images.
        assert_eq!(values(&new.limit(2)), [0, 1]);
        let again = new.relabel(names(["a", "b", "c", "d"]), &[0, 2, 0, 1]).unwrap();
        assert_eq!(labels(&again), [1, 2, 1, 1]);
        assert_ne!(new.fingerprint(), again.fingerprint());
        assert!(all.relabel(names(["w", "x", "y", "z"]), &[0, 1, 4]).is_err());
        assert!(all.relabel(names(["w", "x", "y", "z"]), &[0, 1]).is_err());
    }

    #[test]
    fn a_split_takes_its_share_of_every_class_and_loses_nothing() {
        let all = dataset(&[0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 2]);
        let (rest, apart) = all.split(0.4, 7).unwrap();
        let labels = |dataset: &ImageDataset| -> Vec<usize> {
            let mut labels: Vec<usize> = (0..dataset.len()).map(|i| dataset.label(i)).collect();
            labels.sort_unstable();
            labels
        };
        // Two of five; the only one of its class is trained on.
        assert_eq!(labels(&apart), [0, 0, 1, 1]);
        assert_eq!(labels(&rest), [0, 0, 0, 1, 1, 1, 2]);
        let mut both = [values(&rest), values(&apart)].concat();
        both.sort_unstable();
        assert_eq!(both, values(&all));
        assert_eq!(values(&all.split(0.4, 7).unwrap().1), values(&apart));
        assert!((8..20).any(|seed| values(&all.split(0.4, seed).unwrap().1) != values(&apart)));
        for share in [0.0, 1.0, f64::NAN, 0.01] {
            assert!(all.split(share, 0).is_err(), "{share}");
        }
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
