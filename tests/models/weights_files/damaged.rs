//! A file that is damaged or hostile is an error that names it, never a panic.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use burn::store::burn_pack;
use burn::tensor::DType;
use burn::tensor::quantization::QuantScheme;
use dbb_models::weights::{Dialect, LoadOptions, Metadata, WeightsError, WeightsFile, rebuild};
use dbb_models::{Classifier, Form};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use tempfile::TempDir;

use super::*;

/// Reading and rebuilding; the error's message must name the file.
fn load(path: &Path) -> Result<Classifier, WeightsError> {
    let load = || {
        let file = WeightsFile::read(path)?;
        // Damage may have hit the name under which the metadata stand.
        let foreign = || metadata(&small_model(), Form::Deploy, Dialect::Native);
        rebuild(
            &file,
            &file.metadata.clone().unwrap_or_else(foreign),
            LoadOptions::default(),
            &device(),
        )
    };
    load().inspect_err(|error| {
        let message = error.to_string();
        assert!(message.contains(&path.display().to_string()), "\"{message}\" names no file");
    })
}

/// Writes a variant of a file's bytes beside it.
fn variant(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = fs::read(path).expect("the file");
    change(&mut bytes);
    let path = path.with_extension("variant");
    fs::write(&path, bytes).expect("the variant");
    path
}

/// Runs `read` on a file while one of its bytes is changed. (Writing the whole file each time
/// would wait for the disk.)
fn with_flipped<T>(path: &Path, position: usize, flip: u8, read: impl FnOnce(&Path) -> T) -> T {
    let mut file = File::options().read(true).write(true).open(path).expect("the file");
    let mut xor = || {
        let mut byte = [0];
        file.seek(SeekFrom::Start(position as u64)).expect("a position in the file");
        file.read_exact(&mut byte).expect("a byte");
        file.seek_relative(-1).expect("a position in the file");
        file.write_all(&[byte[0] ^ flip]).expect("the file");
    };
    xor();
    let result = read(path);
    xor();
    result
}

#[test]
fn a_missing_file() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("absent.safetensors");
    assert!(matches!(load(&path), Err(WeightsError::Io { .. })));
    assert!(matches!(load(folder.path()), Err(WeightsError::Io { .. })), "a folder");
}

#[test]
fn a_file_of_another_kind() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("other");
    for content in [
        &b""[..],
        b"hello",
        b"{}",
        b"\x80\x02",
        b"PK\x03\x04",
        b"\x89PNG\r\n\x1a\n",
        &[0; 600],
        &[0xff; 600],
    ] {
        fs::write(&path, content).expect("a file");
        let error = load(&path).err().unwrap_or_else(|| panic!("{content:?} was read"));
        assert!(matches!(error, WeightsError::Format { .. }), "{content:?}: {error}");
    }
}

#[test]
fn a_truncated_file() {
    let folder = TempDir::new().expect("a folder");
    for way in WAYS {
        let (path, _) = small_file(&folder, way);
        let length = fs::metadata(&path).expect("the file").len() as usize;
        for cut in (0..200).map(|i| i * length / 200).chain(length - 8..length) {
            let path = variant(&path, |bytes| bytes.truncate(cut));
            let error = load(&path).err();
            let error = error.unwrap_or_else(|| panic!("{way:?} of {cut} of {length} bytes"));
            assert!(matches!(error, WeightsError::Format { .. }), "{way:?}, {cut} bytes: {error}");
        }
    }
}

/// Every byte of the header changed, one at a time: what does not end in an error was no damage
/// to the structure and leaves a network.
#[test]
fn a_flipped_byte_in_the_header() {
    let folder = TempDir::new().expect("a folder");
    for way in WAYS {
        let (path, _) = small_file(&folder, way);
        let bytes = fs::read(&path).expect("the file");
        let (header, fixed) = header_length(way, &bytes);
        let mut refused = 0;
        for position in 0..header {
            let flip = [0x01, 0x20, 0x80][position % 3];
            refused += usize::from(with_flipped(&path, position, flip, load).is_err());
        }
        println!("{way:?}: {refused} of {header} flipped bytes refused");
        for position in 0..fixed {
            let result = with_flipped(&path, position, 0x40, load);
            assert!(result.is_err(), "{way:?}: byte {position}");
        }
    }
}

