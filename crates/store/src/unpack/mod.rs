//! Base layers: a compressed tar becomes a directory, once.
//!
//! The calling thread reads, decompresses and hashes; a second one writes files. Between them are a few buffers, so
//! memory stays at a few MiB whatever the sizes, and slow writing slows the download down.

mod decode;
mod entry;
mod pipe;
mod tree;

use std::io::Read;
use std::path::Path;

use kiln_core::{Digest, DigestHasher, IoResultExt as _, LayerId};

use crate::error::StoreError;
use crate::layer::LayerInfo;
use crate::layout::{self, TREE};
use crate::lock::{FileLock, Hold};
use crate::scratch::remove_tree;
use crate::store::Store;

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
        let source = decode::Source::new(diff_id, media_type, reader)?;
        let (sender, receiver) = pipe::pipe();
        let (decoded, extracted) = std::thread::scope(|scope| {
            let extracting = scope.spawn(|| {
                let mut tree = tree::Tree::new(self.ids(), &upper)?;
                let mut entries = entry::Entries::new(receiver, *diff_id, options.max_entries);
                while let Some(entry) = entries.next_entry()? {
                    tree.apply(&entry, &mut entries)?;
                }
                entries.drain()?;
                tree.finish()
            });
            let decoded = decode::decode(source, sender, options.max_bytes);
            (decoded, extracting.join())
        });
        // A panic there is a defect here: pass it on.
        let extracted = extracted.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (links, root) = match (decoded, extracted) {
            // What the writer found wrong came first, and made the reader stop.
            (_, Err(error)) if !matches!(error, StoreError::Decompress { .. }) => return Err(error),
            (Err(error), _) | (Ok(_), Err(error)) => return Err(error),
            (Ok(actual), Ok(_)) if actual != *diff_id => {
                return Err(StoreError::DiffIdMismatch { expected: *diff_id, actual });
            }
            (Ok(_), Ok(found)) => found,
        };
        links.write(dir)?;
        Ok(LayerInfo { root }.write(dir)?)
    }
}

/// Hashes what passes.
pub(crate) struct Hashing<R> {
    inner: R,
    hasher: DigestHasher,
    bytes: u64,
}

impl<R> Hashing<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hasher: DigestHasher::new(), bytes: 0 }
    }

    pub(crate) fn count(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn finish(self) -> (Digest, R) {
        (self.hasher.finish(), self.inner)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        self.bytes += length as u64;
        Ok(length)
    }
}
