//! What overlay would show of several layers, looked up without a mount.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use kiln_core::{IoError, IoResultExt as _};
use rustix::fs::{CWD, Dir, Mode, openat};
use rustix::io::Errno;

use super::{DIRECTORY, is_opaque};
use crate::tree::{FileStat, Kind};

/// The directories of the layers that are merged at one path, topmost first.
#[derive(Debug, Default)]
pub(crate) struct Stack(Vec<OwnedFd>);

impl Stack {
    /// Opens the roots of layers, lowest first.
    pub(crate) fn open(layers: &[PathBuf]) -> Result<Self, IoError> {
        let open = |path: &PathBuf| openat(CWD, path, DIRECTORY, Mode::empty()).at("open", path);
        Ok(Self(layers.iter().rev().map(open).collect::<Result<_, _>>()?))
    }

    /// Whether no layer has a directory here.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the directory whose metadata count.
    pub(crate) fn top(&self) -> Option<BorrowedFd<'_>> {
        self.0.first().map(AsFd::as_fd)
    }

    /// Returns what is shown under a name, and the directory that has it.
    pub(crate) fn find(&self, name: &CStr) -> rustix::io::Result<Option<(BorrowedFd<'_>, FileStat)>> {
        for dir in &self.0 {
            match FileStat::at(dir, name) {
                Ok(stat) => return Ok((!is_deletion(&stat)).then_some((dir.as_fd(), stat))),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Returns the directories that are merged under a name: none if something else is shown there.
    pub(crate) fn child(&self, name: &CStr) -> rustix::io::Result<Self> {
        let mut merged = Vec::new();
        for dir in &self.0 {
            match openat(dir, name, DIRECTORY, Mode::empty()) {
                Ok(found) => {
                    let last = is_opaque(&found).map_err(|error| errno(&error))?;
                    merged.push(found);
                    if last {
                        break;
                    }
                }
                Err(Errno::NOENT) => {}
                // A file or a deletion: nothing further down is seen.
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Self(merged))
    }

    /// Returns the names that are shown.
    pub(crate) fn names(&self) -> rustix::io::Result<Vec<CString>> {
        let mut shown = BTreeMap::new();
        for dir in &self.0 {
            for entry in Dir::read_from(dir)? {
                let entry = entry?;
                let name = entry.file_name();
                if name != c"." && name != c".." && !shown.contains_key(name) {
                    shown.insert(name.to_owned(), !is_deletion(&FileStat::at(dir, name)?));
                }
            }
        }
        Ok(shown.into_iter().filter_map(|(name, shown)| shown.then_some(name)).collect())
    }
}

/// Whether a file of a layer stands for a deletion.
pub(crate) fn is_deletion(stat: &FileStat) -> bool {
    stat.kind() == Kind::CharDevice && stat.rdev == 0
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
