//! Answering a 401.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Response, Url};
use serde::Deserialize;

use super::{Access, Grant, Session, TOKEN_LIFE, TOKEN_MARGIN};
use crate::auth::{Challenge, Found, Search, parse};
use crate::endpoint::Endpoint;
use crate::{RegistryError, response};

/// More than any token has.
const TOKEN_LIMIT: u64 = 1 << 20;
const WHAT: &str = "a token";
/// What kiln is called by token services that keep books of it.
const CLIENT: &str = "kiln";

/// Registries disagree about which of the two it is; docker reads both.
#[derive(Deserialize)]
pub(super) struct Token {
    token: Option<String>,
    access_token: Option<String>,
    /// What may be shown instead of a password from now on, where one was asked for.
    pub(super) refresh_token: Option<String>,
    /// A number, for most a whole one. When it was issued, and by which clock, does not matter: it is counted from when it
    /// was asked for, so nobody's clock has to be right.
    expires_in: Option<f64>,
}

impl Token {
    pub(super) fn text(self) -> Option<String> {
        self.token.or(self.access_token).filter(|token| !token.is_empty())
    }
}

/// Where tokens come from.
pub(super) struct Service {
    url: Url,
    host: String,
    name: Option<String>,
    /// One per repository, as `repository:a/b:pull,push`.
    pub(super) scopes: Vec<String>,
    /// The user's name, when one logs in: then it may give a token to be kept.
    pub(super) login: Option<String>,
}

impl Session {
    /// Makes a new grant for what the registry asks in `answer`, which came although `refused` was sent.
    pub(crate) async fn authenticate(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        answer: Response,
        refused: Option<Grant>,
    ) -> Result<(), RegistryError> {
        let challenge = parse(answer.headers());
        let detail = response::detail(self.config.timeouts.stall, answer).await;
        let _one_at_a_time = self.granting.lock().await;
        if let Some(other) = self.grant(endpoint, access)
            && Some(&other) != refused.as_ref()
        {
            return Ok(());
        }
        let denied = |detail: Option<String>| super::denied(endpoint, access, detail);
        let Some(challenge) = challenge else {
            return Err(denied(Some("it does not say how to authenticate".to_owned())));
        };
        let search = self.search(endpoint).await?;
        let grant = match challenge {
            Challenge::Basic => {
                let basic = search.found.as_ref().and_then(|found| found.credential.basic());
                let Some(basic) = basic else {
                    let detail = detail.or(Some("it wants a name and a password".to_owned()));
                    return Err(denied(sent(&search, endpoint, detail)));
                };
                Grant { header: sensitive(&basic, &denied)?, until: None, whole: true }
            }
            Challenge::Bearer { realm, service, scope } => {
                let ready = search.found.as_ref().and_then(|found| found.credential.bearer.as_ref());
                if let Some(token) = ready {
                    Grant {
                        header: sensitive(&format!("Bearer {token}"), &denied)?,
                        until: None,
                        whole: true,
                    }
                } else {
                    let service = self.service(endpoint, access, &realm, service, scope)?;
                    let asked = Instant::now();
                    let token = self.token(endpoint, access, &service, &search).await?;
                    let life = token.expires_in.map_or(TOKEN_LIFE, life);
                    // Some say 0 and mean "not long": it is good for the request at hand.
                    let life = life.max(TOKEN_LIFE) - TOKEN_MARGIN;
                    let text = token
                        .text()
                        .ok_or_else(|| denied(Some("its token service sends no token".to_owned())))?;
                    let header = sensitive(&format!("Bearer {text}"), &denied)?;
                    Grant { header, until: asked.checked_add(life), whole: false }
                }
            }
        };
        self.keep(endpoint, access, grant);
        Ok(())
    }

