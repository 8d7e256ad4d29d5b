//! How users name data sets, and how a name becomes a data set.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::{
    DataError, ImageDataset, Split,
    sources::{cifar, classes::same_classes, folder, idx, sample, tar},
};

/// A layout of data on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Class folders: `train/<class>/*.jpg`, `val/<class>/*.jpg`.
    Folder,
    /// Tar archives of images with their classes, as WebDataset writes them, or of class folders.
    Tar,
    /// IDX files, as MNIST and Fashion-MNIST are published.
    Idx,
    /// CIFAR-10, binary version.
    Cifar10,
    /// CIFAR-100, binary version; fine labels.
    Cifar100,
}

/// Every layout, in the order in which they are tried.
const LAYOUTS: [Layout; 5] =
    [Layout::Folder, Layout::Tar, Layout::Idx, Layout::Cifar10, Layout::Cifar100];

impl Layout {
    /// The name written before the colon of `KIND:PATH`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::Tar => "tar",
            Self::Idx => "idx",
            Self::Cifar10 => "cifar10",
            Self::Cifar100 => "cifar100",
        }
    }

    /// The names of all layouts, for messages.
    pub fn names() -> String {
        LAYOUTS.map(Self::name).join(", ")
    }

    fn recognise(self, path: &Path) -> bool {
        match self {
            Self::Folder => folder::recognise(path),
            Self::Tar => tar::recognise(path),
            Self::Idx => idx::recognise(path),
            Self::Cifar10 => cifar::CIFAR10.recognise(path),
            Self::Cifar100 => cifar::CIFAR100.recognise(path),
        }
    }

    fn looked_for(self) -> String {
        match self {
            Self::Folder => folder::looked_for(),
            Self::Tar => tar::LOOKED_FOR.to_owned(),
            Self::Idx => idx::LOOKED_FOR.to_owned(),
            Self::Cifar10 => cifar::CIFAR10.looked_for(),
            Self::Cifar100 => cifar::CIFAR100.looked_for(),
        }
    }

    fn open(self, path: &Path, split: Split) -> Result<ImageDataset, DataError> {
        match self {
            Self::Folder => folder::open(path, split),
            Self::Tar => tar::open(path, split),
            Self::Idx => idx::open(path, split),
            Self::Cifar10 => cifar::CIFAR10.open(path, split),
            Self::Cifar100 => cifar::CIFAR100.open(path, split),
        }
    }

    fn open_pair(self, path: &Path) -> Result<(ImageDataset, ImageDataset), DataError> {
        match self {
            Self::Tar => tar::open_pair(path),
            _ => Ok((self.open(path, Split::Train)?, self.open(path, Split::Val)?)),
        }
    }
}

/// A data set, as users write it: `sample`, a folder, an archive, or `KIND:PATH`.
///
/// Parsing uses the text alone, so that a configuration can be read where its data is absent;
/// [`open`] looks at the folder. A folder named `sample` is written `./sample`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DataRef {
    /// The bundled sample of Fashion-MNIST.
    Sample,
    /// A folder, or an archive.
    Folder {
        /// Its layout; `None` to recognise it.
        layout: Option<Layout>,
        /// Where it is.
        path: PathBuf,
    },
}

impl FromStr for DataRef {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        let refuse = |reason: &str| {
            Err(DataError::Reference { text: text.to_owned(), reason: reason.to_owned() })
        };
        if text == "sample" {
            return Ok(Self::Sample);
        }
        let (layout, path) = match text.split_once(':') {
            // One letter is a drive, and anything but a word is part of a path.
            Some((kind, path)) if kind.len() > 1 && kind.chars().all(char::is_alphanumeric) => {
                match LAYOUTS.into_iter().find(|layout| layout.name() == kind) {
                    Some(layout) => (Some(layout), path),
                    None => return refuse(&format!("there is no kind `{kind}`")),
                }
            }
            _ => (None, text),
        };
        if path.is_empty() {
            return refuse("the path is empty");
        }
        Ok(Self::Folder { layout, path: path.into() })
    }
}

