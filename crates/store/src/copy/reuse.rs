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

/// A file of a layer: 8 bytes of the hash of its path, 16 of that of what is there. As numbers, which compare in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Record {
    path: u64,
    file: [u64; 2],
}

impl Record {
    fn to_bytes(self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        for (to, from) in bytes.as_chunks_mut().0.iter_mut().zip([self.path, self.file[0], self.file[1]]) {
            *to = from.to_be_bytes();
        }
        bytes
    }

    fn of_bytes(bytes: &[u8; RECORD]) -> Self {
        let number = |at: usize| first_of(&bytes[8 * at..]);
        Self { path: number(0), file: [number(1), number(2)] }
    }
}

/// The number that the first eight of some bytes are.
fn first_of(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(*bytes.first_chunk().expect("a digest is longer, and so are records"))
}

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
        let hash = hasher.finish();
        Record { path: hash_of(path), file: [first_of(hash.as_bytes()), first_of(&hash.as_bytes()[8..])] }
    }
}

fn hash_of(path: &Path) -> u64 {
    first_of(Digest::of(path.as_os_str().as_bytes()).as_bytes())
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
        let spoilt: HashSet<u64> = spoilt.iter().map(|path| hash_of(path)).collect();
        // Of two for one path, one was put over the other, in an order that is not known here.
        let alone = |at: usize| {
            let same = |other: Option<&Record>| other.is_some_and(|other| other.path == records[at].path);
            !same(at.checked_sub(1).and_then(|before| records.get(before))) && !same(records.get(at + 1))
        };
        let keep = |at: &usize| alone(*at) && !spoilt.contains(&records[*at].path);
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
        let body: Vec<u8> = self.records.iter().flat_map(|record| record.to_bytes()).collect();
        std::fs::write(path, [&MAGIC[..], Digest::of(&body).as_bytes(), &body].concat()).at("write", path)
    }

    /// Says which file was put at a path: part of a hash of all that it is.
    pub(crate) fn file(&self, path: &Path) -> Option<[u64; 2]> {
        Some(self.find(hash_of(path))?.file)
    }

    /// Hashes lie evenly: one is near the place that its value says, which saves most of what a search by halves would fetch from
    /// memory.
    fn find(&self, path: u64) -> Option<&Record> {
        let count = self.records.len();
        let near = ((u128::from(path) * count as u128) >> 64) as usize;
        let (mut from, mut to, mut step) = (near, near, 16);
        while from > 0 && self.records[from].path >= path {
            from = from.saturating_sub(step);
            step *= 4;
        }
        while to < count && self.records[to].path <= path {
            to = (to + step).min(count);
            step *= 4;
        }
        let within = &self.records[from..to];
        let at = within.binary_search_by_key(&path, |record| record.path).ok()?;
        within.get(at)
    }

    pub(crate) fn read(path: &Path) -> Option<Self> {
        let bytes = std::fs::read(path).ok()?;
        let (head, body) = bytes.split_at_checked(40)?;
        let sound = head[..8] == *MAGIC && head[8..] == *Digest::of(body).as_bytes();
        let (records, rest) = body.as_chunks::<RECORD>();
        (sound && rest.is_empty()).then(|| Self { records: records.iter().map(Record::of_bytes).collect() })
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
        self.reuse.manifest.find(record.path) == Some(record)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn manifest(paths: &[u64]) -> CopyManifest {
        let records = paths.iter().map(|path| Record { path: *path, file: [!path, path / 2] }).collect();
        CopyManifest::new(records, &[])
    }

    proptest! {
        /// Also where hashes do not lie evenly.
        #[test]
        fn what_is_listed_is_found_and_nothing_else(
            even in prop::collection::btree_set(any::<u64>(), 0..300),
            dense in prop::collection::btree_set(0..500_u64, 0..300),
            asked in any::<u64>(),
        ) {
            for shift in [0, 55] {
                let paths: HashSet<u64> = even.iter().copied().chain(dense.iter().map(|path| path << shift)).collect();
                let listed: Vec<u64> = paths.iter().copied().collect();
                let manifest = manifest(&listed);
                prop_assert_eq!(manifest.len(), paths.len());
                for path in &paths {
                    prop_assert_eq!(manifest.find(*path).map(|record| record.file), Some([!path, path / 2]));
                }
                for path in (0..500).chain([asked, 0, u64::MAX, u64::MAX - 1]) {
                    prop_assert_eq!(manifest.find(path).is_some(), paths.contains(&path));
                }
            }
        }
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("copied");
        let written = manifest(&[7, u64::MAX, 1 << 40, 0]);
        written.write(&path).expect("written");
        assert_eq!(CopyManifest::read(&path), Some(written));
        let bytes = std::fs::read(&path).expect("it is there");
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).expect("written");
            assert_eq!(CopyManifest::read(&path), None, "{at}");
        }
    }
}
