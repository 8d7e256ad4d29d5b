//! TensorBoard event files: a run as `tensorboard --logdir RUN` draws it.
//!
//! A file is a sequence of records: the length of the data as `u64`, the length's checksum, the
//! data, its checksum, all little-endian. A checksum is a CRC-32C (RFC 3720, section 12.1), rotated
//! and offset so that data which holds checksums may be summed again. The data is a protobuf
//! message `Event` of TensorFlow's `event.proto`, of which four fields are encoded here by hand.
//!
//! Files are only appended to, and read in the order of their names. One that ends within a record,
//! as after a power cut, is read up to there. A resumed run begins a new file that says from which
//! step on earlier files no longer count.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::error::cannot_write;
use crate::run::metrics::EpochRecord;
use crate::run::steps::StepPoint;

/// One step in so many is written.
const STEPS: usize = 10;
/// Events reach the disk within this time, or at the next step after it.
const FLUSH_INTERVAL: Duration = Duration::from_secs(10);

/// Around the number of a file.
const PREFIX: &str = "events.out.tfevents.";
const SUFFIX: &str = ".dbb";

/// One more than the highest number of a file in a folder, however many have been deleted.
fn next_number(folder: &Path) -> io::Result<usize> {
    let mut next = 0;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let number = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
        let number = number.and_then(|number| number.parse::<usize>().ok());
        next = next.max(number.map_or(0, |number| number.saturating_add(1)));
    }
    Ok(next)
}

/// The scalars of a run, under `train/` and `val/`, in a new event file.
pub struct TensorBoard {
    file: BufWriter<File>,
    path: PathBuf,
    flushed: Instant,
}

impl TensorBoard {
    /// A new file after those of a folder, which is created if necessary. It continues after `done`
    /// optimizer steps: later events of earlier files no longer count.
    ///
    /// # Errors
    /// If the folder cannot be read or the file cannot be written, with its path.
    pub fn open(folder: &Path, done: usize) -> io::Result<Self> {
        fs::create_dir_all(folder).map_err(|e| cannot_write(folder, &e))?;
        // Numbered rather than dated, so that no clock decides their order.
        let next = next_number(folder).map_err(|e| cannot_write(folder, &e))?;
        let path = folder.join(format!("{PREFIX}{next:05}{SUFFIX}"));
        let file = File::create_new(&path).map_err(|e| cannot_write(&path, &e))?;
        let mut board = Self { file: BufWriter::new(file), path, flushed: Instant::now() };
        board.event(0, &message(FILE_VERSION, b"brain.Event:2"))?;
        board.event(done + 1, &message(SESSION_LOG, &number(STATUS, START)))?;
        board.flush()?;
        Ok(board)
    }

    /// Loss, learning rate and gradient norm of an optimizer step; the first
    /// and every tenth are written.
    ///
    /// # Errors
    /// If the file cannot be written, with its path.
    pub fn step(&mut self, point: &StepPoint) -> io::Result<()> {
        let &StepPoint { step, loss, lr, grad_norm } = point;
        if step == 1 || step.is_multiple_of(STEPS) {
            self.scalar("train/loss", step, loss)?;
            self.scalar("train/lr", step, lr)?;
            self.scalar("train/grad_norm", step, grad_norm)?;
        }
        if self.flushed.elapsed() > FLUSH_INTERVAL {
            self.flush()?;
        }
        Ok(())
    }

    /// The record of an epoch, at its last step. Percent for accuracies.
    ///
    /// # Errors
    /// If the file cannot be written, with its path.
    pub fn epoch(&mut self, record: &EpochRecord) -> io::Result<()> {
        let scalars = [
            ("train/epoch_loss", record.train_loss),
            ("train/top1", record.train_top1),
            ("train/images_per_second", record.images_per_second),
            ("val/loss", record.val_loss),
            ("val/top1", record.top1),
            ("val/top5", record.top5),
        ];
        for (tag, value) in scalars {
            self.scalar(tag, record.step, value)?;
        }
        self.flush()
    }

    /// A value of a curve, stored as `f32`.
    fn scalar(&mut self, tag: &str, step: usize, value: f64) -> io::Result<()> {
        let mut scalar = message(TAG, tag.as_bytes());
        scalar.push(SIMPLE_VALUE << 3 | FIXED_32);
        scalar.extend((value as f32).to_le_bytes());
        self.event(step, &message(SUMMARY, &message(VALUE, &scalar)))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushed = Instant::now();
        self.file.flush().map_err(|e| cannot_write(&self.path, &e))
    }

    fn event(&mut self, step: usize, what: &[u8]) -> io::Result<()> {
        // A clock before 1970 counts as the first second of that year.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut event = vec![WALL_TIME << 3 | FIXED_64];
        event.extend(now.as_secs_f64().to_le_bytes());
        event.extend(number(STEP, step as u64));
        event.extend(what);
        self.file.write_all(&record(&event)).map_err(|e| cannot_write(&self.path, &e))
    }
}

/// Data as a record of an event file.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let sum = |bytes| masked(crc32c::crc32c(bytes)).to_le_bytes();
    [&length[..], &sum(&length), data, &sum(data)].concat()
}

fn masked(sum: u32) -> u32 {
    sum.rotate_right(15).wrapping_add(0xa282_ead8)
}

// Fields of `Event`, `SessionLog`, `Summary` and `Summary.Value`.
const WALL_TIME: u8 = 1;
const STEP: u8 = 2;
const FILE_VERSION: u8 = 3;
const SUMMARY: u8 = 5;
const SESSION_LOG: u8 = 7;
const STATUS: u8 = 1;
const START: u64 = 1;
const VALUE: u8 = 1;
const TAG: u8 = 1;
const SIMPLE_VALUE: u8 = 2;

