//! Layers that are somewhere else until somebody needs their files, or their blob.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kiln_core::{Cancel, Digest, Layer, LayerId, Snapshot};
use kiln_oci::BlobInfo;
use kiln_registry::RegistryError;
use kiln_store::{LayerOptions, StoreError};

use super::StepCache;
use crate::Error;
use crate::engine::layers::{LayerProgress, each};
use crate::engine::transfer::Origin;

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct FarLayer {
    pub(super) layer: Layer,
    pub(super) packing: String,
    pub(super) origin: Origin,
    /// Which source it is of; none of a base's.
    pub(super) source: Option<usize>,
}

/// All that this build came across.
#[derive(Default)]
pub(super) struct Far {
    layers: Mutex<HashMap<LayerId, FarLayer>>,
    /// Diff ids of those that are not what they should be.
    spoiled: Mutex<HashSet<Digest>>,
    /// Whether one was counted on and could not be had.
    lost: AtomicBool,
}

impl Far {
    fn layers(&self) -> MutexGuard<'_, HashMap<LayerId, FarLayer>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, id: LayerId, layer: FarLayer) {
        self.layers().entry(id).or_insert(layer);
    }

    pub(super) fn get(&self, id: &LayerId) -> Option<FarLayer> {
        self.layers().get(id).cloned()
    }

    pub(super) fn is_spoiled(&self, diff_id: &Digest) -> bool {
        self.spoiled.lock().unwrap_or_else(PoisonError::into_inner).contains(diff_id)
    }
}

