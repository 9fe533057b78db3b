//! Requests to one server: authentication, retries, and what the answers mean.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_core::{Digest, ImageRef};
use kiln_oci::{Document, media};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RANGE};
use reqwest::{Client, Method, Response, StatusCode, Url};
use tokio::sync::Semaphore;

use crate::auth::Keychain;
use crate::endpoint::{Endpoint, endpoints};
use crate::hosts::Hosts;
use crate::http::{Http, Redirects};
use crate::{Attempt, RegistryConfig, RegistryError, response, retry};

mod access;
mod authenticate;
mod login;

pub(crate) use access::Access;

/// What one client knows: connections, tokens, and who failed. Shared by its tasks.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) config: RegistryConfig,
    pub(crate) http: Http,
    /// For what must not be sent on to wherever a redirect leads.
    pub(crate) unfollowed: Http,
    grants: Mutex<Grants>,
    /// Held while a token is fetched, so that parallel requests fetch one.
    granting: tokio::sync::Mutex<()>,
    keychain: Arc<Keychain>,
    hosts: OnceLock<Result<Hosts, RegistryError>>,
    /// By host, what those are reached by that may be reached by https or http.
    settled: Mutex<BTreeMap<String, Url>>,
    /// Mirrors that did not answer; they are not waited for again.
    down: Mutex<BTreeMap<String, RegistryError>>,
    /// Mirrors that sent wrong bytes for a blob.
    wrong: Mutex<BTreeSet<(String, Digest)>>,
    /// Parts of large blobs that may be fetched ahead of their turn.
    pub(crate) ahead: Arc<Semaphore>,
    /// Manifests that a look at repository and reference did not find.
    pub(crate) absent: Mutex<BTreeSet<(String, String, Digest)>>,
    /// Held while a list of what is about a manifest is read and written.
    pub(crate) referring: tokio::sync::Mutex<()>,
}

/// By host and repository, each with what it is good for.
type Grants = HashMap<(String, String), Vec<(Access, Grant)>>;

/// What to send along, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) header: HeaderValue,
    until: Option<Instant>,
    /// Name and password: good for all that they are good for.
    whole: bool,
}

/// What servers are asked for: not each may be asked for everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// What a tag means.
    Tag,
    /// A manifest or configuration, by its digest.
    Document,
    Blob(Digest),
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// `manifests` or `blobs`.
    pub(crate) kind: &'static str,
    /// Tag or digest.
    pub(crate) what: String,
    /// First byte wanted.
    pub(crate) offset: u64,
    /// The first byte that is not wanted any more, if not all are.
    pub(crate) end: Option<u64>,
    /// What one must be allowed for it.
    pub(crate) access: Access,
    /// Instead of the address that `kind` and `what` make: where the registry said to go on.
    pub(crate) url: Option<Url>,
    /// A document that is sent, and its type.
    pub(crate) body: Option<(String, Bytes)>,
}

impl Ask {
    pub(crate) fn get(kind: &'static str, what: impl ToString) -> Self {
        let what = what.to_string();
        let access = Access::default();
        Self { method: Method::GET, kind, what, offset: 0, end: None, access, url: None, body: None }
    }

    /// A request of a push: its token is good for all of them.
    pub(crate) fn push(method: Method, kind: &'static str, what: impl ToString) -> Self {
        Self { method, access: Access { push: true, from: None }, ..Self::get(kind, what) }
    }
}

impl Session {
    pub(crate) fn new(config: RegistryConfig) -> Self {
        let http = Http::new(config.user_agent.clone(), config.timeouts, Redirects::Followed);
        let unfollowed = Http::new(config.user_agent.clone(), config.timeouts, Redirects::Shown);
        let keychain = Arc::new(Keychain::new(config.credentials.clone()));
        Self {
            config,
            http,
            unfollowed,
            grants: Mutex::default(),
            granting: tokio::sync::Mutex::new(()),
            keychain,
            hosts: OnceLock::new(),
            settled: Mutex::default(),
            down: Mutex::default(),
            wrong: Mutex::default(),
            ahead: Arc::new(Semaphore::new(crate::blob::AHEAD_OF_TURN)),
            absent: Mutex::default(),
            referring: tokio::sync::Mutex::new(()),
        }
    }

