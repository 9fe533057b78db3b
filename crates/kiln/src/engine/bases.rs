//! Images that a build starts from: found under their names, and their layers made present when files are needed.

use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_core::{Cancel, Digest, ImageRef, Layer, LayerId, Platform, Snapshot};
use kiln_oci::{Layout, LoadedImage};
use kiln_registry::RegistryClient;
use kiln_store::{RecordKind, Store};

use super::reporter::Task;
use crate::Error;
use crate::request::ContextSource;

/// Layers fetched and unpacked at once: enough to keep two connections and the disk busy, few enough for memory.
const PARALLEL_LAYERS: usize = 4;

/// What is known of images in one build.
pub(crate) struct Bases<'a> {
    store: &'a Store,
    registry: &'a RegistryClient,
    found: Mutex<HashMap<Digest, Arc<Base>>>,
    layouts: Mutex<HashMap<PathBuf, Arc<Layout>>>,
}

/// One image, resolved.
pub(crate) struct Base {
    /// All of it but its layers' bytes.
    pub(crate) image: LoadedImage,
    origin: Origin,
}

/// Where an image's layers come from.
enum Origin {
    /// They are blobs of the store, or were when the image was made.
    Store,
    /// An OCI layout.
    Layout(Arc<Layout>),
    /// A registry.
    Registry(ImageRef),
}

impl<'a> Bases<'a> {
    /// Knows nothing yet.
    pub(crate) fn new(store: &'a Store, registry: &'a RegistryClient) -> Self {
        Self { store, registry, found: Mutex::default(), layouts: Mutex::default() }
    }

    /// Finds the image that a name means: one of the local image store, else one of a registry, as docker does.
    pub(crate) fn by_name(&self, name: &ImageRef, platform: &Platform) -> Result<Arc<Base>, Error> {
        if let Some(base) = self.local(name, platform)? {
            return Ok(base);
        }
        let cached = |digest: &Digest| self.read_blob(digest);
        let image = self.registry.resolve(name, platform, &cached)?;
        for document in [&image.root, &image.manifest, &image.config] {
            if !self.store.has_blob(&document.digest) {
                self.store.put_blob(&document.bytes)?;
            }
        }
        Ok(self.keep(Base { image, origin: Origin::Registry(name.clone()) }))
    }

    /// Finds the image that a named build context means.
    pub(crate) fn by_context(&self, source: &ContextSource, platform: &Platform) -> Result<Arc<Base>, Error> {
        match source {
            ContextSource::Image(name) => self.by_name(name, platform),
            ContextSource::OciLayout { path, tag, digest } => {
                let layout = self.layout(path)?;
                let image = layout.load(tag.as_deref(), *digest, platform)?;
                Ok(self.keep(Base { image, origin: Origin::Layout(layout) }))
            }
            ContextSource::Directory(path) => Err(Error::NotAnImage { path: path.clone() }),
        }
    }

