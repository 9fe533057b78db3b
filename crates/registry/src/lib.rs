//! HTTP: the OCI distribution protocol, and plain downloads.
//!
//! [`RegistryClient`] is a blocking, thread-safe client that pulls manifests and blobs through mirrors and pushes them,
//! with tokens, retries and resumption, and verifies every byte. [`Downloader`] gets what is behind an address, if it is
//! not what one has already, [`Exchanger`] sends what another protocol says. Inside each is one thread with an asynchronous runtime, started by the first request; no type
//! of it is in a signature.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>

mod auth;
mod blob;
mod body;
mod client;
mod config;
mod daemon;
mod date;
mod download;
mod endpoint;
mod engine;
mod error;
mod exchange;
mod hosts;
mod http;
mod login;
mod proxy;
mod push;
mod referrers;
mod response;
mod retry;
mod session;
mod short;
mod tagged;
mod tags;
mod tls;
mod trace;
mod trickle;

pub use blob::{BlobReader, Resume};
pub use client::RegistryClient;
pub use config::{CredentialSource, Credentials, HostFiles, Launcher, RegistryConfig, ShortNames, Timeouts};
pub use daemon::{Daemon, DaemonError, DaemonOptions, Held};
pub use download::{
    Answer, DownloadConfig, DownloadError, Downloader, HostCredentials, Part, Validators, Wanted, redacted,
};
pub use error::{Attempt, RegistryError};
pub use exchange::{Exchanger, Question, Reply, ReplyBody};
pub use login::{Account, Kept};
pub use push::Pushed;
pub use referrers::Referrer;
pub use short::{Had, Meaning};
pub use trace::{RequestTrace, ServerTrace, Trace};
