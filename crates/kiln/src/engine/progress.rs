//! What the solver says of steps, on its way to events and to the packer.

use std::sync::PoisonError;
use std::time::Duration;

use kiln_core::{Digest, Event, StepId, StepOutcome};
use kiln_solver::{Finished, Progress};

use super::carry::Saves;
use super::packer::Packer;
use super::worker::StepWorker;

/// Tells events of steps, and hands finished layers to be packed.
pub(crate) struct StepProgress<'a, 'w> {
    pub(crate) worker: &'a StepWorker<'w>,
    pub(crate) packer: Option<&'a Packer>,
    /// Save caches that no step uses any more.
    pub(crate) saves: &'a Saves,
}

impl StepProgress<'_, '_> {
    fn number(&self, id: StepId) -> Option<u32> {
        Some(self.worker.number(id, self.worker.graph.get(id)?))
    }
}

impl Progress for StepProgress<'_, '_> {
    fn missed(&self, id: StepId, key: &Digest, outdated: bool) {
        self.worker.why.missed(id, *key, outdated);
        if let Some(reason) = self.worker.cache.passed_over(key) {
            self.worker.why.not_fetched(*key, reason);
        }
    }

    fn started(&self, id: StepId) {
        self.worker.why.started(id);
        if let Some(packer) = self.packer {
            packer.started(id);
        }
        if let Some(step) = self.number(id) {
            self.worker.reporter.emit(Event::StepStarted { step });
        }
    }

    fn cached(&self, id: StepId) {
        self.saves.step_ended(id);
        if let Some(step) = self.number(id) {
            self.worker.reporter.cached(step);
        }
    }

    fn finished(&self, id: StepId, outcome: StepOutcome, duration: Duration) {
        self.saves.step_ended(id);
        let usage = self.worker.usages.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(step) = self.number(id) {
            self.worker.reporter.finished(step, outcome, duration, usage);
        }
    }

    fn settled(&self, id: StepId, finished: &Finished) {
        self.worker.why.settled(id, finished);
        let mut known = self.worker.failures.settled.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(id, finished.snapshot.clone());
        if let Some(packer) = self.packer {
            packer.settled(id, &finished.snapshot);
        }
    }
}
