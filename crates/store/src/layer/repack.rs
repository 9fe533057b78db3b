//! A blob packed another way: what `force-compression` does to the layers of a base.

use kiln_core::{Cancel, Layer, LayerId};

use super::pack::{LayerOptions, PackedLayer, threads};
use crate::claim::Waiting;
use crate::compress::{Compression, Packed};
use crate::error::{ArchiveError, StoreError};
use crate::store::Store;
use crate::unpack::{self, UnpackOptions};

impl Store {
    /// Returns a layer packed another way, and remembers it. The tar stays the same, and so the diff id; but for estargz.
    ///
    /// # Errors
    /// Its blob is not there, cannot be read, or is not what the layer says; the new one cannot be written, or `cancel` was
    /// raised.
    pub fn repack(
        &self,
        layer: &Layer,
        compression: Compression,
        cancel: &Cancel,
    ) -> Result<Layer, StoreError> {
        if let Compression::Estargz { .. } = compression {
            // Another tar: it is made of the files, as one of a step's is, and their times stay.
            let files = self.unpack(&layer.diff_id, &layer.media_type, self.open_blob(&layer.digest)?)?;
            return self.layer_blob(&files, &LayerOptions { compression, epoch: None }, cancel);
        }
        let key = format!("blob {}, {}", layer.digest, compression.version());
        let mut waiting = Waiting { doing: "a build", timeout: None, cancel, on_wait: &mut |_| () };
        let packed = self.pack_once(&key, &mut waiting, || {
            let blob = self.open_blob(&layer.digest)?;
            let (Packed { blob, diff_id, annotations, .. }, ()) =
                self.packing(compression, threads(), |packer| {
                    let most = UnpackOptions::default().max_bytes;
                    let mut tar = unpack::Source::new(blob).map_err(|error| error.of_layer(layer.diff_id))?;
                    let mut count: u64 = 0;
                    loop {
                        if cancel.is_cancelled() {
                            return Err(StoreError::Interrupted);
                        }
                        let length =
                            tar.read(packer.space()?).map_err(|error| error.of_layer(layer.diff_id))?;
                        packer.filled(length);
                        count += length as u64;
                        if count > most {
                            let error = ArchiveError::TooLarge { limit: most, unit: "bytes".to_owned() };
                            return Err(error.of_layer(layer.diff_id));
                        }
                        if length == 0 {
                            return Ok(());
                        }
                    }
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
