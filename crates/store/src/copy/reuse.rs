//! Taking unchanged files from the layer that an earlier run of the same step made.
//!
//! Layers never change once they are finished, so two of them may share a file by hard link: of 50,000 files of
//! which one changed, one is copied. What a layer holds is known from the list that its copy left, so that sharing a file
//! takes one system call.
//!
//! A layer made by sharing is the one that copying would have made. Two names of one inode are a hard link in a layer's tar:
//! so a file that has several names in its layer is never shared, nor one that something was put over.

use std::collections::HashSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use kiln_core::{Digest, DigestHasher, IoError, IoResultExt};
use rustix::fs::{AtFlags, Mode, OFlags};

use crate::tree::Time;
use crate::tree::selected::open_dir;

const MAGIC: &[u8; 8] = b"kilncpy2";
const RECORD: usize = 24;
const PATH: usize = 8;

/// 8 bytes of the hash of a path in a layer, 16 of that of what is there.
pub(super) type Record = [u8; RECORD];

/// All that a plain file is: without extended attributes, and with one name.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlainFile<'a> {
    /// Of its content.
    pub(super) digest: &'a [u8; 32],
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) mtime: Time,
}

impl PlainFile<'_> {
    pub(super) fn record(&self, path: &Path) -> Record {
        let mut hasher = DigestHasher::new();
        hasher.update(self.digest);
        for number in [self.mode, self.owner.0, self.owner.1, self.mtime.nanos] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&self.mtime.secs.to_le_bytes());
        let mut record = [0; RECORD];
        record[..PATH].copy_from_slice(&hash_of(path));
        record[PATH..].copy_from_slice(&hasher.finish().as_bytes()[..RECORD - PATH]);
        record
    }
}

fn hash_of(path: &Path) -> [u8; PATH] {
    *Digest::of(path.as_os_str().as_bytes()).as_bytes().first_chunk().expect("a digest is longer")
}

/// Which plain files a copy put where: kept beside the layer, for the next copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyManifest {
    records: Vec<Record>,
}

impl CopyManifest {
    /// Lists what was put, without `spoilt`: paths where something else may be by now, or that are names of one file.
    pub(super) fn new(mut records: Vec<Record>, spoilt: &[PathBuf]) -> Self {
        records.sort_unstable();
        let spoilt: HashSet<[u8; PATH]> = spoilt.iter().map(|path| hash_of(path)).collect();
        let path = |record: &Record| *record.first_chunk::<PATH>().expect("a record is longer");
        // Of two for one path, one was put over the other, in an order that is not known here.
        let alone = |at: usize| {
            let same = |other: Option<&Record>| other.is_some_and(|other| path(other) == path(&records[at]));
            !same(at.checked_sub(1).and_then(|before| records.get(before))) && !same(records.get(at + 1))
        };
        let keep = |at: &usize| alone(*at) && !spoilt.contains(&path(&records[*at]));
        Self { records: (0..records.len()).filter(keep).map(|at| records[at]).collect() }
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
}

/// A finished layer to take files from.
#[derive(Debug)]
pub struct Reuse {
    root: OwnedFd,
    manifest: CopyManifest,
    path: PathBuf,
}

impl Reuse {
    /// Opens the tree of an earlier layer with its manifest; none if either is gone or damaged.
    pub fn open(tree: &Path, manifest: &Path) -> Option<Self> {
        let manifest = CopyManifest::read(manifest)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(tree, flags, Mode::empty()).ok()?;
        Some(Self { root, manifest, path: tree.to_owned() })
    }

    /// Opens one of its directories; none if it has no such.
    pub(super) fn dir(&self, path: &Path) -> Option<ReuseDir<'_>> {
        let dir = open_dir(self.root.as_fd(), path).ok()?;
        Some(ReuseDir { reuse: self, dir })
    }
}

/// A directory of such a layer.
pub(super) struct ReuseDir<'a> {
    reuse: &'a Reuse,
    dir: OwnedFd,
}

impl ReuseDir<'_> {
    /// Returns whether the layer has just this file.
    pub(super) fn has(&self, record: &Record) -> bool {
        self.reuse.manifest.records.binary_search(record).is_ok()
    }

    /// Gives a file of this directory the same name in another one.
    pub(super) fn link(&self, name: &std::ffi::OsStr, to: &OwnedFd) -> rustix::io::Result<()> {
        rustix::fs::linkat(&self.dir, name, to, name, AtFlags::empty())
    }

    /// Returns where the layer has a path, for messages.
    pub(super) fn full(&self, path: &Path) -> PathBuf {
        self.reuse.path.join(path)
    }
}
