//! Class folders, the layout of ImageNet: `train/<class>/*.jpg` and `val/<class>/*.jpg`.

use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{DataError, Image, ImageDataset, Source, Split, presets};

const EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];

pub(crate) const LOOKED_FOR: &str =
    "train/<class>/*.jpg and val/<class>/*.jpg (also test/ or validation/; .jpeg, .png)";

/// The images of one split: names only, decoded when asked for.
struct FolderImages {
    /// One folder per class.
    folders: Vec<PathBuf>,
    /// Class and file name of each image.
    files: Vec<(usize, OsString)>,
}

/// Whether a folder holds class folders of some split.
pub(crate) fn recognise(folder: &Path) -> bool {
    [Split::Train, Split::Val].iter().any(|split| {
        split_folder(folder, *split)
            .and_then(|inside| entries(&inside, true).ok())
            .is_some_and(|classes| !classes.is_empty())
    })
}

/// Opens one split of a folder. Where the other split exists its classes must be the same.
pub(crate) fn open(folder: &Path, split: Split) -> Result<ImageDataset, DataError> {
    let missing = || DataError::Layout {
        path: folder.to_owned(),
        wanted: format!("{split} class folders"),
        looked_for: LOOKED_FOR.to_owned(),
    };
    let inside = split_folder(folder, split).ok_or_else(missing)?;
    let class_names = entries(&inside, true)?;
    if class_names.is_empty() {
        return Err(missing());
    }
    let classes = texts(&class_names);
    if let Some(other) = split_folder(folder, split.other()) {
        let others = texts(&entries(&other, true)?);
        match split {
            Split::Train => same_classes(folder, &classes, &others)?,
            Split::Val => same_classes(folder, &others, &classes)?,
        }
    }

    let folders: Vec<PathBuf> = class_names.iter().map(|name| inside.join(name)).collect();
    let mut files = Vec::new();
    for (class, path) in folders.iter().enumerate() {
        let before = files.len();
        let names = entries(path, false)?.into_iter();
        files.extend(names.filter(|n| is_image(n)).map(|name| (class, name)));
        if files.len() == before {
            return Err(DataError::EmptyClass { path: path.clone() });
        }
    }
    ImageDataset::new(
        format!("{} ({split})", folder.display()),
        classes,
        presets::IMAGENET,
        Arc::new(FolderImages { folders, files }),
    )
}

/// Checks that two splits have the same classes.
pub(crate) fn same_classes(path: &Path, train: &[String], val: &[String]) -> Result<(), DataError> {
    if train == val {
        return Ok(());
    }
    let only = |these: &[String], those: &[String]| {
        let mut names: Vec<String> = these.iter().filter(|n| !those.contains(n)).cloned().collect();
        names.sort();
        names
    };
    Err(DataError::Classes {
        path: path.to_owned(),
        only_train: only(train, val),
        only_val: only(val, train),
    })
}

fn split_folder(folder: &Path, split: Split) -> Option<PathBuf> {
    let names: &[&str] = match split {
        Split::Train => &["train"],
        Split::Val => &["val", "validation", "test"],
    };
    names.iter().map(|name| folder.join(name)).find(|path| path.is_dir())
}

