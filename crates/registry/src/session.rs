//! Requests to one server: authentication, retries, and what the answers mean.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_core::{Digest, ImageRef};
use kiln_oci::{Document, media};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};

use crate::auth::Keychain;
use crate::endpoint::{Endpoint, endpoints};
use crate::http::{Http, Redirects};
use crate::{Attempt, RegistryConfig, RegistryError, response, retry};

mod authenticate;

/// What one client knows: connections, tokens, and who failed. Shared by its tasks.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) config: RegistryConfig,
    http: Http,
    /// For what must not be sent on to wherever a redirect leads.
    unfollowed: Http,
    /// By host and repository.
    grants: Mutex<HashMap<(String, String), Grant>>,
    /// Held while a token is fetched, so that parallel requests fetch one.
    granting: tokio::sync::Mutex<()>,
    keychain: Arc<Keychain>,
    /// Mirrors that did not answer; they are not waited for again.
    down: Mutex<BTreeMap<String, RegistryError>>,
    /// Mirrors that sent wrong bytes for a blob.
    wrong: Mutex<BTreeSet<(String, Digest)>>,
}

/// What to send along, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    header: HeaderValue,
    until: Option<Instant>,
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
}

impl Ask {
    pub(crate) fn get(kind: &'static str, what: impl ToString) -> Self {
        Self { method: Method::GET, kind, what: what.to_string(), offset: 0 }
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
            down: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    /// Asks each server for the image in turn until one delivers.
    pub(crate) async fn first<T, F>(
        &self,
        image: &ImageRef,
        blob: Option<Digest>,
        mut ask: impl FnMut(Endpoint) -> F,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let mut tried = Vec::new();
        for endpoint in endpoints(&self.config, image)? {
            let (host, mirror) = (endpoint.host.clone(), endpoint.mirror);
            let known = lock(&self.down).get(&host).cloned();
            let skip = blob.is_some_and(|digest| lock(&self.wrong).contains(&(host.clone(), digest)));
            let error = match known {
                Some(error) => error,
                None if skip => RegistryError::Protocol {
                    host: host.clone(),
                    reason: "it sent wrong bytes for this blob before".to_owned(),
                },
                None => match ask(endpoint).await {
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
            Some(only) if tried.is_empty() => Err(only.error),
            last => {
                tried.extend(last);
                Err(RegistryError::Mirrors { name: image.name(), tried })
            }
        }
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
            tokio::time::sleep(retry::wait(failed)).await;
        }
    }

    /// Sends one request until there is an answer; only a good one is returned.
    pub(crate) async fn send(&self, endpoint: &Endpoint, ask: &Ask) -> Result<Response, RegistryError> {
        let url = endpoint.url(ask.kind, &ask.what);
        let client = self.http.client(endpoint.is_loopback())?;
        let mut authenticated = false;
        loop {
            let grant = self.grant(endpoint);
            let make = || {
                let mut request = client.request(ask.method.clone(), url.clone());
                if ask.kind == "manifests" {
                    request = request.header(ACCEPT, media::MANIFESTS.join(", "));
                }
                if ask.offset > 0 {
                    request = request.header(RANGE, format!("bytes={}-", ask.offset));
                }
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
            let ours = answer.url().host_str() == endpoint.base.host_str()
                && answer.url().port_or_known_default() == endpoint.base.port_or_known_default();
            if answer.status() == StatusCode::UNAUTHORIZED && ours && !authenticated {
                authenticated = true;
                self.authenticate(endpoint, answer, grant).await?;
                continue;
            }
            return Err(self.refused(endpoint, ask, answer).await);
        }
    }

    async fn refused(&self, endpoint: &Endpoint, ask: &Ask, answer: Response) -> RegistryError {
        let (host, repository) = (endpoint.host.clone(), endpoint.repository.clone());
        let status = answer.status();
        let detail = response::detail(self.config.timeouts.stall, answer).await;
        match status.as_u16() {
            404 => RegistryError::NotFound { host, repository, reference: ask.what.clone(), detail },
            401 | 403 => {
                let detail = self.sent(endpoint, detail).await;
                RegistryError::Unauthorized { host, repository, detail }
            }
            status => RegistryError::Status { host, status, detail },
        }
    }

    fn grant(&self, endpoint: &Endpoint) -> Option<Grant> {
        let key = (endpoint.host.clone(), endpoint.repository.clone());
        let grant = lock(&self.grants).get(&key).cloned()?;
        grant.until.is_none_or(|until| Instant::now() < until).then_some(grant)
    }
}

/// Plain data is whole whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tokens without a date last that long; those with one end a little earlier, for they travel.
/// <https://distribution.github.io/distribution/spec/auth/token/#token-response-fields>
const TOKEN_LIFE: Duration = Duration::from_secs(60);
const TOKEN_MARGIN: Duration = Duration::from_secs(5);
