//! The seam: how a file tree is looked at.

use std::ffi::OsString;
use std::io;
use std::path::Path;

/// A tree of files, somebody else's. Paths are relative to its root, without a leading slash; the empty one is the root.
/// Links on the way are followed, and never lead out of the tree.
pub trait FileTree {
    /// Lists a directory, in any order.
    ///
    /// # Errors
    /// It is not there, is none, or cannot be read.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// Opens a regular file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it is not there; or it is no regular file, or cannot be read.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Opened + '_>>;
}

/// An open file, read by position: of a large program only small parts are wanted.
pub trait Opened {
    /// Its size in bytes.
    fn size(&self) -> u64;

    /// Reads at a position, as `pread` does: fewer bytes than asked for near the end, none behind it.
    ///
    /// # Errors
    /// It cannot be read.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: OsString,
    /// What it is; links are not followed here.
    pub kind: Kind,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Its size in bytes.
        size: u64,
        /// Whether anybody may execute it.
        executable: bool,
    },
    /// A link, a device, a pipe: not looked into.
    Other,
}

/// Reads a part of a file; none if the file does not have all of it.
pub(crate) fn part(file: &dyn Opened, position: u64, size: usize) -> Option<Vec<u8>> {
    if position.checked_add(size as u64)? > file.size() {
        return None;
    }
    let mut bytes = vec![0; size];
    let mut read = 0;
    while read < size {
        match file.read_at(&mut bytes[read..], position + read as u64) {
            Ok(0) | Err(_) => return None,
            Ok(count) => read += count,
        }
    }
    Some(bytes)
}
