//! When a thing was last used: its modification time, which nothing else needs.
//!
//! Noting a use and taking a thing away exclude each other through one lock, so that collection never takes what
//! somebody just found. The lock is taken only when the time is written, at most once a minute per thing.

use std::path::Path;
use std::time::{Duration, SystemTime};

use kiln_core::{IoError, IoResultExt as _};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use crate::layout::LOCK_FILE;
use crate::lock::{FileLock, Hold};
use crate::store::Store;

/// A use within this time of the last one is not written down. Collection spares what is younger.
pub(crate) const GRAIN: Duration = Duration::from_secs(60);

impl Store {
    /// Returns whether the file or directory is there; if so, it counts as used now.
    pub(crate) fn note_use(&self, path: &Path) -> Result<bool, IoError> {
        let used = match std::fs::symlink_metadata(path).and_then(|found| found.modified()) {
            Ok(used) => used,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error).at("stat", path),
        };
        if SystemTime::now().duration_since(used).is_ok_and(|age| age < GRAIN) {
            return Ok(true);
        }
        self.touch(path)
    }

    /// The same, written down whatever the time was.
    pub(crate) fn touch(&self, path: &Path) -> Result<bool, IoError> {
        let _noting = FileLock::wait(&self.0.layout.at(LOCK_FILE), Hold::Shared)?;
        // To the nanosecond: the kernel's own clock for files ticks some hundred times a second, and two uses would look alike.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = Timespec { tv_sec: now.as_secs().cast_signed(), tv_nsec: now.subsec_nanos().into() };
        let times =
            Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: now };
        match rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error).at("set times of", path),
        }
    }
}
