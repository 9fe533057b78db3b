//! Where exports are: each kind of place reads and writes blobs and generations.

mod archive;
mod directory;
mod registry;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use kiln_carry::{Generation, Pack, Pointer};
use kiln_core::{Cancel, Digest, IoError};
use kiln_oci::BlobSource;
use kiln_registry::RegistryClient;
use kiln_store::Store;

pub(super) use archive::Archive;
pub(super) use directory::Directory;
pub(super) use registry::Registry;

use crate::Error;
use crate::request::CarryPlace;

/// A place with exports.
pub(super) trait Depot: Sync {
    /// The generations that are there; none if nothing is.
    fn pointer(&self) -> Result<Pointer, Error>;

    /// How many packs are sent at the same time, beside the reading of others. None where packs are written to a disk, which
    /// whoever has made one does.
    fn senders(&self) -> usize;

    /// Reads a blob or a manifest of exactly so many bytes, verified, in place of what is in `into`.
    fn read(&self, digest: &Digest, size: u64, manifest: bool, into: &mut Vec<u8>) -> Result<(), Error>;

    /// The same in memory of its own.
    fn get(&self, digest: &Digest, size: u64, manifest: bool) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.read(digest, size, manifest, &mut bytes)?;
        Ok(bytes)
    }

    /// Which of these packs are not there as they must be, as far as that is seen without reading them.
    fn lacks(&self, _packs: &[Pack]) -> Result<HashSet<Digest>, Error> {
        Ok(HashSet::new())
    }

    /// Removes what was put there for a generation that never became known, where nobody else does that.
    fn take_back(&self) {}

    /// Makes a blob present. Returns the bytes that were moved for it.
    fn put(&self, digest: &Digest, content: &Content<'_>) -> Result<u64, Error>;

    /// Makes a generation known, whose blobs are there, and lets go of the oldest; the name then stands for at most `keep`.
    fn publish(&self, generation: &New<'_>, keep: usize) -> Result<Published, Error>;
}

/// A blob's bytes, wherever they are.
pub(super) enum Content<'a> {
    Memory(&'a [u8]),
    /// All of a file.
    File {
        file: &'a File,
        size: u64,
    },
}

impl Content<'_> {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
        }
    }

    /// Reads it from its beginning.
    pub(super) fn reader(&self) -> Box<dyn Read + '_> {
        match self {
            Self::Memory(bytes) => Box::new(*bytes),
            Self::File { file, .. } => Box::new(FromStart { file, at: 0 }),
        }
    }
}

impl BlobSource for Content<'_> {
    fn open(&self, _digest: &Digest) -> Result<Box<dyn Read + '_>, IoError> {
        Ok(self.reader())
    }
}

/// A reader with a position of its own.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// A generation that is to be published.
pub(super) struct New<'a> {
    /// With digest and size of its manifest.
    pub(super) generation: &'a Generation,
    pub(super) manifest: &'a [u8],
    pub(super) config: &'a [u8],
    /// Index and packs.
    pub(super) blobs: &'a [(Digest, u64)],
}

/// How a generation was published.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// What one should know: old generations stay, say.
    pub(super) notes: Vec<String>,
}

/// Opens a place. `writes` says that it will be written to.
pub(super) fn open<'a>(
    place: &CarryPlace,
    writes: bool,
    registry: &'a RegistryClient,
    store: &Store,
    cancel: &Cancel,
) -> Result<Box<dyn Depot + 'a>, Error> {
    Ok(match place {
        CarryPlace::Registry(name) => Box::new(Registry::new(registry, name.clone())),
        CarryPlace::Directory { path, tag } => Box::new(Directory::open(path, tag)?),
        CarryPlace::Archive { path, tag } => {
            Box::new(Archive::open(path.as_deref(), tag, writes, store, cancel)?)
        }
    })
}
