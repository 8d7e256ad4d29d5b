//! Tar archives, for data sets of millions of images: a few large files instead.
//!
//! Either as WebDataset writes them, `key.jpg` beside `key.cls`, whose text is the class's number;
//! or class folders, `<class>/name.jpg`. Headers are read once, when the data set is opened; an
//! image is read from its place in its archive when asked for, in any order.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    classes::{numbered, same_classes},
    names::Names,
};
use crate::{DataError, ImageDataset, Split, presets};

mod find;
mod images;
mod shard;

use find::{archives, is_archive};
use images::{Place, TarImages};
use shard::{Class, Member, inside};

pub(crate) const LOOKED_FOR: &str = "train-*.tar and val-*.tar, or *.tar in train/ and val/ (also test or validation), or one .tar of train/<class>/*.jpg and val/<class>/*.jpg, or of <class>/*.jpg to train on";

/// One class name a line, for archives whose classes are numbers.
const CLASS_NAMES: &str = "classes.txt";

/// Whether a path is an archive, or a folder that holds archives of some split.
pub(crate) fn recognise(path: &Path) -> bool {
    let shards = |split| archives(path, split).is_ok_and(|found| !found.is_empty());
    shards(Split::Train) || shards(Split::Val)
}

/// Opens one split. Without names of the classes, the other split counts for their number too.
pub(crate) fn open(path: &Path, split: Split) -> Result<ImageDataset, DataError> {
    let named = named_classes(path)?;
    let [train, val] = read(path, named.as_ref().map(|_| split))?;
    let classes = named.map_or_else(|| common_classes(path, &train, &val), Ok)?;
    let shards = match split {
        Split::Train => train,
        Split::Val => val,
    };
    shards.dataset(path, split, classes)
}

/// Opens both splits, reading every header once.
pub(crate) fn open_pair(path: &Path) -> Result<(ImageDataset, ImageDataset), DataError> {
    let [train, val] = read(path, None)?;
    let classes = named_classes(path)?.map_or_else(|| common_classes(path, &train, &val), Ok)?;
    let train = train.dataset(path, Split::Train, classes.clone())?;
    Ok((train, val.dataset(path, Split::Val, classes)?))
}

/// The archives of a split and the images of each.
#[derive(Default)]
struct Shards {
    archives: Vec<PathBuf>,
    members: Vec<Vec<Member>>,
}

/// Training and validation images; those of a split that is not asked for may be missing.
fn read(path: &Path, only: Option<Split>) -> Result<[Shards; 2], DataError> {
    if path.is_file() && is_archive(path) {
        // It holds both splits, in folders of their names.
        let of_split = |split: Split, member: &Member| {
            let folder = member.name.rsplit('/').nth(2);
            folder.is_some_and(|folder| split.names().contains(&folder))
        };
        let (train, rest): (Vec<_>, Vec<_>) =
            shard::read(path)?.into_iter().partition(|member| of_split(Split::Train, member));
        let (val, rest): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|member| of_split(Split::Val, member));
        // Class folders without splits, as in `folder`.
        let train = if train.is_empty() && val.is_empty() { rest } else { train };
        let of_one = |members| Shards { archives: vec![path.to_owned()], members: vec![members] };
        return Ok([train, val].map(of_one));
    }
    let of_folder = |split| -> Result<Shards, DataError> {
        if only.is_some_and(|only| only != split) {
            return Ok(Shards::default());
        }
        let archives = archives(path, split)?;
        let members = archives.iter().map(|archive| shard::read(archive));
        Ok(Shards { members: members.collect::<Result<_, _>>()?, archives })
    };
    Ok([of_folder(Split::Train)?, of_folder(Split::Val)?])
}

/// The names of `classes.txt`, in the folder of the archives or beside the archive.
fn named_classes(path: &Path) -> Result<Option<Vec<String>>, DataError> {
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    let Some(file) = folder.map(|folder| folder.join(CLASS_NAMES)).filter(|file| file.is_file())
    else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(&file).map_err(|e| DataError::io(&file, e))?;
    let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    let distinct: BTreeSet<&String> = names.iter().collect();
    if names.is_empty() || names.iter().any(String::is_empty) || distinct.len() < names.len() {
        let reason = "each line has to name one class, each class once";
        return Err(DataError::corrupt(&file, reason));
    }
    Ok(Some(names))
}

/// The classes of both splits together, where no file names them.
fn common_classes(path: &Path, train: &Shards, val: &Shards) -> Result<Vec<String>, DataError> {
    let (train, val) = (train.classes(), val.classes());
    let all: BTreeSet<&Class> = train.union(&val).collect();
    // Numbers come before names.
    if let Some(Class::Number(last)) = all.last() {
        return Ok(numbered(*last as usize + 1));
    }
    let names =
        |classes: &BTreeSet<Class>| classes.iter().map(Class::to_string).collect::<Vec<_>>();
    if !train.is_empty() && !val.is_empty() {
        same_classes(path, &names(&train), &names(&val))?;
    }
    Ok(all.iter().map(|class| class.to_string()).collect())
}

