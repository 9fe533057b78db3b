//! What the blocks of an earlier blob became: a block that is the same again is copied from there instead of compressed.
//!
//! A block's result is a function of its bytes, for gzip of the [`WINDOW`](super::WINDOW) before them, of whether it is the last,
//! and of the compressor, which the list names. So copying gives the bytes that compressing would have given. What is copied is
//! checked against a hash of what was once written: a blob that was damaged meanwhile is not copied from.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use kiln_core::{Digest, DigestHasher};

use super::Compression;

const MAGIC: &[u8; 8] = b"kilnblk1";
/// Magic, hash of the rest, hash of the compressor's version, blob.
const HEAD: usize = 8 + 32 + 32 + 32;
const RECORD: usize = 32 + 8 + 4 + 32;

/// What one block became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockPlace {
    /// The [`key`] of what went in.
    pub(crate) key: Digest,
    /// Where it begins in the blob, and its bytes.
    pub(crate) at: u64,
    pub(crate) length: u32,
    /// Of these bytes.
    pub(crate) check: Digest,
}

/// Names all that decides what a block becomes, but for the compressor.
pub(super) fn key(window: &[u8], raw: &[u8], last: bool) -> Digest {
    let mut hasher = DigestHasher::new();
    hasher.update(&[u8::from(last)]);
    hasher.update(&(window.len() as u64).to_le_bytes());
    hasher.update(window);
    hasher.update(raw);
    hasher.finish()
}

/// Returns where the list is of the blob that a layer was packed into in some way.
pub(crate) fn path(layer_dir: &Path, compression: Compression) -> PathBuf {
    layer_dir.join(format!("blocks-{}", &version(compression).hex()[..16]))
}

fn version(compression: Compression) -> Digest {
    Digest::of(compression.version().as_bytes())
}

/// Writes a list. Not synced, and not at once: it is only ever believed if it is whole.
pub(crate) fn write(
    path: &Path,
    compression: Compression,
    blob: &Digest,
    places: &[BlockPlace],
) -> std::io::Result<()> {
    let mut body = Vec::with_capacity(64 + places.len() * RECORD);
    body.extend_from_slice(version(compression).as_bytes());
    body.extend_from_slice(blob.as_bytes());
    for place in places {
        body.extend_from_slice(place.key.as_bytes());
        body.extend_from_slice(&place.at.to_le_bytes());
        body.extend_from_slice(&place.length.to_le_bytes());
        body.extend_from_slice(place.check.as_bytes());
    }
    std::fs::write(path, [&MAGIC[..], Digest::of(&body).as_bytes(), &body].concat())
}

/// Blocks of a blob that is there.
pub(crate) struct Earlier {
    blob: File,
    size: u64,
    /// Bytes that no block becomes more than.
    most: u64,
    places: HashMap<[u8; 32], (u64, u32, Digest)>,
}

impl Earlier {
    /// Reads a list and opens its blob, whose path `find` knows; none if either is gone, damaged, or of another compressor.
    pub(crate) fn open(
        path: &Path,
        compression: Compression,
        find: impl FnOnce(&Digest) -> PathBuf,
    ) -> Option<Self> {
        let bytes = std::fs::read(path).ok()?;
        let (head, records) = bytes.split_at_checked(HEAD)?;
        let sound = head[..8] == *MAGIC
            && head[8..40] == *Digest::of(&bytes[40..]).as_bytes()
            && head[40..72] == *version(compression).as_bytes();
        let (records, rest) = records.as_chunks::<RECORD>();
        if !sound || !rest.is_empty() {
            return None;
        }
        let digest = |bytes: &[u8]| bytes.try_into().map(Digest::from_bytes).ok();
        let blob = File::open(find(&digest(&head[72..])?)).ok()?;
        let size = blob.metadata().ok()?.len();
        let place = |record: &[u8; RECORD]| {
            let at = u64::from_le_bytes(record[32..40].try_into().ok()?);
            let length = u32::from_le_bytes(record[40..44].try_into().ok()?);
            Some((record[..32].try_into().ok()?, (at, length, digest(&record[44..])?)))
        };
        let places = records.iter().map(place).collect::<Option<_>>()?;
        Some(Self { blob, size, most: 2 * compression.block() as u64, places })
    }

    /// Puts what a block became into `packed`. Returns whether it is known, and still what it was.
    pub(super) fn take(&self, key: &Digest, packed: &mut Vec<u8>) -> Option<Digest> {
        let (at, length, check) = *self.places.get(key.as_bytes())?;
        let length = u64::from(length);
        if length > self.most || at.checked_add(length).is_none_or(|end| end > self.size) {
            return None;
        }
        packed.resize(usize::try_from(length).ok()?, 0);
        let same = self.blob.read_exact_at(packed, at).is_ok() && Digest::of(packed) == check;
        if !same {
            packed.clear();
        }
        same.then_some(check)
    }
}
