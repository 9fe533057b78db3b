//! Why a cache cannot be had.

use std::path::PathBuf;

use kiln_core::IoError;
use serde::{Deserialize, Serialize};

use crate::copy::CopyError;

/// Why a cache mount cannot be had, or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum CacheError {
    /// It is in use.
    #[error("cache {id:?} is in use by {holder}")]
    Held {
        /// Which.
        id: String,
        /// By whom, as the holder says it.
        holder: String,
    },
    /// There is no such cache.
    #[error("there is no cache {id:?}")]
    NoCache {
        /// Which.
        id: String,
    },
    /// The build was interrupted while it waited.
    #[error("interrupted")]
    Cancelled,
    /// Its content cannot be copied.
    #[error("cache {id:?} cannot be copied from {}: {source}", .from.display())]
    Copy {
        /// Which.
        id: String,
        /// From where: a seed, or the cache itself.
        from: PathBuf,
        /// Why.
        source: Box<CopyError>,
    },
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] IoError),
}