    /// Finds an image of the local image store; none if the name is unknown or has no such platform.
    pub(crate) fn local(&self, name: &ImageRef, platform: &Platform) -> Result<Option<Arc<Base>>, Error> {
        let digest = match (&name.digest, self.store.image(name)?) {
            (Some(digest), _) => *digest,
            (None, Some(tagged)) => tagged.digest,
            (None, None) => return Ok(None),
        };
        let Some(bytes) = self.read_blob(&digest) else { return Ok(None) };
        let root = kiln_oci::Document::new("", bytes);
        let mut fetch = |info: &kiln_oci::BlobInfo| -> Result<Vec<u8>, Error> {
            self.read_blob(&info.digest)
                .ok_or(Error::Store(kiln_store::StoreError::NoBlob { digest: info.digest }))
        };
        match kiln_oci::load(root, platform, &mut fetch) {
            Ok(image) => {
                // A single manifest is loaded whatever its platform is; another one's is no answer here.
                if image.image.platform() != *platform {
                    return Ok(None);
                }
                Ok(Some(self.keep(Base { image, origin: Origin::Store })))
            }
            Err(Error::Oci(kiln_oci::OciError::NoPlatform { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns a resolved image by its manifest's digest.
    pub(crate) fn get(&self, manifest: &Digest) -> Option<Arc<Base>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).get(manifest).cloned()
    }

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
                self.unpack_layer(base, layer, task)?;
            }
            Ok(())
        })?;
        let ids = layers.iter().map(|layer| self.known(layer).unwrap_or_else(|| layer_id(layer))).collect();
        Ok(Snapshot { layers: ids })
    }

    /// Makes sure that the store has the blobs of these layers of a base, as an export needs them.
    pub(crate) fn fetch(&self, base: &Base, task: &dyn LayerProgress, cancel: &Cancel) -> Result<(), Error> {
        each(&base.image.layers, cancel, |layer| {
            if self.store.has_blob(&layer.digest) {
                return Ok(());
            }
            let mut reader = self.reader(base, layer, task)?;
            let mut buffer = vec![0; 256 * 1024];
            while reader.read(&mut buffer).map_err(|error| read_failed(layer, &error))? > 0 {}
            reader.finish(layer)
        })
    }

    fn unpack_layer(&self, base: &Base, layer: &Layer, task: &dyn LayerProgress) -> Result<(), Error> {
        let mut reader = self.reader(base, layer, task)?;
        self.store.unpack(&layer.diff_id, &layer.media_type, &mut reader)?;
        reader.finish(layer)
    }

    /// Reads a layer's blob: from the store if it is there, else from its origin, and into the store on the way.
    fn reader<'r>(
        &self,
        base: &'r Base,
        layer: &Layer,
        task: &'r dyn LayerProgress,
    ) -> Result<BlobReader<'r>, Error> {
        let (source, keep): (Box<dyn Read + Send + 'r>, bool) = if self.store.has_blob(&layer.digest) {
            (Box::new(self.store.open_blob(&layer.digest)?), false)
        } else {
            match &base.origin {
                Origin::Store => return Err(kiln_store::StoreError::NoBlob { digest: layer.digest }.into()),
                Origin::Layout(layout) => (Box::new(layout.blob(&blob_info(layer))?), true),
                Origin::Registry(name) => {
                    (Box::new(self.registry.blob(name, &blob_info(layer), None)?), true)
                }
            }
        };
        let into = if keep { Some(self.store.blob_writer()?) } else { None };
        Ok(BlobReader {
            source,
            into,
            read: 0,
            item: layer.digest.short(),
            total: layer.size,
            task,
            full: None,
        })
    }

    /// Returns the directory that has a layer's files: unpacked from it, or the one that a step left and the layer
    /// was made of.
    fn known(&self, layer: &Layer) -> Option<LayerId> {
        let unpacked = layer_id(layer);
        if self.store.has_layer(&unpacked) {
            return Some(unpacked);
        }
        let made: LayerId = self.store.get_record(RecordKind::Base, &layer.diff_id.hex()).ok()??;
        self.store.has_layer(&made).then_some(made)
    }

    fn read_blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = std::fs::read(self.store.blob_path(digest)).ok()?;
        // Manifests and configurations are small: a look at the bytes is cheaper than trust.
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    fn layout(&self, path: &std::path::Path) -> Result<Arc<Layout>, Error> {
        let mut layouts = self.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layout) = layouts.get(path) {
            return Ok(Arc::clone(layout));
        }
        let layout = Arc::new(Layout::open(path)?);
        layouts.insert(path.to_owned(), Arc::clone(&layout));
        Ok(layout)
    }

    fn keep(&self, base: Base) -> Arc<Base> {
        let base = Arc::new(base);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(found.entry(base.image.manifest.digest).or_insert(base))
    }
}

/// Is told how far a layer is.
pub(crate) trait LayerProgress: Sync {
    /// So many of so many bytes of an item are here.
    fn progress(&self, item: &str, current: u64, total: u64);
}

impl LayerProgress for Task<'_> {
    fn progress(&self, item: &str, current: u64, total: u64) {
        Task::progress(self, item, current, Some(total));
    }
}

/// A blob on its way: what is read is kept, counted and reported.
struct BlobReader<'a> {
    source: Box<dyn Read + Send + 'a>,
    into: Option<kiln_store::BlobWriter>,
    read: u64,
    item: String,
    total: u64,
    task: &'a dyn LayerProgress,
    /// A failure to keep the bytes: it must not be told as one to read them.
    full: Option<kiln_store::StoreError>,
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        /// Often enough for a smooth display, seldom enough to cost nothing.
        const REPORT: u64 = 4 << 20;
        let count = self.source.read(buffer)?;
        if let Some(into) = &mut self.into
            && let Err(error) = into.append(&buffer[..count])
        {
            self.full = Some(error);
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

impl BlobReader<'_> {
    /// Reads what a decompressor left, and makes the blob the store's if it is what was promised.
    fn finish(mut self, layer: &Layer) -> Result<(), Error> {
        let mut rest = [0; 4096];
        loop {
            match self.read(&mut rest) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(self.full.map_or_else(|| read_failed(layer, &error), Error::Store)),
            }
        }
        if let Some(into) = self.into {
            into.finish(Some((layer.digest, layer.size)))?;
        }
        Ok(())
    }
}

/// Does something for each layer, a few at once; the first failure is returned and the rest not begun.
fn each(
    layers: &[Layer],
    cancel: &Cancel,
    work: impl Fn(&Layer) -> Result<(), Error> + Sync,
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

fn read_failed(layer: &Layer, error: &std::io::Error) -> Error {
    kiln_store::StoreError::LayerRead { layer: layer.diff_id, message: error.to_string() }.into()
}