/// How long a header is, and its first part that allows no change: safetensors begin with the
/// length of a JSON header, burnpacks with magic number, version and the length of a CBOR one.
fn header_length(way: Written, bytes: &[u8]) -> (usize, usize) {
    let length = |range: std::ops::Range<usize>| {
        bytes[range].iter().rev().fold(0, |length, &byte| length << 8 | usize::from(byte))
    };
    match way {
        Written::Safetensors(_) => (8 + length(0..8), 8),
        Written::Burnpack => (10 + length(6..10), 6),
    }
}

/// Metadata that announce a network of many gigabytes, or one that cannot be built, are refused
/// for what they are, before any of its weights is drawn.
#[test]
fn hostile_metadata() {
    let folder = TempDir::new().expect("a folder");
    for form in [Form::Train, Form::Deploy] {
        let model = config(Arch::ResNet18, BlockKind::Dbb);
        let path = folder.path().join("weights");
        Written::Safetensors(Dialect::Native).write(&path, &model, form, &network(&model, form));
        let file = WeightsFile::read(&path).expect("the file");
        let written = file.metadata.clone().expect("our metadata");
        for (model, word) in [
            (ModelConfig { width: 16.0, ..model.clone() }, "misshapen"),
            (ModelConfig { num_classes: 1_000_000, ..model.clone() }, "linear.weight"),
            (ModelConfig { num_classes: 1 << 40, ..model.clone() }, "num_classes = 1099511627776"),
            (ModelConfig { in_channels: 1024, ..model.clone() }, "stem."),
            (ModelConfig { in_channels: 1 << 40, ..model.clone() }, "in_channels = 1099511627776"),
            (ModelConfig { width: 17.0, ..model.clone() }, "width = 17"),
            (ModelConfig { num_classes: 0, ..model.clone() }, "num_classes = 0"),
            (ModelConfig { arch: Arch::ResNet152, width: 16.0, ..model.clone() }, "missing"),
            (ModelConfig { block: BlockKind::Orepa, width: 16.0, ..model.clone() }, "do not fit"),
        ] {
            let error = rebuild(
                &file,
                &Metadata { model, classes: Vec::new(), ..written.clone() },
                LoadOptions::default(),
                &device(),
            );
            let error = error.expect_err("hostile metadata").to_string();
            for word in [word, path.to_str().expect("a path")] {
                assert!(error.contains(word), "\"{error}\" does not mention {word}");
            }
        }
        let model = ModelConfig { width: 0.25, ..config(Arch::ResNet20, BlockKind::Dbb) };
        let metadata = Metadata { model, keys: Dialect::Official, ..written };
        let error = rebuild(&file, &metadata, LoadOptions::default(), &device())
            .expect_err("no such names")
            .to_string();
        assert!(error.contains("official") && error.contains("weights"), "{error}");
    }
}

#[test]
fn a_hostile_header_length() {
    let folder = TempDir::new().expect("a folder");
    for way in WAYS {
        let (path, _) = small_file(&folder, way);
        for length in [0, 1, 1 << 20, 1 << 31, u64::MAX >> 32, 1 << 40, i64::MAX as u64, u64::MAX] {
            let path = variant(&path, |bytes| match way {
                Written::Safetensors(_) => bytes[..8].copy_from_slice(&length.to_le_bytes()),
                Written::Burnpack => {
                    bytes[6..10]
                        .copy_from_slice(&(length.min(u64::from(u32::MAX)) as u32).to_le_bytes());
                }
            });
            let error = load(&path).err();
            let error = error.unwrap_or_else(|| panic!("{way:?}: header of {length} bytes"));
            assert!(matches!(error, WeightsError::Format { .. }), "{way:?}, {length}: {error}");
        }
    }
}

