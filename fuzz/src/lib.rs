//! What the targets share.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dbb_datasets::{DataRef, Layout, Split, open};
use dbb_training::run::directory::RunDir;
use tempfile::TempDir;

/// A temporary folder with these files, for readers that take a path.
pub fn folder<Name: AsRef<Path>, Bytes: AsRef<[u8]>>(
    files: impl IntoIterator<Item = (Name, Bytes)>,
) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).expect("a file");
    }
    folder
}

/// Opens both splits of a data set and reads every image.
pub fn read_images(layout: Layout, path: &Path) {
    let data = DataRef::Folder { layout: Some(layout), path: path.into() };
    for data in [Split::Train, Split::Val].into_iter().flat_map(|split| open(&data, split)) {
        (0..data.len()).for_each(|index| drop(data.get(index)));
    }
}

/// The run that `seeds.sh` trains.
pub fn run() -> RunDir {
    RunDir::new(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/run"))
}

/// The files of its checkpoint.
pub fn checkpoint() -> BTreeMap<String, Vec<u8>> {
    let marks = run().checkpoint_ids().expect("the run of seeds.sh");
    let checkpoint = run().checkpoint(*marks.last().expect("its checkpoint"));
    let files = fs::read_dir(checkpoint).expect("its folder").map(|entry| {
        let entry = entry.expect("a file");
        let name = entry.file_name().into_string().expect("a plain name");
        (name, fs::read(entry.path()).expect("its bytes"))
    });
    files.collect()
}
