//! What an export holds, as plain data.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use kiln_core::Digest;

/// All of one generation: trees, and the packs that have their content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// The caches, each id and scope once.
    pub trees: Vec<Tree>,
    /// The packs; chunks are numbered through all of them.
    pub packs: Vec<Pack>,
}

/// One cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Its id.
    pub id: String,
    /// `global`, or a platform.
    pub scope: String,
    /// When it was read from a store, seconds since 1970.
    pub saved: i64,
    /// Where steps saw it.
    pub targets: Vec<String>,
    /// By path, which is relative and that of the root empty: the root is always there, and every parent is.
    pub entries: BTreeMap<PathBuf, Entry>,
}

/// A file, or what else a directory may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner, as steps see it.
    pub uid: u32,
    /// Group, as steps see it.
    pub gid: u32,
    /// Modified: seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Last read, seconds since 1970, if that is later than modified.
    pub used: Option<i64>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an entry is. Devices and sockets do not travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file: its size in bytes and its chunks in order.
    File {
        /// Bytes.
        size: u64,
        /// Digests of its parts.
        chunks: Vec<Digest>,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: PathBuf,
    },
    /// Another name of a file that stands before it.
    Hard {
        /// That file's path.
        to: PathBuf,
    },
    /// A named pipe.
    Fifo,
}

/// A blob full of frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// Its digest.
    pub digest: Digest,
    /// Its size, bytes.
    pub size: u64,
    /// What it is made of, one after the other.
    pub frames: Vec<Frame>,
}

/// A zstd frame of some chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Bytes in the pack.
    pub size: u32,
    /// What it holds, one after the other.
    pub chunks: Vec<Chunk>,
}

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// SHA-256 of its bytes.
    pub id: Digest,
    /// How many.
    pub length: u32,
}

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// Number of its pack.
    pub pack: u32,
    /// Number of its frame in the pack.
    pub frame: u32,
    /// Where it begins in the frame, once decompressed.
    pub at: u32,
    /// Bytes.
    pub length: u32,
}

impl Tree {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.entries.values().map(Entry::size).fold(0, u64::saturating_add)
    }

    /// How many files there are; directories are none.
    pub fn files(&self) -> u64 {
        self.entries.values().filter(|entry| entry.kind != Kind::Directory).count() as u64
    }
}

impl Entry {
    /// Bytes of its content: those of regular files.
    pub fn size(&self) -> u64 {
        match self.kind {
            Kind::File { size, .. } => size,
            _ => 0,
        }
    }

    /// When it was last written or read, seconds since 1970.
    pub fn last_use(&self) -> i64 {
        self.used.unwrap_or(self.mtime.0).max(self.mtime.0)
    }
}

impl Frame {
    /// Bytes that it has once decompressed.
    pub fn raw(&self) -> u64 {
        self.chunks.iter().map(|chunk| u64::from(chunk.length)).sum()
    }
}

impl Index {
    /// Finds every chunk. Of one that is in two packs, the first counts.
    pub fn locations(&self) -> HashMap<Digest, Location> {
        let mut found = HashMap::new();
        for (pack, of) in (0..).zip(&self.packs) {
            for (frame, of) in (0..).zip(&of.frames) {
                let mut at = 0;
                for chunk in &of.chunks {
                    let place = Location { pack, frame, at, length: chunk.length };
                    found.entry(chunk.id).or_insert(place);
                    at += chunk.length;
                }
            }
        }
        found
    }

    /// Finds a cache.
    pub fn tree(&self, id: &str, scope: &str) -> Option<&Tree> {
        self.trees.iter().find(|tree| tree.id == id && tree.scope == scope)
    }

    /// Bytes of all packs.
    pub fn packed(&self) -> u64 {
        self.packs.iter().map(|pack| pack.size).sum()
    }
}
