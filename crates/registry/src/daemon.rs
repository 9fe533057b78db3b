//! A running docker or podman, over its socket: the few questions that moving an image takes.
//! <https://docs.docker.com/reference/api/engine/>, which podman answers too.

mod held;

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, mpsc as blocking};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use kiln_core::Cancel;
use reqwest::{Client, Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::body::Body;
use crate::engine::Engine;
use crate::{RegistryError, endpoint};

pub use held::Held;

/// Where an engine is looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonOptions {
    /// `unix://PATH`, or `tcp://` on this machine (DOCKER_HOST); then nothing else is tried.
    pub host: Option<String>,
    /// Sockets, of which the first that answers is taken.
    pub sockets: Vec<PathBuf>,
}

/// Why an engine does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum DaemonError {
    /// None answers.
    #[error("no running docker or podman was found: {}", tried.join("; "))]
    NotFound {
        /// What was looked at, and why it is none.
        tried: Vec<String>,
    },
    /// An address that kiln does not use.
    #[error("DOCKER_HOST={host}: {reason}")]
    Host {
        /// As given.
        host: String,
        /// Why not.
        reason: String,
    },
    /// The connection cannot be made, or broke.
    #[error("the engine at {place} does not answer: {reason}")]
    Unreachable {
        /// Its socket.
        place: String,
        /// Why.
        reason: String,
    },
    /// It says no.
    #[error("the engine at {place} refuses: {reason}")]
    Refused {
        /// Its socket.
        place: String,
        /// Its words.
        reason: String,
    },
    /// Interrupted.
    #[error("interrupted")]
    Cancelled,
}

/// An engine that answers.
#[derive(Debug)]
pub struct Daemon {
    client: Client,
    base: String,
    place: String,
    engine: Arc<Engine>,
    cancel: Cancel,
}

/// Long enough for an engine that is just starting.
const CONNECT: Duration = Duration::from_secs(5);
/// Pieces on their way to the engine, of 256 KiB.
const AHEAD: usize = 4;
/// The most of an answer that is read: a list of layers, or an error.
const MOST: usize = 8 << 20;

impl Daemon {
    /// Finds one.
    ///
    /// # Errors
    /// [`DaemonError::NotFound`], [`DaemonError::Host`].
    pub fn find(options: &DaemonOptions, cancel: &Cancel) -> Result<Self, DaemonError> {
        if let Some(host) = &options.host {
            let found = Self::at(host, cancel)?;
            found.ping()?;
            return Ok(found);
        }
        let mut tried = Vec::new();
        for socket in &options.sockets {
            let place = socket.display();
            if !socket.exists() {
                tried.push(format!("{place} is not there"));
                continue;
            }
            let found = Self::at(&format!("unix://{place}"), cancel)?;
            match found.ping() {
                Ok(()) => return Ok(found),
                Err(DaemonError::Cancelled) => return Err(DaemonError::Cancelled),
                Err(error) => tried.push(error.to_string()),
            }
        }
        Err(DaemonError::NotFound { tried })
    }

