//! What is wrong with what came from elsewhere.

use serde::{Deserialize, Serialize};

/// Why something is no export of cache mounts, or a damaged one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum CarryError {
    /// It is something else.
    #[error("it is no export of cache mounts: {reason}")]
    Foreign {
        /// Why not.
        reason: String,
    },
    /// A later kiln wrote it.
    #[error(
        "it was written by a newer kiln (format {found}, this one reads {known}): use that, or export again"
    )]
    Newer {
        /// The format it names.
        found: u32,
        /// The one that is read here.
        known: u32,
    },
    /// It is one, but not sound.
    #[error("the export is damaged: {reason}")]
    Damaged {
        /// What is wrong, and where.
        reason: String,
    },
    /// An entry that could harm whoever writes it to disk.
    #[error("the export is refused: {path:?} {reason}")]
    Hostile {
        /// Path in the cache.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl CarryError {
    pub(crate) fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged { reason: reason.into() }
    }
}
