//! Kernel file locks: a dead process holds none.

use std::fs::File;
use std::path::{Path, PathBuf};

use kiln_core::{IoError, IoResultExt as _};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open, stat};

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Beside other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// A held flock(2) lock. Each one has its own open file description, so threads exclude each other too.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: File,
    path: PathBuf,
}

impl FileLock {
    /// Waits for the lock on `path`, making the file if needed.
    pub(crate) fn wait(path: &Path, hold: Hold) -> Result<Self, IoError> {
        let operation = match hold {
            Hold::Shared => FlockOperation::LockShared,
            Hold::Exclusive => FlockOperation::LockExclusive,
        };
        loop {
            let file = open_lock(path)?;
            match flock(&file, operation) {
                Ok(()) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error).at("lock", path),
            }
            if is_at(&file, path)? {
                return Ok(Self { file, path: path.to_owned() });
            }
        }
    }

    /// Takes the lock on `path`, alone, making the file if needed; none if it is held.
    pub(crate) fn attempt_new(path: &Path) -> Result<Option<Self>, IoError> {
        Self::attempt(path, Hold::Exclusive, open_lock)
    }

    /// Takes the lock on a file that its holder reads and writes, making it if needed; none if it is held.
    pub(crate) fn attempt_file(path: &Path) -> Result<Option<Self>, IoError> {
        Self::attempt(path, Hold::Exclusive, crate::partial::open)
    }

    /// Returns the file that is locked.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Takes the lock of a file that is there; none if it is held or gone.
    pub(crate) fn try_existing(path: &Path) -> Result<Option<Self>, IoError> {
        Self::attempt(path, Hold::Exclusive, |path| File::open(path).at("open", path))
    }

    /// Takes the lock of a directory that is there; none if it is held or gone.
    pub(crate) fn try_exclusive_dir(path: &Path) -> Result<Option<Self>, IoError> {
        Self::dir(path, Hold::Exclusive)
    }

    /// The same, alone or beside others.
    pub(crate) fn dir(path: &Path, hold: Hold) -> Result<Option<Self>, IoError> {
        Self::attempt(path, hold, open_dir)
    }

    fn attempt(
        path: &Path,
        hold: Hold,
        open: fn(&Path) -> Result<File, IoError>,
    ) -> Result<Option<Self>, IoError> {
        let operation = match hold {
            Hold::Shared => FlockOperation::NonBlockingLockShared,
            Hold::Exclusive => FlockOperation::NonBlockingLockExclusive,
        };
        loop {
            let file = match open(path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            match flock(&file, operation) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error).at("lock", path),
            }
            if is_at(&file, path)? {
                return Ok(Some(Self { file, path: path.to_owned() }));
            }
        }
    }

    /// Lets go, and removes the file. Those who wait on it find it gone and take the next one.
    pub(crate) fn remove(self) {
        // Nothing depends on the removal: a file that stays is a lock nobody holds.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn open_lock(path: &Path) -> Result<File, IoError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(open(path, flags, Mode::from_raw_mode(0o600)).at("open lock", path)?.into())
}

fn open_dir(path: &Path) -> Result<File, IoError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(open(path, flags, Mode::empty()).at("open", path)?.into())
}

/// Whether `file` is still what `path` names: its last holder may have removed it while we waited.
fn is_at(file: &File, path: &Path) -> Result<bool, IoError> {
    let held = fstat(file).at("stat", path)?;
    match stat(path) {
        Ok(named) => Ok((held.st_dev, held.st_ino) == (named.st_dev, named.st_ino)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error).at("stat", path),
    }
}
