//! CIFAR's binary files, and the list of its classes.
#![no_main]

use dbb_datasets::Layout;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let both = dbb_fuzz::folder([("test_batch.bin", bytes), ("test.bin", bytes)]);
    dbb_fuzz::read_images(Layout::Cifar10, both.path());
    dbb_fuzz::read_images(Layout::Cifar100, both.path());
    let names = [("test_batch.bin", &[0; 3073][..]), ("batches.meta.txt", bytes)];
    dbb_fuzz::read_images(Layout::Cifar10, dbb_fuzz::folder(names).path());
});