impl fmt::Display for DataRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sample => f.write_str("sample"),
            Self::Folder { layout, path } => {
                if let Some(layout) = layout {
                    write!(f, "{}:", layout.name())?;
                }
                write!(f, "{}", path.display())
            }
        }
    }
}

impl TryFrom<String> for DataRef {
    type Error = DataError;

    fn try_from(text: String) -> Result<Self, DataError> {
        text.parse()
    }
}

impl From<DataRef> for String {
    fn from(reference: DataRef) -> Self {
        reference.to_string()
    }
}

/// Opens one split of a data set.
///
/// # Errors
///
/// [`DataError::Layout`] if the folder's layout is not recognised or lacks the split;
/// [`DataError::Io`] or [`DataError::Corrupt`] if a file cannot be read;
/// [`DataError::Classes`] or [`DataError::EmptyClass`] for class folders that do not match.
pub fn open(data: &DataRef, split: Split) -> Result<ImageDataset, DataError> {
    match data {
        DataRef::Sample => sample::open(split),
        DataRef::Folder { layout, path } => layout_of(*layout, path)?.open(path, split),
    }
}

/// Opens the training and the validation split of a data set, which have the same classes.
///
/// # Errors
///
/// As [`open`].
pub fn open_pair(data: &DataRef) -> Result<(ImageDataset, ImageDataset), DataError> {
    let (train, val) = match data {
        DataRef::Sample => (sample::open(Split::Train)?, sample::open(Split::Val)?),
        DataRef::Folder { layout, path } => layout_of(*layout, path)?.open_pair(path)?,
    };
    let path = PathBuf::from(data.to_string());
    same_classes(&path, train.classes(), val.classes())?;
    Ok((train, val))
}

fn layout_of(named: Option<Layout>, path: &Path) -> Result<Layout, DataError> {
    named.map_or_else(|| recognise(path), Ok)
}

/// Whether a path is a folder or an archive whose layout is recognised.
pub fn is_data_set(path: &Path) -> bool {
    recognise(path).is_ok()
}

/// Where a well-known data set is published, by the name of its folder.
fn published_at(path: &Path) -> Option<&'static str> {
    let folder = path.file_name()?.to_str()?;
    PUBLISHED.into_iter().find(|(name, _)| *name == folder).map(|(_, origin)| origin)
}

