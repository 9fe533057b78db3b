//! The index in memory does what every index must.

use kiln_core::{LayerId, Snapshot};
use kiln_solver::{CacheIndex, KeyParts, StepRecord};
use kiln_testkit::{FakeError, MemoryIndex, SnapshotMaker, cache_index_conformance};
use std::sync::atomic::{AtomicU64, Ordering};

/// An index that several processes have open.
struct Opened<'a>(&'a MemoryIndex);

impl CacheIndex for Opened<'_> {
    type Error = FakeError;

    fn lookup(&self, key: &kiln_core::Digest) -> Result<Option<StepRecord>, FakeError> {
        self.0.lookup(key)
    }

    fn alias(&self, definition: &kiln_core::Digest) -> Result<Option<kiln_core::Digest>, FakeError> {
        self.0.alias(definition)
    }

    fn record(&self, record: StepRecord, parts: &KeyParts) -> Result<StepRecord, FakeError> {
        self.0.record(record, parts)
    }

    fn record_alias(
        &self,
        definition: &kiln_core::Digest,
        content: &kiln_core::Digest,
    ) -> Result<(), FakeError> {
        self.0.record_alias(definition, content)
    }
}

struct Names<'a> {
    index: &'a MemoryIndex,
    next: AtomicU64,
}

impl SnapshotMaker for Names<'_> {
    fn make(&self, over: &Snapshot) -> Snapshot {
        over.with(LayerId(format!("layer {}", self.next.fetch_add(1, Ordering::Relaxed))))
    }

    fn remove(&self, snapshot: &Snapshot) {
        self.index.remove_layer(snapshot.layers.last().expect("a snapshot with a layer"));
    }
}

#[test]
fn conforms() {
    let index = MemoryIndex::new();
    cache_index_conformance(&|| Opened(&index), &Names { index: &index, next: AtomicU64::new(0) });
}
