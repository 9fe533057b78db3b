//! Why what was asked for cannot be looked at.

use serde::{Deserialize, Serialize};

/// Why a step of an earlier build cannot be looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum LookError {
    /// No step has failed, or what it left went since.
    #[error("no failed step is kept")]
    NothingKept,
    /// The last build failed in a step of which nothing is kept: one without a process, such as COPY.
    #[error("the last build failed in {title}, and nothing is kept of it")]
    NotKept {
        /// The step's.
        title: String,
    },
    /// There is no such step.
    #[error("there is no step {step:?}")]
    NoSuchStep {
        /// As asked for.
        step: String,
    },
    /// Several steps that it may be.
    #[error("{step:?} may be {}", titles.join(" or "))]
    Several {
        /// As asked for.
        step: String,
        /// Theirs.
        titles: Vec<String>,
    },
    /// No build is remembered.
    #[error("no build is remembered in this store")]
    NoBuilds,
    /// There is no such build.
    #[error("no build {build:?} is remembered")]
    NoSuchBuild {
        /// As asked for.
        build: String,
    },
    /// Several builds that it may be.
    #[error("{build:?} may be {}", ids.join(" or "))]
    SeveralBuilds {
        /// As asked for.
        build: String,
        /// Theirs.
        ids: Vec<String>,
    },
    /// No such step ran in that build.
    #[error("no step {step:?} ran in that build")]
    DidNotRun {
        /// As asked for.
        step: String,
    },
    /// Files that it needs are not in the store any more.
    #[error("the files of {title} are not in the store any more")]
    Gone {
        /// The step's.
        title: String,
    },
}
