//! The sending half of an upload, on the client's thread.
//!
//! First all in one request, which every registry takes. When that breaks, the registry is asked how far it got, and the
//! rest goes in chunks: what one of those brought is not lost with the next.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use kiln_oci::BlobInfo;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::mpsc;

use super::feed::Wanted;
use super::{Message, Pushed, digest_of, has};
use crate::body::{Body, Pulse};
use crate::endpoint::Endpoint;
use crate::http::Failure;
use crate::session::{Access, Ask, Session};
use crate::{RegistryError, retry};

/// Pieces between the two threads.
const AHEAD: usize = 2;
/// How much goes in one request of several.
const CHUNK: u64 = 16 << 20;
/// Smaller ones are not tried: who refuses this for its size takes no layers.
const SMALLEST_CHUNK: u64 = 1 << 20;
/// Repositories that are asked to give the blob.
const MOST_MOUNTS: usize = 3;
/// As browsers and Go have it.
const MOST_REDIRECTS: usize = 10;
/// Bytes a second that a registry reads, hashes and moves once all has come, at the least.
const COMMIT_RATE: u64 = 8 << 20;

/// One blob on its way.
pub(super) struct Upload {
    pub(super) session: Arc<Session>,
    pub(super) endpoint: Endpoint,
    pub(super) info: BlobInfo,
    /// Repositories of the same registry that may have it.
    pub(super) mounts: Vec<String>,
    /// Reads the blob.
    pub(super) caller: Sender<Message>,
}

/// Where an upload goes on.
#[derive(Debug, Clone)]
struct Place {
    url: Url,
    /// Bytes that the registry has.
    offset: u64,
    /// What the registry wants a chunk to have at least.
    least: u64,
}

/// How much goes in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Whole,
    Chunks(u64),
}

enum Begun {
    Mounted(String),
    At(Place),
}

impl Upload {
    pub(super) async fn run(&self) -> Result<Pushed, RegistryError> {
        match has(&self.session, &self.endpoint, &self.info.digest).await {
            Ok(true) => return Ok(Pushed::There),
            // Not every registry lets one look where one may write.
            Ok(false) | Err(RegistryError::PushDenied { .. }) => {}
            Err(error) => return Err(error),
        }
        match self.begin().await? {
            Begun::Mounted(from) => Ok(Pushed::Mounted { from }),
            Begun::At(place) => self.upload(place).await,
        }
    }

    /// Sends it, in as many requests as are worth it.
    async fn upload(&self, place: Place) -> Result<Pushed, RegistryError> {
        let done = || Ok(Pushed::Uploaded { bytes: self.info.size });
        let mut place = Some(place);
        let mut way = Way::Whole;
        // Chunks were refused: there are registries that know none.
        let mut whole_only = false;
        let (mut failed, mut best) = (0, 0);
        loop {
            let now = match place.take() {
                Some(place) => place,
                None => self.open().await?,
            };
            let failure = match self.advance(&now, way).await {
                Ok(None) => return done(),
                Ok(Some(next)) => {
                    if next.offset > best {
                        (failed, best) = (0, next.offset);
                    }
                    place = Some(next);
                    continue;
                }
                Err(failure) => failure,
            };
            failed += retry::cost(&failure.error);
            let refused = match &failure.error {
                RegistryError::Status { status, .. } => Some(*status),
                RegistryError::NotFound { .. } => Some(404),
                _ => None,
            };
            let chunked = way != Way::Whole || now.offset > 0;
            match (refused, way) {
                (Some(413), Way::Whole) if !whole_only => {
                    (way, place) = (Way::Chunks(CHUNK), self.ask(&now).await?);
                }
                (Some(413), Way::Chunks(size)) if size > SMALLEST_CHUNK => {
                    (way, place) = (Way::Chunks(size / 4), self.ask(&now).await?);
                }
                // A place that is no more, or that is not where one thought.
                (Some(404), _) if failed < retry::TRIES => {}
                (Some(416), _) if failed < retry::TRIES => place = self.ask(&now).await?,
                (Some(400 | 405 | 501), _) if chunked => {
                    (way, whole_only, place) = (Way::Whole, true, Some(now));
                }
                _ => {
                    let Some(wait) = failure.wait(self.session.config.timeouts.again, failed) else {
                        return Err(failure.error);
                    };
                    tokio::time::sleep(wait).await;
                    // It may be there, and only the answer was lost.
                    if has(&self.session, &self.endpoint, &self.info.digest).await.unwrap_or(false) {
                        return done();
                    }
                    place = self.ask(&now).await?;
                    if !whole_only && way == Way::Whole && self.info.size > CHUNK {
                        way = Way::Chunks(CHUNK);
                    }
                }
            }
            // What is there can only be added to with a chunk.
            if whole_only && let Some(place) = place.take() {
                self.abandon(place).await;
            }
        }
    }

