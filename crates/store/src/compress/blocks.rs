//! What the blocks of an earlier blob became: a block that is the same again is copied from there instead of compressed.
//!
//! A block's result is a function of its bytes, for gzip of the [`WINDOW`](super::WINDOW) before them, of whether it is the last,
//! and of the compressor, which the list names. So copying gives the bytes that compressing would have given.
//!
//! Of a file that a copy put there, the copy's own list says which it is: its digest, known since it was chosen, is not computed
//! again. Checksums hold both ends: of the bytes that went in, so that a file that was damaged since is not taken for what it was,
//! and of what is copied, so that nothing is copied from a blob that was damaged. They are there for accidents, like gzip's own: who
//! could make others with the same checksum can write to the store.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use flate2::Crc;
use kiln_core::{Digest, DigestHasher};

use super::Compression;

const MAGIC: &[u8; 8] = b"kilnblk2";
/// Magic, hash of the rest, hash of the compressor's version, blob.
const HEAD: usize = 8 + 32 + 32 + 32;
const RECORD: usize = 32 + 8 + 4 + 4 + 4;

/// Of a file's content and all else that a copy gave it: part of a hash.
pub(crate) type FileId = [u64; 2];

/// Bytes of a block that are part of a file's content.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// In the block.
    pub(crate) bytes: Range<usize>,
    pub(crate) id: FileId,
    /// Where they begin in the file.
    pub(crate) at: u64,
}

/// What one block became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockPlace {
    /// The [`key`] of what went in.
    pub(crate) key: Digest,
    /// Where it begins in the blob, and its bytes.
    pub(crate) at: u64,
    pub(crate) length: u32,
    /// CRC-32 of what went in.
    pub(crate) raw: u32,
    /// And of what it became.
    pub(crate) packed: u32,
}

/// Names all that decides what a block becomes, but for the compressor. `known` is in order.
pub(super) fn key(window: &[u8], raw: &[u8], known: &[Known], last: bool) -> Digest {
    let mut hasher = DigestHasher::new();
    let mut part = |kind: u8, bytes: &[u8]| {
        hasher.update(&[kind]);
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(u8::from(last), window);
    let mut done = 0;
    for Known { bytes, id, at } in known {
        if done < bytes.start {
            part(2, &raw[done..bytes.start]);
        }
        let numbers = [id[0], id[1], *at, bytes.len() as u64];
        part(3, numbers.map(u64::to_le_bytes).as_flattened());
        done = bytes.end;
    }
    part(2, &raw[done..]);
    hasher.finish()
}

/// Sums up bytes as gzip does.
pub(super) fn crc(bytes: &[u8]) -> Crc {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc
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
        for number in [place.length, place.raw, place.packed] {
            body.extend_from_slice(&number.to_le_bytes());
        }
    }
    std::fs::write(path, [&MAGIC[..], Digest::of(&body).as_bytes(), &body].concat())
}

/// Blocks of a blob that is there.
pub(crate) struct Earlier {
    blob: File,
    size: u64,
    /// Bytes that no block becomes more than.
    most: u64,
    places: HashMap<Digest, BlockPlace>,
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
            let number = |at: usize| Some(u32::from_le_bytes(*record[at..].first_chunk()?));
            let at = u64::from_le_bytes(*record[32..].first_chunk()?);
            let (length, raw, packed) = (number(40)?, number(44)?, number(48)?);
            let key = digest(&record[..32])?;
            Some((key, BlockPlace { key, at, length, raw, packed }))
        };
        let places = records.iter().map(place).collect::<Option<_>>()?;
        Some(Self { blob, size, most: 2 * compression.block() as u64, places })
    }

    /// Returns what a block became.
    pub(super) fn get(&self, key: &Digest) -> Option<&BlockPlace> {
        self.places.get(key)
    }

    /// Puts it into `packed`. Returns whether it is what it was, and so is what went in: `raw` is that one's checksum.
    pub(super) fn take(&self, place: &BlockPlace, raw: u32, packed: &mut Vec<u8>) -> bool {
        let length = u64::from(place.length);
        let there = place.at.checked_add(length).is_some_and(|end| end <= self.size);
        if raw != place.raw || length > self.most || !there {
            return false;
        }
        packed.resize(place.length as usize, 0);
        self.blob.read_exact_at(packed, place.at).is_ok() && crc(packed).sum() == place.packed
    }
}
