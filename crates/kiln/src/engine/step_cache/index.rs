//! The store's records with those of elsewhere behind them, as the solver's cache index.

use kiln_core::{Digest, StepId};
use kiln_solver::{CacheIndex, Elsewhere, KeyParts, Sought, StepRecord};

use super::StepCache;
use crate::Error;
use crate::engine::index::StoreIndex;

/// Looks into the store first.
pub(crate) struct CachedIndex<'a> {
    pub(crate) here: StoreIndex<'a>,
    pub(crate) cache: &'a StepCache<'a>,
}

impl CacheIndex for CachedIndex<'_> {
    type Error = Error;

    fn lookup(&self, key: &Digest) -> Result<Option<StepRecord>, Error> {
        self.here.lookup(key)
    }

    fn alias(&self, definition: &Digest) -> Result<Option<Digest>, Error> {
        self.here.alias(definition)
    }

    fn record(&self, record: StepRecord, parts: &KeyParts) -> Result<StepRecord, Error> {
        self.here.record(record, parts)
    }

    fn record_alias(&self, definition: &Digest, content: &Digest) -> Result<(), Error> {
        self.here.record_alias(definition, content)
    }

    fn elsewhere(&self, key: &Digest, sought: &Sought<'_>) -> Elsewhere {
        self.cache.take(key, sought)
    }

    fn alias_elsewhere(&self, sought: &Sought<'_>) -> Option<Digest> {
        self.cache.take_alias(sought)
    }

    fn reaches_out(&self) -> bool {
        !self.cache.sources.is_empty() || self.cache.kept.any()
    }

    fn foresee(&self, id: StepId, key: &Digest) {
        self.cache.foresee(id, key);
    }

    fn settled(&self, sought: &Sought<'_>, record: &StepRecord) {
        self.cache.settled(sought, record);
    }
}