/// Burn writes tensors of quantized values too; they have no counterpart in other files.
#[test]
fn a_burnpack_of_quantized_values_is_refused() {
    let bytes = burn_pack::Bytes::from_bytes_vec(vec![0; 8]);
    let dtype = DType::QFloat(QuantScheme::default());
    let tensor = burn_pack::Tensor::new("weight".into(), dtype, [4], None, bytes);
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("quantized.bpk");
    let bytes = burn_pack::Writer::new(vec![tensor]).into_bytes().expect("a burnpack");
    fs::write(&path, &*bytes).expect("the file");
    let error = WeightsFile::read(&path).expect_err("quantized values").to_string();
    assert!(error.contains("tensor weight has type QFloat"), "{error}");
}

/// Every tensor of a burnpack names its bytes; here nearly all of them name the same.
#[test]
fn tensors_larger_than_their_burnpack_are_refused() {
    let tensor = |index| {
        let bytes = burn_pack::Bytes::from_bytes_vec(vec![0; 4096]);
        burn_pack::Tensor::new(format!("{index:02}"), DType::F32, [1024], None, bytes)
    };
    let pack = burn_pack::Writer::new((0..15).map(tensor).collect());
    let mut bytes = pack.into_bytes().expect("a burnpack").to_vec();
    // CBOR of where a tensor begins and ends.
    let place = |index: u8| [0x19, index << 4, 0, 0x19, (index + 1) << 4, 0];
    for index in 2..15 {
        let at = bytes.windows(6).position(|part| part == place(index)).expect("its place");
        bytes[at..at + 6].copy_from_slice(&place(1));
    }
    bytes.truncate(bytes.len() - 13 * 4096);
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("shared.bpk");
    fs::write(&path, bytes).expect("the file");
    let error = WeightsFile::read(&path).expect_err("15 tensors in the place of 2").to_string();
    assert!(error.contains("claim to hold 61440 bytes of tensors"), "{error}");
}

/// A tensor that begins at an odd byte has its values all the same.
#[test]
fn a_burnpack_of_unaligned_tensors_is_read() {
    let tensor = |index: u8| {
        let bytes = burn_pack::Bytes::from_bytes_vec(vec![index; 4096]);
        burn_pack::Tensor::new(index.to_string(), DType::F32, [1024], None, bytes)
    };
    let pack = burn_pack::Writer::new((0..3).map(tensor).collect());
    let mut bytes = pack.into_bytes().expect("a burnpack").to_vec();
    // CBOR of where the second one begins and ends, which is now a byte later.
    let place = [0x19, 0x10, 0x00, 0x19, 0x20, 0x00];
    let at = bytes.windows(6).position(|part| part == place).expect("its place");
    bytes[at..at + 6].copy_from_slice(&[0x19, 0x10, 0x01, 0x19, 0x20, 0x01]);
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("unaligned.bpk");
    fs::write(&path, bytes).expect("the file");
    let file = WeightsFile::read(&path).expect("three tensors");
    file.check_finite().expect("finite values");
    let values: Vec<f32> = file.tensors["1"].iter().collect();
    let one = f32::from_le_bytes([1; 4]);
    assert_eq!(values[..1023], [one; 1023]);
    assert_eq!(values[1023], f32::from_le_bytes([1, 1, 1, 2]));
}

