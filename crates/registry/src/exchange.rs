//! One request and its answer as they are, for whoever speaks a protocol of his own over HTTP.

use std::io::{self, Read};
use std::sync::{Arc, OnceLock};

use bytes::{Buf as _, Bytes};
use kiln_core::{Cancel, CancelGuard};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::endpoint::{Trust, is_loopback};
use crate::engine::{Engine, stopped};
use crate::http::{Http, Redirects};
use crate::{RegistryError, Timeouts, response};

/// Pieces between the two threads, as for a blob: 3 MiB at most.
const AHEAD: usize = 8;

/// Sends requests. Cheap to make: no thread before the first one.
///
/// Several threads may use one; they share its connections. It follows no redirects, and asks again where a server says
/// that it is busy, or a connection breaks before the answer: what is sent must bear that.
#[derive(Debug)]
pub struct Exchanger {
    http: Arc<Http>,
    engine: OnceLock<Result<Arc<Engine>, RegistryError>>,
}

/// A request.
#[derive(Clone, PartialEq, Eq)]
pub struct Question {
    /// `http://` or `https://`.
    pub url: String,
    /// Names and values. Not shown anywhere: one may be `Authorization`.
    pub headers: Vec<(&'static str, String)>,
    /// POST with these bytes if there are any, else GET.
    pub body: Option<Vec<u8>>,
}

/// The head of an answer, with a body that is on its way.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status; of those that say that one may ask again there are none.
    pub status: u16,
    headers: HeaderMap,
    /// What follows.
    pub body: ReplyBody,
}

impl Reply {
    /// Returns a header's value if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A body. [`Read`] fails with an [`io::Error`] around a [`RegistryError`]. Dropping it ends the transfer.
#[derive(Debug)]
pub struct ReplyBody {
    /// An empty piece is the end; without one the task was aborted.
    receiver: mpsc::Receiver<Result<Bytes, RegistryError>>,
    piece: Bytes,
    ended: bool,
    cancel: Cancel,
    abort: AbortHandle,
    /// Who asked may go before the answer is read.
    _engine: Arc<Engine>,
    _guard: CancelGuard,
}

impl Exchanger {
    /// Makes one.
    pub fn new(user_agent: Option<String>, timeouts: Timeouts) -> Self {
        Self { http: Arc::new(Http::new(user_agent, timeouts, Redirects::Shown)), engine: OnceLock::new() }
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// There is no answer, or only that the server cannot answer now.
    pub fn ask(&self, question: Question, cancel: &Cancel) -> Result<Reply, RegistryError> {
        if cancel.is_cancelled() {
            return Err(RegistryError::Cancelled);
        }
        let url = Url::parse(&question.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let wrong = |cause: &str| RegistryError::Client { cause: cause.to_owned() };
        let url = url.ok_or_else(|| wrong("it was given what is no http address"))?;
        let name = url.host_str().unwrap_or_default().to_owned();
        let host = url.port().map_or_else(|| name.clone(), |port| format!("{name}:{port}"));
        let headers = headers(&question.headers).ok_or_else(|| wrong("a header is not one line of text"))?;
        let engine =
            self.engine.get_or_init(|| Engine::start().map(Arc::new)).as_ref().map_err(Clone::clone)?;
        let (sender, receiver) = mpsc::channel(AHEAD);
        let (head_sender, head) = std::sync::mpsc::sync_channel(1);
        let http = self.http.clone();
        let abort = engine.spawn(async move {
            let stall = http.timeouts.stall;
            let answer = match http.client(is_loopback(&name), &Trust::default()) {
                Err(error) => Err(error),
                Ok(client) => {
                    let body = question.body.map(Bytes::from);
                    let make = || {
                        let method = if body.is_some() { Method::POST } else { Method::GET };
                        let request = client.request(method, url.clone()).headers(headers.clone());
                        match &body {
                            Some(body) => request.body(body.clone()),
                            None => request,
                        }
                    };
                    http.exchange(&host, make).await
                }
            };
            let mut answer = match answer {
                Ok(answer) => answer,
                // The asker waits below, unless his thread is gone.
                Err(error) => return drop(head_sender.send(Err(error))),
            };
            let head = (answer.status().as_u16(), answer.headers().clone());
            if head_sender.send(Ok(head)).is_err() {
                return;
            }
            loop {
                let piece = match response::chunk(&host, stall, &mut answer).await {
                    Ok(Some(piece)) if piece.is_empty() => continue,
                    Ok(Some(piece)) => Ok(piece),
                    Ok(None) => Ok(Bytes::new()),
                    Err(error) => Err(error),
                };
                let last = piece.as_ref().map_or(true, Bytes::is_empty);
                if sender.send(piece).await.is_err() || last {
                    return;
                }
            }
        });
        let aborter = abort.clone();
        let guard = cancel.on_cancel(move || aborter.abort());
        let head = head.recv().unwrap_or_else(|_| Err(stopped(cancel)));
        let body = ReplyBody {
            receiver,
            piece: Bytes::new(),
            ended: false,
            cancel: cancel.clone(),
            abort,
            _engine: engine.clone(),
            _guard: guard,
        };
        let (status, headers) = head?;
        Ok(Reply { status, headers, body })
    }
}

fn headers(given: &[(&'static str, String)]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(name.eq_ignore_ascii_case("authorization"));
        headers.append(HeaderName::from_bytes(name.as_bytes()).ok()?, value);
    }
    Some(headers)
}

impl Read for ReplyBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.receiver.blocking_recv() {
                Some(Ok(piece)) => {
                    self.ended = piece.is_empty();
                    self.piece = piece;
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Err(io::Error::other(error));
                }
                None => return Err(io::Error::other(stopped(&self.cancel))),
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        self.abort.abort();
    }
}
