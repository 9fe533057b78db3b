//! A layer as a blob: packed once for each way to pack it.

use std::io::{Read as _, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use kiln_core::{Cancel, Digest, DigestHasher, IoResultExt as _, Layer, LayerId};
use serde::{Deserialize, Serialize};

use super::archive::{self, RootEntry};
use crate::claim::{Claimed, GaveUp, Waiting};
use crate::collect::kept_size;
use crate::compress::blocks::{self, Earlier};
use crate::compress::{Compression, Packed, Packer};
use crate::copy::{CopyManifest, Reuse};
use crate::error::StoreError;
use crate::layout::TREE;
use crate::owner::LinkOwners;
use crate::record::RecordKind;
use crate::store::Store;
use crate::twin::Twin;

/// Beside a layer's tree: what a copy put there.
const COPIED_FILE: &str = "copied";
/// Beside a layer's tree: the id of the layer that the same copy made before.
const EARLIER_FILE: &str = "earlier";
/// So many earlier layers are asked for their blocks: those in between may not have been packed in this way.
const EARLIER: usize = 8;

/// How a layer is packed. Together with the layer's files it decides every byte of the blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct LayerOptions {
    /// How the tar is compressed.
    pub compression: Compression,
    /// Latest file time that may appear, in seconds since 1970; later ones become this one.
    pub epoch: Option<u64>,
}

/// A merged view of layers, for a tar.
#[derive(Debug)]
pub struct WholeTree {
    /// Its directory.
    pub view: OwnedFd,
    /// The [`link_owners`](Store::link_owners) of what is shown.
    pub links: LinkOwners,
    /// A directory of the tar that it goes into, without slashes; empty for the tar's own root.
    pub below: String,
}

/// A packed layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedLayer {
    /// The blob.
    pub layer: Layer,
    /// Paths of sockets, which were left out: a tar cannot hold them.
    pub sockets: Vec<PathBuf>,
    /// Which of the store's layers it was made of.
    pub from: LayerId,
    /// Blocks that were copied from an earlier blob instead of compressed.
    #[serde(default)]
    pub copied: usize,
}

impl Store {
    /// Returns the blob of a layer, making it if it is not there. Who asks for one that is being made waits for it.
    ///
    /// # Errors
    /// The layer is not there or cannot be read, the blob cannot be written, or `cancel` was raised.
    pub fn layer_blob(
        &self,
        layer: &LayerId,
        options: &LayerOptions,
        cancel: &Cancel,
    ) -> Result<Layer, StoreError> {
        Ok(self.pack_layer(layer, options, cancel)?.layer)
    }

    /// [`layer_blob`](Self::layer_blob), with what was left out.
    ///
    /// # Errors
    /// As there.
    pub fn pack_layer(
        &self,
        layer: &LayerId,
        options: &LayerOptions,
        cancel: &Cancel,
    ) -> Result<PackedLayer, StoreError> {
        self.pack_on(layer, options, threads(), cancel)
    }

    /// [`layer_blob`](Self::layer_blob) that says for whom it waits. After a wait that takes too long, which `gave_up` is told, or
    /// for somebody who fails, it packs beside the other: both make the same blob. Where it is made here, a second place gets its bytes, too.
    ///
    /// # Errors
    /// As there.
    pub fn layer_blob_beside(
        &self,
        layer: &LayerId,
        options: &LayerOptions,
        twin: Option<Twin>,
        waiting: &mut Waiting<'_>,
        gave_up: GaveUp<'_>,
    ) -> Result<Layer, StoreError> {
        let cancel = waiting.cancel;
        let make = || self.make(layer, options, threads(), twin, cancel);
        Ok(self.pack_once(&options.key(layer), waiting, gave_up, make)?.layer)
    }

    /// Whether a layer's blob is there, so that nothing needs to be packed.
    ///
    /// # Errors
    /// The file system failed.
    pub fn has_layer_blob(&self, layer: &LayerId, options: &LayerOptions) -> Result<bool, StoreError> {
        Ok(self.packed(&options.key(layer))?.is_some())
    }

    pub(crate) fn pack_on(
        &self,
        layer: &LayerId,
        options: &LayerOptions,
        threads: usize,
        cancel: &Cancel,
    ) -> Result<PackedLayer, StoreError> {
        let mut waiting = Waiting { doing: "a build", timeout: None, cancel, on_wait: &mut |_| () };
        let make = || self.make(layer, options, threads, None, cancel);
        self.pack_once(&options.key(layer), &mut waiting, &mut |_| (), make)
    }

