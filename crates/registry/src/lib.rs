//! The OCI distribution protocol over HTTP.
//!
//! [`RegistryClient`] is the whole of it: a blocking, thread-safe client that pulls manifests and blobs through mirrors,
//! with tokens, retries and resumption, and verifies every byte. Inside is one thread with an asynchronous runtime,
//! started by the first request; no type of it is in a signature.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>

mod auth;
mod blob;
mod client;
mod config;
mod endpoint;
mod engine;
mod error;
mod response;
mod retry;
mod session;
mod tls;

pub use blob::{BlobReader, Resume};
pub use client::RegistryClient;
pub use config::{RegistryConfig, Timeouts};
pub use error::{Attempt, RegistryError};
