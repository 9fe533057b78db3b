//! The sending half of a download, on the client's thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE,
};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::mpsc;

use super::address::Address;
use super::credentials::Credential;
use super::{Answer, DownloadError, Validators};
use crate::endpoint::Trust;
use crate::http::Http;
use crate::trickle::Window;
use crate::{RegistryError, response, retry};

/// As browsers and Go have it.
const MOST_REDIRECTS: usize = 10;

pub(super) enum Message {
    /// From the first byte on, whatever came before.
    Begin(Option<u64>),
    Bytes(Bytes),
    Ended(Result<Answer, DownloadError>),
}

pub(super) struct Transfer {
    pub(super) http: Arc<Http>,
    pub(super) address: Address,
    pub(super) credential: Credential,
    pub(super) known: Option<Validators>,
    pub(super) sender: mpsc::Sender<Message>,
}

/// How far it is.
#[derive(Default)]
struct Partial {
    offset: u64,
    /// The farthest it ever was: what begins anew each time gets nowhere.
    best: u64,
    size: Option<u64>,
    validators: Validators,
}

/// How one connection ended.
enum End {
    Complete(Answer),
    /// It may go on.
    Broken(RegistryError),
    Failed(DownloadError),
    /// Nobody takes the bytes any more.
    Gone,
}

impl Transfer {
    pub(super) async fn run(self) {
        if let Some(result) = self.transfer().await {
            // If it cannot be sent nobody wants to know.
            let _ = self.sender.send(Message::Ended(result)).await;
        }
    }

    async fn transfer(&self) -> Option<Result<Answer, DownloadError>> {
        let mut partial = Partial::default();
        let mut failed = 0;
        loop {
            let best = partial.best;
            let end = match self.ask(&partial).await {
                Ok(answer) => self.receive(answer, &mut partial).await,
                Err(error) => End::Failed(error),
            };
            let error = match end {
                End::Complete(answer) => return Some(Ok(answer)),
                End::Failed(error) => return Some(Err(error)),
                End::Gone => return None,
                End::Broken(error) => error,
            };
            failed = if partial.best - best >= retry::PROGRESS { 1 } else { failed + retry::cost(&error) };
            if failed >= retry::TRIES {
                return Some(Err(self.broken(error, &partial)));
            }
            // The first time at once: a connection that breaks is mostly a server's or proxy's limit.
            tokio::time::sleep(retry::wait(self.http.timeouts.again, failed - 1)).await;
        }
    }

    /// Sends the request, and on to where redirects lead.
    async fn ask(&self, partial: &Partial) -> Result<Response, DownloadError> {
        let headers = self.headers(partial);
        let mut address = self.address.clone();
        for _ in 0..=MOST_REDIRECTS {
            let client = self
                .http
                .client(address.is_loopback(), &Trust::default())
                .map_err(|error| self.server(error))?;
            let make = || {
                let request = client.request(Method::GET, address.0.clone()).headers(headers.clone());
                match &self.credential {
                    Credential::Header(header) if address.same_origin(&self.address) => {
                        request.header(AUTHORIZATION, header.clone())
                    }
                    _ => request,
                }
            };
            let answer = self.http.exchange(&address.host(), make).await;
            let answer = answer.map_err(|error| self.server(error))?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let location =
                text(answer.headers(), &LOCATION).ok_or_else(|| self.redirect("without saying where to"))?;
            address = address.join(&location)?;
        }
        Err(self.redirect(&format!("more than {MOST_REDIRECTS} times")))
    }

