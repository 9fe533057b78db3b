//! Step records on disk, as the solver's cache index.

#[cfg(test)]
mod tests;

use kiln_core::{Digest, Snapshot};
use kiln_solver::{CacheIndex, KeyParts, StepRecord};
use kiln_store::{RecordKind, Store};
use serde::{Deserialize, Serialize};

use crate::Error;

/// The store's records of finished steps.
pub(crate) struct StoreIndex<'a> {
    store: &'a Store,
    /// What new records are dated, seconds since 1970.
    now: u64,
    /// Whether new results are recorded.
    keeps: bool,
}

/// A record without the parts of its key: those are read only to explain a miss, so they are kept beside.
#[derive(Serialize, Deserialize)]
struct Kept {
    snapshot: Snapshot,
    created: u64,
    duration_us: u64,
    title: String,
}

impl<'a> StoreIndex<'a> {
    /// Opens the index of a store.
    pub(crate) fn new(store: &'a Store, now: u64) -> Self {
        Self { store, now, keeps: true }
    }

    /// Records nothing: for results that nobody shall find.
    pub(crate) fn forgetful(self) -> Self {
        Self { keeps: false, ..self }
    }
}

impl StoreIndex<'_> {
    /// Keeps a record that came from elsewhere, with the time that it was made at.
    pub(crate) fn adopt(&self, record: &StepRecord, parts: &KeyParts) -> Result<(), Error> {
        StoreIndex { store: self.store, now: record.created, keeps: true }.record(record.clone(), parts)?;
        Ok(())
    }
}

impl CacheIndex for StoreIndex<'_> {
    type Error = Error;

    fn lookup(&self, key: &Digest) -> Result<Option<StepRecord>, Error> {
        let Some(kept) = self.store.get_record::<Kept>(RecordKind::Step, &key.hex())? else {
            return Ok(None);
        };
        if !kept.snapshot.layers.iter().all(|layer| self.store.has_layer(layer)) {
            return Ok(None);
        }
        let Kept { snapshot, created, duration_us, title } = kept;
        Ok(Some(StepRecord { key: *key, snapshot, created, duration_us, title }))
    }

    fn alias(&self, definition: &Digest) -> Result<Option<Digest>, Error> {
        Ok(self.store.get_record(RecordKind::Alias, &definition.hex())?)
    }

    fn record(&self, record: StepRecord, parts: &KeyParts) -> Result<StepRecord, Error> {
        let record = StepRecord { created: self.now, ..record };
        if !self.keeps {
            return Ok(record);
        }
        let kept = Kept {
            snapshot: record.snapshot.clone(),
            created: record.created,
            duration_us: record.duration_us,
            title: record.title.clone(),
        };
        self.store.put_record(RecordKind::KeyParts, &record.key.hex(), parts)?;
        self.store.put_record(RecordKind::Step, &record.key.hex(), &kept)?;
        // One result for a key: what was taken from elsewhere must not come back when this one is pruned.
        self.store.delete_record(RecordKind::Taken, &record.key.hex())?;
        Ok(record)
    }

    fn record_alias(&self, definition: &Digest, content: &Digest) -> Result<(), Error> {
        if self.keeps {
            self.store.put_record(RecordKind::Alias, &definition.hex(), content)?;
        }
        Ok(())
    }
}
