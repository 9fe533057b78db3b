//! Base layers: a compressed tar becomes a directory, once.
//!
//! The calling thread reads, decompresses and hashes; a second one writes files. Between them are a few buffers, so
//! memory stays at a few MiB whatever the sizes, and slow writing slows the download down.

mod decode;
pub(crate) mod entry;
mod list;
pub(crate) mod make;
mod pipe;
pub(crate) mod tree;

use std::io::Read;
use std::path::Path;

use kiln_core::{Digest, DigestHasher, IoResultExt as _, Layer, LayerId};

use crate::error::{ArchiveError, StoreError};
use crate::layer::LayerInfo;
use crate::layout::{self, TREE};
use crate::lock::{FileLock, Hold};
use crate::scratch::remove_tree;
use crate::store::Store;

pub use decode::begins_archive;
pub(crate) use decode::{Source, is_tar};

/// What to unpack, and how much of it.
#[derive(Debug, Clone)]
pub struct UnpackOptions {
    /// Most bytes of the tar: a small blob can decompress to a thousand times its size.
    pub max_bytes: u64,
    /// Most entries of the tar.
    pub max_entries: u64,
}

impl Default for UnpackOptions {
    /// 1 TiB and 20 million entries: more than any image has.
    fn default() -> Self {
        Self { max_bytes: 1 << 40, max_entries: 20_000_000 }
    }
}

impl Store {
    /// Unpacks a layer from its blob's bytes, unless it is there; threads and processes that ask for the same one
    /// wait for the first. `reader` is then read to its end, so that what listens to it sees all bytes.
    ///
    /// # Errors
    /// The bytes cannot be read or decompressed, the tar is damaged, hostile or not the one of `diff_id`, or a file
    /// cannot be made. Nothing of the layer stays.
    pub fn unpack(
        &self,
        diff_id: &Digest,
        media_type: &str,
        reader: impl Read,
    ) -> Result<LayerId, StoreError> {
        self.unpack_with(diff_id, media_type, reader, &UnpackOptions::default())
    }

    /// [`unpack`](Self::unpack) with limits.
    ///
    /// # Errors
    /// As there; and the layer is larger than allowed.
    pub fn unpack_with(
        &self,
        diff_id: &Digest,
        media_type: &str,
        reader: impl Read,
        options: &UnpackOptions,
    ) -> Result<LayerId, StoreError> {
        let layer = LayerId(diff_id.hex());
        if self.has_layer(&layer) {
            return Ok(layer);
        }
        let name = format!("unpack-{}-{}", self.ids().dir(), layer.0);
        let lock = FileLock::wait(&self.0.layout.at(layout::LOCKS).join(name), Hold::Exclusive)?;
        if !self.has_layer(&layer) {
            let dir = self.scratch_path()?;
            let made = self
                .extract_to(&dir, diff_id, media_type, reader, options)
                .and_then(|()| Ok(self.publish(&dir, &self.0.layout.layer(&layer))?));
            if let Err(error) = made {
                remove_tree(&dir);
                lock.remove();
                return Err(error);
            }
        }
        lock.remove();
        Ok(layer)
    }

    /// Opens the tar of a layer whose blob is there. What it reads is not checked: a store checks when it takes in.
    ///
    /// # Errors
    /// The blob is not there, or does not decompress.
    pub fn open_layer_tar(&self, layer: &Layer) -> Result<Box<dyn Read>, StoreError> {
        let source = Source::new(self.open_blob(&layer.digest)?);
        Ok(source.map_err(|error| error.of_layer(layer.diff_id))?.into_tar())
    }

    fn extract_to(
        &self,
        dir: &Path,
        diff_id: &Digest,
        media_type: &str,
        reader: impl Read,
        options: &UnpackOptions,
    ) -> Result<(), StoreError> {
        let upper = dir.join(TREE);
        for path in [dir, &upper] {
            std::fs::create_dir(path).at("create", path)?;
        }
        if !decode::is_layer(media_type) {
            return Err(StoreError::MediaType { media_type: media_type.to_owned() });
        }
        let mut hasher = DigestHasher::new();
        let unpacked = stream(
            reader,
            options,
            |bytes| hasher.update(bytes),
            |entries| {
                let mut tree = tree::Tree::new(self.ids(), &upper)?;
                while let Some(entry) = entries.next_entry()? {
                    tree.apply(&entry, entries)?;
                }
                entries.drain()?;
                tree.finish()
            },
        );
        let (links, root) = unpacked.map_err(|error| error.of_layer(*diff_id))?;
        let actual = hasher.finish();
        if actual != *diff_id {
            return Err(StoreError::DiffIdMismatch { expected: *diff_id, actual });
        }
        links.write(dir)?;
        Ok(LayerInfo { root }.write(dir)?)
    }
}

/// Reads a tar, whatever its compression: this thread reads and decompresses and shows the tar's bytes to `see`, another
/// calls `extract` with its entries.
pub(crate) fn stream<T: Send>(
    reader: impl Read,
    options: &UnpackOptions,
    see: impl FnMut(&[u8]),
    extract: impl FnOnce(&mut entry::Entries) -> Result<T, ArchiveError> + Send,
) -> Result<T, ArchiveError> {
    let source = Source::new(reader)?;
    let (sender, receiver) = pipe::pipe();
    let (decoded, extracted) = std::thread::scope(|scope| {
        let extracting = scope.spawn(|| extract(&mut entry::Entries::new(receiver, options.max_entries)));
        let decoded = decode::decode(source, sender, options.max_bytes, see);
        (decoded, extracting.join())
    });
    // A panic there is a defect here: pass it on.
    match (decoded, extracted.unwrap_or_else(|panic| std::panic::resume_unwind(panic))) {
        // What the writer found wrong came first, and made the reader stop.
        (_, Err(error)) if !matches!(error, ArchiveError::Decompress { .. }) => Err(error),
        (Err(error), _) | (Ok(()), Err(error)) => Err(error),
        (Ok(()), Ok(extracted)) => Ok(extracted),
    }
}