    fn headers(&self, partial: &Partial) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut set = |name: HeaderName, value: &str| {
            if let Ok(value) = value.parse() {
                headers.insert(name, value);
            }
        };
        // The bytes themselves: what is counted, resumed and hashed must be one thing.
        set(ACCEPT_ENCODING, "identity");
        if partial.offset > 0 {
            if let Some(validator) = strong(&partial.validators) {
                set(RANGE, &format!("bytes={}-", partial.offset));
                set(IF_RANGE, validator);
            }
        } else if let Some(known) = &self.known {
            known.etag.iter().for_each(|etag| set(IF_NONE_MATCH, etag));
            known.last_modified.iter().for_each(|date| set(IF_MODIFIED_SINCE, date));
        }
        headers
    }

    /// Makes sense of an answer, and passes its bytes on.
    async fn receive(&self, answer: Response, partial: &mut Partial) -> End {
        let status = answer.status();
        let validators = Validators {
            etag: text(answer.headers(), &ETAG),
            last_modified: text(answer.headers(), &LAST_MODIFIED),
        };
        match status {
            StatusCode::OK => {
                if partial.best == 0 && self.is_known(&validators) {
                    return End::Complete(Answer::Unchanged);
                }
                let size = answer.content_length();
                *partial = Partial { offset: 0, best: partial.best, size, validators };
                if self.sender.send(Message::Begin(size)).await.is_err() {
                    return End::Gone;
                }
            }
            StatusCode::PARTIAL_CONTENT if partial.offset > 0 => {
                let range = text(answer.headers(), &CONTENT_RANGE);
                if !continues(range.as_deref(), partial) {
                    return End::Failed(self.protocol("it sends another range than it was asked for"));
                }
            }
            // What is there is not what it was: from the start, without a range.
            StatusCode::RANGE_NOT_SATISFIABLE if partial.offset > 0 => {
                *partial = Partial { best: partial.best, ..Partial::default() };
                return End::Broken(self.wrong("it cannot go on where it broke off"));
            }
            StatusCode::NOT_MODIFIED if self.known.is_some() && partial.best == 0 => {
                // One that names no file means the one asked about.
                if validators.etag.is_none() || self.is_known(&validators) {
                    return End::Complete(Answer::Unchanged);
                }
                return End::Failed(
                    self.protocol("it says that a file did not change that it was not asked about"),
                );
            }
            status => return End::Failed(self.refused(status, &answer)),
        }
        self.pass(answer, partial).await
    }

    async fn pass(&self, mut answer: Response, partial: &mut Partial) -> End {
        let (host, stall) = (self.address.host(), self.http.timeouts.stall);
        let mut window = Window::default();
        loop {
            let asked = Instant::now();
            let piece = match response::chunk(&host, stall, &mut answer).await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => return End::Broken(error),
            };
            if window.is_trickle(asked.elapsed(), piece.len(), stall) {
                return End::Broken(stalled(host, stall));
            }
            partial.offset += piece.len() as u64;
            partial.best = partial.best.max(partial.offset);
            if self.sender.send(Message::Bytes(piece)).await.is_err() {
                return End::Gone;
            }
        }
        match partial.size {
            Some(size) if size != partial.offset => {
                End::Broken(self.wrong("the connection was closed early"))
            }
            _ => End::Complete(Answer::Complete(std::mem::take(&mut partial.validators))),
        }
    }

    /// Whether an answer is about the file that is known: some servers send tags and do not compare them.
    fn is_known(&self, found: &Validators) -> bool {
        let etag = |validators: &Validators| validators.etag.as_deref().map(|etag| weak(etag).to_owned());
        self.known.as_ref().and_then(etag).is_some_and(|known| etag(found) == Some(known))
    }

    fn refused(&self, status: StatusCode, answer: &Response) -> DownloadError {
        let url = self.address.shown();
        match status.as_u16() {
            status @ (404 | 410) => DownloadError::Missing { url, status },
            status @ (401 | 403) => {
                let asked = Address(answer.url().clone());
                let detail = if asked.same_origin(&self.address) {
                    self.credential.said(&self.address)
                } else {
                    format!("it redirects to {}, which gets no credentials", asked.host())
                };
                DownloadError::Denied { url, host: self.address.name().to_owned(), status, detail }
            }
            status => {
                let host = answer.url().host_str().unwrap_or_default().to_owned();
                self.server(RegistryError::Status { host, status, detail: None })
            }
        }
    }

    fn broken(&self, error: RegistryError, partial: &Partial) -> DownloadError {
        let cause = match error {
            RegistryError::Unreachable { cause, .. } => cause,
            RegistryError::Protocol { reason, .. } => reason,
            other => return self.server(other),
        };
        let (url, received, size) = (self.address.shown(), partial.best, partial.size);
        DownloadError::Interrupted { url, received, size, cause }
    }

    fn server(&self, error: RegistryError) -> DownloadError {
        DownloadError::Server { url: self.address.shown(), error }
    }

    fn wrong(&self, reason: &str) -> RegistryError {
        RegistryError::Protocol { host: self.address.host(), reason: reason.to_owned() }
    }

    fn protocol(&self, reason: &str) -> DownloadError {
        self.server(self.wrong(reason))
    }

    fn redirect(&self, problem: &str) -> DownloadError {
        DownloadError::Redirect { url: self.address.shown(), problem: problem.to_owned() }
    }
}

fn stalled(host: String, stall: Duration) -> RegistryError {
    RegistryError::Stalled { host, seconds: stall.as_secs() }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}

/// A tag without the mark that says that equal tags mean equal enough.
fn weak(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

/// What proves that two parts are of one file. <https://www.rfc-editor.org/rfc/rfc9110#field.if-range>
fn strong(validators: &Validators) -> Option<&str> {
    match &validators.etag {
        Some(etag) if !etag.starts_with("W/") => Some(etag),
        Some(_) => None,
        None => validators.last_modified.as_deref(),
    }
}

/// Whether a range is the rest of what is there.
fn continues(range: Option<&str>, partial: &Partial) -> bool {
    let parsed = range.and_then(|range| {
        let (span, size) = range.strip_prefix("bytes ")?.split_once('/')?;
        let (start, end) = span.split_once('-')?;
        Some((
            start.trim().parse::<u64>().ok()?,
            end.trim().parse::<u64>().ok()?,
            size.trim().parse::<u64>().ok(),
        ))
    });
    match (parsed, partial.size) {
        (Some((start, end, size)), Some(whole)) => {
            start == partial.offset && end + 1 == whole && size.is_none_or(|size| size == whole)
        }
        (Some((start, _, _)), None) => start == partial.offset,
        (None, _) => false,
    }
}
