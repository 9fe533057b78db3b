//! Layers of images that a build starts from: fetched, kept and unpacked, a few at once.

use std::io::Read;
use std::sync::{Mutex, PoisonError};

use kiln_core::{Cancel, Digest, Layer, LayerId, Snapshot};
use kiln_store::{RecordKind, Store, StoreError};

use super::arrival::{BlobReader, LayerProgress, Start, download};
use super::bases::{Base, Bases};
use super::patience::Turn;
use super::transfer::{Origin, origin};
use crate::Error;

/// Layers fetched and unpacked at once: enough to keep two connections and the disk busy, few enough for memory.
const PARALLEL_LAYERS: usize = 4;

impl Bases<'_> {
    /// Makes an image's layers present as directories: those that are not yet are fetched and unpacked at once.
    pub(crate) fn unpack(
        &self,
        base: &Base,
        task: &dyn LayerProgress,
        cancel: &Cancel,
    ) -> Result<Snapshot, Error> {
        let layers = &base.image.layers;
        each(layers, cancel, |layer| {
            if self.known(layer).is_none() {
                self.unpack_from(&base.origin, layer, task, cancel)?;
            }
            Ok(())
        })?;
        Ok(self.unfetched(base))
    }

    /// Returns the snapshot of an image of which nobody needs the files: its layers have names, and need not be there.
    pub(crate) fn unfetched(&self, base: &Base) -> Snapshot {
        let layers = base.image.layers.iter();
        Snapshot {
            layers: layers.map(|layer| self.known(layer).unwrap_or_else(|| layer_id(layer))).collect(),
        }
    }

    /// Makes sure that the store has the blobs of these layers of a base, as an export needs them.
    pub(crate) fn fetch(&self, base: &Base, task: &dyn LayerProgress, cancel: &Cancel) -> Result<(), Error> {
        each(&base.image.layers, cancel, |layer| {
            if self.store.has_blob(&layer.digest) {
                return Ok(());
            }
            self.fetch_from(&base.origin, layer, task, cancel)
        })
    }

    /// Makes the store have the blob of one layer.
    pub(crate) fn fetch_from(
        &self,
        origin: &Origin,
        layer: &Layer,
        task: &dyn LayerProgress,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        if let Origin::Registry(name) = origin {
            return download(self.store, self.registry, name, &blob_info(layer), task, cancel);
        }
        let mut reader = self.reader(origin, layer, task, cancel)?;
        reader.drain(&layer.digest, &mut vec![0; 256 * 1024])?;
        reader.finish(&blob_info(layer))
    }

    /// Makes one layer present, wherever its blob is.
    pub(crate) fn unpack_from(
        &self,
        origin: &Origin,
        layer: &Layer,
        task: &dyn LayerProgress,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        // Before anything is asked for: of twenty processes one fetches it.
        let what = format!("base-{}-{}", self.store.ids().dir(), layer.diff_id.hex());
        let turn = self.patience.turn(self.store, &what, &mut |holder| task.waiting(Some(holder)), cancel)?;
        if !matches!(turn, Turn::Mine { waited: false, .. }) {
            task.waiting(None);
        }
        let unpacked = match self.store.has_layer(&layer_id(layer)) {
            true => Ok(()),
            false => self.unpack_now(origin, layer, task, cancel),
        };
        if let (Err(_), Turn::Mine { claim, .. }) = (&unpacked, turn)
            && !cancel.is_cancelled()
        {
            claim.fail();
        }
        unpacked
    }

    fn unpack_now(
        &self,
        origin: &Origin,
        layer: &Layer,
        task: &dyn LayerProgress,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        let mut reader = self.reader(origin, layer, task, cancel)?;
        let unpacked = self.store.unpack(&layer.diff_id, &layer.media_type, &mut reader);
        // If reading failed, the unpacker knows only that it did.
        if unpacked.is_err()
            && let Some(error) = reader.failed.take()
            && !reader.is_spoiled()
        {
            return Err(error);
        }
        // What the unpacker did not want belongs to the blob all the same. And whoever it may be that is to blame for what it
        // could not take: only all of it tells whether these are the bytes that the digest stands for.
        if let Err(error) = reader.drain(&layer.digest, &mut vec![0; 256 * 1024]) {
            return match (reader.is_spoiled(), unpacked) {
                (false, _) => Err(error),
                // The layer is what it should be, and stays: only the blob is fetched anew.
                (true, Ok(_)) => self.fetch_from(origin, layer, task, cancel),
                // Once: there is nothing left to go on with.
                (true, Err(_)) => self.unpack_now(origin, layer, task, cancel),
            };
        }
        reader.finish(&blob_info(layer))?;
        unpacked.map(|_| ()).map_err(|error| of_layer(self.store, origin, &layer.digest, error))
    }

    /// Reads a layer's blob: from the store if it is there, else from its origin, and into the store on the way.
    fn reader<'r>(
        &self,
        origin: &'r Origin,
        layer: &Layer,
        task: &'r dyn LayerProgress,
        cancel: &'r Cancel,
    ) -> Result<BlobReader<'r>, Error> {
        let (source, keep): (Box<dyn Read + Send + 'r>, bool) = if self.store.has_blob(&layer.digest) {
            (Box::new(self.store.open_blob(&layer.digest)?), false)
        } else {
            match origin {
                Origin::Store => return Err(StoreError::NoBlob { digest: layer.digest }.into()),
                Origin::Layout(layout) => (Box::new(layout.blob(&blob_info(layer))?), true),
                Origin::Registry(name) => {
                    let (store, registry) = (self.store, self.registry);
                    return BlobReader::download(
                        store,
                        registry,
                        name,
                        &blob_info(layer),
                        Start::All,
                        (task, cancel),
                    );
                }
            }
        };
        let into = if keep { Some(self.store.blob_writer()?) } else { None };
        Ok(BlobReader::new(source, into, &blob_info(layer), task, cancel))
    }

    /// Returns the directory that has a layer's files: unpacked from it, or the one that a step left and the layer
    /// was made of.
    pub(crate) fn known(&self, layer: &Layer) -> Option<LayerId> {
        let unpacked = layer_id(layer);
        if self.store.has_layer(&unpacked) {
            return Some(unpacked);
        }
        let made: LayerId = self.store.get_record(RecordKind::Base, &layer.diff_id.hex()).ok()??;
        self.store.has_layer(&made).then_some(made)
    }
}

