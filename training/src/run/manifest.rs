//! `manifest.json`: the size and SHA-256 of each file of a checkpoint.
//!
//! A checkpoint without a manifest, with another set of files or with a byte that differs is
//! damaged. The manifest protects itself: it is compared as text with what it should say.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const NAME: &str = "manifest.json";

/// Version of the content of checkpoints; a checkpoint of another version cannot be resumed.
const VERSION: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    version: u32,
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    bytes: u64,
    sha256: String,
}

impl Manifest {
    fn of(folder: &Path) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != NAME {
                files.insert(name, Entry::of(&entry.path())?);
            }
        }
        Ok(Self { version: VERSION, files })
    }

    fn text(&self) -> String {
        // Plain data always serialises.
        serde_json::to_string_pretty(self).expect("a manifest is plain data") + "\n"
    }
}

/// SHA-256 of a file, in hexadecimal digits.
pub(crate) fn sha256(path: &Path) -> io::Result<String> {
    Ok(Entry::of(path)?.sha256)
}

impl Entry {
    fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                n => {
                    hash.update(&buffer[..n]);
                    bytes += n as u64;
                }
            }
        }
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { bytes, sha256 })
    }
}

/// Writes the manifest of a folder and makes sure that all of it has reached the disk.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    fs::write(folder.join(NAME), Manifest::of(folder)?.text())?;
    for entry in fs::read_dir(folder)? {
        File::open(entry?.path())?.sync_all()?;
    }
    sync_folder(folder);
    Ok(())
}

/// Makes renames in a folder durable, where the file system can.
pub(crate) fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        folder.sync_all().ok();
    }
}

/// Checks every byte of a folder against its manifest.
///
/// # Errors
/// A sentence that names the file at fault and how it differs.
pub fn verify(folder: &Path) -> Result<(), String> {
    let text = fs::read_to_string(folder.join(NAME)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "it has no {NAME}: it was saved by an earlier version of this program, or the file was \
             removed"
        ),
        _ => format!("{NAME}: {error}"),
    })?;
    let told: Manifest = serde_json::from_str(&text).map_err(|e| format!("{NAME}: {e}"))?;
    if told.version != VERSION {
        return Err(format!(
            "{NAME}: it is of version {}, this program reads version {VERSION}",
            told.version
        ));
    }
    let found = Manifest::of(folder).map_err(|error| error.to_string())?;
    for (name, entry) in &told.files {
        match found.files.get(name) {
            None => return Err(format!("{name} is missing")),
            Some(there) if there.bytes != entry.bytes => {
                return Err(format!(
                    "{name} is damaged: it has {} bytes, {} were written",
                    there.bytes, entry.bytes
                ));
            }
            Some(there) if there != entry => {
                return Err(format!("{name} is damaged: its content is not what was written"));
            }
            Some(_) => {}
        }
    }
    // Foreign files, and any change of the manifest that left its values alone.
    if found.text() != text {
        return Err(format!("{NAME} is not the manifest of the files beside it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_any_bit_of_any_file_is_found() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), b"weights").unwrap();
        fs::write(folder.path().join("b"), b"").unwrap();
        write(folder.path()).unwrap();
        verify(folder.path()).unwrap();
        for name in ["a", NAME] {
            let path = folder.path().join(name);
            let whole = fs::read(&path).unwrap();
            for bit in 0..whole.len() * 8 {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, bytes).unwrap();
                assert!(verify(folder.path()).is_err(), "bit {bit} of {name}");
            }
            for length in 0..whole.len() {
                fs::write(&path, &whole[..length]).unwrap();
                assert!(verify(folder.path()).is_err(), "{length} bytes of {name}");
            }
            fs::write(&path, whole).unwrap();
        }
        fs::write(folder.path().join("c"), b"").unwrap();
        assert!(verify(folder.path()).is_err(), "a foreign file");
    }

    /// SHA-256 of "abc", from FIPS 180-2, appendix B.1.
    #[test]
    fn the_hash_is_sha_256() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, b"abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let entry = Entry::of(&path).unwrap();
        assert_eq!((entry.bytes, entry.sha256.as_str()), (3, expected));
    }
}