    /// Sends one request's worth. Returns where to go on, or none when the blob is complete.
    async fn advance(&self, place: &Place, way: Way) -> Result<Option<Place>, Failure> {
        let Place { url, offset, least } = place;
        let size = self.info.size;
        let to = match way {
            Way::Chunks(chunk) => size.min(offset + chunk.max(*least)),
            Way::Whole => size,
        };
        if *offset == size || (*offset == 0 && way == Way::Whole) {
            let mut url = url.clone();
            url.query_pairs_mut().append_pair("digest", &self.info.digest.to_string());
            let answer = self.send(Method::PUT, url, *offset, to).await?;
            return match digest_of(&answer) {
                Some(actual) if actual != self.info.digest => {
                    let (host, wanted) = (self.endpoint.host.clone(), self.info.digest);
                    Err(Failure::last(RegistryError::DigestMismatch { host, wanted, actual }))
                }
                _ => Ok(None),
            };
        }
        let answer = self.send(Method::PATCH, url.clone(), *offset, to).await?;
        let next = self.place(&answer, Some(url)).map_err(Failure::last)?;
        let offset = received(answer.headers()).unwrap_or(to);
        if offset > to {
            return Err(Failure::last(self.wrong("it says that it has more of an upload than was sent")));
        }
        Ok(Some(Place { offset, least: next.least.max(*least), ..next }))
    }