/// The length of a safetensors header is what the file begins with, here the two bytes that a pickle
/// begins with.
#[test]
fn a_safetensors_header_of_any_length_is_read() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("weights.safetensors");
    for header in [0x280, 0x380, 0x480, 0x580] {
        let mut text = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#.to_vec();
        text.resize(header, b' ');
        let bytes = [&header.to_le_bytes()[..], &text, &1.5f32.to_le_bytes()].concat();
        fs::write(&path, bytes).expect("the file");
        let file = WeightsFile::read(&path).expect("a tensor");
        assert_eq!(file.tensors["a"].iter::<f32>().collect::<Vec<_>>(), [1.5]);
    }
}

/// The checkpoints of PyTorch cut short and with flipped bytes: an error or weights, no panic.
#[test]
fn a_damaged_checkpoint() {
    let folder = TempDir::new().expect("a folder");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    for name in ["resnet18_dbb_w0125.pth", "mobilenet_dbb_w0125_legacy.pth"] {
        let path = folder.path().join(name);
        fs::copy(fixtures.join(name), &path).expect("a checkpoint");
        let length = fs::metadata(&path).expect("the file").len() as usize;
        for cut in (0..40).map(|i| i * length / 40) {
            let path = variant(&path, |bytes| bytes.truncate(cut));
            let error = WeightsFile::read(&path).err();
            let error = error.unwrap_or_else(|| panic!("{name}: {cut} of {length} bytes"));
            assert!(error.to_string().contains("variant"), "\"{error}\" names no file");
        }
        let positions = (0..256).chain((256..60_000).step_by(499)).chain(length - 256..length);
        for position in positions {
            if let Err(error) = with_flipped(&path, position, 0x55, WeightsFile::read) {
                assert!(error.to_string().contains(name), "\"{error}\" names no file");
            }
        }
    }
}

/// A bit anywhere among the tensors, the metadata included.
#[test]
fn a_flipped_bit_in_a_tensor_is_noticed() {
    let folder = TempDir::new().expect("a folder");
    for way in WAYS {
        let (path, _) = small_file(&folder, way);
        let bytes = fs::read(&path).expect("the file");
        let (header, _) = header_length(way, &bytes);
        let good = native_state(&small_model(), &load(&path).expect("the good file"));
        let positions: Vec<_> = (header..bytes.len()).step_by(97).collect();
        let mut noticed = 0;
        for &position in &positions {
            match with_flipped(&path, position, 0x10, load) {
                Err(_) => noticed += 1,
                // A burnpack aligns its tensors; what lies between is part of none.
                Ok(network) => {
                    assert!(native_state(&small_model(), &network) == good, "{position}")
                }
            }
        }
        let dense = matches!(way, Written::Safetensors(_));
        assert!(
            if dense { noticed == positions.len() } else { noticed > 100 },
            "{way:?}: {noticed}"
        );
    }
}

/// Several bytes changed anywhere, and the end cut off: weights or an error, no panic.
#[test]
fn files_damaged_at_random() {
    let folder = TempDir::new().expect("a folder");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/checkpoints");
    let mut files: Vec<_> = WAYS.map(|way| small_file(&folder, way).0).into();
    files.extend(["model.pth", "ema.pth", "legacy.pth.tar"].map(|name| fixtures.join(name)));
    for file in files {
        let good = fs::read(&file).expect("the file");
        let path = folder.path().join("damaged");
        let damage = (prop::collection::vec((0..good.len(), 1..=255u8), 1..8), 0..64usize);
        let mut runner = TestRunner::new_with_rng(
            ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() },
            TestRng::deterministic_rng(RngAlgorithm::ChaCha),
        );
        let result = runner.run(&damage, |(flips, cut)| {
            let mut bytes = good.clone();
            // Most damage at the beginning, where structure is.
            for (index, (position, flip)) in flips.into_iter().enumerate() {
                bytes[if index % 2 == 0 { position % 700 } else { position }] ^= flip;
            }
            bytes.truncate(good.len() - cut.saturating_sub(32));
            fs::write(&path, &bytes).expect("a file");
            if let Err(error) = WeightsFile::read(&path) {
                prop_assert!(error.to_string().contains("damaged"), "{}", error);
            }
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}