/// Says where a layer is from that is not what its image says.
pub(super) fn of_layer(store: &Store, origin: &Origin, blob: &Digest, error: StoreError) -> Error {
    if !is_contents(&error) {
        return Error::Store(error);
    }
    // The blob is kept: who meets it next shall be told the same. What cannot be noted is left out, here and below: this is
    // no time for a second failure.
    let (place, file) = match origin {
        Origin::Registry(name) => {
            let _ = origin::note(store, blob, name);
            (format!("{}@{blob}", name.name()), false)
        }
        Origin::Layout(layout) => {
            let _ = origin::note_file(store, blob, layout.location());
            (format!("{}, blob {blob}", layout.location().display()), true)
        }
        Origin::Store => {
            let from = origin::of(store, blob).unwrap_or_default();
            match (from.first(), origin::file_of(store, blob).ok().flatten()) {
                (Some(name), _) => (name.to_string(), false),
                (None, Some(path)) => (format!("{path}, blob {blob}"), true),
                (None, None) => (format!("blob {blob} of the local image store"), true),
            }
        }
    };
    Error::Layer { place, file, error: Box::new(error) }
}

/// Whether it is what a layer holds that is wrong.
pub(super) fn is_contents(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Decompress { .. }
            | StoreError::LayerRead { .. }
            | StoreError::BadEntry { .. }
            | StoreError::TooLarge { .. }
            | StoreError::DiffIdMismatch { .. }
            | StoreError::MediaType { .. }
    ) && !error.is_full()
}

/// Does something for each layer or blob, a few at once; the first failure is returned and the rest not begun.
pub(super) fn each<T: Sync>(
    layers: &[T],
    cancel: &Cancel,
    work: impl Fn(&T) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failed: Mutex<Option<Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL_LAYERS.min(layers.len()) {
            scope.spawn(|| {
                while let Some(layer) = layers.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    if cancel.is_cancelled()
                        || failed.lock().unwrap_or_else(PoisonError::into_inner).is_some()
                    {
                        return;
                    }
                    if let Err(error) = work(layer) {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None if cancel.is_cancelled() => Err(Error::Interrupted),
        None => Ok(()),
    }
}

pub(super) fn blob_info(layer: &Layer) -> kiln_oci::BlobInfo {
    kiln_oci::BlobInfo { media_type: layer.media_type.clone(), digest: layer.digest, size: layer.size }
}

fn layer_id(layer: &Layer) -> LayerId {
    LayerId(layer.diff_id.hex())
}
