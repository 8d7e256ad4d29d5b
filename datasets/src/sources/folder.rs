//! Class folders, the layout of ImageNet: `train/<class>/*.jpg` and `val/<class>/*.jpg`; or
//! `<class>/*.jpg` alone, which are all training images.
//!
//! A faulty class folder is an error when the data set is opened, a faulty file when it is read, so
//! that a loader can leave it out and count it.

use std::{
    borrow::Cow,
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    classes::same_classes,
    files::{NOT_UTF8, class_folders, extensions, holds_images, image_files},
    names::Names,
};
use crate::{DataError, Image, ImageDataset, Source, Split, presets};

pub(crate) fn looked_for() -> String {
    format!(
        "train/<class>/*.jpg and val/<class>/*.jpg (also test/ or validation/; {}), or <class>/*.jpg to train on",
        extensions(1)
    )
}

/// The images of one split: names only, decoded when asked for.
struct FolderImages {
    /// One folder per class.
    folders: Vec<PathBuf>,
    /// Class of each image.
    labels: Vec<u32>,
    /// File name of each image.
    names: Names,
    /// Images whose name is not UTF-8, which a message could not name.
    nameless: HashSet<usize>,
}

/// Whether a folder holds class folders of some split.
pub(crate) fn recognise(folder: &Path) -> bool {
    // Errors are reported when the classes are opened.
    let of_split = |split| {
        split_folder(folder, split)
            .is_some_and(|inside| !class_folders(&inside).is_ok_and(|classes| classes.is_empty()))
    };
    of_split(Split::Train) || of_split(Split::Val) || is_flat(folder)
}

/// Whether a folder holds class folders themselves: images in a folder of it, and no split.
fn is_flat(folder: &Path) -> bool {
    let splits = [Split::Train, Split::Val].map(|split| split_folder(folder, split));
    splits.iter().all(Option::is_none)
        && class_folders(folder)
            .is_ok_and(|classes| classes.iter().any(|class| holds_images(&folder.join(class))))
}

/// Opens one split of a folder. Where the other split exists its classes must be the same.
pub(crate) fn open(folder: &Path, split: Split) -> Result<ImageDataset, DataError> {
    let missing = || DataError::layout(folder, &format!("{split} class folders"), &looked_for());
    let flat = || (split == Split::Train && is_flat(folder)).then(|| folder.to_owned());
    let inside = split_folder(folder, split).or_else(flat).ok_or_else(missing)?;
    let classes = class_folders(&inside)?;
    if classes.is_empty() {
        return Err(missing());
    }
    if let Some(other) = split_folder(folder, split.other()) {
        let others = class_folders(&other)?;
        match split {
            Split::Train => same_classes(folder, &classes, &others)?,
            Split::Val => same_classes(folder, &others, &classes)?,
        }
    }

    let folders: Vec<PathBuf> = classes.iter().map(|name| inside.join(name)).collect();
    let (mut labels, mut names, mut nameless) = (Vec::new(), Names::default(), HashSet::new());
    for (class, path) in (0u32..).zip(&folders) {
        let before = labels.len();
        for name in image_files(path)? {
            if name.to_str().is_none() {
                nameless.insert(labels.len());
            }
            names.push(&name.to_string_lossy());
            labels.push(class);
        }
        if labels.len() == before {
            return Err(DataError::EmptyClass { path: path.clone() });
        }
    }
    ImageDataset::new(
        format!("{} ({split})", folder.display()),
        classes,
        presets::IMAGENET,
        Arc::new(FolderImages { folders, labels, names, nameless }),
    )
}

fn split_folder(folder: &Path, split: Split) -> Option<PathBuf> {
    split.names().iter().map(|name| folder.join(name)).find(|path| path.is_dir())
}

impl FolderImages {
    fn path(&self, index: usize) -> PathBuf {
        self.folders[self.label(index)].join(self.names.get(index))
    }
}

