//! Plain downloads: what is behind an address, if it is not what one has already.
//! <https://www.rfc-editor.org/rfc/rfc9110#name-conditional-requests>

mod address;
mod credentials;
mod error;
mod transfer;

use std::sync::{Arc, OnceLock};

use kiln_core::Cancel;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

use crate::engine::Engine;
use crate::http::{Http, Redirects};
use crate::{RegistryError, Timeouts};

pub use address::redacted;
pub use credentials::HostCredentials;
pub use error::DownloadError;

use address::Address;
use transfer::{Message, Transfer};

/// Pieces between the two threads, as for a blob: 3 MiB at most.
const AHEAD: usize = 8;

/// Downloads at once. More share one line without being faster.
const PARALLEL: usize = 8;

/// How downloads are made, as data.
#[derive(Debug, Clone, Default)]
pub struct DownloadConfig {
    /// What kiln says it is; `kiln/VERSION` if none.
    pub user_agent: Option<String>,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// What is sent to whom.
    pub credentials: HostCredentials,
}

/// Gets files behind http and https addresses. Cheap to make: no thread before the first request.
///
/// Several threads may use one; they share its connections.
#[derive(Debug)]
pub struct Downloader {
    http: Arc<Http>,
    credentials: HostCredentials,
    engine: OnceLock<Result<Engine, RegistryError>>,
    line: Arc<Semaphore>,
}

/// What is to be had.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// `http://` or `https://`.
    pub url: &'a str,
    /// What was said of the file that one has; none if one has none.
    pub known: Option<&'a Validators>,
}

/// What a server says about a file, to be asked later whether it is still the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    /// `ETag`, as it came.
    pub etag: Option<String>,
    /// `Last-Modified`, as it came.
    pub last_modified: Option<String>,
}

/// A part of a file on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// It begins, with so many bytes to come if the server says so. What came before is void: the server could not go on
    /// where the connection broke.
    Begin(Option<u64>),
    /// The next bytes.
    Bytes(&'a [u8]),
}

/// What a download came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The file is the one that is known.
    Unchanged,
    /// All of it came.
    Complete(Validators),
}

impl Validators {
    /// Returns `Last-Modified` in seconds since 1970.
    pub fn modified(&self) -> Option<i64> {
        crate::date::parse(self.last_modified.as_deref()?)
    }

    fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }
}

impl Downloader {
    /// Makes one.
    pub fn new(config: DownloadConfig) -> Self {
        let DownloadConfig { user_agent, timeouts, credentials } = config;
        Self {
            http: Arc::new(Http::new(user_agent, timeouts, Redirects::Shown)),
            credentials,
            engine: OnceLock::new(),
            line: Arc::new(Semaphore::new(PARALLEL)),
        }
    }

    /// Gets a file, piece by piece on the calling thread, with one request if nothing goes wrong. It goes on over broken
    /// connections where the server can do that, and begins anew where not.
    ///
    /// # Errors
    /// It cannot be had; or `take` failed. What `take` got until then is worth nothing.
    pub fn get<E: From<DownloadError>>(
        &self,
        wanted: &Wanted<'_>,
        cancel: &Cancel,
        take: &mut dyn FnMut(Part<'_>) -> Result<(), E>,
    ) -> Result<Answer, E> {
        if cancel.is_cancelled() {
            return Err(DownloadError::Cancelled.into());
        }
        let address = Address::parse(wanted.url)?;
        let credential = self.credentials.of(&address)?;
        let url = address.shown();
        let failed = |error: RegistryError| DownloadError::Server { url: url.clone(), error };
        let engine =
            self.engine.get_or_init(Engine::start).as_ref().map_err(|error| failed(error.clone()))?;
        let (sender, mut receiver) = mpsc::channel::<Message>(AHEAD);
        let transfer = Transfer {
            http: self.http.clone(),
            address,
            credential,
            known: wanted.known.filter(|known| !known.is_empty()).cloned(),
            sender,
        };
        let line = self.line.clone();
        let abort = engine.spawn(async move {
            // Closed never.
            let _permit = line.acquire_owned().await;
            transfer.run().await;
        });
        let ended = Ended(abort.clone());
        let _guard = cancel.on_cancel(move || abort.abort());
        let result = loop {
            match receiver.blocking_recv() {
                Some(Message::Begin(size)) => take(Part::Begin(size))?,
                Some(Message::Bytes(bytes)) => take(Part::Bytes(&bytes))?,
                Some(Message::Ended(result)) => break result,
                None if cancel.is_cancelled() => break Err(DownloadError::Cancelled),
                None => break Err(failed(crate::engine::stopped(cancel))),
            }
        };
        drop(ended);
        Ok(result?)
    }
}

/// Ends a transfer that nobody takes from any more.
struct Ended(tokio::task::AbortHandle);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}
