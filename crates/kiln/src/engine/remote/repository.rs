//! A commit of a git repository.

use std::time::Instant;

use kiln_core::{Cancel, Event, GitOp, StepOutcome};
use kiln_git::{Progress, Resolved};
use kiln_store::SourceId;

use super::Remotes;
use crate::Error;

impl Remotes<'_> {
    /// Asks which commit is meant. A failure is the step's.
    pub(super) fn commit(&self, op: &GitOp, step: u32, cancel: &Cancel) -> Result<Resolved, Error> {
        let started = Instant::now();
        let resolved = self.repositories.resolve(op, cancel);
        if let Err(error) = &resolved {
            self.reporter.emit(Event::StepStarted { step });
            self.reporter.finished(step, outcome(error), started.elapsed(), None);
        }
        resolved
    }

    /// Makes its files present.
    pub(super) fn checkout(
        &self,
        op: &GitOp,
        resolved: &Resolved,
        step: u32,
        late: &dyn Fn(),
        cancel: &Cancel,
    ) -> Result<SourceId, Error> {
        let started = std::cell::Cell::new(None);
        let mut begin = || {
            started.set(Some(Instant::now()));
            late();
            self.reporter.emit(Event::StepStarted { step });
        };
        let item = resolved.commit.to_string()[..12].to_owned();
        let mut progress = |progress: Progress<'_>| {
            if let Progress::Received { bytes } = progress {
                let event = Event::StepProgress { step, item: item.clone(), current: bytes, total: None };
                self.reporter.emit(event);
            }
        };
        let result = self.repositories.fetch(
            op,
            resolved,
            &mut begin,
            &mut progress,
            &mut |holder| self.waits(step, holder),
            cancel,
        );
        match (&result, started.get()) {
            (Ok(_), None) => self.reporter.cached(step),
            (result, started) => {
                if started.is_none() {
                    self.reporter.emit(Event::StepStarted { step });
                }
                let duration = started.map(|started: Instant| started.elapsed()).unwrap_or_default();
                let outcome = result.as_ref().map_or_else(outcome, |_| StepOutcome::Done);
                self.reporter.finished(step, outcome, duration, None);
            }
        }
        result
    }
}

fn outcome(error: &Error) -> StepOutcome {
    match error {
        Error::Interrupted => StepOutcome::Cancelled,
        error => StepOutcome::Failed { message: error.to_string() },
    }
}
