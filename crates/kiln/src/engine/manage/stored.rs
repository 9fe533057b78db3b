//! An image of the local image store, read: as far as it is here.

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::{Digest, LayerId, Platform};
use kiln_oci::{BlobInfo, Children, Document, LoadedImage};
use kiln_store::{Parts, RecordKind, Store, StoreError};

use crate::Error;

/// Deeper than anything seen; an index within an index is rare already.
const MAX_NESTING: usize = 4;

/// What a digest of the image store leads to. Reading counts as no use: a listing keeps nothing from being pruned.
pub(crate) struct Stored {
    /// The index or manifest.
    pub(crate) root: Document,
    /// The images that are here with manifest and configuration, in the order of the index.
    pub(crate) images: Vec<LoadedImage>,
    /// Platforms of the index whose manifest or configuration is not here.
    pub(crate) absent: Vec<Platform>,
    /// All that it consists of, here or not, attestations and the root among it.
    pub(crate) blobs: BTreeMap<Digest, BlobInfo>,
}

impl Stored {
    /// Reads what a digest leads to; none if its own blob is not here, or is damaged.
    ///
    /// # Errors
    /// What is here is no image.
    pub(crate) fn read(store: &Store, digest: &Digest) -> Result<Option<Self>, Error> {
        let Some(bytes) = bytes(store, digest) else { return Ok(None) };
        let root = Document::new("", bytes);
        let (images, absent, blobs) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut this = Self { root: root.clone(), images, absent, blobs };
        this.blobs.insert(root.digest, root.info());
        this.descend(store, root, None, 0)?;
        Ok(Some(this))
    }

    /// Chooses the image for a platform: the very one, else the best that there is for it.
    pub(crate) fn for_platform(&self, wanted: &Platform) -> Option<&LoadedImage> {
        let rated = self
            .images
            .iter()
            .filter_map(|image| Some((kiln_oci::matches(wanted, &image.image.platform())?, image)));
        // The first of equals.
        rated.rev().max_by_key(|(rating, _)| *rating).map(|(_, image)| image)
    }

    /// Chooses this machine's image, else the first.
    pub(crate) fn usual(&self) -> Option<&LoadedImage> {
        self.for_platform(&Platform::host()).or_else(|| self.images.first())
    }

    /// What its root is.
    pub(crate) fn media_type(&self) -> String {
        kiln_oci::media_type(&self.root).unwrap_or_default()
    }

    /// Bytes of its layers as they are sent, each once.
    pub(crate) fn compressed(&self) -> u64 {
        let layers = self.images.iter().flat_map(|image| &image.layers);
        layers.map(|layer| (layer.digest, layer.size)).collect::<BTreeMap<_, _>>().values().sum()
    }

    /// Returns all that it takes room with: its blobs, and its layers' directories.
    pub(crate) fn parts(&self, store: &Store) -> Result<Parts, Error> {
        let mut layers = BTreeSet::new();
        for layer in self.images.iter().flat_map(|image| &image.layers) {
            layers.extend(layer_dirs(store, &layer.diff_id)?);
        }
        Ok(Parts { blobs: self.blobs.keys().copied().collect(), layers })
    }

    fn descend(
        &mut self,
        store: &Store,
        document: Document,
        platform: Option<Platform>,
        depth: usize,
    ) -> Result<(), Error> {
        match kiln_oci::children(&document)? {
            Children::Index(entries) => {
                for (info, platform) in entries {
                    self.blobs.insert(info.digest, info.clone());
                    let here = bytes(store, &info.digest).filter(|_| depth < MAX_NESTING);
                    match here {
                        Some(bytes) => {
                            self.descend(store, Document::verified(&info, bytes)?, platform, depth + 1)?;
                        }
                        None => self.absent.extend(platform.filter(|platform| !is_attestation(platform))),
                    }
                }
            }
            Children::Manifest { config, layers } => {
                let infos = layers.into_iter().chain([config]);
                self.blobs.extend(infos.map(|info| (info.digest, info)));
                if platform.as_ref().is_some_and(is_attestation) {
                    return Ok(());
                }
                let mut fetch = |info: &BlobInfo| -> Result<Vec<u8>, Error> {
                    bytes(store, &info.digest).ok_or(StoreError::NoBlob { digest: info.digest }.into())
                };
                match kiln_oci::load(document, &Platform::host(), &mut fetch) {
                    Ok(image) => self.images.push(image),
                    Err(Error::Store(StoreError::NoBlob { .. })) => self.absent.extend(platform),
                    // An artifact that is no image may stand in an index.
                    Err(Error::Oci(_)) if depth > 0 => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// Returns the names of the directories that a layer's files may be in: unpacked, or as a step left them.
pub(crate) fn layer_dirs(store: &Store, diff_id: &Digest) -> Result<Vec<LayerId>, Error> {
    let made: Option<LayerId> = store.peek_record(RecordKind::Base, &diff_id.hex())?;
    Ok([LayerId(diff_id.hex())].into_iter().chain(made).collect())
}

/// BuildKit gives attestations this platform in an index:
/// <https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md>.
fn is_attestation(platform: &Platform) -> bool {
    platform.os == "unknown" && platform.architecture == "unknown"
}

/// Documents are small: a look at the bytes is cheaper than trust.
fn bytes(store: &Store, digest: &Digest) -> Option<Vec<u8>> {
    let path = store.blob_path(digest);
    let small = std::fs::metadata(&path).is_ok_and(|found| found.len() <= kiln_oci::MAX_DOCUMENT);
    let bytes = small.then(|| std::fs::read(path).ok()).flatten()?;
    (Digest::of(&bytes) == *digest).then_some(bytes)
}
