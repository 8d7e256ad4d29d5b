//! CIFAR-10 and CIFAR-100 in their binary form: records of label bytes and a 32x32 RGB image.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{MAX_BYTES, classes::numbered, memory::MemoryImages};
use crate::{
    DataError, ImageDataset, Split,
    presets::{self, Normalization},
};

const SIDE: usize = 32;
const CHANNELS: usize = 3;
const PLANE: usize = SIDE * SIDE;

/// How the two data sets differ.
pub(crate) struct Cifar {
    name: &'static str,
    classes: usize,
    /// The folder inside the published archive.
    nested: &'static str,
    train: &'static [&'static str],
    val: &'static [&'static str],
    names_file: &'static str,
    /// Label bytes before an image; the last one is the class (CIFAR-100: coarse, then fine).
    label_bytes: usize,
    normalization: Normalization,
}

pub(crate) const CIFAR10: Cifar = Cifar {
    name: "CIFAR-10",
    classes: 10,
    nested: "cifar-10-batches-bin",
    train: &[
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    ],
    val: &["test_batch.bin"],
    names_file: "batches.meta.txt",
    label_bytes: 1,
    normalization: presets::CIFAR10,
};

pub(crate) const CIFAR100: Cifar = Cifar {
    name: "CIFAR-100",
    classes: 100,
    nested: "cifar-100-binary",
    train: &["train.bin"],
    val: &["test.bin"],
    names_file: "fine_label_names.txt",
    label_bytes: 2,
    normalization: presets::CIFAR100,
};

impl Cifar {
    /// Whether a folder, or the published one inside it, holds files of some split.
    pub(crate) fn recognise(&self, folder: &Path) -> bool {
        self.folder(folder).is_some()
    }

    pub(crate) fn looked_for(&self) -> String {
        format!(
            "{} and {}, there or in {}/",
            self.train.join(", "),
            self.val.join(", "),
            self.nested
        )
    }

    /// Opens one split of a folder.
    pub(crate) fn open(&self, folder: &Path, split: Split) -> Result<ImageDataset, DataError> {
        let missing = |wanted: String| DataError::layout(folder, &wanted, &self.looked_for());
        let inside =
            self.folder(folder).ok_or_else(|| missing(format!("{} binary files", self.name)))?;
        let mut images = MemoryImages {
            height: SIDE,
            width: SIDE,
            channels: CHANNELS,
            pixels: Vec::new(),
            labels: Vec::new(),
        };
        let files = if split == Split::Train { self.train } else { self.val };
        for file in files {
            let path = inside.join(file);
            if !path.is_file() {
                return Err(missing(format!("{} {split} file {file}", self.name)));
            }
            self.read(&path, &mut images)?;
        }
        ImageDataset::new(
            format!("{} ({split})", folder.display()),
            self.class_names(&inside)?,
            self.normalization,
            Arc::new(images),
        )
    }

    fn folder(&self, folder: &Path) -> Option<PathBuf> {
        [folder.to_owned(), folder.join(self.nested)].into_iter().find(|inside| {
            let mut files = self.train.iter().chain(self.val);
            files.any(|file| inside.join(file).is_file())
        })
    }

    fn read(&self, path: &Path, images: &mut MemoryImages) -> Result<(), DataError> {
        let io = |e| DataError::io(path, e);
        let mut bytes = Vec::new();
        File::open(path).and_then(|f| f.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(io)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(DataError::too_large(path, format!("more than {MAX_BYTES} bytes")));
        }
        let record = self.label_bytes + CHANNELS * PLANE;
        if bytes.is_empty() || bytes.len() % record != 0 {
            let reason = format!(
                "it has {} bytes, {} files have a positive multiple of {record}",
                bytes.len(),
                self.name
            );
            return Err(DataError::corrupt(path, reason));
        }
        for (index, record) in bytes.chunks_exact(record).enumerate() {
            let (labels, planes) = record.split_at(self.label_bytes);
            let label = labels[self.label_bytes - 1];
            if usize::from(label) >= self.classes {
                let reason = format!(
                    "record {index} has label {label}, {} has labels 0 to {}",
                    self.name,
                    self.classes - 1
                );
                return Err(DataError::corrupt(path, reason));
            }
            images.labels.push(label);
            for at in 0..PLANE {
                let channels = (0..CHANNELS).map(|channel| planes[channel * PLANE + at]);
                images.pixels.extend(channels);
            }
        }
        Ok(())
    }