    /// Asks each server for something of the image in turn until one delivers; `what` it is goes into the error.
    pub(crate) async fn first<T, F>(
        &self,
        image: &ImageRef,
        wanted: Wanted,
        what: &(dyn Display + Sync),
        mut ask: impl FnMut(Endpoint) -> F,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let mut tried = Vec::new();
        for endpoint in self.endpoints(image)? {
            let able = if wanted == Wanted::Tag { endpoint.resolve } else { endpoint.pull };
            if !able {
                continue;
            }
            let (host, mirror) = (endpoint.host.clone(), endpoint.mirror);
            let known = lock(&self.down).get(&host).cloned();
            let skip = match wanted {
                Wanted::Blob(digest) => lock(&self.wrong).contains(&(host.clone(), digest)),
                Wanted::Tag | Wanted::Document => false,
            };
            let error = match known {
                Some(error) => error,
                None if skip => RegistryError::Protocol {
                    host: host.clone(),
                    reason: "it sent wrong bytes for this blob before".to_owned(),
                },
                None => match ask(self.settle(endpoint).await?).await {
                    Ok(found) => return Ok(found),
                    Err(error) => error,
                },
            };
            if mirror && matches!(error, RegistryError::Unreachable { .. } | RegistryError::Stalled { .. }) {
                lock(&self.down).insert(host.clone(), error.clone());
            }
            tried.push(Attempt { host, error });
        }
        match tried.pop() {
            None => Err(RegistryError::Protocol {
                host: image.registry.clone(),
                reason: "by its hosts.toml nobody may be asked for this".to_owned(),
            }),
            Some(only) if tried.is_empty() => Err(only.error.of_what(&image.name(), what)),
            last => {
                tried.extend(last);
                Err(RegistryError::Mirrors { name: image.name(), tried })
            }
        }
    }

    /// Returns the servers for an image, in order.
    pub(crate) fn endpoints(&self, image: &ImageRef) -> Result<Vec<Endpoint>, RegistryError> {
        endpoints(&self.config, self.hosts()?, image)
    }

    pub(crate) fn hosts(&self) -> Result<&Hosts, RegistryError> {
        self.hosts.get_or_init(|| Hosts::read(&self.config.files)).as_ref().map_err(Clone::clone)
    }

    /// The registry itself, which is pushed to.
    pub(crate) async fn registry(&self, image: &ImageRef) -> Result<Endpoint, RegistryError> {
        let endpoints = self.endpoints(image)?;
        let endpoint = endpoints.iter().find(|endpoint| endpoint.push);
        let endpoint = endpoint.or_else(|| endpoints.iter().rfind(|endpoint| !endpoint.mirror)).cloned();
        let endpoint = endpoint.ok_or_else(|| RegistryError::Protocol {
            host: image.registry.clone(),
            reason: "it has only mirrors, and those are not pushed to".to_owned(),
        })?;
        self.settle(endpoint).await
    }

    /// Finds out whether a server that need not be secure answers by https, once for each.
    pub(crate) async fn settle(&self, mut endpoint: Endpoint) -> Result<Endpoint, RegistryError> {
        if !endpoint.either {
            return Ok(endpoint);
        }
        let known = lock(&self.settled).get(&endpoint.host).cloned();
        if let Some(base) = known {
            endpoint.base = base;
            return Ok(endpoint);
        }
        let front = endpoint.front();
        let request = self.client_for(&endpoint, &front)?.get(front).send();
        let answer = tokio::time::timeout(self.config.timeouts.connect, request).await;
        // Whatever it answers, it does so by https.
        if !matches!(answer, Ok(Ok(_))) {
            // An address with a host can be one of http.
            let _ = endpoint.base.set_scheme("http");
        }
        lock(&self.settled).insert(endpoint.host.clone(), endpoint.base.clone());
        Ok(endpoint)
    }

    /// Remembers that a server's bytes were wrong, so that the next try goes past it.
    pub(crate) fn distrust(&self, host: String, digest: Digest) {
        lock(&self.wrong).insert((host, digest));
    }

    /// Gets a manifest or configuration whole, and checks it against its digest where that is known.
    pub(crate) async fn document(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
        digest: Option<Digest>,
    ) -> Result<Document, RegistryError> {
        let host = &endpoint.host;
        let stall = self.config.timeouts.stall;
        let mut failed = 0;
        loop {
            let answer = self.send(endpoint, ask).await?;
            let media_type = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let media_type = media_type.unwrap_or_default().to_owned();
            let what = format!("{} of {}", ask.what, endpoint.repository);
            let body = response::body(host, stall, &what, kiln_oci::MAX_DOCUMENT, answer);
            // Byte by byte, a server could keep one waiting for ever.
            let body = tokio::time::timeout(stall * 2, body).await;
            let error = match body {
                Ok(Ok(bytes)) => {
                    let document = Document::new(media_type, bytes);
                    return match digest {
                        Some(wanted) if wanted != document.digest => Err(RegistryError::DigestMismatch {
                            host: host.clone(),
                            wanted,
                            actual: document.digest,
                        }),
                        _ => Ok(document),
                    };
                }
                Ok(Err(error)) => error,
                Err(_) => RegistryError::Stalled { host: host.clone(), seconds: (stall * 2).as_secs() },
            };
            failed += retry::cost(&error);
            if failed >= retry::TRIES || matches!(error, RegistryError::TooLarge { .. }) {
                return Err(error);
            }
            tokio::time::sleep(retry::wait(self.config.timeouts.again, failed)).await;
        }
    }

