//! Layers of images that a build starts from: fetched, kept and unpacked, a few at once.

use std::io::Read;
use std::sync::{Mutex, PoisonError};

use kiln_core::{Cancel, Digest, ImageRef, Layer, LayerId, Snapshot};
use kiln_oci::OciError;
use kiln_registry::{RegistryClient, RegistryError, Resume};
use kiln_store::{RecordKind, Store, StoreError};

use super::bases::{Base, Bases};
use super::patience::Turn;
use super::reporter::Task;
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
        unpacked.map(|_| ()).map_err(|error| self.of_layer(origin, &layer.digest, error))
    }

    /// Says where a layer is from that is not what its image says.
    fn of_layer(&self, origin: &Origin, blob: &Digest, error: StoreError) -> Error {
        if !is_contents(&error) {
            return Error::Store(error);
        }
        // The blob is kept: who meets it next shall be told the same. What cannot be noted is left out, here and below: this is
        // no time for a second failure.
        let (place, file) = match origin {
            Origin::Registry(name) => {
                let _ = origin::note(self.store, blob, name);
                (format!("{}@{blob}", name.name()), false)
            }
            Origin::Layout(layout) => {
                let _ = origin::note_file(self.store, blob, layout.location());
                (format!("{}, blob {blob}", layout.location().display()), true)
            }
            Origin::Store => {
                let from = origin::of(self.store, blob).unwrap_or_default();
                match (from.first(), origin::file_of(self.store, blob).ok().flatten()) {
                    (Some(name), _) => (name.to_string(), false),
                    (None, Some(path)) => (format!("{path}, blob {blob}"), true),
                    (None, None) => (format!("blob {blob} of the local image store"), true),
                }
            }
        };
        Error::Layer { place, file, error: Box::new(error) }
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

/// Is told how far a layer is.
pub(crate) trait LayerProgress: Sync {
    /// So many of so many bytes of an item are here.
    fn progress(&self, item: &str, current: u64, total: u64);

    /// Another process does the same; or not any more.
    fn waiting(&self, holder: Option<&str>) {
        let _ = holder;
    }
}

/// Of what nobody is shown.
pub(crate) struct Unseen;

impl LayerProgress for Unseen {
    fn progress(&self, _item: &str, _current: u64, _total: u64) {}
}

impl LayerProgress for Task<'_> {
    fn progress(&self, item: &str, current: u64, total: u64) {
        Task::progress(self, item, current, Some(total));
    }

    fn waiting(&self, holder: Option<&str>) {
        Task::waiting(self, holder);
    }
}

/// A blob on its way: what is read is kept, counted and reported.
pub(super) struct BlobReader<'a> {
    source: Box<dyn Read + Send + 'a>,
    into: Option<kiln_store::BlobWriter>,
    read: u64,
    item: String,
    total: u64,
    task: &'a dyn LayerProgress,
    cancel: &'a Cancel,
    /// Why reading failed, as the type it was: on its way through a decompressor only a text is left.
    failed: Option<Error>,
    /// Bytes yet to be read that an earlier try left in the store.
    left: u64,
    /// Whether it went on with what an earlier try left.
    resumed: bool,
}

/// What a reader of a blob wants of that of which the start is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// Everything.
    All,
    /// What is not here yet.
    Missing,
}

/// Makes the store have a registry's blob.
pub(super) fn download(
    store: &Store,
    registry: &RegistryClient,
    name: &ImageRef,
    info: &kiln_oci::BlobInfo,
    task: &dyn LayerProgress,
    cancel: &Cancel,
) -> Result<(), Error> {
    let mut reader = BlobReader::download(store, registry, name, info, Start::Missing, (task, cancel))?;
    match reader.drain(&info.digest, &mut vec![0; 256 << 10]) {
        Ok(()) => reader.finish(info),
        // Once: now there is nothing left of it.
        Err(_) if reader.is_spoiled() => download(store, registry, name, info, task, cancel),
        Err(error) => Err(error),
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        /// Often enough for a smooth display, seldom enough to cost nothing.
        const REPORT: u64 = 4 << 20;
        if self.cancel.is_cancelled() {
            self.failed = Some(Error::Interrupted);
            return Err(std::io::Error::other("interrupted"));
        }
        let count = match self.source.read(buffer) {
            Ok(count) => count,
            Err(error) => {
                self.failed = of_source(&error);
                // The next try must not go on with it.
                if matches!(&self.failed, Some(Error::Registry(error)) if is_wrong(error))
                    && let Some(into) = self.into.take()
                {
                    into.discard();
                }
                return Err(error);
            }
        };
        if self.left > 0 {
            self.left = self.left.saturating_sub(count as u64);
        } else if let Some(into) = &mut self.into
            && let Err(error) = into.append(&buffer[..count])
        {
            self.failed = Some(error.into());
            return Err(std::io::Error::other("the store cannot keep it"));
        }
        let before = self.read;
        self.read += count as u64;
        if before / REPORT != self.read / REPORT || self.read == self.total && count > 0 {
            self.task.progress(&self.item, self.read, self.total);
        }
        Ok(count)
    }
}

