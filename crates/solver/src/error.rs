//! Why a graph was not solved.

use kiln_core::{IoError, StepId};
use serde::{Deserialize, Serialize};

/// Why there are no results: the first thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum SolveError<E> {
    /// A step failed, or one of its sources could not be hashed.
    #[error("{error}")]
    Step {
        /// Which.
        id: StepId,
        /// The worker's reason.
        error: E,
    },
    /// The cache index could not be read or written.
    #[error("{error}")]
    Index {
        /// For which step.
        id: StepId,
        /// The index's reason.
        error: E,
    },
    /// The system gave no thread to work on a step.
    #[error("no thread for a step: {error}")]
    Thread {
        /// Which.
        id: StepId,
        /// The system's reason.
        error: IoError,
    },
    /// The caller's [`Cancel`](kiln_core::Cancel) was raised.
    #[error("cancelled")]
    Cancelled,
}

impl<E> SolveError<E> {
    /// Returns the step that it is about.
    pub const fn step(&self) -> Option<StepId> {
        match self {
            Self::Step { id, .. } | Self::Index { id, .. } | Self::Thread { id, .. } => Some(*id),
            Self::Cancelled => None,
        }
    }
}