    /// Sends one request until there is an answer; only a good one is returned.
    pub(crate) async fn send(&self, endpoint: &Endpoint, ask: &Ask) -> Result<Response, RegistryError> {
        let url = ask.url.clone().unwrap_or_else(|| endpoint.url(ask.kind, &ask.what));
        let client = self.client_for(endpoint, &url)?;
        let ours = |url: &Url| url.origin() == endpoint.base.origin();
        let mut authenticated = false;
        loop {
            let grant = self.grant(endpoint, &ask.access).filter(|_| ours(&url));
            let make = || {
                let mut request = client.request(ask.method.clone(), url.clone());
                if ask.kind == "manifests" {
                    request = request.header(ACCEPT, media::MANIFESTS.join(", "));
                }
                match (ask.offset, ask.end) {
                    (0, None) => {}
                    (start, None) => request = request.header(RANGE, format!("bytes={start}-")),
                    (start, Some(end)) => {
                        request = request.header(RANGE, format!("bytes={start}-{}", end.saturating_sub(1)));
                    }
                }
                if let Some((media_type, bytes)) = &ask.body {
                    request = request.header(CONTENT_TYPE, media_type).body(bytes.clone());
                }
                if ask.method == Method::POST {
                    // Servers and proxies want to know that nothing comes; an empty body says it to HTTP/1.1 only if told so.
                    request = request.header(CONTENT_LENGTH, 0);
                }
                let request = endpoint.dressed(request, &url, grant.is_some());
                match &grant {
                    Some(grant) => request.header(AUTHORIZATION, grant.header.clone()),
                    None => request,
                }
            };
            let answer = self.http.exchange(&endpoint.host, make).await?;
            if answer.status().is_success() {
                return Ok(answer);
            }
            // A 401 from where a redirect led is no question to us.
            if answer.status() == StatusCode::UNAUTHORIZED && ours(answer.url()) && !authenticated {
                authenticated = true;
                self.authenticate(endpoint, &ask.access, answer, grant).await?;
                continue;
            }
            return Err(self.refused(endpoint, ask, answer).await);
        }
    }

    pub(crate) async fn refused(&self, endpoint: &Endpoint, ask: &Ask, answer: Response) -> RegistryError {
        let (host, repository) = (endpoint.host.clone(), endpoint.repository.clone());
        let status = answer.status();
        let detail = response::detail(self.config.timeouts.stall, answer).await;
        match status.as_u16() {
            404 => RegistryError::NotFound { host, repository, reference: ask.what.clone(), detail },
            401 | 403 => denied(endpoint, &ask.access, self.sent(endpoint, detail).await),
            status => RegistryError::Status { host, status, detail },
        }
    }

    /// Returns the client for an address that an endpoint, or its answer, leads to: there its certificates count, as
    /// docker has it.
    pub(crate) fn client_for(&self, endpoint: &Endpoint, url: &Url) -> Result<Client, RegistryError> {
        let host = url.host_str().unwrap_or_default();
        self.http.client(crate::endpoint::is_loopback(host), &endpoint.trust)
    }

    /// What was granted for this already, and is still good.
    pub(crate) fn grant(&self, endpoint: &Endpoint, access: &Access) -> Option<Grant> {
        let key = (endpoint.host.clone(), endpoint.repository.clone());
        let grants = lock(&self.grants);
        let mut covering =
            grants.get(&key)?.iter().filter(|(granted, grant)| grant.whole || granted.covers(access));
        let valid = |grant: &Grant| grant.until.is_none_or(|until| Instant::now() < until);
        covering.find_map(|(_, grant)| valid(grant).then(|| grant.clone()))
    }

    fn keep(&self, endpoint: &Endpoint, access: &Access, grant: Grant) {
        let key = (endpoint.host.clone(), endpoint.repository.clone());
        let mut grants = lock(&self.grants);
        let known = grants.entry(key).or_default();
        // One that was refused must not stand before the new one.
        known.retain(|(granted, _)| !granted.covers(access) && !access.covers(granted));
        known.push((access.clone(), grant));
    }
}

/// No access, for what one wanted it.
fn denied(endpoint: &Endpoint, access: &Access, detail: Option<String>) -> RegistryError {
    let (host, repository) = (endpoint.host.clone(), endpoint.repository.clone());
    if access.push {
        RegistryError::PushDenied { host, repository, detail }
    } else {
        RegistryError::Unauthorized { host, repository, detail }
    }
}

/// Plain data is whole whoever panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tokens without a date last that long; those with one end a little earlier, for they travel.
/// <https://distribution.github.io/distribution/spec/auth/token/#token-response-fields>
const TOKEN_LIFE: Duration = Duration::from_secs(60);
const TOKEN_MARGIN: Duration = Duration::from_secs(5);
