//! Tar archives: one of class folders, and shards of both splits.
#![no_main]

use dbb_datasets::Layout;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let names = ["whole.tar", "train-0.tar", "val-0.tar"];
    let folder = dbb_fuzz::folder(names.map(|name| (name, bytes)));
    dbb_fuzz::read_images(Layout::Tar, &folder.path().join("whole.tar"));
    dbb_fuzz::read_images(Layout::Tar, folder.path());
});