    /// Asks how far an upload got. None if it is no more, which for many registries is always so after a break.
    async fn ask(&self, place: &Place) -> Result<Option<Place>, RegistryError> {
        let get = Ask { url: Some(place.url.clone()), ..Ask::push(Method::GET, "blobs", self.info.digest) };
        match self.session.send(&self.endpoint, &get).await {
            Ok(answer) => {
                let next = self.place(&answer, Some(&place.url))?;
                match received(answer.headers()) {
                    Some(offset) if (1..=self.info.size).contains(&offset) => {
                        Ok(Some(Place { offset, least: next.least.max(place.least), ..next }))
                    }
                    // Nothing, or one byte: many say the same of both. Another one is begun.
                    _ => {
                        self.abandon(next).await;
                        Ok(None)
                    }
                }
            }
            Err(RegistryError::NotFound { .. } | RegistryError::Status { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the blob mounted, or begins an upload.
    async fn begin(&self) -> Result<Begun, RegistryError> {
        let mut begun: Option<Place> = None;
        for from in self.mounts.iter().take(MOST_MOUNTS) {
            if let Some(place) = begun.take() {
                self.abandon(place).await;
            }
            let mut url = self.uploads();
            let digest = self.info.digest.to_string();
            url.query_pairs_mut().append_pair("mount", &digest).append_pair("from", from);
            let access = Access { push: true, from: Some(from.clone()) };
            let post = Ask { url: Some(url), access, ..Ask::push(Method::POST, "blobs", &digest) };
            match self.session.send(&self.endpoint, &post).await {
                Ok(answer) if answer.status() == StatusCode::CREATED => {
                    return Ok(Begun::Mounted(from.clone()));
                }
                Ok(answer) => begun = Some(self.place(&answer, None)?),
                // No access to the other one, or a registry that mounts nothing.
                Err(
                    RegistryError::NotFound { .. }
                    | RegistryError::PushDenied { .. }
                    | RegistryError::Status { .. },
                ) => {}
                Err(error) => return Err(error),
            }
        }
        match begun {
            Some(place) => Ok(Begun::At(place)),
            None => Ok(Begun::At(self.open().await?)),
        }
    }

    async fn open(&self) -> Result<Place, RegistryError> {
        let url = Some(self.uploads());
        let post = Ask { url, ..Ask::push(Method::POST, "blobs", self.info.digest) };
        let answer = self.session.send(&self.endpoint, &post).await?;
        self.place(&answer, None)
    }

    /// Registries throw away what nobody ends, after days; asking is a courtesy, and its failure is of no account.
    async fn abandon(&self, place: Place) {
        let delete = Ask { url: Some(place.url), ..Ask::push(Method::DELETE, "blobs", self.info.digest) };
        let _ = self.session.send(&self.endpoint, &delete).await;
    }

    fn uploads(&self) -> Url {
        self.endpoint.url("blobs", "uploads/")
    }

    /// Reads where an answer says to go on; without a word about it, where one was.
    fn place(&self, answer: &Response, last: Option<&Url>) -> Result<Place, RegistryError> {
        let text = |name: &str| answer.headers().get(name)?.to_str().ok();
        let url = match (text(LOCATION.as_str()), last) {
            (Some(location), _) => self.follow(answer.url(), location)?,
            (None, Some(last)) => last.clone(),
            (None, None) => return Err(self.wrong("it begins an upload and does not say where")),
        };
        let least = text("oci-chunk-min-length").and_then(|least| least.trim().parse().ok()).unwrap_or(0);
        Ok(Place { url, offset: 0, least })
    }

    fn follow(&self, from: &Url, location: &str) -> Result<Url, RegistryError> {
        let url = from.join(location).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let mut url = url.ok_or_else(|| self.wrong("it sends an upload to what is no http address"))?;
        // Behind a proxy that ends TLS many registries call themselves http.
        let base = &self.endpoint.base;
        if base.scheme() == "https" && url.scheme() == "http" && url.host_str() == base.host_str() {
            let whole = url.set_scheme("https").and_then(|()| url.set_port(base.port()));
            whole.map_err(|()| self.wrong("it sends an upload to an address that makes no sense"))?;
        }
        Ok(url)
    }

    /// Sends a part of the blob until there is an answer to it; only a good one is returned.
    async fn send(&self, method: Method, mut url: Url, from: u64, to: u64) -> Result<Response, Failure> {
        let access = Access { push: true, from: None };
        let mut authenticated = false;
        let mut redirects = 0;
        loop {
            let ours = url.origin() == self.endpoint.base.origin();
            let grant = self.session.grant(&self.endpoint, &access).filter(|_| ours);
            let client = self.session.client_for(&self.endpoint, &url).map_err(Failure::last)?;
            let pulse = Arc::new(Pulse::default());
            let mut request = client
                .request(method.clone(), url.clone())
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_LENGTH, to - from);
            if method == Method::PATCH {
                request = request.header("Content-Range", format!("{from}-{}", to - 1));
            }
            request = self.endpoint.dressed(request, &url, grant.is_some());
            if let Some(grant) = &grant {
                request = request.header(AUTHORIZATION, grant.header.clone());
            }
            if from < to {
                let (sender, receiver) = mpsc::channel(AHEAD);
                // If the caller is gone so is this task, soon.
                let _ = self.caller.send(Message::Feed(Wanted { from, to, sender }));
                let body = Body::new(receiver, to - from, pulse.clone());
                request = request.body(reqwest::Body::wrap(body));
            }
            let answer = self.wait(request.send(), &pulse, to - from).await?;
            let status = answer.status();
            if status.is_success() {
                return Ok(answer);
            }
            if status.is_redirection() && redirects < MOST_REDIRECTS {
                redirects += 1;
                let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                let location = location.ok_or_else(|| {
                    Failure::last(self.wrong("it redirects an upload and does not say where to"))
                })?;
                url = self.follow(&url, location).map_err(Failure::last)?;
                continue;
            }
            if status == StatusCode::UNAUTHORIZED && ours && !authenticated {
                authenticated = true;
                let fresh = self.session.authenticate(&self.endpoint, &access, answer, grant).await;
                fresh.map_err(Failure::last)?;
                continue;
            }
            let ask = Ask::push(method, "blobs", self.info.digest);
            return Err(Failure::last(self.session.refused(&self.endpoint, &ask, answer).await));
        }
    }

    /// Waits for an answer as long as bytes move, and then as long as a registry may need to keep so many.
    async fn wait(
        &self,
        answer: impl Future<Output = Result<Response, reqwest::Error>>,
        pulse: &Pulse,
        length: u64,
    ) -> Result<Response, Failure> {
        let http = &self.session.http;
        let stall = http.timeouts.stall;
        let mut answer = std::pin::pin!(answer);
        loop {
            let taken = pulse.taken();
            let keeping = if taken < length { 0 } else { length / COMMIT_RATE };
            let limit = http.timeouts.connect + stall + Duration::from_secs(keeping);
            match tokio::time::timeout(limit, &mut answer).await {
                Ok(answer) => return http.judge(&self.endpoint.host, answer).await,
                // Whoever reads the blob has a clock of his own.
                Err(_) if pulse.starved() || pulse.taken() > taken => {}
                Err(_) => {
                    let (host, seconds) = (self.endpoint.host.clone(), limit.as_secs());
                    let error = RegistryError::Stalled { host, seconds };
                    return Err(Failure { error, again: true, after: None });
                }
            }
        }
    }

    fn wrong(&self, reason: &str) -> RegistryError {
        RegistryError::Protocol { host: self.endpoint.host.clone(), reason: reason.to_owned() }
    }
}

/// Returns how many bytes a registry says it has. `0-0` is what many say of none, and of one.
fn received(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?.trim();
    let (start, end) = range.strip_prefix("bytes=").unwrap_or(range).split_once('-')?;
    match (start.trim().parse::<u64>().ok()?, end.trim().parse::<u64>().ok()) {
        (0, Some(end @ 1..)) => Some(end.saturating_add(1)),
        (0, _) => Some(0),
        _ => None,
    }
}