impl Shards {
    fn classes(&self) -> BTreeSet<Class> {
        self.members.iter().flatten().map(|member| member.class.clone()).collect()
    }

    fn dataset(
        self,
        path: &Path,
        split: Split,
        classes: Vec<String>,
    ) -> Result<ImageDataset, DataError> {
        if self.members.iter().all(Vec::is_empty) {
            return Err(DataError::layout(path, &format!("{split} archives"), LOOKED_FOR));
        }
        let (mut places, mut names) = (Vec::new(), Names::default());
        for (archive, members) in (0u32..).zip(&self.members) {
            for Member { name, offset, bytes, class } in members {
                let label = match class {
                    Class::Number(number) => {
                        Some(*number).filter(|n| (*n as usize) < classes.len())
                    }
                    Class::Name(name) => {
                        classes.iter().position(|class| class == name).map(|at| at as u32)
                    }
                };
                let label = label.ok_or_else(|| {
                    let reason = format!(
                        "its class is {class}, but {CLASS_NAMES} names {} other classes; correct one of the two",
                        classes.len()
                    );
                    DataError::entry(&inside(&self.archives[archive as usize], name), &reason)
                })?;
                places.push(Place { offset: *offset, bytes: *bytes, archive, label });
                names.push(name);
            }
        }
        ImageDataset::new(
            format!("{} ({split})", path.display()),
            classes,
            presets::IMAGENET,
            Arc::new(TarImages { archives: self.archives, places, names }),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use tar::{Builder, EntryType, Header};

    use super::*;

    /// A PNG of one grey value, which tells it apart.
    fn png(value: u8) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        let image = image::GrayImage::from_pixel(4, 3, image::Luma([value]));
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn archive(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, content) in members {
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, &content[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        dir
    }

    /// Grey value and label of every sample, read from the last to the first.
    fn content(data: &ImageDataset) -> Vec<(u8, usize)> {
        let read = |index| data.get(index).map(|s| (s.image.pixels()[0], s.label)).unwrap();
        let mut all: Vec<_> = (0..data.len()).rev().map(read).collect();
        all.reverse();
        all
    }

    fn cls(number: &str) -> Vec<u8> {
        number.into()
    }

    fn open_text(dir: &Path, split: Split) -> Result<ImageDataset, String> {
        open(dir, split).map_err(|error| error.to_string())
    }

    #[test]
    fn shards_of_images_and_numbers_are_read() {
        let long = |end: &str| format!("{}z.{end}", "deep/".repeat(40));
        let (image, class) = (long("jpg"), long("cls"));
        let first = archive(&[
            ("0.cls", cls("1\n")),
            ("0.png", png(1)),
            (&image, png(2)),
            (&class, cls("0")),
        ]);
        let second =
            archive(&[("b/2.png", png(3)), ("b/2.json", cls("{}")), ("b/2.cls", cls("2"))]);
        let dir = folder(&[
            ("train-000001.tar", second),
            ("train-000000.tar", first),
            ("trained.tar", archive(&[("x.png", png(9))])),
            ("val/v.tar", archive(&[("9.png", png(4)), ("9.cls", cls("4"))])),
        ]);
        let data = dir.path().to_str().unwrap().parse().unwrap();
        let (train, val) = crate::open_pair(&data).unwrap();
        assert_eq!(content(&train), [(1, 1), (2, 0), (3, 2)]);
        assert_eq!(content(&val), [(4, 4)]);
        // Class 4 is in val alone, yet train has five classes too.
        assert_eq!(train.classes(), ["0", "1", "2", "3", "4"]);
        assert_ne!(train.fingerprint(), val.fingerprint());

        fs::write(dir.path().join("classes.txt"), "a\nb\nc\nd\ne\n").unwrap();
        assert_eq!(open(dir.path(), Split::Val).unwrap().classes()[4], "e");
        fs::write(dir.path().join("classes.txt"), "a\nb\n").unwrap();
        let text = open_text(dir.path(), Split::Train).unwrap_err();
        assert!(text.contains("train-000001.tar!b/2.png") && text.contains("is 2"), "{text}");
    }

    #[test]
    fn one_archive_of_class_folders_has_both_splits() {
        let whole = archive(&[
            ("set/val/ant/1.png", png(1)),
            ("set/train/bee/1.png", png(2)),
            ("set/train/bee/.2.png", png(9)),
            ("set/train/ant/3.png", png(3)),
            ("set/val/bee/4.png", png(4)),
        ]);
        let dir = folder(&[("set.tar", whole)]);
        let path = dir.path().join("set.tar");
        assert!(recognise(&path));
        let train = open(&path, Split::Train).unwrap();
        assert_eq!(content(&train), [(2, 1), (3, 0)]);
        assert_eq!(train.classes(), ["ant", "bee"]);
        assert_eq!(content(&open(&path, Split::Val).unwrap()), [(1, 0), (4, 1)]);
    }

    #[test]
    fn an_archive_of_class_folders_alone_is_to_train_on() {
        let members = [("./ant/1.png", png(1)), ("./bee/1.png", png(2))];
        let dir = folder(&[("flat.tar", archive(&members))]);
        let path = dir.path().join("flat.tar");
        let train = open(&path, Split::Train).unwrap();
        assert_eq!((content(&train), train.classes()[1].as_str()), (vec![(1, 0), (2, 1)], "bee"));
        let text = open_text(&path, Split::Val).unwrap_err();
        assert!(text.contains("no val archives found"), "{text}");
    }

    #[test]
    fn a_name_in_an_extended_header_is_read() {
        let mut builder = Builder::new(Vec::new());
        let path = "train/ant/\u{fc}.png";
        let records = [("mtime", &b"1.5"[..]), ("path", path.as_bytes())];
        builder.append_pax_extensions(records).unwrap();
        let content = png(7);
        let mut header = Header::new_ustar();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, "other/cow/x.png", &content[..]).unwrap();
        let dir = folder(&[("set.tar", builder.into_inner().unwrap())]);
        let data = open(&dir.path().join("set.tar"), Split::Train).unwrap();
        assert_eq!((data.classes(), data.len()), (&["ant".to_owned()][..], 1));
    }

    #[test]
    fn what_is_wrong_with_an_archive_is_told_with_its_member() {
        let image = || ("train/ant/a.png", png(1));
        let whole = archive(&[image()]);
        let cases = [
            (whole[..540].to_vec(), "it ends within the member at byte 512"),
            (vec![7; 1024], "set.tar is damaged"),
            (archive(&[("a.png", png(1)), ("b.cls", cls("1"))]), "set.tar!a.png cannot be used"),
            (archive(&[("a.png", png(1))]), "set.tar!a.png cannot be used"),
            (archive(&[image(), ("a.cls", cls("cat"))]), "set.tar!a.cls is damaged"),
            (archive(&[image(), ("a.cls", cls("1000000"))]), "0 to 999999"),
            (archive(&[("train/notes.txt", cls(""))]), "no train archives found"),
        ];
        for (bytes, expected) in cases {
            let dir = folder(&[("set.tar", bytes)]);
            let text = open_text(&dir.path().join("set.tar"), Split::Train).unwrap_err();
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }

    /// Linked files are stored once; the other names would be missing.
    #[test]
    fn links_to_images_are_refused() {
        for kind in [EntryType::Link, EntryType::Symlink] {
            let mut builder = Builder::new(Vec::new());
            let (mut header, image) = (Header::new_gnu(), png(1));
            header.set_size(image.len() as u64);
            builder.append_data(&mut header, "train/ant/a.png", &image[..]).unwrap();
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            builder.append_link(&mut header, "train/ant/b.png", "train/ant/a.png").unwrap();
            let dir = folder(&[("set.tar", builder.into_inner().unwrap())]);
            let text = open_text(&dir.path().join("set.tar"), Split::Train).unwrap_err();
            assert!(text.contains("b.png is damaged: it is a link"), "{text}");
        }
    }

    #[test]
    fn a_member_whose_name_is_not_utf8_is_refused() {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..17].copy_from_slice(b"train/ant/\xE9t\xE9.png");
        header.set_size(0);
        header.set_cksum();
        let mut builder = Builder::new(Vec::new());
        builder.append(&header, std::io::empty()).unwrap();
        let dir = folder(&[("set.tar", builder.into_inner().unwrap())]);
        let text = open_text(&dir.path().join("set.tar"), Split::Train).unwrap_err();
        assert!(text.contains("set.tar cannot be used: the name of its member"), "{text}");
    }

    #[test]
    fn numbers_and_class_folders_do_not_go_together() {
        let dir = folder(&[
            ("train.tar", archive(&[("0.png", png(1)), ("0.cls", cls("0"))])),
            ("val.tar", archive(&[("ant/0.png", png(1))])),
        ]);
        for split in [Split::Train, Split::Val] {
            let text = open_text(dir.path(), split).unwrap_err();
            assert!(text.contains("only in train: 0; only in val: ant"), "{text}");
        }
    }

    proptest! {
        /// Cut and altered archives are refused or read, without a panic.
        #[test]
        fn no_archive_makes_it_panic(
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            kept in any::<prop::sample::Index>(),
            cut in any::<bool>(),
        ) {
            let long = format!("{}b.png", "train/ant/".repeat(12));
            let mut bytes =
                archive(&[("train/ant/a.png", png(1)), (&long, png(2)), ("c/d.cls", cls("3"))]);
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if cut {
                bytes.truncate(kept.index(bytes.len()));
            }
            let dir = folder(&[("set.tar", bytes)]);
            if let Ok(data) = open(&dir.path().join("set.tar"), Split::Train) {
                (0..data.len()).for_each(|index| drop(data.get(index)));
            }
        }
    }
}
