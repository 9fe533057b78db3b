//! Steps of other architectures than this machine's: which emulator runs them, and what is said if there is none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kiln_core::{
    Cancel, Digest, Emulator, LayerId, Op, Platform, Selection, Snapshot, Step, StepGraph, StepId,
    StepOutcome,
};
use kiln_runtime::{EmulatorSearch, Entered, NoEmulator};
use kiln_solver::{
    CacheIndex, Elsewhere, Inputs, KeyParts, Place, Progress, SolveError, Sought, SourceUse, StepRecord,
    Worker,
};

use super::worker::StepWorker;
use crate::Error;

/// How the programs of each architecture run that a plan's steps execute.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    found: BTreeMap<String, Result<Option<Emulator>, NoEmulator>>,
}

impl Ways {
    /// Looks for what the steps of a plan need. Costs nothing where they are all this machine's own.
    pub(crate) fn find(entered: &Entered, graph: &StepGraph, search: &EmulatorSearch) -> Self {
        let architectures: BTreeSet<&str> =
            graph.iter().filter_map(|(_, step)| executes(step)).map(|p| p.architecture.as_str()).collect();
        let find = |architecture: &str| {
            let way = kiln_runtime::find(entered, architecture, search);
            (architecture.to_owned(), way.map(|way| way.emulator))
        };
        Self { found: architectures.into_iter().map(find).collect() }
    }

    /// Returns the emulator that programs of a platform need, if they need one.
    ///
    /// # Errors
    /// They do not run here.
    pub(crate) fn emulator(&self, platform: &Platform) -> Result<Option<Emulator>, NoEmulator> {
        self.found.get(&platform.architecture).cloned().unwrap_or(Ok(None))
    }

    /// Returns why there is no way for some of the steps; empty if there is one for all.
    pub(crate) fn missing(&self) -> Vec<NoEmulator> {
        self.found.values().filter_map(|way| way.as_ref().err().cloned()).collect()
    }
}

/// Returns the platform whose programs a step executes.
fn executes(step: &Step) -> Option<&Platform> {
    match &step.op {
        Op::Run(op) => Some(&op.platform),
        _ => None,
    }
}

/// Finds out which steps would have to run and cannot, without running any.
///
/// The solver itself goes through the graph, with a worker that executes nothing and an index that is only read. What a
/// step would leave behind is unknown then, and so is what would be copied from it: such a copy counts as new.
pub(crate) fn blocked(
    worker: &StepWorker<'_>,
    wanted: &[StepId],
    index: &dyn CacheIndex<Error = Error>,
    cancel: &Cancel,
) -> Result<Vec<StepId>, SolveError<Error>> {
    if worker.ways.missing().is_empty() {
        return Ok(Vec::new());
    }
    let rehearsal = Rehearsal { worker, blocked: Mutex::default() };
    kiln_solver::solve(worker.graph, wanted, &rehearsal, &ReadOnly(index), &Silent, 1, cancel)?;
    let blocked = rehearsal.blocked.into_inner().unwrap_or_else(PoisonError::into_inner);
    // In the order of the Dockerfile.
    Ok(worker.graph.iter().map(|(id, _)| id).filter(|id| blocked.contains(id)).collect())
}

struct Rehearsal<'a, 'w> {
    worker: &'a StepWorker<'w>,
    blocked: Mutex<BTreeSet<StepId>>,
}

impl Rehearsal<'_, '_> {
    /// A layer that no store has.
    fn unknown(id: StepId) -> LayerId {
        LayerId(format!("unknown-{id}"))
    }

    fn is_unknown(snapshot: &Snapshot) -> bool {
        snapshot.layers.iter().any(|layer| layer.0.starts_with("unknown-"))
    }
}

impl Worker for Rehearsal<'_, '_> {
    type Error = Error;

    fn content_digest(
        &self,
        source: StepId,
        op: &Op,
        snapshot: Option<&Snapshot>,
        selection: &Selection,
        usage: SourceUse,
        late: &dyn Fn(),
        cancel: &Cancel,
    ) -> Result<Digest, Error> {
        match snapshot.filter(|snapshot| Self::is_unknown(snapshot)) {
            Some(snapshot) => Ok(Digest::of(format!("{snapshot:?} {selection:?}").as_bytes())),
            None => self.worker.content_digest(source, op, snapshot, selection, usage, late, cancel),
        }
    }

    fn fetch(&self, _source: StepId, _op: &Op, _cancel: &Cancel) -> Result<(), Error> {
        Ok(())
    }

    fn execute(
        &self,
        id: StepId,
        step: &Step,
        inputs: &Inputs,
        _: &Place<'_>,
        _: &Cancel,
    ) -> Result<Snapshot, Error> {
        if executes(step).is_some_and(|platform| self.worker.ways.emulator(platform).is_err()) {
            self.blocked.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        }
        Ok(inputs.root.with(Self::unknown(id)))
    }
}

/// An index that keeps nothing.
struct ReadOnly<'a>(&'a dyn CacheIndex<Error = Error>);

impl CacheIndex for ReadOnly<'_> {
    type Error = Error;

    fn lookup(&self, key: &Digest) -> Result<Option<StepRecord>, Error> {
        self.0.lookup(key)
    }

    fn alias(&self, definition: &Digest) -> Result<Option<Digest>, Error> {
        self.0.alias(definition)
    }

    fn record(&self, record: StepRecord, _parts: &KeyParts) -> Result<StepRecord, Error> {
        Ok(record)
    }

    fn record_alias(&self, _definition: &Digest, _content: &Digest) -> Result<(), Error> {
        Ok(())
    }

    fn elsewhere(&self, key: &Digest, sought: &Sought<'_>) -> Elsewhere {
        self.0.elsewhere(key, sought)
    }

    fn alias_elsewhere(&self, sought: &Sought<'_>) -> Option<Digest> {
        self.0.alias_elsewhere(sought)
    }

    fn reaches_out(&self) -> bool {
        self.0.reaches_out()
    }

    fn foresee(&self, id: StepId, key: &Digest) {
        self.0.foresee(id, key);
    }
}

/// A rehearsal has no audience.
struct Silent;

impl Progress for Silent {
    fn started(&self, _id: StepId) {}
    fn cached(&self, _id: StepId) {}
    fn finished(&self, _id: StepId, _outcome: StepOutcome, _duration: Duration) {}
}
