//! A cache index in memory.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kiln_core::{Digest, LayerId};
use kiln_solver::{CacheIndex, KeyParts, StepRecord};

use crate::FakeError;

/// Keeps records in memory. Its clock ticks once per record.
#[derive(Debug, Default)]
pub struct MemoryIndex {
    state: Mutex<State>,
}

/// What an index was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexCall {
    /// `lookup`, and whether there was a record.
    Lookup(bool),
    /// `alias`, and whether there was one.
    Alias(bool),
    /// `record` of the step with this title.
    Record(String),
    /// `record_alias`.
    RecordAlias,
}

#[derive(Debug, Default)]
struct State {
    records: HashMap<Digest, StepRecord>,
    parts: HashMap<Digest, KeyParts>,
    aliases: HashMap<Digest, Digest>,
    gone: HashSet<LayerId>,
    ticks: u64,
    calls: Vec<IndexCall>,
    full: bool,
    broken: bool,
}

impl MemoryIndex {
    /// Starts empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns what it was asked since the last time.
    pub fn take_calls(&self) -> Vec<IndexCall> {
        std::mem::take(&mut self.lock().calls)
    }

    /// Returns the records of the step with this title.
    pub fn records(&self, title: &str) -> Vec<StepRecord> {
        self.lock().records.values().filter(|record| record.title == title).cloned().collect()
    }

    /// Returns the parts of a recorded key.
    pub fn parts(&self, key: &Digest) -> Option<KeyParts> {
        self.lock().parts.get(key).cloned()
    }

    /// Forgets the records of the step with this title, as a collection does. Returns how many there were.
    pub fn forget(&self, title: &str) -> usize {
        let mut state = self.lock();
        let before = state.records.len();
        state.records.retain(|_, record| record.title != title);
        before - state.records.len()
    }

    /// Takes a layer away from under the records.
    pub fn remove_layer(&self, layer: &LayerId) {
        self.lock().gone.insert(layer.clone());
    }

    /// Makes all writing fail with "disk full".
    pub fn fill_up(&self) {
        self.lock().full = true;
    }

    /// Makes all reading fail with "index unreadable".
    pub fn break_down(&self) {
        self.lock().broken = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn readable(&self) -> Result<(), FakeError> {
        if self.broken { Err(FakeError("index unreadable".to_owned())) } else { Ok(()) }
    }

    fn writable(&self) -> Result<(), FakeError> {
        if self.full { Err(FakeError("disk full".to_owned())) } else { Ok(()) }
    }
}

impl CacheIndex for MemoryIndex {
    type Error = FakeError;

    fn lookup(&self, key: &Digest) -> Result<Option<StepRecord>, FakeError> {
        let mut state = self.lock();
        state.readable()?;
        let there =
            |record: &&StepRecord| !record.snapshot.layers.iter().any(|layer| state.gone.contains(layer));
        let found = state.records.get(key).filter(there).cloned();
        state.calls.push(IndexCall::Lookup(found.is_some()));
        Ok(found)
    }

    fn alias(&self, definition: &Digest) -> Result<Option<Digest>, FakeError> {
        let mut state = self.lock();
        state.readable()?;
        let found = state.aliases.get(definition).copied();
        state.calls.push(IndexCall::Alias(found.is_some()));
        Ok(found)
    }

    fn record(&self, record: StepRecord, parts: &KeyParts) -> Result<StepRecord, FakeError> {
        let mut state = self.lock();
        state.writable()?;
        state.ticks += 1;
        let record = StepRecord { created: 1_000 + state.ticks, ..record };
        state.calls.push(IndexCall::Record(record.title.clone()));
        state.records.insert(record.key, record.clone());
        state.parts.insert(record.key, parts.clone());
        Ok(record)
    }

    fn record_alias(&self, definition: &Digest, content: &Digest) -> Result<(), FakeError> {
        let mut state = self.lock();
        state.writable()?;
        state.calls.push(IndexCall::RecordAlias);
        state.aliases.insert(*definition, *content);
        Ok(())
    }
}