/// The folders that the recipes name, and how to get them.
const PUBLISHED: [(&str, &str); 5] = [
    (
        "imagenette2-160",
        "unpack imagenette2-160.tgz, which https://github.com/fastai/imagenette links to",
    ),
    (
        "imagenet",
        "ImageNet is given out at https://www.image-net.org after registration; its validation \
         images have to be sorted into class folders",
    ),
    (
        "fashion-mnist",
        "put the four .gz files of https://github.com/zalandoresearch/fashion-mnist into it",
    ),
    (
        "cifar-10-batches-bin",
        "unpack the binary version of CIFAR-10 from https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    (
        "cifar-100-binary",
        "unpack the binary version of CIFAR-100 from https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
];

fn recognise(path: &Path) -> Result<Layout, DataError> {
    // An unreadable path is reported differently from unknown content.
    let kind = std::fs::metadata(path).map_err(|e| match (e.kind(), published_at(path)) {
        (std::io::ErrorKind::NotFound, Some(origin)) => {
            DataError::Missing { path: path.to_owned(), origin }
        }
        _ => DataError::io(path, e),
    })?;
    if kind.is_dir() {
        std::fs::read_dir(path).map_err(|e| DataError::io(path, e))?;
    }
    LAYOUTS.into_iter().find(|layout| layout.recognise(path)).ok_or_else(|| {
        let looked_for =
            LAYOUTS.map(|layout| format!("{} ({})", layout.name(), layout.looked_for()));
        DataError::layout(path, "data set", &looked_for.join("; "))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn folder(layout: Option<Layout>, path: &str) -> DataRef {
        DataRef::Folder { layout, path: path.into() }
    }

    #[test]
    fn references_are_read_and_written() {
        for (text, expected) in [
            ("sample", DataRef::Sample),
            ("./sample", folder(None, "./sample")),
            ("data/x", folder(None, "data/x")),
            ("idx:data/x", folder(Some(Layout::Idx), "data/x")),
            ("cifar100:/c", folder(Some(Layout::Cifar100), "/c")),
            ("folder:a:b", folder(Some(Layout::Folder), "a:b")),
            (r"C:\data", folder(None, r"C:\data")),
            ("./odd:name", folder(None, "./odd:name")),
        ] {
            let reference: DataRef = text.parse().unwrap();
            assert_eq!(reference, expected);
            assert_eq!(reference.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_with_the_choices() {
        for text in ["", "idx:", "imagenet:/data"] {
            let error = text.parse::<DataRef>().unwrap_err().to_string();
            assert!(error.contains("folder, tar, idx, cifar10, cifar100"), "{error}");
        }
    }

    #[test]
    fn references_and_splits_are_strings_in_configs() {
        let reference: DataRef = serde_json::from_str(r#""idx:x""#).unwrap();
        assert_eq!(serde_json::to_string(&reference).unwrap(), r#""idx:x""#);
        assert!(serde_json::from_str::<DataRef>(r#""what:x""#).is_err());
        let split: Split = serde_json::from_str(r#""test""#).unwrap();
        assert_eq!(serde_json::to_string(&split).unwrap(), r#""val""#);
    }

    #[test]
    fn splits_have_three_names() {
        let parse = |text: &str| text.parse::<Split>();
        assert_eq!(parse("train").unwrap(), Split::Train);
        assert_eq!(parse("test").unwrap(), parse("val").unwrap());
        assert!(parse("dev").is_err());
    }

    #[test]
    fn an_unknown_folder_lists_what_was_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let data: DataRef = dir.path().to_str().unwrap().parse().unwrap();
        let text = open(&data, Split::Val).unwrap_err().to_string();
        for expected in
            ["train/<class>", "train-*.tar", "idx3-ubyte", "data_batch_1.bin", "train.bin"]
        {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let gone: DataRef = "no/such/folder".parse().unwrap();
        assert!(matches!(open(&gone, Split::Val), Err(DataError::Io { .. })));
    }

    #[test]
    fn a_missing_data_set_of_a_recipe_says_where_it_comes_from() {
        for (folder, origin) in [
            ("imagenette2-160", "https://github.com/fastai/imagenette"),
            ("cifar-10-batches-bin", "cs.toronto.edu"),
        ] {
            let data: DataRef = format!("no/data/{folder}").parse().unwrap();
            let text = open(&data, Split::Train).unwrap_err().to_string();
            assert!(text.contains(&format!("no/data/{folder} does not exist")), "{text}");
            assert!(text.contains(origin), "{text}");
        }
    }

    #[test]
    fn layouts_are_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        };
        put("hundred/cifar-100-binary/test.bin");
        put("ten/test_batch.bin");
        put("idx/t10k-images-idx3-ubyte.gz");
        put("folder/validation/cat/1.jpg");
        put("shards/train-0.tar");
        put("one.tar");
        let layout = |name: &str| recognise(&dir.path().join(name)).unwrap();
        assert_eq!(layout("hundred"), Layout::Cifar100);
        assert_eq!(layout("ten"), Layout::Cifar10);
        assert_eq!(layout("idx"), Layout::Idx);
        assert_eq!(layout("folder"), Layout::Folder);
        assert_eq!((layout("shards"), layout("one.tar")), (Layout::Tar, Layout::Tar));
    }

    #[test]
    fn the_pair_of_the_sample_shares_its_classes() {
        let (train, val) = open_pair(&DataRef::Sample).unwrap();
        assert_eq!(train.classes(), val.classes());
        assert_ne!(train.fingerprint(), val.fingerprint());
    }
}
