//! A record from elsewhere becomes one of this build, if it can be.

use std::sync::{Arc, PoisonError};

use kiln_core::{Digest, LayerId, Op, Reason, Snapshot, StepGraph, StepId};
use kiln_solver::{Elsewhere, KeyParts, Snapshots, Sought, StepRecord, definition_key};
use kiln_store::RecordKind;

use super::StepCache;
use super::far::{FarLayer, Whose};
use super::record::{Entry, StepLayer};
use super::source::Source;
use crate::engine::chain::chain;
use crate::engine::transfer::Origin;

/// A record that was taken.
pub(super) struct Taken {
    pub(super) record: StepRecord,
    /// None where not all of them were known.
    pub(super) parts: Option<KeyParts>,
    /// As it was there.
    pub(super) entry: Arc<Entry>,
    pub(super) whose: Whose,
}

/// A record that somebody has.
pub(super) struct Offer {
    pub(super) entry: Arc<Entry>,
    origin: Origin,
    whose: Whose,
}

impl StepCache<'_> {
    /// Looks a content key up in each source in turn.
    pub(super) fn take(&self, key: &Digest, sought: &Sought<'_>) -> Elsewhere {
        let mut unfit = false;
        for Offer { entry, origin, whose } in self.find(key) {
            // Found under a definition key it may be another step's.
            if entry.facts.key != *key || self.is_spoiled(&entry) {
                continue;
            }
            let Some(snapshot) = self.snapshot(&entry, &origin, &whose, sought) else {
                unfit = true;
                continue;
            };
            let missing = self.missing(&entry, &snapshot, sought);
            if let Some(slow) = self.rates.slower(&entry, &missing, &origin, self, sought) {
                let (fetch_ms, run_ms) = (slow.fetch / 1000, slow.run / 1000);
                let reason = Reason::NotFetched { source: self.label(&whose), fetch_ms, run_ms };
                self.passed_over.lock().unwrap_or_else(PoisonError::into_inner).insert(*key, reason);
                return Elsewhere::Unfit;
            }
            let record = StepRecord {
                key: *key,
                snapshot,
                created: entry.facts.created,
                duration_us: entry.facts.duration_us,
                title: sought.step.info.title.clone(),
            };
            let all = sought.inputs.sources.iter().all(|source| source.content.is_some());
            let parts = all.then(|| KeyParts::of(&sought.step.op, sought.inputs));
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.insert(*key, Taken { record: record.clone(), parts, entry, whose });
            return Elsewhere::Record(record);
        }
        if unfit { Elsewhere::Unfit } else { Elsewhere::Nothing }
    }

    /// Looks a key up in each source in turn, and last among what earlier builds took: a source that is named says what counts now.
    pub(super) fn find(&self, key: &Digest) -> impl Iterator<Item = Offer> {
        let sources = self.sources.iter().enumerate().filter_map(move |(number, source)| {
            let (entry, origin) = source.find(key, &self.asking())?;
            Some(Offer { entry, origin, whose: Whose::Source(number) })
        });
        let kept = std::iter::once_with(move || {
            let (entry, origin, label) = self.kept.find(key, &self.asking())?;
            Some(Offer { entry, origin, whose: Whose::Earlier(label) })
        });
        sources.chain(kept.flatten())
    }

    pub(super) fn label(&self, whose: &Whose) -> String {
        match whose {
            Whose::Source(number) => self.sources[*number].label.clone(),
            Whose::Earlier(label) => label.clone(),
            Whose::Base => String::new(),
        }
    }

    /// Returns why a result that is somewhere else was not taken, if it was a choice.
    pub(crate) fn passed_over(&self, key: &Digest) -> Option<Reason> {
        self.passed_over.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Looks for a step whose sources' files are not hashed. Its definition key names layers by their diff ids: of stages that
    /// were made here those are not known, but their files are at hand.
    pub(super) fn take_alias(&self, sought: &Sought<'_>) -> Option<Digest> {
        if self.sources.is_empty() {
            return None;
        }
        let named = |layer: &LayerId| diff_id(layer).is_some();
        let snapshots = sought.inputs.sources.iter().filter_map(|source| source.snapshot.as_ref());
        if !snapshots.flat_map(|snapshot| &snapshot.layers).all(named) {
            return None;
        }
        let definition = definition_key(&sought.step.op, sought.inputs, Snapshots::Known);
        self.sources.iter().find_map(|source| {
            let (entry, _) = source.find(&definition, &self.asking())?;
            Some(entry.facts.key)
        })
    }

    /// Puts what a record says into this store's names of layers. None if it was made over another execution of the step
    /// below.
    fn snapshot(
        &self,
        entry: &Entry,
        origin: &Origin,
        whose: &Whose,
        sought: &Sought<'_>,
    ) -> Option<Snapshot> {
        let mut layers = self.base_layers(sought.id)?;
        let mut own = &entry.layers[..];
        if let Some(root) = sought.root {
            // A record names what is above the base; the base is in its key.
            let below = root.layers.strip_prefix(&layers[..])?;
            let (same, above) = own.split_at_checked(below.len())?;
            if !below.iter().zip(same).all(|(name, layer)| self.is_same(name, &layer.layer.diff_id)) {
                return None;
            }
            (layers, own) = (root.layers.clone(), above);
        }
        for StepLayer { layer, packing } in own {
            let name = self.bases.known(layer).unwrap_or_else(|| LayerId(layer.diff_id.hex()));
            let far = FarLayer {
                layer: layer.clone(),
                packing: packing.clone(),
                origin: origin.clone(),
                whose: whose.clone(),
            };
            self.far.add(name.clone(), far);
            layers.push(name);
        }
        Some(Snapshot { layers })
    }

    /// The layers of the image that a step's file system begins with. They may not be here either.
    fn base_layers(&self, id: StepId) -> Option<Vec<LayerId>> {
        let Some(manifest) = chain(self.graph, Some(id)).base else { return Some(Vec::new()) };
        let base = self.bases.get(&manifest)?;
        let snapshot = self.bases.unfetched(&base);
        for (name, layer) in snapshot.layers.iter().zip(&base.image.layers) {
            let (layer, origin) = (layer.clone(), base.origin.clone());
            let far = FarLayer { layer, packing: String::new(), origin, whose: Whose::Base };
            self.far.add(name.clone(), far);
        }
        Some(snapshot.layers)
    }

    /// Whether a layer of this store is the one with this diff id.
    fn is_same(&self, name: &LayerId, diff_id: &Digest) -> bool {
        name.0 == diff_id.hex()
            || self
                .store
                .get_record::<LayerId>(RecordKind::Base, &diff_id.hex())
                .is_ok_and(|made| made.as_ref() == Some(name))
    }

    /// Whether it needs a layer that could not be had.
    fn is_spoiled(&self, entry: &Entry) -> bool {
        entry.layers.iter().any(|layer| self.far.is_spoiled(&layer.layer.diff_id) && !self.is_here(layer))
    }

    fn is_here(&self, layer: &StepLayer) -> bool {
        self.bases.known(&layer.layer).is_some()
    }

    /// Layers that come with a record, and are neither here nor below it.
    fn missing(&self, entry: &Entry, snapshot: &Snapshot, sought: &Sought<'_>) -> Vec<StepLayer> {
        let below = sought.root.map_or(0, |root| root.layers.len());
        let above = snapshot.layers.len().saturating_sub(below).min(entry.layers.len());
        let own = &entry.layers[entry.layers.len() - above..];
        own.iter().filter(|layer| !self.is_here(layer)).cloned().collect()
    }

    /// Keeps what was taken: as the store's own if all its layers are here by now, else as what is somewhere else.
    pub(crate) fn adopt(
        &self,
        keep: &dyn Fn(&StepRecord, &KeyParts) -> Result<(), crate::Error>,
    ) -> Result<(), crate::Error> {
        let taken = std::mem::take(&mut *self.taken.lock().unwrap_or_else(PoisonError::into_inner));
        for Taken { record, parts, entry, whose } in taken.into_values() {
            let here = record.snapshot.layers.iter().all(|layer| self.store.has_layer(layer));
            match (parts, whose) {
                (Some(parts), _) if here => keep(&record, &parts)?,
                (_, Whose::Source(number)) if !self.is_spoiled(&entry) => {
                    let Source { place, label, .. } = &self.sources[number];
                    self.kept.keep(&entry, place, label)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The diff id of a layer that is named by it.
pub(super) fn diff_id(layer: &LayerId) -> Option<Digest> {
    (layer.0.len() == 64).then(|| format!("sha256:{}", layer.0).parse().ok())?
}

/// Returns the steps that the wanted ones' file systems consist of.
pub(super) fn parts_of(graph: &StepGraph, wanted: &[StepId]) -> std::collections::HashSet<StepId> {
    let mut found = std::collections::HashSet::new();
    let mut todo: Vec<StepId> = wanted.to_vec();
    while let Some(id) = todo.pop() {
        let Some(step) = graph.get(id) else { continue };
        if !matches!(step.op, Op::Image(_)) && found.insert(id) {
            todo.extend(step.op.root().into_iter().chain(step.op.layers()));
        }
    }
    found
}