    /// Returns what is recorded, or makes it: one at a time, whoever asks.
    pub(super) fn pack_once(
        &self,
        key: &str,
        waiting: &mut Waiting<'_>,
        gave_up: GaveUp<'_>,
        make: impl FnOnce() -> Result<PackedLayer, StoreError>,
    ) -> Result<PackedLayer, StoreError> {
        if let Some(packed) = self.packed(key)? {
            return Ok(packed);
        }
        let name = format!("pack-{}-{}", self.ids().dir(), Digest::of(key.as_bytes()).hex());
        let claim = match self.claim(&name, waiting)? {
            Claimed::Held { claim, .. } => Some(claim),
            Claimed::Failed => None,
            Claimed::TimedOut(holder) => {
                gave_up(holder.as_ref());
                None
            }
            Claimed::Cancelled => return Err(StoreError::Interrupted),
        };
        let made = match self.packed(key)? {
            Some(packed) => Ok(packed),
            None => make(),
        };
        if let Ok(packed) = &made {
            self.put_record(RecordKind::LayerBlob, key, packed)?;
        }
        if let (Err(_), Some(claim)) = (&made, claim)
            && !waiting.cancel.is_cancelled()
        {
            claim.fail();
        }
        made
    }

    /// Takes note that a layer packed in a way is a blob that came from elsewhere. `packing` is what
    /// [`Compression::version`] calls the way.
    ///
    /// # Errors
    /// The note cannot be written.
    pub fn note_packed(&self, layer: &LayerId, packing: &str, blob: &Layer) -> Result<(), StoreError> {
        let packed = PackedLayer { layer: blob.clone(), sockets: Vec::new(), from: layer.clone(), copied: 0 };
        self.put_record(RecordKind::LayerBlob, &key(layer, packing, None), &packed)
    }

    /// Notes that a copy made a layer, what it put there, and which layer the same copy had made before, if any.
    ///
    /// # Errors
    /// The notes cannot be written.
    pub fn note_copy(
        &self,
        layer: &LayerId,
        copied: &CopyManifest,
        before: Option<&LayerId>,
    ) -> Result<(), StoreError> {
        let dir = self.0.layout.layer(layer);
        copied.write(&dir.join(COPIED_FILE))?;
        if let Some(before) = before {
            let path = dir.join(EARLIER_FILE);
            std::fs::write(&path, &before.0).at("write", path)?;
        }
        Ok(())
    }

    /// Opens what a copy made for the next one to share; none if it is gone, or no copy made it.
    pub fn reuse(&self, layer: &LayerId) -> Option<Reuse> {
        let dir = self.0.layout.layer(layer);
        Reuse::open(&dir.join(TREE), &dir.join(COPIED_FILE))
    }

