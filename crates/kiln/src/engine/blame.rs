//! What went wrong, with the step and its place in the Dockerfile.

use std::collections::HashMap;

use kiln_core::{LayerId, StepId};
use kiln_solver::SolveError;

use super::build::Build;
use super::definition::Definition;
use crate::Error;

impl Build<'_> {
    /// Names the steps that cannot run here.
    pub(super) fn foreign(&self, blocked: &[StepId]) -> Error {
        let steps = blocked.iter().filter_map(|id| self.plan.graph.get(*id));
        Error::Foreign {
            file: self.definition.file.clone(),
            text: self.definition.text.clone(),
            steps: steps.map(|step| (step.info.title.clone(), step.info.lines)).collect(),
            missing: self.ways.missing(),
        }
    }

    /// Names the step that failed, with its place in the Dockerfile.
    pub(super) fn blame(&self, error: SolveError<Error>, kept: &HashMap<StepId, LayerId>) -> Error {
        let (id, error) = match error {
            SolveError::Step { id, error } | SolveError::Index { id, error } => (id, error),
            SolveError::Thread { id, error } => (id, Error::Io(error)),
            SolveError::Cancelled => return Error::Interrupted,
        };
        let Some(step) = self.plan.graph.get(id) else { return error };
        let Definition { file, text, .. } = &self.definition;
        let (file, text) = (file.clone(), text.clone());
        let (title, lines) = (step.info.title.clone(), step.info.lines);
        let kept = kept.get(&id).map(ToString::to_string);
        match error {
            Error::Interrupted => Error::Interrupted,
            Error::Exited { status, exceeded, tail } => {
                Error::StepFailed { file, text, title, lines, status, exceeded, tail, kept }
            }
            error => Error::Step { file, text, title, lines, error: Box::new(error), kept },
        }
    }
}
