//! Files that cannot be used, in class folders and in archives: each is an error in its place that
//! names it, or is left out and counted, and no other image is lost. Files that merely look unusual
//! are images like any other.

use std::{
    fs::{self, File},
    io::Cursor,
    path::{Path, PathBuf},
    sync::Arc,
};

use dbb_datasets::{
    Augment, Batch, CacheBudget, DataError, DataRef, ImageDataset, Loader, LoaderConfig, Pipeline,
    Preprocess, Split, open, open_pair,
};
use tempfile::TempDir;

/// A data set's files: path below the data set, content.
type Files = Vec<(String, Vec<u8>)>;

/// The same files in one of the layouts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    Folder,
    Tar,
}

const LAYOUTS: [Layout; 2] = [Layout::Folder, Layout::Tar];

impl Layout {
    /// Writes the files to a new place.
    fn write(self, files: &Files) -> Stored {
        let dir = tempfile::tempdir().unwrap();
        let path = match self {
            Self::Folder => dir.path().to_owned(),
            Self::Tar => dir.path().join("set.tar"),
        };
        match self {
            Self::Folder => files.iter().for_each(|(name, content)| {
                let file = path.join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, content).unwrap();
            }),
            Self::Tar => {
                let mut archive = tar::Builder::new(File::create(&path).unwrap());
                for (name, content) in files {
                    let mut header = tar::Header::new_gnu();
                    header.set_size(content.len() as u64);
                    archive.append_data(&mut header, name, &content[..]).unwrap();
                }
                archive.finish().unwrap();
            }
        }
        Stored { path, _dir: dir }
    }
}

/// A data set on the disk.
struct Stored {
    path: PathBuf,
    _dir: TempDir,
}

impl Stored {
    fn reference(&self) -> DataRef {
        self.path.to_str().unwrap().parse().unwrap()
    }

    fn open(&self) -> Arc<ImageDataset> {
        Arc::new(open(&self.reference(), Split::Train).unwrap())
    }
}

fn loader(data: &Arc<ImageDataset>, config: LoaderConfig) -> Loader {
    let preprocess = Preprocess { size: (8, 8), resize: None, ..Preprocess::of(data) };
    let augment = Augment { random_resized_crop: true, hflip: true, ..Augment::default() };
    Loader::new(Arc::clone(data), config, Pipeline::new(preprocess, augment).unwrap()).unwrap()
}

/// Batches of two images; those that cannot be read are left out, or fail their batch.
fn config(workers: usize, skip_unreadable: bool) -> LoaderConfig {
    LoaderConfig { batch_size: 2, workers, skip_unreadable, ..LoaderConfig::default() }
}

/// Positions of the images that arrive in an epoch, and the errors of those left out.
fn seen_and_skipped(loader: &Loader, epoch: u64) -> (Vec<usize>, Vec<String>) {
    let batches: Vec<Batch> = loader.epoch(epoch).map(Result::unwrap).collect();
    let seen = batches.iter().flat_map(|batch| batch.indices.clone()).collect();
    let skipped = batches.iter().flat_map(|batch| &batch.skipped).map(DataError::to_string);
    (seen, skipped.collect())
}

fn encoded(size: u32, value: u8, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image::RgbImage::from_fn(size, size, |x, y| image::Rgb([value, 8 * x as u8, 8 * y as u8]))
        .write_to(&mut bytes, format)
        .unwrap();
    bytes.into_inner()
}

fn jpeg(value: u8) -> Vec<u8> {
    encoded(16, value, image::ImageFormat::Jpeg)
}

fn first_half(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() / 2);
    bytes
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/images")
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(fixtures().join(name)).unwrap()
}

