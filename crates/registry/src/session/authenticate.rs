//! Answering a 401.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Response, Url};
use serde::Deserialize;

use super::{Grant, Session, TOKEN_LIFE, TOKEN_MARGIN, lock};
use crate::auth::{AuthFile, Challenge, Credential, Found, parse};
use crate::endpoint::Endpoint;
use crate::{RegistryError, response};

/// More than any token has.
const TOKEN_LIMIT: u64 = 1 << 20;

/// Registries disagree about which of the two it is; docker reads both.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Session {
    /// Makes a new grant for what the registry asks in `answer`, which came although `refused` was sent.
    pub(super) async fn authenticate(
        &self,
        endpoint: &Endpoint,
        answer: Response,
        refused: Option<Grant>,
    ) -> Result<(), RegistryError> {
        let challenge = parse(answer.headers());
        let detail = response::detail(self.config.timeouts.stall, answer).await;
        let _one_at_a_time = self.granting.lock().await;
        if let Some(other) = self.grant(endpoint)
            && Some(&other) != refused.as_ref()
        {
            return Ok(());
        }
        let denied = |detail: Option<String>| RegistryError::Unauthorized {
            host: endpoint.host.clone(),
            repository: endpoint.repository.clone(),
            detail,
        };
        let grant = match challenge {
            None => return Err(denied(Some("it does not say how to authenticate".to_owned()))),
            Some(Challenge::Basic) => match self.found(endpoint)? {
                Some(Found::Credential(credential)) => {
                    Grant { header: sensitive(&basic(&credential), &denied)?, until: None }
                }
                Some(Found::Unusable(why)) => return Err(denied(Some(why))),
                None => return Err(denied(detail.or(Some("it wants a name and a password".to_owned())))),
            },
            Some(Challenge::Bearer { realm, service, scope }) => {
                let asked = Instant::now();
                let token = self.token(endpoint, &realm, service, scope).await?;
                let life = token.expires_in.map_or(TOKEN_LIFE, Duration::from_secs);
                // Some say 0 and mean "not long": it is good for the request at hand.
                let life = life.max(TOKEN_LIFE) - TOKEN_MARGIN;
                let text = token.token.or(token.access_token).filter(|token| !token.is_empty());
                let text = text.ok_or_else(|| denied(Some("its token service sends no token".to_owned())))?;
                let header = sensitive(&format!("Bearer {text}"), &denied)?;
                Grant { header, until: asked.checked_add(life) }
            }
        };
        let key = (endpoint.host.clone(), endpoint.repository.clone());
        lock(&self.grants).insert(key, grant);
        Ok(())
    }

    /// Says why credentials that exist were not sent, if so.
    pub(super) fn unusable(&self, endpoint: &Endpoint) -> Option<String> {
        match self.found(endpoint).ok()?? {
            Found::Unusable(why) => Some(why),
            Found::Credential(_) => None,
        }
    }

    fn found(&self, endpoint: &Endpoint) -> Result<Option<Found>, RegistryError> {
        let Some(path) = &self.config.auth_file else { return Ok(None) };
        let file = self.auth_file.get_or_init(|| AuthFile::read(path));
        let file = file.as_ref().map_err(Clone::clone)?;
        Ok(file.find(&endpoint.host, &endpoint.repository))
    }

    async fn token(
        &self,
        endpoint: &Endpoint,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
    ) -> Result<Token, RegistryError> {
        let host = &endpoint.host;
        let wrong = |reason: &str| RegistryError::Protocol { host: host.clone(), reason: reason.to_owned() };
        let mut url = Url::parse(realm).map_err(|_| wrong("its token service has no sound address"))?;
        // Whoever can forge the challenge on the way would get the password.
        if url.scheme() != "https" && endpoint.base.scheme() == "https" {
            return Err(wrong("its token service is not reached by https"));
        }
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", endpoint.repository));
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", &service);
        }
        url.query_pairs_mut().append_pair("scope", &scope);
        let credential = match self.found(endpoint)? {
            Some(Found::Credential(credential)) => Some(basic(&credential)),
            // Without them: the image may be public. If not, the refusal says why they were not sent.
            Some(Found::Unusable(_)) | None => None,
        };
        let client = self.client_for(&url)?;
        let realm_host = url.host_str().unwrap_or_default().to_owned();
        let make = || {
            let request = client.get(url.clone());
            match &credential {
                Some(basic) => request.header(AUTHORIZATION, basic),
                None => request,
            }
        };
        let answer = self.http.exchange(&realm_host, make).await?;
        let stall = self.config.timeouts.stall;
        let status = answer.status();
        if !status.is_success() {
            let detail = response::detail(stall, answer).await;
            return Err(match status.as_u16() {
                401 | 403 => RegistryError::Unauthorized {
                    host: realm_host,
                    repository: endpoint.repository.clone(),
                    detail: self.unusable(endpoint).or(detail),
                },
                status => RegistryError::Status { host: realm_host, status, detail },
            });
        }
        let bytes = response::body(&realm_host, stall, "a token", TOKEN_LIMIT, answer).await?;
        // Not serde's words: they may quote the token.
        serde_json::from_slice(&bytes)
            .map_err(|_| wrong("its token service sends something else than a token"))
    }
}

fn basic(credential: &Credential) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", credential.user, credential.password)))
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