impl Source for FolderImages {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn label(&self, index: usize) -> usize {
        self.labels[index] as usize
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        let path = self.path(index);
        if self.nameless.contains(&index) {
            return Err(DataError::entry(&path, NOT_UTF8));
        }
        Image::open(path)
    }

    fn file(&self, index: usize) -> Option<PathBuf> {
        Some(self.path(index))
    }

    fn identity(&self, index: usize) -> Cow<'_, [u8]> {
        // A file that has vanished differs from every file that exists.
        let size = self.path(index).metadata().map_or(u64::MAX, |m| m.len());
        let mut bytes = size.to_le_bytes().to_vec();
        bytes.extend_from_slice(self.names.get(index).as_bytes());
        Cow::Owned(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, fs};

    use super::*;
    use crate::{Batch, Loader, LoaderConfig, Pipeline, Preprocess};

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
    fn class_folders_without_a_split_are_to_train_on() {
        let dir = tree(&[("dog/a.png", 2), ("cat/a.png", 1), ("cat/more/z.png", 9)]);
        assert!(recognise(dir.path()));
        let train = open(dir.path(), Split::Train).unwrap();
        assert_eq!((train.len(), train.classes()), (2, &["cat".to_owned(), "dog".to_owned()][..]));
        let text = open(dir.path(), Split::Val).unwrap_err().to_string();
        assert!(text.contains("no val class folders found"), "{text}");
        // Neither a folder of data sets nor one whose only split is empty.
        let sets = tree(&[("set/train/cat/a.png", 1), ("set/val/cat/a.png", 1)]);
        assert!(!recognise(sets.path()));
        let dir = tree(&[("cat/a.png", 1)]);
        fs::create_dir(dir.path().join("train")).unwrap();
        assert!(!recognise(dir.path()));
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
        assert!(text.contains("b.png cannot be used: it is not a JPEG"), "{text}");
    }

    /// What a loader delivers of a split: the error, or the number of images and why others miss.
    fn load(dir: &Path, skip_unreadable: bool) -> Result<(usize, Vec<DataError>), DataError> {
        let train = open(dir, Split::Train)?;
        let preprocess = Preprocess { size: (4, 4), ..Preprocess::of(&train) };
        let config = LoaderConfig { skip_unreadable, ..LoaderConfig::default() };
        let pipeline = Pipeline::eval(preprocess)?;
        let batches: Vec<Batch> =
            Loader::new(Arc::new(train), config, pipeline)?.epoch(0).collect::<Result<_, _>>()?;
        let images = batches.iter().map(Batch::len).sum();
        Ok((images, batches.into_iter().flat_map(|batch| batch.skipped).collect()))
    }

    /// Has a loader meet one file it cannot use among two it can.
    fn one_bad_file(dir: &Path, names: &str) {
        let text = load(dir, false).unwrap_err().to_string();
        assert!(text.contains(names), "{text}");
        let (images, skipped) = load(dir, true).unwrap();
        assert_eq!((images, skipped.len()), (2, 1));
        assert_eq!(skipped[0].to_string(), text);
    }

    #[test]
    fn a_file_that_goes_during_the_run_is_an_error_or_left_out() {
        let dir = tree(&[("train/ant/a.png", 0), ("train/ant/b.png", 0)]);
        let train = open(dir.path(), Split::Train).unwrap();
        fs::remove_file(dir.path().join("train/ant/b.png")).unwrap();
        assert!(train.get(0).is_ok());
        let error = train.get(1).unwrap_err();
        assert!(matches!(error, DataError::Io { .. }), "{error}");
        assert!(error.to_string().contains("b.png"), "{error}");
        train.fingerprint();
    }

    #[cfg(unix)]
    mod links {
        use std::os::unix::fs::{PermissionsExt, symlink};

        use super::*;

        #[test]
        fn a_link_to_nowhere_or_to_itself_is_a_file_that_cannot_be_read() {
            for (target, name) in [("nowhere.png", "link.png"), ("loop.png", "loop.png")] {
                let dir = tree(&[("train/ant/a.png", 0), ("train/bee/b.png", 0)]);
                symlink(target, dir.path().join("train/bee").join(name)).unwrap();
                symlink(target, dir.path().join("train/bee/notes.txt")).unwrap();
                one_bad_file(dir.path(), name);
            }
        }

