//! The claim of a process to a run directory.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::directory::{PARTIAL, REPLACED, RunDir};
use crate::error::{Error, cannot_write};

/// The claim of a process to a run directory.
#[derive(Debug)]
pub struct Lock {
    created: Created,
    /// The system releases the lock when this is closed.
    _file: File,
}

impl Lock {
    /// Keeps what was created for the lock: a run has begun.
    pub fn keep(&mut self) {
        self.created.0.clear();
    }
}

/// Paths that did not exist before a lock, the outermost folder first; removed on drop.
#[derive(Debug)]
struct Created(Vec<PathBuf>);

impl Drop for Created {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // A folder that is not empty stays, and so does what cannot be removed.
            fs::remove_file(path).or_else(|_| fs::remove_dir(path)).ok();
        }
    }
}

impl RunDir {
    /// Creates the folder and claims it for this process until the lock is dropped or the process
    /// ends, however it ends. Then removes what a process that was killed left half-written.
    /// Folders and files that were created for the lock are removed with it unless it is told to
    /// [keep](Lock::keep) them.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process trains here; what the file system reports.
    pub fn lock(&self) -> crate::Result<Lock> {
        let (path, checkpoints) = (self.lock_file(), self.checkpoints());
        let fail = |error: io::Error| cannot_write(&path, &error);
        let mut created = Created(vec![path.clone(), checkpoints.clone()]);
        created.0.extend(self.root().ancestors().map(Path::to_path_buf));
        created.0.retain(|path| !path.as_os_str().is_empty() && !path.exists());
        created.0.reverse();
        fs::create_dir_all(&checkpoints).map_err(fail)?;
        let options = File::options().read(true).write(true).create(true).truncate(false).clone();
        let mut file = options.open(&path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                file.read_to_string(&mut owner).ok();
                let owner = owner.trim().to_string();
                created.0.clear();
                return Err(Error::Locked { path: self.root().into(), owner });
            }
            // Some network file systems have no locks: the run continues without one.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(fail(error).into()),
        }
        file.set_len(0).map_err(fail)?;
        writeln!(file, "{}", std::process::id()).map_err(fail)?;
        self.sweep()?;
        Ok(Lock { created, _file: file })
    }

    /// Removes the neighbours that [`write_atomically`](dbb_models::weights::write_atomically) and [`save_checkpoint`] leave when they
    /// are killed.
    ///
    /// [`save_checkpoint`]: RunDir::save_checkpoint
    fn sweep(&self) -> io::Result<()> {
        for folder in [self.root().into(), self.checkpoints(), self.root().join("export")] {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
                let name = name.to_string_lossy();
                if let Some(mark) = name.strip_prefix('.').and_then(|n| n.strip_suffix(REPLACED)) {
                    // Killed between the two renames of a replacement.
                    let place = folder.join(mark);
                    match place.exists() {
                        true => fs::remove_dir_all(path)?,
                        false => fs::rename(path, place)?,
                    }
                } else if name.starts_with('.') && name.ends_with(PARTIAL) {
                    match path.is_dir() {
                        true => fs::remove_dir_all(path)?,
                        false => fs::remove_file(path)?,
                    }
                }
            }
        }
        Ok(())
    }
}
