//! The bundled sample: 12,000 images of Fashion-MNIST (`sample/README.md` gives its origin).

use std::{path::Path, sync::Arc};

use flate2::read::MultiGzDecoder;

use super::idx;
use crate::{DataError, ImageDataset, Split, presets};

const TRAIN_IMAGES: &[u8] = include_bytes!("../../sample/train-images-idx3-ubyte.gz");
const TRAIN_LABELS: &[u8] = include_bytes!("../../sample/train-labels-idx1-ubyte.gz");
const VAL_IMAGES: &[u8] = include_bytes!("../../sample/t10k-images-idx3-ubyte.gz");
const VAL_LABELS: &[u8] = include_bytes!("../../sample/t10k-labels-idx1-ubyte.gz");

/// Opens one split of the sample.
pub(crate) fn open(split: Split) -> Result<ImageDataset, DataError> {
    let (images, labels) = match split {
        Split::Train => (TRAIN_IMAGES, TRAIN_LABELS),
        Split::Val => (VAL_IMAGES, VAL_LABELS),
    };
    let images_path = Path::new("the bundled images");
    let labels_path = Path::new("the bundled labels");
    let labels = idx::read_labels(MultiGzDecoder::new(labels), labels_path)?;
    let images = idx::read_images(MultiGzDecoder::new(images), images_path, labels, labels_path)?;
    ImageDataset::new(
        format!("sample ({split})"),
        idx::FASHION_MNIST.map(str::to_owned).to_vec(),
        presets::FASHION_MNIST,
        Arc::new(images),
    )
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::dataset::hex;

    #[test]
    fn the_files_are_those_of_the_readme() {
        let readme = include_str!("../../sample/README.md");
        for (name, bytes) in [
            ("train-images-idx3-ubyte.gz", TRAIN_IMAGES),
            ("train-labels-idx1-ubyte.gz", TRAIN_LABELS),
            ("t10k-images-idx3-ubyte.gz", VAL_IMAGES),
            ("t10k-labels-idx1-ubyte.gz", VAL_LABELS),
        ] {
            let line = format!("| `{name}` | `{}` |", hex(&Sha256::digest(bytes)));
            assert!(readme.contains(&line), "README.md lacks: {line}");
        }
    }

    #[test]
    fn classes_are_balanced() {
        for (split, per_class) in [(Split::Train, 1000), (Split::Val, 200)] {
            let data = open(split).unwrap();
            let mut counts = [0; 10];
            (0..data.len()).for_each(|i| counts[data.label(i)] += 1);
            assert_eq!(counts, [per_class; 10]);
            assert_eq!((data.channels(), data.image_size()), (1, Some((28, 28))));
        }
    }

    #[test]
    fn the_first_images_are_those_of_fashion_mnist() {
        // The first training labels of the original: ankle boot, two tops, dress, top.
        let data = open(Split::Train).unwrap();
        let labels: Vec<usize> = (0..5).map(|i| data.label(i)).collect();
        assert_eq!(labels, [9, 0, 0, 3, 0]);
        assert_eq!(data.classes()[9], "Ankle boot");
    }
}