    /// Says with which credentials a server was asked that denies access, behind its own words.
    pub(super) async fn sent(&self, endpoint: &Endpoint, detail: Option<String>) -> Option<String> {
        match self.search(endpoint).await {
            Ok(search) => sent(&search, endpoint, detail),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Finds the credentials for an endpoint. Programs may have to be asked, which this thread cannot wait for.
    pub(crate) async fn search(&self, endpoint: &Endpoint) -> Result<Search, RegistryError> {
        if self.config.credentials.sources.is_empty() {
            return Ok(Search::default());
        }
        let keychain = self.keychain.clone();
        let (host, repository) = (endpoint.host.clone(), endpoint.repository.clone());
        let waiting = Waiting(Arc::default());
        let unwanted = waiting.0.clone();
        let work = move || keychain.search(&host, &repository, &unwanted);
        let ended =
            |_| RegistryError::Client { cause: "looking for credentials ended unexpectedly".to_owned() };
        tokio::task::spawn_blocking(work).await.map_err(ended)?
    }

    pub(super) fn service(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        realm: &str,
        name: Option<String>,
        scope: Option<String>,
    ) -> Result<Service, RegistryError> {
        let wrong =
            |reason: &str| RegistryError::Protocol { host: endpoint.host.clone(), reason: reason.to_owned() };
        let url = Url::parse(realm).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| wrong("its token service has no sound address"))?;
        // Whoever can forge the challenge on the way would get the password.
        if url.scheme() != "https" && endpoint.base.scheme() == "https" {
            return Err(wrong("its token service is not reached by https"));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        let scopes = access.scopes(&endpoint.repository, scope.as_deref());
        Ok(Service { url, host, name, scopes, login: None })
    }

    /// Gets a token: for an identity token as OAuth 2 has it, else as docker always did.
    /// <https://distribution.github.io/distribution/spec/auth/oauth/>
    pub(super) async fn token(
        &self,
        endpoint: &Endpoint,
        access: &Access,
        service: &Service,
        search: &Search,
    ) -> Result<Token, RegistryError> {
        let credential = search.found.as_ref().map(|Found { credential, .. }| credential);
        let loopback = crate::endpoint::is_loopback(&service.host);
        let identity = credential.and_then(|credential| credential.identity.as_ref());
        let answer = if let Some(identity) = identity {
            let mut form = Form::new();
            form.add("grant_type", "refresh_token").add("client_id", CLIENT);
            form.add("service", service.name.as_deref().unwrap_or(&endpoint.host));
            form.add("scope", &service.scopes.join(" ")).add("refresh_token", identity);
            let body = form.text();
            let client = self.unfollowed.client(loopback, &endpoint.trust)?;
            let make = || {
                let request = client.post(service.url.clone());
                request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body.clone())
            };
            self.unfollowed.exchange_whole(&service.host, WHAT, TOKEN_LIMIT, make).await?
        } else {
            let mut url = service.url.clone();
            if let Some(name) = &service.name {
                url.query_pairs_mut().append_pair("service", name);
            }
            for scope in &service.scopes {
                url.query_pairs_mut().append_pair("scope", scope);
            }
            if let Some(user) = &service.login {
                let mut query = url.query_pairs_mut();
                query.append_pair("account", user).append_pair("client_id", CLIENT);
                query.append_pair("offline_token", "true");
            }
            let basic = credential.and_then(|credential| credential.basic());
            let client = self.http.client(loopback, &endpoint.trust)?;
            let make = || {
                let request = client.get(url.clone());
                match &basic {
                    Some(basic) => request.header(AUTHORIZATION, basic),
                    None => request,
                }
            };
            self.http.exchange_whole(&service.host, WHAT, TOKEN_LIMIT, make).await?
        };
        let bytes = match answer {
            Ok(bytes) => bytes,
            Err(answer) => {
                let (status, host) = (answer.status(), service.host.clone());
                let detail = response::detail(self.config.timeouts.stall, answer).await;
                return Err(match status.as_u16() {
                    // OAuth says 400 of a refresh token that is not good any more.
                    code @ (400 | 401 | 403) if code != 400 || identity.is_some() => {
                        super::denied(endpoint, access, sent(search, endpoint, detail))
                    }
                    status if identity.is_some() => {
                        let detail = detail.or(Some("its token service takes no identity tokens".to_owned()));
                        RegistryError::Status { host, status, detail }
                    }
                    status => RegistryError::Status { host, status, detail },
                });
            }
        };
        // Not serde's words: they may quote the token.
        serde_json::from_slice(&bytes).map_err(|_| RegistryError::Protocol {
            host: endpoint.host.clone(),
            reason: "its token service sends something else than a token".to_owned(),
        })
    }
}

/// What a token service says of a token's life, if it makes sense: no more than a year, no less than nothing.
fn life(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.0, 31_536_000.0))
}

/// Tells, when it is dropped, that nobody waits any more.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// `application/x-www-form-urlencoded`.
struct Form(Option<Url>);

impl Form {
    fn new() -> Self {
        // The query of an address is written the same way.
        Self(Url::parse("http://form/").ok())
    }

    fn add(&mut self, name: &str, value: &str) -> &mut Self {
        if let Some(url) = &mut self.0 {
            url.query_pairs_mut().append_pair(name, value);
        }
        self
    }

    fn text(&self) -> String {
        self.0.as_ref().and_then(|url| url.query()).unwrap_or_default().to_owned()
    }
}

/// Says whose credentials were sent, or why none, behind the server's own words.
fn sent(search: &Search, endpoint: &Endpoint, detail: Option<String>) -> Option<String> {
    let who = match &search.found {
        Some(found) => format!("sent were the credentials of {}", found.source),
        None if search.failed.is_empty() => format!("no credentials for {} are known", endpoint.host),
        None => search.failed.join("; "),
    };
    Some(detail.map_or_else(|| who.clone(), |detail| format!("{detail}; {who}")))
}

fn sensitive(
    text: &str,
    denied: &dyn Fn(Option<String>) -> RegistryError,
) -> Result<HeaderValue, RegistryError> {
    let mut header = HeaderValue::from_str(text)
        .map_err(|_| denied(Some("its token cannot be sent: it is not plain text".to_owned())))?;
    header.set_sensitive(true);
    Ok(header)
}
