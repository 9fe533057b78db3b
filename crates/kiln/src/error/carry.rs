//! Why cache mounts cannot be exported or imported.

use kiln_carry::CarryError;
use serde::{Deserialize, Serialize};

use super::Error;

/// Why cache mounts cannot be exported or imported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum CarryFailure {
    /// What a place holds is no export of cache mounts, or a damaged one.
    #[error("{place}: {error}")]
    Place {
        /// Where.
        place: String,
        /// What is wrong with it.
        error: CarryError,
    },
    /// The same where the place is known.
    #[error(transparent)]
    Form(#[from] CarryError),
    /// Nothing was exported there yet.
    #[error("there are no cache mounts at {place}")]
    Nothing {
        /// Where.
        place: String,
    },
    /// An export that lacks a cache.
    #[error("there is no cache mount {id:?} at {place}{}", offered(.there))]
    Lacks {
        /// Where.
        place: String,
        /// Which.
        id: String,
        /// Which are there.
        there: Vec<String>,
    },
    /// An export that is larger than what is free.
    #[error("cache mount {id:?} has {needed} bytes, and {free} are free where caches are")]
    Room {
        /// Which.
        id: String,
        /// Bytes of its files.
        needed: u64,
        /// Bytes.
        free: u64,
    },
}

impl From<CarryError> for Error {
    fn from(error: CarryError) -> Self {
        CarryFailure::Form(error).into()
    }
}

fn offered(there: &[String]) -> String {
    if there.is_empty() { String::new() } else { format!("; there is {}", there.join(", ")) }
}
