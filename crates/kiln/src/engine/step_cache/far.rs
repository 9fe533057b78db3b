//! Layers that are somewhere else until somebody needs their files, or their blob.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kiln_core::{Cancel, Digest, Layer, LayerId, Reason, Snapshot};
use kiln_oci::BlobInfo;
use kiln_registry::RegistryError;
use kiln_store::{LayerOptions, StoreError};

use super::StepCache;
use crate::Error;
use crate::engine::arrival::LayerProgress;
use crate::engine::layers::each;
use crate::engine::transfer::Origin;

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct FarLayer {
    pub(super) layer: Layer,
    pub(super) packing: String,
    pub(super) origin: Origin,
    pub(super) whose: Whose,
}

/// Who said that there is such a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whose {
    /// A base image.
    Base,
    /// A source of this build, by its number.
    Source(usize),
    /// A source of an earlier build, as it was given then.
    Earlier(String),
}

/// All that this build came across.
#[derive(Default)]
pub(super) struct Far {
    layers: Mutex<HashMap<LayerId, FarLayer>>,
    /// Diff ids of those that are not what they should be.
    spoiled: Mutex<HashSet<Digest>>,
    /// Whether one was counted on and could not be had.
    lost: AtomicBool,
    /// Sources of earlier builds that were given up.
    gone: Mutex<HashSet<String>>,
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
        let missing = self.missing_files(snapshots);
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

    /// Whether files of these snapshots are somewhere else.
    pub(crate) fn lacks_files<'s>(&self, snapshots: impl IntoIterator<Item = &'s Snapshot>) -> bool {
        !self.missing_files(snapshots).is_empty()
    }

    fn missing_files<'s>(
        &self,
        snapshots: impl IntoIterator<Item = &'s Snapshot>,
    ) -> Vec<(LayerId, FarLayer)> {
        let missing: Vec<(LayerId, FarLayer)> = {
            let far = self.far.layers();
            if far.is_empty() {
                return Vec::new();
            }
            let mut seen = HashSet::new();
            let all = snapshots.into_iter().flat_map(|snapshot| &snapshot.layers);
            let all = all.filter(|id| seen.insert((*id).clone()));
            all.filter_map(|id| Some((id.clone(), far.get(id)?.clone()))).collect()
        };
        missing.into_iter().filter(|(id, _)| !self.store.has_layer(id)).collect()
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
            .find(|far| far.layer.digest == *blob && far.whose != Whose::Base)
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
        let wanted = self.of_sources(layers);
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
            self.store.check_layer(layer).map_err(|error| self.lose(far, error.into()))?;
            // The next build need not look.
            Ok(self.store.note_packed(id, &far.packing, layer)?)
        })
    }

    /// Whether some of these layers' blobs are somewhere else, or were not looked at.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn lacks_blobs<'l>(&self, layers: impl IntoIterator<Item = &'l Layer>) -> Result<bool, Error> {
        for (id, far) in self.of_sources(layers) {
            if !self.store.has_blob(&far.layer.digest)
                || !self.store.is_packed(&id, &far.packing, &far.layer)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn of_sources<'l>(&self, layers: impl IntoIterator<Item = &'l Layer>) -> Vec<(LayerId, FarLayer)> {
        let far = self.far.layers();
        let of_sources = far.iter().filter(|(_, far)| far.whose != Whose::Base);
        let known: HashMap<Digest, (&LayerId, &FarLayer)> =
            of_sources.map(|(id, far)| (far.layer.digest, (id, far))).collect();
        let wanted = layers.into_iter().filter_map(|layer| known.get(&layer.digest));
        wanted.map(|(id, far)| ((*id).clone(), (*far).clone())).collect()
    }

    /// Whether a layer was counted on and could not be had, since this was asked last: then the steps that counted on it are
    /// not done, and doing all again does them without.
    pub(crate) fn lost(&self) -> bool {
        let lost = self.far.lost.swap(false, Ordering::Relaxed);
        if lost {
            let taken = std::mem::take(&mut *self.taken.lock().unwrap_or_else(PoisonError::into_inner));
            let mut passed_over = self.passed_over.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that are looked up and not found now; the others are hits again.
            passed_over.extend(taken.into_iter().map(|(key, taken)| {
                let reason = Reason::NotHad { source: self.label(&taken.whose) };
                (key, reason)
            }));
        }
        lost
    }

    /// Whether a layer was counted on and could not be had: all is done again, without it.
    pub(crate) fn is_lost(&self) -> bool {
        self.far.lost.load(Ordering::Relaxed)
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
            far.values().find(|far| far.layer.digest == digest && far.whose != Whose::Base).cloned()
        });
        match far {
            Some(far) => self.lose(&far, error),
            None => error,
        }
    }

    /// Notes that a layer of a cache cannot be had. What is wrong with this machine is no loss, and fails the build.
    fn lose(&self, far: &FarLayer, error: Error) -> Error {
        if far.whose == Whose::Base {
            return error;
        }
        let away = match &error {
            Error::Registry(RegistryError::Cancelled) | Error::Interrupted => return error,
            Error::Registry(error) => !matches!(
                error.root(),
                RegistryError::DigestMismatch { .. }
                    | RegistryError::SizeMismatch { .. }
                    | RegistryError::NotFound { .. }
            ),
            Error::Oci(_) | Error::Archive { .. } | Error::Layer { .. } => false,
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
        let layer = far.layer.digest.short();
        match &far.whose {
            Whose::Source(number) if away => self.sources[*number].give_up(&error, self.reporter),
            Whose::Source(number) => {
                let label = &self.sources[*number].label;
                let message = format!("layer {layer} of {label} is not used, its step runs instead: {error}");
                self.reporter.warn(message, None);
            }
            Whose::Earlier(label) => self.lose_all(label, &error),
            Whose::Base => {}
        }
        let mut spoiled = self.far.spoiled.lock().unwrap_or_else(PoisonError::into_inner);
        spoiled.insert(far.layer.diff_id);
        drop(spoiled);
        self.far.layers().retain(|_, known| known.layer.diff_id != far.layer.diff_id);
        self.far.lost.store(true, Ordering::Relaxed);
        error
    }

    /// An earlier build's source has not what it had. It was not asked for its records this time, so nobody knows what it still
    /// has: none of its layers that are not here are counted on any more.
    fn lose_all(&self, label: &String, error: &Error) {
        let mut gone = self.far.gone.lock().unwrap_or_else(PoisonError::into_inner);
        if gone.insert(label.clone()) {
            let message = format!(
                "results that an earlier build took from {label} cannot be had any more, so their steps run: {error}"
            );
            self.reporter.warn(message, None);
        }
        drop(gone);
        let far = self.far.layers();
        let its = far.values().filter(|far| far.whose == Whose::Earlier(label.clone()));
        let missing = its.filter(|far| !self.store.has_blob(&far.layer.digest));
        let missing: Vec<Digest> = missing.map(|far| far.layer.diff_id).collect();
        drop(far);
        self.far.spoiled.lock().unwrap_or_else(PoisonError::into_inner).extend(missing);
    }
}

/// Describes a layer's blob.
pub(super) fn info(layer: &Layer) -> BlobInfo {
    BlobInfo { media_type: layer.media_type.clone(), digest: layer.digest, size: layer.size }
}
