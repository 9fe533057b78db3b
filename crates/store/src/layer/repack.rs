//! A blob packed another way: what `force-compression` does to the layers of a base.

use kiln_core::{Cancel, Digest, Layer, LayerId};

use super::entries::{self, Headers};
use super::pack::{LayerOptions, PackedLayer, threads};
use crate::claim::{GaveUp, Waiting};
use crate::compress::{Compression, Packed, Packer};
use crate::error::{ArchiveError, StoreError};
use crate::store::Store;
use crate::unpack::{self, UnpackOptions};

impl Store {
    /// Returns a layer packed another way, and remembers it. The tar stays the same, and so the diff id; but for estargz. It waits
    /// as [`layer_blob_beside`](Self::layer_blob_beside) does.
    ///
    /// # Errors
    /// Its blob is not there, cannot be read, or is not what the layer says; the new one cannot be written, or the wait's `cancel`
    /// was raised.
    pub fn repack(
        &self,
        layer: &Layer,
        compression: Compression,
        waiting: &mut Waiting<'_>,
        gave_up: GaveUp<'_>,
    ) -> Result<Layer, StoreError> {
        let cancel = waiting.cancel;
        if let Compression::Estargz { .. } = compression {
            // Another tar: it is made of the files, as one of a step's is, and their times stay.
            let files = self.unpack(&layer.diff_id, &layer.media_type, self.open_blob(&layer.digest)?)?;
            return self.layer_blob_beside(
                &files,
                &LayerOptions { compression, epoch: None },
                None,
                waiting,
                gave_up,
            );
        }
        let key = format!("blob {}, {}", layer.digest, compression.version());
        let packed = self.pack_once(&key, waiting, gave_up, || {
            let blob = self.open_blob(&layer.digest)?;
            let (Packed { blob, diff_id, annotations, .. }, ()) =
                self.packing(compression, threads(), None, |packer| {
                    let tar = unpack::Source::new(blob).map_err(|error| error.of_layer(layer.diff_id))?;
                    pass_on(Tar { tar, count: 0, layer: layer.diff_id, cancel }, packer)
                })?;
            if diff_id != layer.diff_id {
                return Err(StoreError::DiffIdMismatch { expected: layer.diff_id, actual: diff_id });
            }
            let size = blob.size();
            let digest = blob.finish(None)?;
            let media_type = compression.media_type().to_owned();
            let layer = Layer { media_type, digest, size, diff_id, annotations };
            Ok(PackedLayer { layer, sockets: Vec::new(), from: LayerId(diff_id.hex()), copied: 0 })
        })?;
        Ok(packed.layer)
    }
}

/// A layer's tar on its way.
struct Tar<'a> {
    tar: unpack::Source<'a>,
    count: u64,
    layer: Digest,
    cancel: &'a Cancel,
}

impl Tar<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let length = self.tar.read(buffer)?;
        self.count += length as u64;
        match UnpackOptions::default().max_bytes {
            most if self.count > most => {
                Err(ArchiveError::TooLarge { limit: most, unit: "bytes".to_owned() })
            }
            _ => Ok(length),
        }
    }

    /// Passes on so many bytes, or all there are.
    fn content(&mut self, mut left: u64, packer: &mut Packer<'_, '_>) -> Result<(), StoreError> {
        while left > 0 {
            if self.cancel.is_cancelled() {
                return Err(StoreError::Interrupted);
            }
            let space = packer.space()?;
            let most = usize::try_from(left).map_or(space.len(), |left| left.min(space.len()));
            let length = self.read(&mut space[..most]).map_err(|error| error.of_layer(self.layer))?;
            packer.filled(length);
            left -= length as u64;
            if length == 0 {
                break;
            }
        }
        Ok(())
    }
}

fn pass_on(mut tar: Tar<'_>, packer: &mut Packer<'_, '_>) -> Result<(), StoreError> {
    loop {
        if tar.cancel.is_cancelled() {
            return Err(StoreError::Interrupted);
        }
        let layer = tar.layer;
        match entries::next(&mut |buffer| tar.read(buffer)).map_err(|error| error.of_layer(layer))? {
            Headers::Entry(headers, size) => {
                packer.headers(&headers, size)?;
                tar.content(entries::padded(size), packer)?;
            }
            Headers::Other(bytes) => {
                packer.put(&bytes)?;
                return tar.content(u64::MAX, packer);
            }
        }
    }
}
