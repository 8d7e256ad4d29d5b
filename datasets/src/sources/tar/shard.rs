//! One tar archive: its images, their positions and their classes.

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use tar::{Archive, EntryType, PaxExtensions};

use crate::{DataError, is_image_name};

/// Most bytes of a member's name or of its extended header.
const MAX_NAME: u64 = 64 << 10;

/// Most bytes of a class's number.
const MAX_NUMBER: u64 = 32;

/// Most classes that numbers in archives can imply, so that a wrong number costs no memory.
const MAX_CLASSES: usize = 1_000_000;

/// An image of an archive.
#[derive(Debug, PartialEq)]
pub(super) struct Member {
    /// Its path inside the archive.
    pub(super) name: String,
    /// Where its content starts.
    pub(super) offset: u64,
    /// How long its content is.
    pub(super) bytes: u32,
    pub(super) class: Class,
}

/// The class of an image, as its archive has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// The text of `key.cls`.
    Number(u32),
    /// The folder of the image.
    Name(String),
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The name of a member of an archive in messages.
pub(super) fn inside(archive: &Path, member: &str) -> PathBuf {
    format!("{}!{member}", archive.display()).into()
}

/// The images of an archive, in its order.
///
/// Where it holds any `.cls`, an image's class is the number beside it, and its key ends at the
/// first dot of its file name; otherwise its class is its folder. Other files are left out.
pub(super) fn read(path: &Path) -> Result<Vec<Member>, DataError> {
    let (files, numbers) = scan(path)?;
    let mut members = Vec::with_capacity(files.len());
    for (name, offset, bytes) in files {
        let problem = |reason: &str| Err(DataError::entry(&inside(path, &name), reason));
        let class = if numbers.is_empty() {
            match name.rsplit('/').nth(1) {
                Some(folder) if !folder.is_empty() && folder != "." => {
                    Class::Name(folder.to_owned())
                }
                _ => {
                    return problem("it has neither a .cls beside it nor a class folder around it");
                }
            }
        } else {
            match numbers.get(key(&name).0) {
                Some(number) => Class::Number(*number),
                None => return problem("its archive holds no .cls of the same name for it"),
            }
        };
        // Far larger than any image that is read, and refused then by name.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        members.push(Member { name, offset, bytes, class });
    }
    Ok(members)
}

/// Name, offset and length of each image.
type Files = Vec<(String, u64, u64)>;
/// Numbers by key.
type Numbers = HashMap<String, u32>;

/// Reads all headers.
fn scan(path: &Path) -> Result<(Files, Numbers), DataError> {
    let unreadable = |e| DataError::io(path, e);
    let damaged = |e: std::io::Error| DataError::corrupt(path, e.to_string());
    let file = File::open(path).map_err(unreadable)?;
    let end = file.metadata().map_err(unreadable)?.len();
    let mut archive = Archive::new(file.try_clone().map_err(unreadable)?);
    let (mut files, mut numbers) = (Files::new(), Numbers::new());
    // The name of the next member, where it is too long for a header.
    let mut long_name = None;
    // Raw, so that the length of such a name can be bounded.
    for entry in archive.entries_with_seek().map_err(damaged)?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        let (offset, bytes, kind) =
            (entry.raw_file_position(), entry.size(), entry.header().entry_type());
        if offset.checked_add(bytes).is_none_or(|last| last > end) {
            let reason = format!("it ends within the member at byte {offset}; copy it again");
            return Err(DataError::corrupt(path, reason));
        }
        if matches!(kind, EntryType::GNULongName | EntryType::XHeader) {
            if bytes > MAX_NAME {
                let reason = format!("the header at byte {offset} has {bytes} bytes");
                return Err(DataError::corrupt(path, reason));
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content).map_err(damaged)?;
            long_name = if kind == EntryType::XHeader {
                pax_path(&content).map_err(damaged)?.or(long_name)
            } else {
                Some(content.strip_suffix(&[0]).unwrap_or(&content).to_vec())
            };
            continue;
        }
        let name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        if matches!(kind, EntryType::Link | EntryType::Symlink) {
            let name = String::from_utf8_lossy(&name);
            if is_image(&name) {
                let reason = "it is a link, not an image; pack the images with `tar --dereference \
                              --hard-dereference`";
                return Err(DataError::corrupt(&inside(path, &name), reason));
            }
        }
        if !kind.is_file() {
            continue;
        }
        let Ok(name) = String::from_utf8(name) else {
            let reason = format!("the name of its member at byte {offset} is not UTF-8");
            return Err(DataError::entry(path, &reason));
        };
        if is_image(&name) {
            files.push((name, offset, bytes));
        } else if let (key, "cls") = key(&name) {
            let mut text = String::new();
            let read = bytes <= MAX_NUMBER && entry.read_to_string(&mut text).is_ok();
            match text.trim().parse() {
                Ok(number) if read && (number as usize) < MAX_CLASSES => {
                    numbers.insert(key.to_owned(), number);
                }
                _ => {
                    let reason = format!(
                        "a .cls holds the number of a class, 0 to {}, as text",
                        MAX_CLASSES - 1
                    );
                    return Err(DataError::corrupt(&inside(path, &name), reason));
                }
            }
        }
    }
    Ok((files, numbers))
}

/// The path of an extended header, if it has one.
fn pax_path(content: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
    for record in PaxExtensions::new(content) {
        let record = record?;
        if record.key_bytes() == b"path" {
            return Ok(Some(record.value_bytes().to_vec()));
        }
    }
    Ok(None)
}

/// The key of a member, folder and all, and what follows its first dot.
fn key(name: &str) -> (&str, &str) {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[file..].find('.') {
        Some(dot) => (&name[..file + dot], &name[file + dot + 1..]),
        None => (name, ""),
    }
}

/// Whether a name ends as images do and is not hidden.
fn is_image(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    !file.starts_with('.') && is_image_name(Path::new(file))
}
