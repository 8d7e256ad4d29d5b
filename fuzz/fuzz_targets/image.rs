//! JPEG, PNG, GIF, WebP, BMP and TIFF.
#![no_main]

use dbb_datasets::Image;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| drop(Image::from_bytes(bytes, "image")));
