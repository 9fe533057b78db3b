//! Keeps what a failed step left.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kiln_core::{Cancel, LayerId, RunOp, Snapshot, Step, StepId};
use kiln_solver::Inputs;
use kiln_store::{ActiveLayer, Store};
use serde::{Deserialize, Serialize};

use super::process::Process;
use super::{Candidate, StepSummary};
use crate::engine::trees::Root;
use crate::engine::worker::StepWorker;
use crate::{Error, OnError};

/// States that are kept of each kind of ids; of one step only the newest.
const MOST: usize = 3;
/// Where less room is left than this, it is not spent on what failed, bytes.
const ROOM: u64 = 64 << 20;

/// What is kept beside the files of a failed step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FailedState {
    /// The Dockerfile's name.
    pub(crate) file: String,
    pub(crate) step: StepId,
    pub(crate) title: String,
    pub(crate) lines: Option<(usize, usize)>,
    /// `exit code 1`.
    pub(crate) reason: String,
    /// Seconds since 1970.
    pub(crate) failed: u64,
    /// What the step started from.
    pub(crate) below: Snapshot,
    pub(crate) process: Process,
}

impl FailedState {
    pub(crate) fn candidate(self, layer: LayerId) -> Candidate {
        Candidate {
            summary: StepSummary {
                name: layer.to_string(),
                title: self.title,
                file: self.file,
                lines: self.lines,
                failed: Some(self.reason),
                time: self.failed,
            },
            step: self.step,
            below: self.below,
            own: vec![layer],
            process: Some(self.process),
        }
    }
}

/// What one build does with failed steps.
pub(crate) struct Failures {
    pub(crate) policy: OnError,
    /// The Dockerfile's name.
    pub(crate) file: String,
    /// Seconds since 1970.
    pub(crate) now: u64,
    /// Names of what was kept.
    pub(crate) kept: Mutex<HashMap<StepId, LayerId>>,
    /// What other steps left.
    pub(crate) settled: Mutex<HashMap<StepId, Snapshot>>,
}

impl StepWorker<'_> {
    /// Keeps what a step left that failed for `reason`, and makes room for it. That it cannot be kept is no failure: there is
    /// one already. It is said, and nothing stays.
    pub(crate) fn keep_failed(
        &self,
        (id, step, op): (StepId, &Step, &RunOp),
        inputs: &Inputs,
        (layer, root): (ActiveLayer, Root<'_>),
        reason: &str,
        cancel: &Cancel,
    ) {
        if self.failures.policy == OnError::Discard {
            return;
        }
        match self.store.room() {
            Ok(left) if left < ROOM => {
                let message = "what the failed step left is not kept: the store has hardly any room left";
                return self.reporter.warn(message, step.info.lines);
            }
            // It will be seen.
            _ => {}
        }
        match self.try_keep((id, step, op), inputs, (layer, root), reason, cancel) {
            Ok(kept) => {
                let mut known = self.failures.kept.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(id, kept);
            }
            Err(Error::Interrupted) => {}
            Err(Error::SecretLeak { id, path }) => {
                let path = path.display();
                let message = format!("what the failed step left is not kept: secret {id:?} is in {path}");
                self.reporter.warn(message, step.info.lines);
            }
            Err(error) => {
                let message = format!("what the failed step left is not kept: {error}");
                self.reporter.warn(message, step.info.lines);
            }
        }
    }

    fn try_keep(
        &self,
        (id, step, op): (StepId, &Step, &RunOp),
        inputs: &Inputs,
        (mut layer, mut root): (ActiveLayer, Root<'_>),
        reason: &str,
        cancel: &Cancel,
    ) -> Result<LayerId, Error> {
        root.collect(&mut layer, cancel)?;
        layer.record_copied_links()?;
        self.leaks.check(layer.upper(), cancel)?;
        let state = FailedState {
            file: self.failures.file.clone(),
            step: id,
            title: step.info.title.clone(),
            lines: step.info.lines,
            reason: reason.to_owned(),
            failed: self.failures.now,
            below: inputs.root.clone(),
            process: self.process(op, inputs)?,
        };
        let kept = layer.keep(&state)?;
        trim(self.store, &kept, id)?;
        Ok(kept)
    }
}

/// Takes away what is too old, and what the same step left before. What somebody is in stays until the next time.
fn trim(store: &Store, kept: &LayerId, step: StepId) -> Result<(), Error> {
    let (mut count, mut older) = (0, false);
    for layer in store.kept()? {
        if layer == *kept {
            older = true;
            count += 1;
            continue;
        }
        let state: Option<FailedState> = store.read_kept(&layer)?;
        let replaced = state.is_none_or(|state| older && state.step == step);
        if !replaced {
            count += 1;
        }
        if replaced || count > MOST {
            store.drop_kept(&layer)?;
        }
    }
    Ok(())
}
