//! IDX files, the layout of MNIST and its relatives: one file of images and one of labels, plain or
//! gzip.
//!
//! A file is a big-endian magic number (type and number of dimensions), one 32-bit size per
//! dimension, and the bytes.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::{MAX_BYTES, classes::numbered, memory::MemoryImages};
use crate::{DataError, ImageDataset, Split, dataset::hex, presets};

/// Unsigned bytes in one dimension.
const LABELS_MAGIC: u32 = 0x0801;
/// Unsigned bytes in three dimensions.
const IMAGES_MAGIC: u32 = 0x0803;

/// The classes of Fashion-MNIST, which its files number.
pub(super) const FASHION_MNIST: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

/// SHA-256 of the labels of Fashion-MNIST, which identify it among IDX files: of its 60,000 and
/// 10,000 images, and of the bundled parts.
const FASHION_MNIST_LABELS: [&str; 4] = [
    "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    "2c02745d4ad8b4511333d0eca662ac5664a371860abaa4588b1670e7be59fbdf",
    "b2095bc797d1201e84da76c94012c02d0e6f07af0938df4e00120a3b42d1aa4c",
];

pub(crate) const LOOKED_FOR: &str =
    "train-images-idx3-ubyte and train-labels-idx1-ubyte (t10k-... for val), plain or .gz";

/// Whether a folder holds IDX files of some split.
pub(crate) fn recognise(folder: &Path) -> bool {
    [Split::Train, Split::Val].iter().any(|split| images_file(folder, *split).is_some())
}

/// Opens one split of a folder.
pub(crate) fn open(folder: &Path, split: Split) -> Result<ImageDataset, DataError> {
    let missing =
        || DataError::layout(folder, &format!("IDX {split} images and labels"), LOOKED_FOR);
    let images_path = images_file(folder, split).ok_or_else(missing)?;
    let labels_path = labels_file(folder, split).ok_or_else(missing)?;
    let labels = read_labels(read_file(&labels_path)?, &labels_path)?;
    let images = read_images(read_file(&images_path)?, &images_path, labels, &labels_path)?;

    // Both splits count, so that a class absent from one of them does not change the number.
    let mut last = images.labels.iter().copied().max().unwrap_or(0);
    if let Some(path) = labels_file(folder, split.other()) {
        let others = read_labels(read_file(&path)?, &path)?;
        last = others.into_iter().fold(last, u8::max);
    }
    let digest = hex(&Sha256::digest(&images.labels));
    let dataset = ImageDataset::new(
        format!("{} ({split})", folder.display()),
        numbered(usize::from(last) + 1),
        presets::FASHION_MNIST,
        Arc::new(images),
    )?;
    let known = FASHION_MNIST_LABELS.contains(&&*digest) && dataset.classes().len() == 10;
    Ok(if known { dataset.named(&FASHION_MNIST) } else { dataset })
}

fn images_file(folder: &Path, split: Split) -> Option<PathBuf> {
    find(folder, split, "images", "idx3-ubyte")
}

fn labels_file(folder: &Path, split: Split) -> Option<PathBuf> {
    find(folder, split, "labels", "idx1-ubyte")
}

/// The file of a split; some mirrors write `train-images.idx3-ubyte`.
fn find(folder: &Path, split: Split, part: &str, suffix: &str) -> Option<PathBuf> {
    let stem = match split {
        Split::Train => "train",
        Split::Val => "t10k",
    };
    ["-", "."]
        .iter()
        .flat_map(|dash| ["", ".gz"].map(|gz| format!("{stem}-{part}{dash}{suffix}{gz}")))
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
}

fn read_file(path: &Path) -> Result<Box<dyn Read>, DataError> {
    let file = File::open(path).map_err(|e| DataError::io(path, e))?;
    let file = BufReader::new(file);
    Ok(match path.extension() {
        Some(extension) if extension == "gz" => Box::new(MultiGzDecoder::new(file)),
        _ => Box::new(file),
    })
}

/// Reads a labels file to its end; `path` is for messages.
pub(crate) fn read_labels(input: impl Read, path: &Path) -> Result<Vec<u8>, DataError> {
    let ([_], labels) = read_idx(input, path, LABELS_MAGIC, "labels")?;
    Ok(labels)
}