/// Files that are no image to use, each with what its error says.
fn unusable() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let damaged_scan = {
        let mut bytes = fixture("progressive.jpg");
        let end = bytes.len() - 2;
        bytes.drain(end / 2..end);
        bytes
    };
    vec![
        ("cut.jpg", first_half(jpeg(1)), "the JPEG ends before its end marker"),
        ("cut_progressive.jpg", first_half(fixture("progressive.jpg")), "before its end marker"),
        ("cut.png", first_half(encoded(16, 1, image::ImageFormat::Png)), "is damaged"),
        ("cut.webp", first_half(fixture("lossy.webp")), "is damaged"),
        ("cut.gif", first_half(fixture("interlaced.gif")), "is damaged"),
        ("empty.jpg", Vec::new(), "the file is empty"),
        ("page.jpeg", b"<html></html>".to_vec(), "it is not a JPEG, PNG, GIF"),
        ("bomb.jpg", fixture("bomb.jpg"), "is too large"),
        ("bomb_progressive.jpg", fixture("bomb_progressive.jpg"), "is too large"),
        ("bomb.png", fixture("bomb.png"), "is too large"),
        ("bomb.gif", fixture("bomb.gif"), "is too large"),
        ("bomb.webp", fixture("bomb.webp"), "is too large"),
        ("bomb.bmp", fixture("bomb.bmp"), "is too large"),
        ("bomb.tiff", fixture("bomb.tiff"), "is too large"),
        ("hole.jpg", damaged_scan, "is damaged"),
    ]
}

#[test]
fn a_corrupt_jpeg_is_named_in_its_place_wherever_it_lies() {
    for layout in LAYOUTS {
        for bad in [0, 3, 6] {
            let content = |n| if n == bad { first_half(jpeg(n)) } else { jpeg(n) };
            let files = (0..7).map(|n| (format!("train/ant/{n}.jpg"), content(n))).collect();
            let stored = layout.write(&files);
            let data = stored.open();
            let (named, bad) = (format!("train/ant/{bad}.jpg is damaged"), usize::from(bad));
            for workers in [0, 1, 4] {
                let results: Vec<_> = loader(&data, config(workers, false)).epoch(0).collect();
                let failed: Vec<usize> = (0..4).filter(|batch| results[*batch].is_err()).collect();
                assert_eq!((failed, results.len()), (vec![bad / 2], 4), "{layout:?}, {workers}");
                let error = results[bad / 2].as_ref().unwrap_err().to_string();
                assert!(error.contains(&named), "{error}");

                let (seen, skipped) = seen_and_skipped(&loader(&data, config(workers, true)), 0);
                let good: Vec<usize> = (0..7).filter(|index| *index != bad).collect();
                assert_eq!((seen, skipped), (good, vec![error]), "{layout:?}, {workers}");
            }
        }
    }
}

#[test]
fn every_kind_of_unusable_file_is_left_out_and_named_and_no_image_is_lost() {
    let mut files: Files = (0..5).map(|n| (format!("train/ant/{n}.jpg"), jpeg(n))).collect();
    let bad = unusable();
    files.extend(
        bad.iter().map(|(name, content, _)| (format!("train/bee/{name}"), content.clone())),
    );
    for layout in LAYOUTS {
        let stored = layout.write(&files);
        let data = stored.open();
        assert_eq!(data.len(), 5 + bad.len());
        for workers in [0, 1, 4] {
            let config = LoaderConfig {
                shuffle: true,
                // What is not read is not kept: it is told in every epoch.
                cache: CacheBudget::new(1 << 20),
                ..config(workers, true)
            };
            let loader = loader(&data, config);
            for epoch in 0..2 {
                let (mut seen, skipped) = seen_and_skipped(&loader, epoch);
                seen.sort_unstable();
                assert_eq!(seen, [0, 1, 2, 3, 4]);
                assert_eq!(skipped.len(), bad.len());
                for (name, _, reason) in &bad {
                    let named: Vec<_> = skipped
                        .iter()
                        .filter(|text| text.contains(&format!("bee/{name}")))
                        .collect();
                    assert!(named.len() == 1 && named[0].contains(reason), "{name}: {named:?}");
                }
            }
        }
    }
}

