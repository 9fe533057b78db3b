//! What a step changed.

use std::path::PathBuf;

use kiln_core::Snapshot;
use kiln_store::Change;

use super::{Candidate, HeldStep};
use crate::Error;
use crate::engine::Engine;

impl Engine {
    /// Lists what a step changed, by path: also what a failed one had changed until then.
    ///
    /// # Errors
    /// Files cannot be looked at.
    pub fn diff_step(&self, step: &HeldStep) -> Result<Vec<Change>, Error> {
        let Candidate { below, own, .. } = &step.candidate;
        let mut below: Snapshot = below.clone();
        let mut changes = Vec::new();
        for layer in own {
            let dirs: Vec<PathBuf> = below.layers.iter().map(|layer| self.store.layer_dir(layer)).collect();
            let view = kiln_runtime::view(&self.entered, &dirs)?;
            changes.extend(self.store.changes(layer, view, &self.store.link_owners(&below)?)?);
            below = below.with(layer.clone());
        }
        Ok(changes)
    }
}
