//! Saving after a build: what its steps mounted goes to every place that was asked for.

use std::sync::PoisonError;

use kiln_store::cache_mount::CacheName;

use super::used;
use crate::Error;
use crate::engine::build::Build;

impl Build<'_> {
    /// Exports the caches of this build's steps. The image stands by now: a failure is told and no more, unless it is required.
    pub(in crate::engine) fn save_caches(&self) -> Result<(), Error> {
        for target in &self.request.cache_mounts_to {
            let mut names = Vec::new();
            for (id, scope) in used(&self.plan.graph) {
                let name = CacheName { id, scope };
                let wanted = target.ids.is_empty() || target.ids.contains(&name.id);
                if wanted && self.caches.find(&name)?.is_some() {
                    names.push(name);
                }
            }
            if names.is_empty() {
                self.reporter.warn(format!("there is no cache mount to export to {}", target.place), None);
                continue;
            }
            let to = (&target.place, &target.limits, &self.request.registry);
            let saved = self.engine.export_to(&self.caches, &names, to, self.reporter, self.cancel);
            match saved {
                Ok(export) => {
                    for note in &export.notes {
                        self.reporter.warn(note.clone(), None);
                    }
                    self.carried.lock().unwrap_or_else(PoisonError::into_inner).saved.push(export);
                }
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) if self.request.cache_mounts_required => return Err(error),
                Err(error) => {
                    let message = format!(
                        "the image is built, but cache mounts are not exported to {}: {error}",
                        target.place
                    );
                    self.reporter.warn(message, None);
                }
            }
        }
        Ok(())
    }
}