        #[test]
        fn a_class_folder_that_links_to_a_folder_above_is_refused() {
            for target in [".", "..", "../train"] {
                let dir = tree(&[("train/ant/a.png", 0), ("train/stray.png", 0)]);
                symlink(target, dir.path().join("train/loop")).unwrap();
                assert!(recognise(dir.path()));
                let text = open(dir.path(), Split::Train).unwrap_err().to_string();
                assert!(text.contains("train/loop cannot be used: it links to"), "{text}");
            }
        }

        #[test]
        fn a_class_folder_that_links_nowhere_is_refused() {
            for target in ["nowhere", "loop"] {
                let dir = tree(&[("train/ant/a.png", 0)]);
                symlink(target, dir.path().join("train/loop")).unwrap();
                assert!(recognise(dir.path()));
                let text = open(dir.path(), Split::Train).unwrap_err().to_string();
                assert!(text.contains("cannot read") && text.contains("train/loop"), "{text}");
            }
        }

        #[test]
        fn links_to_images_and_class_folders_are_followed_and_loops_below_ignored() {
            let dir = tree(&[("train/ant/a.png", 1), ("elsewhere/b.png", 2)]);
            symlink("../elsewhere", dir.path().join("train/bee")).unwrap();
            symlink("../../elsewhere/b.png", dir.path().join("train/ant/c.png")).unwrap();
            symlink("..", dir.path().join("train/ant/up.png")).unwrap();
            let (images, skipped) = load(dir.path(), false).unwrap();
            assert_eq!((images, skipped.len()), (3, 0));
            assert_eq!(open(dir.path(), Split::Train).unwrap().classes(), ["ant", "bee"]);
        }

        #[test]
        fn what_may_not_be_read_is_an_error_or_left_out() {
            let dir =
                tree(&[("train/ant/a.png", 0), ("train/bee/b.png", 0), ("train/bee/c.png", 0)]);
            let allow = |name: &str, mode| {
                let path = dir.path().join(name);
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            };
            allow("train/bee/c.png", 0o000);
            if fs::File::open(dir.path().join("train/bee/c.png")).is_ok() {
                eprintln!("not tested: this user may read every file, whatever its permissions");
                return;
            }
            one_bad_file(dir.path(), "c.png");
            allow("train/bee", 0o000);
            let result = load(dir.path(), true);
            allow("train/bee", 0o755);
            let text = result.unwrap_err().to_string();
            assert!(text.contains("cannot read") && text.contains("train/bee"), "{text}");
        }
    }

    // Other systems refuse such names.
    #[cfg(target_os = "linux")]
    mod names {
        use std::os::unix::ffi::OsStrExt;

        use super::*;

        #[test]
        fn a_file_name_that_is_not_utf8_is_an_error_or_left_out() {
            let dir = tree(&[("train/ant/a.png", 0), ("train/ant/b.png", 0)]);
            let folder = dir.path().join("train/ant");
            fs::copy(folder.join("a.png"), folder.join(OsStr::from_bytes(b"\xE9t\xE9.png")))
                .unwrap();
            one_bad_file(dir.path(), "\u{FFFD}t\u{FFFD}.png cannot be used: its name is not UTF-8");
        }

        #[test]
        fn class_names_that_are_not_utf8_are_refused() {
            let dir = tree(&[("train/ant/a.png", 0)]);
            // Shown as text the two would be the same.
            for name in [b"\xE9", b"\xE8"] {
                fs::create_dir(dir.path().join("train").join(OsStr::from_bytes(name))).unwrap();
            }
            assert!(recognise(dir.path()));
            for skip in [false, true] {
                let text = load(dir.path(), skip).unwrap_err().to_string();
                let expected = "train/\u{FFFD} cannot be used: its name is not UTF-8; rename it";
                assert!(text.contains(expected), "{text}");
            }
        }
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