/// Names of the folders, or of the files, in a folder, sorted; hidden ones are left out.
fn entries(folder: &Path, folders: bool) -> Result<Vec<OsString>, DataError> {
    let error = |e| DataError::io(folder, e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(error)? {
        let entry = entry.map_err(error)?;
        let mut kind = entry.file_type().map_err(error)?;
        if kind.is_symlink() {
            let path = entry.path();
            kind = path.metadata().map_err(|e| DataError::io(&path, e))?.file_type();
        }
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if kind.is_dir() == folders && !hidden {
            names.push(entry.file_name());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn texts(names: &[OsString]) -> Vec<String> {
    names.iter().map(|n| n.to_string_lossy().into_owned()).collect()
}

fn is_image(name: &OsStr) -> bool {
    Path::new(name)
        .extension()
        .and_then(OsStr::to_str)
        .is_some_and(|found| EXTENSIONS.iter().any(|e| found.eq_ignore_ascii_case(e)))
}

impl FolderImages {
    fn path(&self, index: usize) -> PathBuf {
        let (class, name) = &self.files[index];
        self.folders[*class].join(name)
    }
}

impl Source for FolderImages {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn label(&self, index: usize) -> usize {
        self.files[index].0
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        Image::open(self.path(index))
    }

    fn channels(&self) -> usize {
        3
    }

    fn image_size(&self) -> Option<(usize, usize)> {
        None
    }

    fn identity(&self, index: usize) -> Cow<'_, [u8]> {
        // A file that has gone since differs from every file that is there.
        let size = self.path(index).metadata().map_or(u64::MAX, |m| m.len());
        let mut bytes = size.to_le_bytes().to_vec();
        bytes.extend_from_slice(self.files[index].1.as_encoded_bytes());
        Cow::Owned(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Writes images of one grey value each; the value tells them apart.
    fn tree(files: &[(&str, u8)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            image::GrayImage::from_pixel(4, 3, image::Luma([*value]))
                .save_with_format(path, image::ImageFormat::Png)
                .unwrap();
        }
        dir
    }

    #[test]
    fn classes_and_files_are_sorted_and_others_ignored() {
        let dir = tree(&[
            ("train/dog/b.JPEG", 3),
            ("train/dog/a.jpg", 2),
            ("train/cat/x.PNG", 1),
            ("train/cat/.hidden.png", 9),
            ("train/.cache/y.png", 9),
            ("train/cat/more/z.png", 9),
            ("test/cat/v.png", 4),
            ("test/dog/v.png", 5),
        ]);
        fs::write(dir.path().join("train/dog/notes.txt"), "no image").unwrap();
        assert!(recognise(dir.path()));
        let train = open(dir.path(), Split::Train).unwrap();
        let found: Vec<(u8, usize)> = (0..train.len())
            .map(|i| train.get(i).unwrap())
            .map(|sample| (sample.image.pixels()[0], sample.label))
            .collect();
        assert_eq!(found, [(1, 0), (2, 1), (3, 1)]);
        assert_eq!(train.classes(), ["cat", "dog"]);
        assert_eq!((train.channels(), train.image_size()), (3, None));
        assert_eq!(open(dir.path(), Split::Val).unwrap().len(), 2);
    }

    #[test]
    fn different_classes_are_listed() {
        let dir = tree(&[
            ("train/ant/a.png", 0),
            ("train/bee/a.png", 0),
            ("val/ant/a.png", 0),
            ("val/cow/a.png", 0),
        ]);
        for split in [Split::Train, Split::Val] {
            let text = open(dir.path(), split).unwrap_err().to_string();
            assert!(text.contains("only in train: bee; only in val: cow"), "{text}");
        }
    }

    #[test]
    fn an_empty_class_is_named() {
        let dir = tree(&[("train/ant/a.png", 0), ("val/ant/a.png", 0)]);
        for split in ["train", "val"] {
            fs::create_dir(dir.path().join(split).join("bee")).unwrap();
        }
        let error = open(dir.path(), Split::Train).unwrap_err();
        assert!(matches!(&error, DataError::EmptyClass { path } if path.ends_with("train/bee")));
    }

    #[test]
    fn a_split_without_class_folders_is_told() {
        let dir = tree(&[("train/ant/a.png", 0)]);
        let text = open(dir.path(), Split::Val).unwrap_err().to_string();
        assert!(text.contains("no val class folders found"), "{text}");
    }

    #[test]
    fn a_damaged_image_is_named_when_it_is_read() {
        let dir = tree(&[("train/ant/a.png", 0), ("train/ant/b.png", 0)]);
        fs::write(dir.path().join("train/ant/b.png"), b"not an image").unwrap();
        let train = open(dir.path(), Split::Train).unwrap();
        assert!(train.get(0).is_ok());
        let text = train.get(1).unwrap_err().to_string();
        assert!(text.contains("b.png is damaged"), "{text}");
    }

    #[test]
    fn a_fingerprint_sees_names_and_sizes() {
        let dir = tree(&[("train/ant/a.png", 0)]);
        let print = || open(dir.path(), Split::Train).unwrap().fingerprint();
        let first = print();
        assert_eq!(print(), first);
        fs::write(dir.path().join("train/ant/a.png"), b"longer or shorter").unwrap();
        assert_ne!(print(), first);
    }
}
