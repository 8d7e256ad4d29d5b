//! IDX files of images and of labels, plain or gzip.
#![no_main]

use dbb_datasets::Layout;
use libfuzzer_sys::fuzz_target;

/// Three images of 2x3 and their labels.
const IMAGES: &[u8] = b"\0\0\x08\x03\0\0\0\x03\0\0\0\x02\0\0\0\x03abcdefghijklmnopqr";
const LABELS: &[u8] = b"\0\0\x08\x01\0\0\0\x03\0\x01\x02";

fuzz_target!(|bytes: &[u8]| {
    let end = if bytes.starts_with(b"\x1f\x8b") { ".gz" } else { "" };
    let (images, labels) = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte");
    for files in [
        [(&*format!("{images}{end}"), bytes), (labels, LABELS)],
        [(images, IMAGES), (&*format!("{labels}{end}"), bytes)],
    ] {
        dbb_fuzz::read_images(Layout::Idx, dbb_fuzz::folder(files).path());
    }
});