impl StepCache<'_> {
    /// Makes the files of these snapshots present.
    ///
    /// # Errors
    /// A layer cannot be had. If it was one of a cache, [`lost`](Self::lost) says so: a build that begins again does without.
    pub(crate) fn present<'s>(
        &self,
        snapshots: impl IntoIterator<Item = &'s Snapshot>,
        progress: &dyn LayerProgress,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        let missing: Vec<(LayerId, FarLayer)> = {
            let far = self.far.layers();
            if far.is_empty() {
                return Ok(());
            }
            let mut seen = HashSet::new();
            let all = snapshots.into_iter().flat_map(|snapshot| &snapshot.layers);
            let all = all.filter(|id| seen.insert((*id).clone()));
            all.filter_map(|id| Some((id.clone(), far.get(id)?.clone()))).collect()
        };
        let missing: Vec<_> = missing.into_iter().filter(|(id, _)| !self.store.has_layer(id)).collect();
        each(&missing, cancel, |(id, far)| {
            let began = std::time::Instant::now();
            let had = self.store.has_blob(&far.layer.digest);
            self.bases
                .unpack_from(&far.origin, &far.layer, progress, cancel)
                .map_err(|error| self.lose(far, error))?;
            if !had {
                self.rates.note(&far.origin, far.layer.size, began.elapsed());
            }
            // What it was packed as is known: it need not be packed again for that.
            Ok(self.store.note_packed(id, &far.packing, &far.layer)?)
        })
    }

    /// Whether this build counts on layers that need not be here.
    pub(crate) fn counts_on_far(&self) -> bool {
        !self.far.layers().is_empty()
    }

    /// Returns the blob of a layer that is packed as wanted, wherever it is.
    pub(crate) fn packed(&self, id: &LayerId, options: &LayerOptions) -> Option<Layer> {
        let far = self.far.get(id)?;
        let same = options.epoch.is_none() && far.packing == options.compression.version();
        same.then_some(far.layer)
    }

    /// Where a blob is that the store need not have.
    pub(crate) fn origin(&self, blob: &Digest) -> Option<Origin> {
        let far = self.far.layers();
        far.values()
            .find(|far| far.layer.digest == *blob && far.source.is_some())
            .map(|far| far.origin.clone())
    }

    /// Makes the store have those of these layers' blobs that are somewhere else, and looks whether they hold what is said:
    /// nobody has unpacked them.
    ///
    /// # Errors
    /// As of [`present`](Self::present).
    pub(crate) fn fetch_blobs<'l>(
        &self,
        layers: impl IntoIterator<Item = &'l Layer>,
        progress: &dyn LayerProgress,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        let far: HashMap<Digest, (LayerId, FarLayer)> = {
            let far = self.far.layers();
            let of_sources = far.iter().filter(|(_, far)| far.source.is_some());
            of_sources.map(|(id, far)| (far.layer.digest, (id.clone(), far.clone()))).collect()
        };
        let wanted: Vec<_> = layers.into_iter().filter_map(|layer| far.get(&layer.digest)).collect();
        each(&wanted, cancel, |(id, far)| {
            let layer = &far.layer;
            if !self.store.has_blob(&layer.digest) {
                let began = std::time::Instant::now();
                let fetched = self.bases.fetch_from(&far.origin, layer, progress, cancel);
                fetched.map_err(|error| self.lose(far, error))?;
                self.rates.note(&far.origin, layer.size, began.elapsed());
            } else if self.store.is_packed(id, &far.packing, layer)? {
                return Ok(());
            }
            self.store.check_layer(layer).map_err(|error| self.lose(far, error.into()))
        })
    }

    /// Whether a layer was counted on and could not be had, since this was asked last: then the steps that counted on it are
    /// not done, and doing all again does them without.
    pub(crate) fn lost(&self) -> bool {
        self.far.lost.swap(false, Ordering::Relaxed)
    }

    /// A push could not read a blob.
    pub(crate) fn lose_blob(&self, error: Error) -> Error {
        let digest = match &error {
            Error::Registry(error) => match error.root() {
                RegistryError::NotFound { reference, .. } => reference.parse().ok(),
                RegistryError::DigestMismatch { wanted, .. } => Some(*wanted),
                RegistryError::SizeMismatch { digest, .. } | RegistryError::Interrupted { digest, .. } => {
                    Some(*digest)
                }
                _ => None,
            },
            Error::Store(StoreError::NoBlob { digest } | StoreError::SizeMismatch { digest, .. }) => {
                Some(*digest)
            }
            Error::Store(StoreError::DigestMismatch { expected, .. }) => Some(*expected),
            _ => None,
        };
        let far = digest.and_then(|digest: Digest| {
            let far = self.far.layers();
            far.values().find(|far| far.layer.digest == digest && far.source.is_some()).cloned()
        });
        match far {
            Some(far) => self.lose(&far, error),
            None => error,
        }
    }

    /// Notes that a layer of a cache cannot be had. What is wrong with this machine is no loss, and fails the build.
    fn lose(&self, far: &FarLayer, error: Error) -> Error {
        let Some(source) = far.source.map(|source| &self.sources[source]) else { return error };
        let away = match &error {
            Error::Registry(RegistryError::Cancelled) | Error::Interrupted => return error,
            Error::Registry(error) => !matches!(
                error.root(),
                RegistryError::DigestMismatch { .. }
                    | RegistryError::SizeMismatch { .. }
                    | RegistryError::NotFound { .. }
            ),
            Error::Oci(_) => false,
            Error::Store(
                StoreError::Decompress { .. }
                | StoreError::LayerRead { .. }
                | StoreError::BadEntry { .. }
                | StoreError::TooLarge { .. }
                | StoreError::DiffIdMismatch { .. }
                | StoreError::DigestMismatch { .. }
                | StoreError::SizeMismatch { .. }
                | StoreError::NoBlob { .. }
                | StoreError::MediaType { .. },
            ) => false,
            _ => return error,
        };
        if away {
            source.give_up(&error, self.reporter);
        } else {
            let layer = far.layer.digest.short();
            let message =
                format!("layer {layer} of {} is not used, its step runs instead: {error}", source.label);
            self.reporter.warn(message, None);
        }
        let mut spoiled = self.far.spoiled.lock().unwrap_or_else(PoisonError::into_inner);
        spoiled.insert(far.layer.diff_id);
        drop(spoiled);
        self.far.layers().retain(|_, known| known.layer.diff_id != far.layer.diff_id);
        self.far.lost.store(true, Ordering::Relaxed);
        error
    }
}

/// Describes a layer's blob.
pub(super) fn info(layer: &Layer) -> BlobInfo {
    BlobInfo { media_type: layer.media_type.clone(), digest: layer.digest, size: layer.size }
}
