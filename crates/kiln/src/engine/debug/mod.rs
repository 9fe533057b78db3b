//! Looking at steps of earlier builds: what a failed one left is kept, and can be entered.

mod enter;
mod failed;
mod process;
mod world;

use kiln_core::Snapshot;
use kiln_store::{KeptHold, Pin};
use serde::{Deserialize, Serialize};

use super::Engine;
use crate::Error;
use crate::error::LookError;
pub use enter::{EnterRequest, Entering, StepShell};
use failed::FailedState;
pub(crate) use failed::Failures;
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
    /// When its build was, seconds since 1970.
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
    summary: StepSummary,
    below: Snapshot,
    after: Snapshot,
    process: Process,
    _hold: Option<KeptHold>,
    _pin: Pin,
}

impl HeldStep {
    /// Returns how to speak of it.
    pub fn summary(&self) -> &StepSummary {
        &self.summary
    }

    fn files(&self, side: Side) -> &Snapshot {
        match side {
            Side::After => &self.after,
            Side::Before => &self.below,
        }
    }
}

impl Engine {
    /// Lists the failed steps of which is kept what they left, the last first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn failed_steps(&self) -> Result<Vec<StepSummary>, Error> {
        let mut found = Vec::new();
        for layer in self.store.kept()? {
            let state: Option<FailedState> = self.store.read_kept(&layer)?;
            found.extend(state.map(|state| state.summary(&layer)));
        }
        Ok(found)
    }

    /// Finds a step and holds it: `last` is the one that failed last.
    ///
    /// # Errors
    /// [`LookError`], if there is none.
    pub fn step(&self, which: &str) -> Result<HeldStep, Error> {
        let pin = self.store.pin()?;
        let failed = self.failed_steps()?;
        let summary = match which {
            "last" => failed.into_iter().next().ok_or(LookError::NothingKept)?,
            name => {
                let found = failed.into_iter().find(|step| step.name == name);
                found.ok_or_else(|| LookError::NoSuchStep { step: which.to_owned() })?
            }
        };
        let layer = kiln_core::LayerId(summary.name.clone());
        let gone = || LookError::Gone { title: summary.title.clone() };
        let hold = self.store.hold_kept(&layer)?.ok_or_else(gone)?;
        let state: FailedState = self.store.read_kept(&layer)?.ok_or_else(gone)?;
        let after = state.below.with(layer);
        if !after.layers.iter().all(|layer| self.store.has_layer(layer)) {
            return Err(gone().into());
        }
        let FailedState { below, process, .. } = state;
        Ok(HeldStep { summary, below, after, process, _hold: Some(hold), _pin: pin })
    }
}
