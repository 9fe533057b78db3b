//! Taking unchanged files from the layer that an earlier run of the same step made.
//!
//! Layers never change once they are finished, so two of them may share a file by hard link: of 50,000 files of
//! which one changed, one is copied.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_core::{Digest, IoError, IoResultExt};
use rustix::fs::{Mode, OFlags};

/// 16 bytes of the path's hash, 32 of the content's.
const RECORD: usize = 48;
const MAGIC: &[u8; 8] = b"kilncpy1";

/// Which contents a copy put where: kept beside the layer, for the next copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyManifest {
    records: Vec<[u8; RECORD]>,
}

impl CopyManifest {
    pub(super) fn new(mut records: Vec<[u8; RECORD]>) -> Self {
        records.sort_unstable();
        Self { records }
    }

    /// Returns how many files it lists.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Returns whether it lists no file.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Writes it. Not synced: it is only ever believed if it is whole.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), IoError> {
        let body = self.records.as_flattened();
        let mut bytes = Vec::with_capacity(40 + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(Digest::of(body).as_bytes());
        bytes.extend_from_slice(body);
        std::fs::write(path, bytes).at("write", path)
    }

    fn read(path: &Path) -> Option<Self> {
        let bytes = std::fs::read(path).ok()?;
        let (head, body) = bytes.split_at_checked(40)?;
        let sound = head[..8] == *MAGIC && head[8..] == *Digest::of(body).as_bytes();
        let (records, rest) = body.as_chunks::<RECORD>();
        (sound && rest.is_empty()).then(|| Self { records: records.to_vec() })
    }

    fn has(&self, path: &Path, digest: &[u8; 32]) -> bool {
        self.records.binary_search(&record(path, digest)).is_ok()
    }
}

/// A finished layer to take files from.
#[derive(Debug)]
pub struct Reuse {
    pub(super) root: OwnedFd,
    manifest: CopyManifest,
    pub(super) path: PathBuf,
}

impl Reuse {
    /// Opens the tree of an earlier layer with its manifest; none if either is gone or damaged.
    pub fn open(tree: &Path, manifest: &Path) -> Option<Self> {
        let manifest = CopyManifest::read(manifest)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(tree, flags, Mode::empty()).ok()?;
        Some(Self { root, manifest, path: tree.to_owned() })
    }

    /// Returns whether the layer has a file with this content at this path.
    pub(super) fn has(&self, path: &Path, digest: &[u8; 32]) -> bool {
        self.manifest.has(path, digest)
    }
}

pub(super) fn record(path: &Path, digest: &[u8; 32]) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..16].copy_from_slice(&Digest::of(path.as_os_str().as_bytes()).as_bytes()[..16]);
    record[16..].copy_from_slice(digest);
    record
}
