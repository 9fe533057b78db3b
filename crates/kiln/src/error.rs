//! All that can go wrong in a build, as types that survive the trip from the engine's process.

use kiln_core::{ExitStatus, IoError};
use kiln_dockerfile::Diagnostic;
use serde::{Deserialize, Serialize};

/// Why there is no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Error {
    /// The Dockerfile cannot be built as it is.
    #[error("{file} cannot be built: {}", diagnostics.first().map_or("", |d| d.message.as_str()))]
    Dockerfile {
        /// Its name, for messages.
        file: String,
        /// Its text.
        text: String,
        /// What is wrong, and warnings.
        diagnostics: Vec<Diagnostic>,
    },
    /// A step's process failed.
    #[error("{title}: {status}")]
    StepFailed {
        /// The Dockerfile's name.
        file: String,
        /// Its text.
        text: String,
        /// The step's title.
        title: String,
        /// Its lines.
        lines: Option<(usize, usize)>,
        /// How the process ended.
        status: ExitStatus,
        /// The last lines it wrote.
        tail: Vec<String>,
    },
    /// A file or system operation failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The build was interrupted.
    #[error("interrupted")]
    Interrupted,
}