    fn class_names(&self, inside: &Path) -> Result<Vec<String>, DataError> {
        let path = inside.join(self.names_file);
        if !path.is_file() {
            return Ok(numbered(self.classes));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| DataError::io(&path, e))?;
        let names: Vec<String> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect();
        if names.len() != self.classes {
            let reason =
                format!("it names {} classes, {} has {}", names.len(), self.name, self.classes);
            return Err(DataError::corrupt(&path, reason));
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    /// A record whose red, green and blue planes count up from different values.
    fn record(labels: &[u8]) -> Vec<u8> {
        let plane = |start: usize| (0..PLANE).map(move |at| (start + at) as u8);
        let planes = plane(0).chain(plane(50)).chain(plane(100));
        labels.iter().copied().chain(planes).collect()
    }

    fn cifar10() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("cifar-10-batches-bin");
        fs::create_dir(&inside).unwrap();
        for (number, file) in CIFAR10.train.iter().chain(CIFAR10.val).enumerate() {
            let bytes = [record(&[number as u8]), record(&[9])].concat();
            fs::write(inside.join(file), bytes).unwrap();
        }
        dir
    }

    #[test]
    fn batches_are_joined_and_planes_become_pixels() {
        let dir = cifar10();
        assert!(CIFAR10.recognise(dir.path()) && !CIFAR100.recognise(dir.path()));
        let train = CIFAR10.open(dir.path(), Split::Train).unwrap();
        let labels: Vec<usize> = (0..train.len()).map(|i| train.label(i)).collect();
        assert_eq!(labels, [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]);
        let image = train.get(3).unwrap().image;
        assert_eq!((image.size(), image.channels()), ((32, 32), 3));
        assert_eq!(image.pixel(0, 0), [0, 50, 100]);
        assert_eq!(image.pixel(1, 2), [34, 84, 134]);
        assert_eq!(train.classes().len(), 10);
        assert_eq!(CIFAR10.open(dir.path(), Split::Val).unwrap().label(0), 5);
    }

    proptest! {
        /// Cut and altered files are read or refused, and never more images than they hold.
        #[test]
        fn a_damaged_file_is_read_or_refused(
            kept in 0usize..=6148,
            changes in prop::collection::vec((0usize..6148, any::<u8>()), 0..8),
        ) {
            let dir = cifar10();
            let path = dir.path().join("cifar-10-batches-bin").join(CIFAR10.val[0]);
            let mut bytes = fs::read(&path).unwrap();
            let len = bytes.len();
            changes.iter().for_each(|(at, value)| bytes[at % len] = *value);
            bytes.truncate(kept);
            fs::write(&path, bytes).unwrap();
            let opened = CIFAR10.open(dir.path(), Split::Val);
            prop_assert!(opened.map_or(true, |data| data.len() * 3073 == kept));
        }
    }

    #[test]
    fn class_names_are_read_where_they_are() {
        let dir = cifar10();
        let names = dir.path().join("cifar-10-batches-bin/batches.meta.txt");
        fs::write(&names, "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n").unwrap();
        let val = CIFAR10.open(dir.path(), Split::Val).unwrap();
        assert_eq!(val.classes()[9], "j");
        fs::write(&names, "a\nb\n").unwrap();
        let error = CIFAR10.open(dir.path(), Split::Val).unwrap_err().to_string();
        assert!(error.contains("names 2 classes, CIFAR-10 has 10"), "{error}");
    }

    #[test]
    fn cifar100_uses_the_fine_label() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("test.bin"), record(&[3, 77])).unwrap();
        let val = CIFAR100.open(dir.path(), Split::Val).unwrap();
        assert_eq!((val.len(), val.label(0), val.classes().len()), (1, 77, 100));
        let error = CIFAR100.open(dir.path(), Split::Train).unwrap_err().to_string();
        assert!(error.contains("CIFAR-100 train file train.bin"), "{error}");
    }

    #[test]
    fn damaged_files_are_refused_with_name_and_record() {
        let dir = cifar10();
        let path = dir.path().join("cifar-10-batches-bin/test_batch.bin");
        let refused = |bytes: Vec<u8>| {
            fs::write(&path, bytes).unwrap();
            CIFAR10.open(dir.path(), Split::Val).unwrap_err().to_string()
        };
        let text = refused([record(&[0]), record(&[10])].concat());
        assert!(
            text.contains("test_batch.bin") && text.contains("record 1 has label 10"),
            "{text}"
        );
        assert!(refused(record(&[0])[1..].to_vec()).contains("3072 bytes"));
        assert!(refused(vec![]).contains("0 bytes"));
    }
}
