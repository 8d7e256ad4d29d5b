//! Images read from their places in archives.

use std::{
    borrow::Cow,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
};

use super::shard::inside;
use crate::{DataError, Image, Source, sources::names::Names};

/// The images of one split, by their positions in archives.
pub(super) struct TarImages {
    pub(super) archives: Vec<PathBuf>,
    pub(super) places: Vec<Place>,
    pub(super) names: Names,
}

pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) bytes: u32,
    pub(super) archive: u32,
    pub(super) label: u32,
}

impl Source for TarImages {
    fn len(&self) -> usize {
        self.places.len()
    }

    fn label(&self, index: usize) -> usize {
        self.places[index].label as usize
    }

    fn image(&self, index: usize) -> Result<Image, DataError> {
        let Place { offset, bytes, archive, .. } = self.places[index];
        let name = inside(&self.archives[archive as usize], self.names.get(index));
        if u64::from(bytes) > Image::MAX_FILE_BYTES {
            let reason = format!("more than {} bytes", Image::MAX_FILE_BYTES);
            return Err(DataError::too_large(&name, reason));
        }
        let read = || {
            // Opened for every image: no handle is shared, and the number of archives is not
            // limited.
            let mut file = File::open(&self.archives[archive as usize])?;
            file.seek(SeekFrom::Start(offset))?;
            let mut content = vec![0; bytes as usize];
            file.read_exact(&mut content)?;
            Ok(content)
        };
        let content = read().map_err(|e| DataError::io(&name, e))?;
        Image::from_bytes(&content, name)
    }

    fn identity(&self, index: usize) -> Cow<'_, [u8]> {
        let mut bytes = u64::from(self.places[index].bytes).to_le_bytes().to_vec();
        bytes.extend_from_slice(self.names.get(index).as_bytes());
        Cow::Owned(bytes)
    }
}