/// Reads an images file to its end and joins it with its labels; the paths are for messages.
pub(crate) fn read_images(
    input: impl Read,
    path: &Path,
    labels: Vec<u8>,
    labels_path: &Path,
) -> Result<MemoryImages, DataError> {
    let ([count, height, width], pixels) = read_idx(input, path, IMAGES_MAGIC, "images")?;
    if [count, height, width].contains(&0) {
        let reason = format!("it holds {count} images of {height}x{width}, expected at least 1");
        return Err(DataError::corrupt(path, reason));
    }
    if count != labels.len() {
        let reason = format!(
            "it holds {count} images, but {} holds {} labels",
            labels_path.display(),
            labels.len()
        );
        return Err(DataError::corrupt(path, reason));
    }
    Ok(MemoryImages { height, width, channels: 1, pixels, labels })
}

/// Reads `N` sizes and the bytes they announce, after which nothing may follow.
fn read_idx<const N: usize>(
    mut input: impl Read,
    path: &Path,
    magic: u32,
    what: &str,
) -> Result<([usize; N], Vec<u8>), DataError> {
    let corrupt = |reason: String| DataError::corrupt(path, reason);
    let mut number = |name: &str| {
        let mut bytes = [0; 4];
        input
            .read_exact(&mut bytes)
            .map_err(|e| corrupt(format!("cannot read the {name} of its IDX header: {e}")))?;
        Ok(u32::from_be_bytes(bytes))
    };

    let found = number("magic number")?;
    if found != magic {
        return Err(corrupt(format!(
            "its magic number is {found:#010x}, IDX {what} have {magic:#010x}"
        )));
    }
    let mut sizes = [0; N];
    for size in &mut sizes {
        *size = number("sizes")? as usize;
    }
    let expected = sizes
        .iter()
        .try_fold(1usize, |product, size| product.checked_mul(*size))
        .ok_or_else(|| corrupt(format!("its header announces impossible sizes {sizes:?}")))?;

    if expected as u64 > MAX_BYTES {
        let reason = format!("its header announces {expected} bytes, at most {MAX_BYTES} are read");
        return Err(DataError::too_large(path, reason));
    }

    // `take` rather than a buffer of the announced size: the header may lie. One byte more than
    // announced finds trailing bytes and makes gzip check its sum.
    let mut bytes = Vec::new();
    input
        .take(expected as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| corrupt(format!("after {} bytes of {what}: {e}", bytes.len())))?;
    if bytes.len() > expected {
        return Err(corrupt(format!(
            "bytes follow the {expected} bytes of {what} its header announces"
        )));
    }
    if bytes.len() < expected {
        return Err(corrupt(format!(
            "it ends after {} of the {expected} bytes of {what} its header announces",
            bytes.len()
        )));
    }
    Ok((sizes, bytes))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use flate2::{Compression, write::GzEncoder};

    use proptest::prelude::*;

    use super::*;

    fn header(magic: u32, sizes: &[u32]) -> Vec<u8> {
        let numbers = std::iter::once(&magic).chain(sizes);
        numbers.flat_map(|number| number.to_be_bytes()).collect()
    }

    fn file(magic: u32, sizes: &[u32], bytes: &[u8]) -> Vec<u8> {
        [header(magic, sizes), bytes.to_vec()].concat()
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Two splits of 2x3 images: three to train on, two to measure on.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: Vec<u8>| fs::write(dir.path().join(name), bytes).unwrap();
        let pixels: Vec<u8> = (0..18).collect();
        put("train-images-idx3-ubyte", file(0x803, &[3, 2, 3], &pixels));
        put("train-labels-idx1-ubyte", file(0x801, &[3], &[1, 0, 4]));
        put("t10k-images.idx3-ubyte.gz", gz(&file(0x803, &[2, 2, 3], &pixels[..12])));
        put("t10k-labels.idx1-ubyte.gz", gz(&file(0x801, &[2], &[0, 1])));
        dir
    }

    fn refused(change: impl Fn(&Path)) -> String {
        let dir = folder();
        change(dir.path());
        open(dir.path(), Split::Train).unwrap_err().to_string()
    }

    proptest! {
        /// Any bytes behind a right or wrong header are read or refused, without a panic and without
        /// the memory a header merely claims.
        #[test]
        fn any_bytes_are_read_or_refused(
            header in prop::collection::vec(prop_oneof![0u32..40, any::<u32>()], 3),
            magic in prop_oneof![Just(IMAGES_MAGIC), Just(LABELS_MAGIC), any::<u32>()],
            rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let numbers = [&[magic], &header[..]].concat();
            let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_be_bytes()).chain(rest).collect();
            let path = Path::new("images");
            if let Ok(labels) = read_labels(&bytes[..], path) {
                prop_assert_eq!(labels.len() + 8, bytes.len());
            }
            if let Ok(images) = read_images(&bytes[..], path, vec![0; header[0] as usize % 99], path) {
                prop_assert_eq!(images.pixels.len() + 16, bytes.len());
            }
        }
    }

    #[test]
    fn plain_and_gzip_files_are_read() {
        let dir = folder();
        assert!(recognise(dir.path()));
        let train = open(dir.path(), Split::Train).unwrap();
        assert_eq!((train.len(), train.image_size()), (3, Some((2, 3))));
        let sample = train.get(1).unwrap();
        assert_eq!((sample.image.pixels(), sample.label), (&[6, 7, 8, 9, 10, 11][..], 0));

        let val = open(dir.path(), Split::Val).unwrap();
        assert_eq!((val.len(), val.label(1)), (2, 1));
        // Label 4 is in train alone, yet val has five classes too.
        assert_eq!(val.classes(), ["0", "1", "2", "3", "4"]);
        assert_eq!(val.classes(), train.classes());
    }

    /// The bundled files are IDX files too; numbers name the classes of all others.
    #[test]
    fn fashion_mnist_is_recognised_and_keeps_its_fingerprint() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/sample"));
        for (split, fingerprint) in [
            (Split::Train, "be5cad178a074787fe9ba426cd5d5774610de11861d4ee16e5208085add62ab0"),
            (Split::Val, "c8a8bb309e1f9c757830feccb27c94d5b7fd62152fa017fc76fa5c4da4982df0"),
        ] {
            let data = open(folder, split).unwrap();
            assert_eq!(data.classes(), FASHION_MNIST);
            assert_eq!(data.classes(), super::super::sample::open(split).unwrap().classes());
            // As it was when its classes were numbers, so that runs of then can be resumed.
            assert_eq!(data.fingerprint(), fingerprint);
        }
    }

    #[test]
    fn damaged_files_are_refused_with_their_name() {
        let images = |bytes: Vec<u8>| {
            refused(|dir| fs::write(dir.join("train-images-idx3-ubyte"), &bytes).unwrap())
        };
        let pixels = vec![0; 18];
        let cases = [
            (file(0x801, &[3, 2, 3], &pixels), "magic number is 0x00000801"),
            (file(0x803, &[3, 2, 3], &pixels[1..]), "ends after 17 of the 18"),
            (file(0x803, &[3, 2, 3], &[0; 19]), "follow the 18 bytes"),
            (file(0x803, &[2, 3, 3], &pixels), "2 images"),
            (file(0x803, &[3, 0, 3], &[]), "0x3"),
            (header(0x803, &[3, 2]), "IDX header"),
            (header(0x803, &[u32::MAX; 3]), "impossible sizes"),
            (vec![0, 0], "magic number"),
        ];
        for (bytes, expected) in cases {
            let text = images(bytes);
            assert!(text.contains(expected), "{expected}: {text}");
            assert!(text.contains("train-images-idx3-ubyte"), "{text}");
        }
    }

    #[test]
    fn a_cut_or_altered_gzip_file_is_refused() {
        let whole = gz(&file(0x803, &[3, 2, 3], &[7; 18]));
        let mut altered = whole.clone();
        let checksum = altered.len() - 8;
        altered[checksum] ^= 1;
        for bytes in [&whole[..whole.len() - 12], &altered] {
            let text = refused(|dir| {
                fs::remove_file(dir.join("train-images-idx3-ubyte")).unwrap();
                fs::write(dir.join("train-images-idx3-ubyte.gz"), bytes).unwrap();
            });
            assert!(text.contains("train-images-idx3-ubyte.gz is damaged"), "{text}");
        }
    }

    #[test]
    fn a_missing_file_is_told_with_what_was_looked_for() {
        let text = refused(|dir| fs::remove_file(dir.join("train-labels-idx1-ubyte")).unwrap());
        assert!(text.contains("no IDX train images and labels found"), "{text}");
    }
}
