//! What can go wrong with a download. Addresses in it are [`redacted`](super::redacted), and nothing in it is a credential.

use serde::{Deserialize, Serialize};

use crate::RegistryError;

/// Why a file could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum DownloadError {
    /// An address that cannot be asked.
    #[error("{url:?} cannot be fetched: {reason}")]
    Address {
        /// The address.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The server says that there is no such file.
    #[error("{url} is not there: the server answers {status}")]
    Missing {
        /// The address.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// The server wants credentials, or others.
    #[error("{url} is denied ({status}): {detail}")]
    Denied {
        /// The address.
        url: String,
        /// Whom credentials would be for, without port.
        host: String,
        /// HTTP status.
        status: u16,
        /// What was sent.
        detail: String,
    },
    /// The server cannot be reached, or does not answer as it should.
    #[error("{url} cannot be fetched: {error}")]
    Server {
        /// The address.
        url: String,
        /// What is the matter with it.
        error: RegistryError,
    },
    /// A redirect that is not followed.
    #[error("{url} redirects {problem}")]
    Redirect {
        /// The address.
        url: String,
        /// Where to, or how often.
        problem: String,
    },
    /// A connection that broke more often than is worth trying.
    #[error("{url} broke off after {received}{} bytes: {cause}", of(size))]
    Interrupted {
        /// The address.
        url: String,
        /// Bytes that came.
        received: u64,
        /// Bytes in all, if the server says so.
        size: Option<u64>,
        /// The system's words.
        cause: String,
    },
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
}

fn of(size: &Option<u64>) -> String {
    size.map(|size| format!(" of {size}")).unwrap_or_default()
}
