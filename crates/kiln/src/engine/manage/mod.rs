//! Looking after a store: images, caches, room.

mod bound;
mod caches;
mod images;
mod inspect;
mod prune;
mod remove;
pub(super) mod stored;

use std::time::SystemTime;

use kiln_core::LayerId;
use kiln_registry::{Launcher, RegistryConfig};
use kiln_store::{Problem, RecordKind};

use super::Engine;
use super::finished::Packed;
use crate::Error;
use crate::request::RegistryOptions;

pub use bound::{BoundReport, NextToGo, StoreBound};
pub use caches::{CacheFilter, CachePruneReport, CachePruneRequest, CacheSummary};
pub use images::{ImageFilter, ImageSummary, ImagesRequest};
pub(super) use inspect::steps;
pub use inspect::{HistoryStep, ImageDetails, history};
pub use prune::{PruneReport, PruneRequest, PrunedKind, PrunedThing};
pub use remove::{ImagePruneReport, ImagePruneRequest, RemovedImage};

/// Turns a request's registry options into the client's.
pub(crate) fn registry_config(options: &RegistryOptions) -> RegistryConfig {
    RegistryConfig {
        mirrors: options.mirrors.clone(),
        insecure: options.insecure.clone(),
        credentials: options.credentials.clone(),
        files: options.files.clone(),
        short_names: options.short_names,
        user_agent: options.user_agent.clone(),
        ..RegistryConfig::default()
    }
}

impl Engine {
    /// The same for requests of this process, which may have entered a namespace where its user is root: the user's programs
    /// still run as the user.
    pub(crate) fn registry_config(&self, options: &RegistryOptions) -> RegistryConfig {
        let mut config = registry_config(options);
        config.credentials.launcher =
            self.entered.as_caller().map(|args| Launcher { program: "/proc/self/exe".into(), args });
        config
    }

    /// Looks at everything in the store; returns what is not as it must be.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn fsck(&self) -> Result<Vec<Problem>, Error> {
        Ok(self.store.fsck()?)
    }

    /// Notes which directories packed layers were made of, so that a build or run from the packed image finds them.
    pub(super) fn remember_layers(&self, packed: &Packed) -> Result<(), Error> {
        for ((made, _), layer) in packed {
            // Its tar has files that the step's directory has not.
            if layer.annotations.contains_key(kiln_store::estargz::TOC_DIGEST) {
                continue;
            }
            let key = layer.diff_id.hex();
            if self.store.get_record::<LayerId>(RecordKind::Base, &key)?.as_ref() != Some(made) {
                self.store.put_record(RecordKind::Base, &key, made)?;
            }
        }
        Ok(())
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
