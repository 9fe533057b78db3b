//! Layers that a build makes go to registries while later steps still run.
//!
//! Only those of steps that ran: what was there before is mostly at the registry, too, and then one question about the root
//! answers for all. What goes wrong here is nobody's failure yet: the push at the end does it again and says so.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, PoisonError};

use kiln_core::{Cancel, Digest, ImageRef, Layer};
use kiln_registry::RegistryClient;
use kiln_store::{LayerOptions, Store};

use super::built::info;
use super::{Blobs, Origin, origin};
use crate::engine::reporter::{Reporter, Task};
use crate::engine::{export, finished};
use crate::{BuildRequest, Error, Output};

/// What goes where, and what went.
#[derive(Debug, Default)]
pub(in crate::engine) struct Early {
    /// Repositories for layers that are packed in a way; of each the first name.
    targets: Vec<(LayerOptions, Vec<ImageRef>)>,
    sent: Mutex<HashSet<(String, Digest)>>,
    /// The steps have ended: the push has more hands than this.
    enough: AtomicBool,
}

impl Early {
    /// Looks where a build pushes to. Nowhere before its end, if images may turn out too large to be written.
    pub(in crate::engine) fn of(request: &BuildRequest, epoch: Option<u64>) -> Self {
        let mut early = Self::default();
        if request.size_limits.any() {
            return early;
        }
        for output in &request.outputs {
            let Output::Image { push: true, form, .. } = output else { continue };
            let mut repositories: Vec<ImageRef> = Vec::new();
            for name in export::names(request, output) {
                if !repositories.iter().any(|other| other.name() == name.name()) {
                    repositories.push(name);
                }
            }
            early.targets.push((finished::layer_options(form, epoch), repositories));
        }
        early
    }

    /// Whether layers are pushed at all.
    pub(in crate::engine) fn any(&self) -> bool {
        !self.targets.is_empty()
    }

    /// Whether a blob went to the repository of a name.
    pub(super) fn sent(&self, name: &ImageRef, digest: &Digest) -> bool {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.contains(&(name.name(), *digest))
    }

    /// Ends after the blob that is under way.
    pub(in crate::engine) fn end(&self) {
        self.enough.store(true, Ordering::Relaxed);
    }

    /// Sends what comes until nothing more does, or something goes wrong.
    pub(in crate::engine) fn run(
        &self,
        layers: &Receiver<(LayerOptions, Layer)>,
        (store, registry): (&Store, &RegistryClient),
        reporter: &Reporter<'_>,
        cancel: &Cancel,
    ) {
        let mut task: Option<Task<'_>> = None;
        'all: for (way, layer) in layers {
            for (wanted, names) in &self.targets {
                if self.enough.load(Ordering::Relaxed) || cancel.is_cancelled() {
                    break 'all;
                }
                if *wanted == way {
                    let task = task.get_or_insert_with(|| reporter.task("pushing layers"));
                    if self.push(&layer, names, (store, registry), task, cancel).is_err() {
                        return;
                    }
                }
            }
        }
        if let Some(task) = task {
            task.done();
        }
    }

    fn push(
        &self,
        layer: &Layer,
        names: &[ImageRef],
        (store, registry): (&Store, &RegistryClient),
        task: &Task<'_>,
        cancel: &Cancel,
    ) -> Result<(), Error> {
        let mut blobs = Blobs::new(store, registry, task, cancel);
        let blob = info(layer);
        blobs.add_blob(&blob, &Origin::Store);
        for (at, name) in names.iter().enumerate() {
            let progress = |bytes: u64| task.progress(&blob.digest.short(), bytes, Some(blob.size));
            registry.push_blob(name, &blob, &blobs, &names[..at], &progress)?;
            progress(blob.size);
            origin::note(store, &blob.digest, name)?;
            self.sent.lock().unwrap_or_else(PoisonError::into_inner).insert((name.name(), blob.digest));
        }
        Ok(())
    }
}