// Wire types of protobuf.
const VARINT: u8 = 0;
const FIXED_64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED_32: u8 = 5;

/// A field that holds bytes, a text or another message.
fn message(field: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![field << 3 | LENGTH];
    bytes.extend(varint(content.len() as u64));
    bytes.extend(content);
    bytes
}

/// A field that holds a whole number.
fn number(field: u8, value: u64) -> Vec<u8> {
    let mut bytes = vec![field << 3 | VARINT];
    bytes.extend(varint(value));
    bytes
}

/// Seven bits a byte, the lowest first; all but the last have the eighth set.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of RFC 3720, appendix B.4, and their masks as LevelDB's definition
    /// `((crc >> 15) | (crc << 17)) + 0xa282ead8` gives them, computed apart.
    #[test]
    fn checksums_are_those_of_the_standard() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        let cases = [
            (&[0u8; 32][..], 0x8a91_36aa, 0x0fd7_fffa_u32),
            (&[0xff; 32], 0x62a8_ab43, 0xf909_b029),
            (&ascending, 0x46dd_794e, 0x951f_7892),
            (&descending, 0x113f_db5c, 0x593b_0d57),
        ];
        for (bytes, sum, mask) in cases {
            assert_eq!(crc32c::crc32c(bytes), sum);
            assert_eq!(masked(sum), mask, "{:#010x}", masked(sum));
        }
    }

    /// Field number and content of a message: wire types as protobuf's encoding guide has them.
    fn fields(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        fn varint(bytes: &[u8]) -> (usize, &[u8]) {
            let last = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap();
            let value = |value, byte: &u8| value << 7 | usize::from(byte & 0x7f);
            (bytes[..=last].iter().rev().fold(0, value), &bytes[last + 1..])
        }
        let mut found = Vec::new();
        while let [key, rest @ ..] = bytes {
            let (content, rest) = match key & 7 {
                0 => {
                    let (value, rest) = varint(rest);
                    (value.to_le_bytes().to_vec(), rest)
                }
                1 => (rest[..8].to_vec(), &rest[8..]),
                2 => {
                    let (length, rest) = varint(rest);
                    (rest[..length].to_vec(), &rest[length..])
                }
                5 => (rest[..4].to_vec(), &rest[4..]),
                other => panic!("wire type {other}"),
            };
            found.push((key >> 3, content));
            bytes = rest;
        }
        found
    }

    /// Step and the field that says what of every event, checksums verified.
    fn events(path: &Path) -> Vec<(u64, (u8, Vec<u8>))> {
        let bytes = fs::read(path).unwrap();
        let (mut rest, mut events) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let (head, data) = (&rest[..12], &rest[12..12 + length]);
            for (bytes, sum) in [(&head[..8], &head[8..]), (data, &rest[12 + length..][..4])] {
                let sum = u32::from_le_bytes(sum.try_into().unwrap()).wrapping_sub(0xa282_ead8);
                assert_eq!(crc32c::crc32c(bytes), sum.rotate_left(15));
            }
            let event = fields(data);
            assert_eq!(event.iter().map(|field| field.0).collect::<Vec<_>>()[..2], [1, 2]);
            let step = u64::from_le_bytes(event[1].1[..].try_into().unwrap());
            events.push((step, event[2].clone()));
            rest = &rest[16 + length..];
        }
        events
    }

    /// A file of 300 steps has multi-byte numbers; the second one of a folder takes over at its
    /// step.
    #[test]
    fn files_read_back_and_a_resumed_one_takes_over() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("tensorboard");
        let mut board = TensorBoard::open(&folder, 0).unwrap();
        for step in 1..=300 {
            let loss = 1.0 / step as f64;
            board.step(&StepPoint { step, loss, lr: 0.1, grad_norm: 2.0 }).unwrap();
        }
        drop(board);
        let first = events(&folder.join("events.out.tfevents.00000.dbb"));
        assert_eq!(first[0], (0, (3, b"brain.Event:2".to_vec())));
        assert_eq!(first[1], (1, (7, vec![0x08, 0x01])));
        // Steps 1, 10, 20, ..., 300, three scalars each.
        assert_eq!(first.len(), 2 + 3 * 31);
        let (step, (field, summary)) = &first[first.len() - 3];
        assert_eq!((*step, *field), (300, 5));
        let scalar = fields(&fields(summary)[0].1);
        assert_eq!(scalar[0], (1, b"train/loss".to_vec()));
        assert_eq!(scalar[1], (2, (1.0f32 / 300.0).to_le_bytes().to_vec()));

        drop(TensorBoard::open(&folder, 256).unwrap());
        let second = events(&folder.join("events.out.tfevents.00001.dbb"));
        assert_eq!(second[1], (257, (7, vec![0x08, 0x01])));

        // Files may be deleted; the next one still comes after those that are left.
        fs::remove_file(folder.join("events.out.tfevents.00000.dbb")).unwrap();
        drop(TensorBoard::open(&folder, 300).unwrap());
        assert!(folder.join("events.out.tfevents.00002.dbb").exists());
    }

    #[test]
    fn a_folder_that_cannot_be_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tensorboard");
        fs::write(&file, "not a folder").unwrap();
        let error = TensorBoard::open(&file, 0).err().unwrap().to_string();
        assert!(error.starts_with("cannot write ") && error.contains("tensorboard"), "{error}");
    }
}
