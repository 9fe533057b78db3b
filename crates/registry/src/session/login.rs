//! Trying credentials before they are kept.

use kiln_core::ImageRef;
use reqwest::header::AUTHORIZATION;
use reqwest::{Response, StatusCode};

use super::{Access, Session};
use crate::auth::{Challenge, Credential, Found, Search, parse};
use crate::endpoint::Endpoint;
use crate::{RegistryError, response};

impl Session {
    /// Shows credentials to a registry, as docker does: at `/v2/`. Returns what to keep: what the token service gives
    /// instead of a password, if it does.
    pub(crate) async fn log_in(
        &self,
        image: &ImageRef,
        credential: Credential,
    ) -> Result<Credential, RegistryError> {
        let endpoint = self.registry(image).await?;
        let answer = self.front(&endpoint, None).await?;
        if answer.status().is_success() {
            // It asks nobody; there is nothing to be wrong.
            return Ok(credential);
        }
        let refused = |detail: Option<String>| RegistryError::Login { host: endpoint.host.clone(), detail };
        if answer.status() != StatusCode::UNAUTHORIZED {
            let status = answer.status().as_u16();
            let detail = response::detail(self.config.timeouts.stall, answer).await;
            return Err(RegistryError::Status { host: endpoint.host, status, detail });
        }
        let (header, kept) = match parse(answer.headers()) {
            None => return Err(refused(Some("it does not say how to authenticate".to_owned()))),
            Some(Challenge::Basic) => (credential.basic().unwrap_or_default(), credential),
            Some(Challenge::Bearer { realm, service, .. }) => {
                let mut service = self.service(&endpoint, &Access::default(), &realm, service, None)?;
                service.scopes.clear();
                service.login = credential.login.as_ref().map(|(user, _)| user.clone());
                let found = Found { source: "this login".to_owned(), credential: credential.clone() };
                let search = Search { found: Some(found), failed: Vec::new() };
                let token = self.token(&endpoint, &Access::default(), &service, &search).await;
                let mut token = token.map_err(|error| match error {
                    RegistryError::Unauthorized { detail, .. } => refused(detail),
                    other => other,
                })?;
                let identity = token.refresh_token.take().filter(|token| !token.is_empty());
                let text = token
                    .text()
                    .ok_or_else(|| refused(Some("its token service sends no token".to_owned())))?;
                (format!("Bearer {text}"), Credential { identity, ..credential })
            }
        };
        let answer = self.front(&endpoint, Some(header)).await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(kept);
        }
        let detail = response::detail(self.config.timeouts.stall, answer).await;
        Err(match status.as_u16() {
            401 | 403 => refused(detail),
            status => RegistryError::Status { host: endpoint.host, status, detail },
        })
    }

    /// Asks at the front door.
    async fn front(
        &self,
        endpoint: &Endpoint,
        authorization: Option<String>,
    ) -> Result<Response, RegistryError> {
        let url = endpoint.front();
        let client = self.client_for(endpoint, &url)?;
        let make = || {
            let request = endpoint.dressed(client.get(url.clone()), &url, authorization.is_some());
            match &authorization {
                Some(value) => request.header(AUTHORIZATION, value),
                None => request,
            }
        };
        self.http.exchange(&endpoint.host, make).await
    }
}
