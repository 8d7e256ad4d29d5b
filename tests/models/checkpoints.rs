//! Checkpoints of PyTorch as training scripts write them; `fixtures/checkpoints/make.py` wrote these.

use std::path::{Path, PathBuf};

use dbb_models::weights::{WeightsError, WeightsFile, write_foreign};

fn checkpoint(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/checkpoints").join(name)
}

fn read(name: &str) -> Result<WeightsFile, WeightsError> {
    WeightsFile::read(&checkpoint(name))
}

#[test]
fn weights_are_found_where_scripts_keep_them() {
    let (weight, bias) = ("linear.weight", "linear.bias");
    for (name, keys, value) in [
        ("model.pth", vec!["bn.num_batches_tracked", bias, weight], 1.0),
        ("legacy.pth.tar", vec!["bn.num_batches_tracked", bias, weight], 1.0),
        // An average of the weights, wrapped twice.
        ("ema.pth", vec![bias, weight], 2.0),
        // Half an average is none.
        ("part.pth", vec![bias, weight], 1.0),
        // A name that begins like a container is a name.
        ("prefix.pth", vec!["model.linear.bias", "model.linear.weight"], 1.0),
    ] {
        let file = read(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(file.tensors.keys().collect::<Vec<_>>(), keys, "{name}");
        let (_, weight) = file.tensors.last_key_value().expect("a weight");
        assert_eq!(weight.shape()[..], [2, 3], "{name}");
        assert!(weight.iter::<f64>().all(|v| v == value), "{name}: {weight:?}");
    }
}

/// Four gibibytes of values in a kilobyte, by a stride of zero.
#[test]
fn a_tensor_larger_than_its_file_is_refused_unread() {
    let error = read("expanded.pth").expect_err("4 GiB").to_string();
    assert!(error.contains("bytes claim to hold 4294967296 bytes"), "{error}");
}

/// Its class is never looked up; only its tensors are taken.
#[test]
fn a_pickled_module_gives_its_tensors() {
    let file = read("whole.pth").expect("tensors");
    assert_eq!(file.tensors.keys().collect::<Vec<_>>(), ["bias", "weight"]);
}

/// A mask of three truth values in the format before PyTorch 1.6, opcode by opcode.
const MASK: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\
    \x80\x02M\xe9\x03.\
    \x80\x02}X\x0d\x00\x00\x00little_endian\x88s.\
    \x80\x02}X\x04\x00\x00\x00maskctorch._utils\n_rebuild_tensor_v2\n(\
    (X\x07\x00\x00\x00storagectorch\nBoolStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x03NtQ\
    K\x00K\x03\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRs.\
    \x80\x02]X\x01\x00\x00\x000a.\
    \x03\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01";

#[test]
fn truth_values_are_read_and_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, copy) = (folder.path().join("mask.pth"), folder.path().join("copy.safetensors"));
    std::fs::write(&path, MASK).expect("the checkpoint");
    let tensors = WeightsFile::read(&path).expect("a mask").tensors;
    assert_eq!(tensors["mask"].iter::<u8>().collect::<Vec<_>>(), [1, 0, 1]);
    write_foreign(&copy, &tensors).expect("a file");
    assert_eq!(WeightsFile::read(&copy).expect("the copy").tensors, tensors);
}

#[cfg(unix)]
#[test]
fn a_device_without_an_end_is_not_read() {
    let error = WeightsFile::read(Path::new("/dev/zero")).expect_err("endless").to_string();
    assert!(error.contains("not a regular file"), "{error}");
}
