//! Looking at steps of earlier builds: what a failed one left is kept; each can be entered and compared with what it
//! started from.

mod diff;
mod enter;
mod failed;
mod find;
mod journal;
mod process;
mod world;

use kiln_core::{LayerId, Snapshot, StepId};
use kiln_store::{KeptHold, Pin};
use serde::{Deserialize, Serialize};

use super::Engine;
use crate::Error;
use crate::error::LookError;
pub use enter::{EnterRequest, Entering, StepShell};
use failed::FailedState;
pub(crate) use failed::Failures;
pub(crate) use find::is_place;
pub(crate) use journal::Journal;
use process::Process;
pub use world::StepMount;

/// How to speak of a step whose files are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepSummary {
    /// Names it for [`Engine::step`].
    pub name: String,
    /// `[2/5] RUN make`.
    pub title: String,
    /// The Dockerfile's name.
    pub file: String,
    /// First and last line in it.
    pub lines: Option<(usize, usize)>,
    /// Why it failed, if it did.
    pub failed: Option<String>,
    /// When its build began, seconds since 1970.
    pub time: u64,
}

/// Which of a step's states is meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// What it left.
    #[default]
    After,
    /// What it started from.
    Before,
}

/// A step, held: none of its files is collected while this lives.
#[derive(Debug)]
pub struct HeldStep {
    candidate: Candidate,
    _hold: Option<KeptHold>,
    _pin: Pin,
}

/// A step that may be meant.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    summary: StepSummary,
    step: StepId,
    below: Snapshot,
    /// What it put over that.
    own: Vec<LayerId>,
    /// None if it was no RUN.
    process: Option<Process>,
}

impl HeldStep {
    /// Returns how to speak of it.
    pub fn summary(&self) -> &StepSummary {
        &self.candidate.summary
    }

    fn files(&self, side: Side) -> Snapshot {
        let Candidate { below, own, .. } = &self.candidate;
        match side {
            Side::After => Snapshot { layers: [&below.layers[..], own].concat() },
            Side::Before => below.clone(),
        }
    }
}

impl Engine {
    /// Lists the failed steps of which is kept what they left, the last first; then the steps of the last build that came to
    /// their end.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn steps(&self) -> Result<Vec<StepSummary>, Error> {
        let (failed, journal) = (self.failed()?, Journal::last(&self.store)?);
        let all = failed.into_iter().chain(journal.candidates());
        Ok(all.map(|candidate| candidate.summary).collect())
    }

    /// Finds a step and holds it. `last` is the one that failed last; otherwise a name, or the beginning of one, that
    /// [`steps`](Self::steps) gives; of the last build also `2`, `2/5` or `build 2/5`, as its title says, or `Dockerfile:12`, a
    /// line of it.
    ///
    /// # Errors
    /// [`LookError`], if there is none.
    pub fn step(&self, which: &str) -> Result<HeldStep, Error> {
        let pin = self.store.pin()?;
        let candidate = find::find(which, self.failed()?, &Journal::last(&self.store)?)?;
        let gone = || LookError::Gone { title: candidate.summary.title.clone() };
        let hold = match candidate.summary.failed {
            Some(_) => Some(self.store.hold_kept(&candidate.own[0])?.ok_or_else(gone)?),
            None => None,
        };
        let mut layers = candidate.below.layers.iter().chain(&candidate.own);
        if !layers.all(|layer| self.store.has_layer(layer)) {
            return Err(gone().into());
        }
        Ok(HeldStep { candidate, _hold: hold, _pin: pin })
    }

    fn failed(&self) -> Result<Vec<Candidate>, Error> {
        let mut found = Vec::new();
        for layer in self.store.kept()? {
            let state: Option<FailedState> = self.store.read_kept(&layer)?;
            found.extend(state.map(|state| state.candidate(layer)));
        }
        Ok(found)
    }
}