impl<'a> BlobReader<'a> {
    pub(super) fn new(
        source: Box<dyn Read + Send + 'a>,
        into: Option<kiln_store::BlobWriter>,
        info: &kiln_oci::BlobInfo,
        task: &'a dyn LayerProgress,
        cancel: &'a Cancel,
    ) -> Self {
        let (item, total) = (info.digest.short(), info.size);
        Self { source, into, read: 0, item, total, task, cancel, failed: None, left: 0, resumed: false }
    }

    /// Reads a registry's blob, and writes it to the store on the way. What an earlier try left there is not fetched again:
    /// the registry is asked for the rest, and the whole is what its digest says or is thrown away.
    pub(super) fn download(
        store: &Store,
        registry: &RegistryClient,
        name: &ImageRef,
        info: &kiln_oci::BlobInfo,
        start: Start,
        (task, cancel): (&'a dyn LayerProgress, &'a Cancel),
    ) -> Result<Self, Error> {
        let into = store.blob_writer_for(&info.digest, info.size)?;
        let there = into.size();
        let resume = (there > 0).then(|| Resume { offset: there, hasher: into.hasher() });
        let rest = registry.blob(name, info, resume)?;
        // A chain ends each read where its first part ends.
        let (source, read, left): (Box<dyn Read + Send>, _, _) = match start {
            Start::All if there > 0 => (Box::new(into.written()?.chain(rest)), 0, there),
            _ => (Box::new(rest), there, 0),
        };
        let reader = Self::new(source, Some(into), info, task, cancel);
        Ok(Self { read, left, resumed: there > 0, ..reader })
    }

    /// Whether it went on with what an earlier try left, and that was no part of it. It is thrown away: the next try begins
    /// anew.
    pub(super) fn is_spoiled(&self) -> bool {
        self.resumed && self.into.is_none()
    }

    /// Reads what is left: all of it, or what a decompressor did not want. `what` is for the message.
    pub(super) fn drain(&mut self, what: &Digest, buffer: &mut [u8]) -> Result<(), Error> {
        loop {
            match self.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => {
                    let message = error.to_string();
                    let unknown = || StoreError::LayerRead { layer: *what, message }.into();
                    return Err(self.failed.take().unwrap_or_else(unknown));
                }
            }
        }
    }

    /// Makes the blob the store's if it is what was promised.
    pub(super) fn finish(self, info: &kiln_oci::BlobInfo) -> Result<(), Error> {
        if let Some(into) = self.into {
            into.finish(Some((info.digest, info.size)))?;
        }
        Ok(())
    }
}

/// Whether what came is not what was asked for.
fn is_wrong(error: &RegistryError) -> bool {
    matches!(error.root(), RegistryError::DigestMismatch { .. } | RegistryError::SizeMismatch { .. })
}

/// A registry's or a layout's failure, which travels inside an I/O error.
pub(super) fn of_source(error: &std::io::Error) -> Option<Error> {
    let inner = error.get_ref()?;
    let registry = inner.downcast_ref::<RegistryError>().cloned().map(Error::Registry);
    registry.or_else(|| inner.downcast_ref::<OciError>().cloned().map(Error::Oci))
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

fn blob_info(layer: &Layer) -> kiln_oci::BlobInfo {
    kiln_oci::BlobInfo { media_type: layer.media_type.clone(), digest: layer.digest, size: layer.size }
}

fn layer_id(layer: &Layer) -> LayerId {
    LayerId(layer.diff_id.hex())
}