/// CMYK and progressive JPEG, every EXIF orientation, 16-bit samples, animations, wrong extensions.
#[test]
fn unusual_images_are_read_alike_from_every_layout() {
    let mut files: Files = fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| {
            !name.starts_with("bomb") && !name.ends_with(".md") && !name.ends_with(".json")
        })
        .map(|name| (format!("train/ant/{name}"), fixture(&name)))
        .collect();
    files.sort();
    assert!(files.len() > 40);
    let images = LAYOUTS.map(|layout| {
        let stored = layout.write(&files);
        let data = stored.open();
        assert_eq!(data.len(), files.len());
        (0..data.len()).map(|index| data.get(index).unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(images[0], images[1]);
}

/// What happens to a file during the run.
type Change = fn(&Path);

fn remove(file: &Path) {
    fs::remove_file(file).unwrap();
}

/// Nobody can read a folder as a file, whatever his rights.
fn replace(file: &Path) {
    remove(file);
    fs::create_dir(file).unwrap();
}

fn empty(file: &Path) {
    fs::write(file, b"").unwrap();
}

#[test]
fn what_goes_or_changes_during_the_run_is_told_in_its_place() {
    let files: Files = (0..3).map(|n| (format!("train/ant/{n}.jpg"), jpeg(n))).collect();
    let changes: [(Change, &str); 3] =
        [(remove, "cannot read"), (replace, "cannot read"), (empty, "the file is empty")];
    for (change, reason) in changes {
        for workers in [0, 2] {
            let stored = Layout::Folder.write(&files);
            let data = stored.open();
            let failing = loader(&data, config(workers, false));
            let skipping = loader(&data, config(workers, true));
            let cache = CacheBudget::new(1 << 20);
            let keeping = loader(&data, LoaderConfig { cache, ..config(workers, false) });
            for loader in [&failing, &skipping, &keeping] {
                assert_eq!(seen_and_skipped(loader, 0), (vec![0, 1, 2], vec![]));
            }
            change(&stored.path.join("train/ant/1.jpg"));
            let errors: Vec<_> = failing.epoch(1).filter_map(Result::err).collect();
            let (seen, skipped) = seen_and_skipped(&skipping, 1);
            assert_eq!((seen, skipped.len(), errors.len()), (vec![0, 2], 1, 1));
            assert_eq!(skipped[0], errors[0].to_string());
            assert!(skipped[0].contains("ant/1.jpg") && skipped[0].contains(reason), "{skipped:?}");
            // What is in memory is not missed.
            assert_eq!(seen_and_skipped(&keeping, 1).0, [0, 1, 2]);
        }
    }
}

#[test]
fn an_archive_that_is_cut_or_goes_during_the_run_loses_what_it_held() {
    let files: Files = (0..4).map(|n| (format!("train/ant/{n}.jpg"), jpeg(n))).collect();
    let stored = Layout::Tar.write(&files);
    let data = stored.open();
    let loader = loader(&data, config(2, true));
    assert_eq!(seen_and_skipped(&loader, 0).0.len(), 4);
    // Past the first two images, each with a header and filled up to a multiple of 512 bytes.
    let kept: usize =
        files[..2].iter().map(|(_, bytes)| 512 + bytes.len().div_ceil(512) * 512).sum();
    File::options().write(true).open(&stored.path).unwrap().set_len(kept as u64).unwrap();
    let (seen, skipped) = seen_and_skipped(&loader, 1);
    assert_eq!((seen, skipped.len()), (vec![0, 1], 2));
    assert!(skipped[0].contains("set.tar!train/ant/2.jpg"), "{skipped:?}");
    fs::remove_file(&stored.path).unwrap();
    let (seen, skipped) = seen_and_skipped(&loader, 2);
    assert_eq!((seen.len(), skipped.len()), (0, 4));
    assert!(skipped.iter().all(|text| text.contains("cannot read")), "{skipped:?}");
}

#[test]
fn a_class_of_one_split_alone_is_named() {
    let names = ["train/ant/0.jpg", "train/bee/0.jpg", "val/ant/0.jpg", "val/cow/0.jpg"];
    let files = names.map(|name| (name.to_owned(), jpeg(0))).to_vec();
    for layout in LAYOUTS {
        let stored = layout.write(&files);
        let error = open_pair(&stored.reference()).unwrap_err().to_string();
        assert!(error.contains("only in train: bee; only in val: cow"), "{layout:?}: {error}");
    }
}