    /// Returns the address it answers at.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Returns the id of an image, by a name or an id; none if it has no such image.
    ///
    /// # Errors
    /// There is no answer, or it is none that is understood.
    pub fn image(&self, name: &str) -> Result<Option<String>, DaemonError> {
        #[derive(Deserialize)]
        struct Image {
            #[serde(rename = "Id")]
            id: String,
        }
        let (status, body) = self.ask(Method::GET, &format!("/images/{}/json", escaped(name)), None)?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => match serde_json::from_slice::<Image>(&body) {
                Ok(image) => Ok(Some(image.id)),
                Err(error) => Err(self.refused(&error.to_string())),
            },
            status => Err(self.refusal(status, &body)),
        }
    }

    /// Gives an image a name.
    ///
    /// # Errors
    /// It is not there, or there is no answer.
    pub fn tag(&self, id: &str, repository: &str, tag: &str) -> Result<(), DaemonError> {
        let path = format!("/images/{}/tag?repo={}&tag={}", escaped(id), escaped(repository), escaped(tag));
        match self.ask(Method::POST, &path, None)? {
            (status, _) if status.is_success() => Ok(()),
            (status, body) => Err(self.refusal(status, &body)),
        }
    }

    /// Loads an archive that `write` writes, on this thread, while it is sent.
    ///
    /// # Errors
    /// What `write` fails with, as the second kind; or the engine refuses.
    pub fn load<E>(
        &self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<Result<(), E>, DaemonError> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (answer_in, answer_out) = blocking::sync_channel(1);
        let url = format!("{}/images/load?quiet=1", self.base);
        let request = self.client.post(url).header("content-type", "application/x-tar");
        let request = request.body(reqwest::Body::wrap(Body::endless(receiver)));
        let abort = self.engine.spawn(async move {
            let answer = match request.send().await {
                Ok(answer) => whole(answer).await,
                Err(error) => Err(error),
            };
            let _ = answer_in.send(answer);
        });
        let aborter = abort.clone();
        let _guard = self.cancel.on_cancel(move || aborter.abort());
        let mut out = Sender { sender, gone: false };
        let written = write(&mut out);
        let gone = out.gone;
        if written.is_err() && !gone {
            // The end would look like an archive's.
            abort.abort();
            return Ok(written);
        }
        let ended = out.sender;
        if written.is_ok() {
            // An empty piece is the end; a channel that only closes is none.
            let _ = ended.blocking_send(Bytes::new());
        }
        drop(ended);
        let (status, body) = match answer_out.recv() {
            Ok(answer) => answer.map_err(|error| self.unreachable(&error))?,
            Err(_) => return Err(self.stopped()),
        };
        if !status.is_success() {
            return Err(self.refusal(status, &body));
        }
        // It answers well and then says in the stream what went wrong.
        for line in body.split(|byte| *byte == b'\n') {
            if let Ok(serde_json::Value::Object(said)) = serde_json::from_slice(line)
                && let Some(error) = said.get("error").and_then(|error| error.as_str())
            {
                return Err(self.refused(error));
            }
        }
        Ok(written)
    }

    /// Opens the archive of an image, as `docker save` writes it.
    ///
    /// # Errors
    /// It has no such image, or there is no answer.
    pub fn save(&self, name: &str) -> Result<impl Read + use<>, DaemonError> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (head_in, head_out) = blocking::sync_channel(1);
        let request = self.client.get(format!("{}/images/{}/get", self.base, escaped(name)));
        let abort = self.engine.spawn(async move {
            let mut answer = match request.send().await {
                Ok(answer) if answer.status().is_success() => answer,
                Ok(answer) => return drop(head_in.send(whole(answer).await)),
                Err(error) => return drop(head_in.send(Err(error))),
            };
            let _ = head_in.send(Ok((answer.status(), Vec::new())));
            loop {
                let piece = match answer.chunk().await {
                    Ok(Some(piece)) if piece.is_empty() => continue,
                    Ok(Some(piece)) => Ok(piece),
                    Ok(None) => Ok(Bytes::new()),
                    Err(error) => Err(error.to_string()),
                };
                let last = piece.as_ref().map_or(true, Bytes::is_empty);
                if sender.send(piece).await.is_err() || last {
                    return;
                }
            }
        });
        let guard = self.cancel.on_cancel(move || abort.abort());
        match head_out.recv() {
            Ok(Ok((status, _))) if status.is_success() => {}
            Ok(Ok((status, body))) => return Err(self.refusal(status, &body)),
            Ok(Err(error)) => return Err(self.unreachable(&error)),
            Err(_) => return Err(self.stopped()),
        }
        Ok(Saved { receiver, piece: Bytes::new(), ended: false, _guard: guard, _engine: self.engine.clone() })
    }

    fn at(host: &str, cancel: &Cancel) -> Result<Self, DaemonError> {
        let wrong = |reason: &str| DaemonError::Host { host: host.to_owned(), reason: reason.to_owned() };
        let mut builder = Client::builder().no_proxy().connect_timeout(CONNECT);
        let tls = crate::tls::client_config(&endpoint::Trust::default())
            .map_err(|error| wrong(&error.to_string()))?;
        builder = builder.tls_backend_preconfigured(tls);
        let base = match host.split_once("://") {
            Some(("unix", path)) => {
                builder = builder.unix_socket(std::path::Path::new(path));
                "http://localhost".to_owned()
            }
            Some(("tcp" | "http", address)) => {
                let address = address.trim_end_matches('/');
                let name = address.rsplit_once(':').map_or(address, |(name, _)| name);
                if !endpoint::is_loopback(name) {
                    return Err(wrong("kiln talks to an engine on this machine only, without TLS"));
                }
                format!("http://{address}")
            }
            Some((scheme, _)) => {
                return Err(wrong(&format!("{scheme}:// is not supported; write unix:// or tcp://")));
            }
            None => return Err(wrong("write unix://PATH")),
        };
        let client = builder.build().map_err(|error| wrong(&error.to_string()))?;
        let engine = Engine::start().map_err(|error| wrong(&error.to_string()))?;
        Ok(Self { client, base, place: host.to_owned(), engine: Arc::new(engine), cancel: cancel.clone() })
    }

    fn ping(&self) -> Result<(), DaemonError> {
        match self.ask(Method::GET, "/_ping", None)? {
            (status, _) if status.is_success() => Ok(()),
            (status, body) => Err(self.refusal(status, &body)),
        }
    }

    fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<(StatusCode, Vec<u8>), DaemonError> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.body(body);
        }
        let (sender, receiver) = blocking::sync_channel(1);
        let abort = self.engine.spawn(async move {
            let answer = match request.send().await {
                Ok(answer) => whole(answer).await,
                Err(error) => Err(error),
            };
            let _ = sender.send(answer);
        });
        let _guard = self.cancel.on_cancel(move || abort.abort());
        match receiver.recv() {
            Ok(answer) => answer.map_err(|error| self.unreachable(&error)),
            Err(_) => Err(self.stopped()),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> DaemonError {
        // The last cause says it: "No such file or directory", "Permission denied".
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        DaemonError::Unreachable { place: self.place.clone(), reason: cause.to_string() }
    }

    fn refused(&self, reason: &str) -> DaemonError {
        DaemonError::Refused { place: self.place.clone(), reason: reason.to_owned() }
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> DaemonError {
        #[derive(Deserialize)]
        struct Said {
            message: String,
        }
        let text = String::from_utf8_lossy(body);
        let said =
            serde_json::from_slice::<Said>(body).map_or_else(|_| text.trim().to_owned(), |said| said.message);
        self.refused(&format!("{said} ({status})"))
    }

    fn stopped(&self) -> DaemonError {
        match crate::engine::stopped(&self.cancel) {
            RegistryError::Cancelled => DaemonError::Cancelled,
            other => DaemonError::Unreachable { place: self.place.clone(), reason: other.to_string() },
        }
    }
}

/// An answer with its body, or as much of it as anybody wants.
async fn whole(mut answer: Response) -> Result<(StatusCode, Vec<u8>), reqwest::Error> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        if body.len() < MOST {
            body.extend_from_slice(&piece);
        }
    }
    Ok((answer.status(), body))
}

/// Percent-encodes all but what is plain in any part of a URL.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'/' | b':' | b'@')
    };
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// What is written here is sent.
struct Sender {
    sender: mpsc::Sender<Bytes>,
    /// Nobody takes it any more: the answer says why.
    gone: bool,
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() && self.sender.blocking_send(Bytes::copy_from_slice(bytes)).is_err() {
            self.gone = true;
            return Err(io::Error::other("the engine takes no more"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An archive on its way.
struct Saved {
    receiver: mpsc::Receiver<Result<Bytes, String>>,
    piece: Bytes,
    ended: bool,
    _guard: kiln_core::CancelGuard,
    _engine: Arc<Engine>,
}

impl Read for Saved {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Ok(piece)) => {
                    self.ended = piece.is_empty();
                    self.piece = piece;
                }
                Some(Err(reason)) => return Err(io::Error::other(reason)),
                None => return Err(io::Error::other("the engine's answer broke off")),
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