    /// Whether a layer packed in a way is known to be this blob, and that is there.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn is_packed(&self, layer: &LayerId, packing: &str, blob: &Layer) -> Result<bool, StoreError> {
        let packed = self.packed(&key(layer, packing, None))?;
        Ok(packed.is_some_and(|packed| packed.layer.digest == blob.digest))
    }

    /// Checks that a blob that is there holds the tar that it is said to hold.
    ///
    /// # Errors
    /// It does not, or cannot be decompressed.
    pub fn check_layer(&self, blob: &Layer) -> Result<(), StoreError> {
        let mut tar = self.open_layer_tar(blob)?;
        let mut hasher = DigestHasher::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match tar.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) => {
                    let (layer, message) = (blob.diff_id, error.to_string());
                    return Err(StoreError::LayerRead { layer, message });
                }
            }
        }
        let (expected, actual) = (blob.diff_id, hasher.finish());
        if actual == expected { Ok(()) } else { Err(StoreError::DiffIdMismatch { expected, actual }) }
    }

    /// Writes whole trees as one plain tar, in the form that layers have, and behind them files that are in none of the trees.
    ///
    /// # Errors
    /// A tree cannot be read, or the tar not be written.
    pub fn write_tar(
        &self,
        trees: Vec<WholeTree>,
        files: &[(PathBuf, Vec<u8>)],
        epoch: Option<u64>,
        out: &mut dyn Write,
        cancel: &Cancel,
    ) -> Result<(), StoreError> {
        for WholeTree { view, links, below } in trees {
            let tree = PathBuf::from(format!("/proc/self/fd/{}/.", view.as_raw_fd()));
            let root = RootEntry::Dated;
            let plan = archive::Plan { tree: &tree, below: &below, root, links, copied: None, epoch, cancel };
            let Packed { blob, .. } = self.pack(&plan, Compression::None, 1)?.0;
            let tar = blob.into_reader()?;
            // One after the other they are one tar, with one end.
            let length = tar.metadata().at("stat", "the tar")?.len().saturating_sub(archive::END as u64);
            std::io::copy(&mut tar.take(length), out).at("write", "the tar")?;
        }
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_path(path).at("name an entry of", "the tar")?;
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(epoch.unwrap_or(0));
            header.set_cksum();
            let padding = vec![0; bytes.len().next_multiple_of(512) - bytes.len()];
            for part in [header.as_bytes(), bytes.as_slice(), &padding] {
                out.write_all(part).at("write", "the tar")?;
            }
        }
        Ok(out.write_all(&[0; archive::END]).at("write", "the tar")?)
    }

    /// What is recorded, if its blob is there.
    fn packed(&self, key: &str) -> Result<Option<PackedLayer>, StoreError> {
        let found: Option<PackedLayer> = self.get_record(RecordKind::LayerBlob, key)?;
        Ok(found.filter(|packed| self.has_blob(&packed.layer.digest)))
    }

    fn make(
        &self,
        layer: &LayerId,
        options: &LayerOptions,
        threads: usize,
        twin: Option<Twin>,
        cancel: &Cancel,
    ) -> Result<PackedLayer, StoreError> {
        if !self.has_layer(layer) {
            return Err(StoreError::NoLayer { layer: layer.clone() });
        }
        let dir = self.0.layout.layer(layer);
        let copied = CopyManifest::read(&dir.join(COPIED_FILE));
        let plan = archive::Plan {
            tree: &dir.join(TREE),
            below: "",
            root: if self.layer_info(layer)?.root { RootEntry::Whole } else { RootEntry::None },
            links: LinkOwners::read(&dir)?,
            copied: copied.as_ref(),
            epoch: options.epoch,
            cancel,
        };
        let list = blocks::path(&dir, options.compression);
        let (packed, sockets) = self.packing(options.compression, threads, twin, |packer| {
            // Only a copy finds most of its blocks in the one before.
            if copied.is_some() {
                packer.list_blocks(self.earlier_blocks(layer, options.compression));
            }
            archive::write(&plan, packer)
        })?;
        let Packed { blob, diff_id, annotations, places, copied } = packed;
        let size = blob.size();
        if !places.is_empty() {
            // Nothing depends on it. A part of one, from a full disk, is not believed.
            let _ = blocks::write(&list, options.compression, &blob.digest(), &places);
            kept_size::forget(&dir);
        }
        let digest = blob.finish(None)?;
        let media_type = options.compression.media_type().to_owned();
        let packed = Layer { media_type, digest, size, diff_id, annotations };
        Ok(PackedLayer { layer: packed, sockets, from: layer.clone(), copied })
    }

    fn pack(
        &self,
        plan: &archive::Plan<'_>,
        compression: Compression,
        threads: usize,
    ) -> Result<(Packed, Vec<PathBuf>), StoreError> {
        self.packing(compression, threads, None, |packer| archive::write(plan, packer))
    }

    /// Returns what the nearest earlier layer of the same copy was packed into, which may be the layer itself.
    fn earlier_blocks(&self, layer: &LayerId, compression: Compression) -> Option<Earlier> {
        let mut layer = layer.clone();
        for _ in 0..EARLIER {
            let dir = self.0.layout.layer(&layer);
            let find = |digest: &Digest| self.blob_path(digest);
            if let Some(found) = Earlier::open(&blocks::path(&dir, compression), compression, find) {
                return Some(found);
            }
            let text = std::fs::read_to_string(dir.join(EARLIER_FILE)).ok()?;
            // It becomes a part of a path.
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
            layer = plain.then_some(LayerId(text))?;
        }
        None
    }

    /// Packs what `fill` gives.
    pub(super) fn packing<T>(
        &self,
        compression: Compression,
        threads: usize,
        twin: Option<Twin>,
        fill: impl FnOnce(&mut Packer<'_, '_>) -> Result<T, StoreError>,
    ) -> Result<(Packed, T), StoreError> {
        let blob = self.blob_writer()?.with_twin(twin);
        std::thread::scope(|scope| {
            let mut packer = Packer::new(scope, blob, compression, threads)?;
            let filled = fill(&mut packer)?;
            Ok((packer.finish()?, filled))
        })
    }
}

/// As many as there are processors.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl LayerOptions {
    fn key(&self, layer: &LayerId) -> String {
        key(layer, &self.compression.version(), self.epoch)
    }
}

fn key(layer: &LayerId, packing: &str, epoch: Option<u64>) -> String {
    let epoch = epoch.map_or_else(|| "none".to_owned(), |epoch| epoch.to_string());
    format!("layer {layer}, {packing}, epoch {epoch}")
}
