//! Connections, and asking until there is an answer worth reading.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode};

use crate::endpoint::Trust;
use crate::{RegistryError, Timeouts, response, retry, tls};

/// Makes requests. Shared by the tasks of one client.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) timeouts: Timeouts,
    user_agent: Option<String>,
    redirects: Redirects,
    /// For loopback without the proxies of the environment; and by whose certificates count.
    clients: Mutex<BTreeMap<(bool, Trust), Client>>,
}

/// Who goes where a redirect leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Redirects {
    /// The client, ten times, without credentials on other hosts.
    Followed,
    /// The caller, who looks at each.
    Shown,
}

impl Http {
    pub(crate) fn new(user_agent: Option<String>, timeouts: Timeouts, redirects: Redirects) -> Self {
        Self { timeouts, user_agent, redirects, clients: Mutex::default() }
    }

    pub(crate) fn client(&self, loopback: bool, trust: &Trust) -> Result<Client, RegistryError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (loopback, trust.clone());
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let fail = |cause: String| RegistryError::Client { cause };
        let tls = tls::client_config(trust)?;
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(self.user_agent.as_deref().unwrap_or(concat!("kiln/", env!("CARGO_PKG_VERSION"))))
            .connect_timeout(self.timeouts.connect);
        if loopback {
            builder = builder.no_proxy();
        }
        if self.redirects == Redirects::Shown {
            builder = builder.redirect(Policy::none());
        }
        let client = builder.build().map_err(|error| fail(error.to_string()))?;
        clients.insert(key, client.clone());
        Ok(client)
    }

    /// Sends until there is an answer that will not be another one next time.
    pub(crate) async fn exchange(
        &self,
        host: &str,
        make: impl Fn() -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let mut failed = 0;
        loop {
            let send = make().send();
            let answer = tokio::time::timeout(self.timeouts.connect + self.timeouts.stall, send).await;
            let stalled =
                || RegistryError::Stalled { host: host.to_owned(), seconds: self.timeouts.stall.as_secs() };
            let failure = match answer {
                Err(_) => Failure { error: stalled(), again: true, after: None },
                Ok(answer) => match self.judge(host, answer).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => failure,
                },
            };
            failed += retry::cost(&failure.error);
            match failure.wait(self.timeouts.again, failed) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(failure.error),
            }
        }
    }

    /// The same with the whole of a small body, which may break off, too.
    pub(crate) async fn exchange_whole(
        &self,
        host: &str,
        what: &str,
        limit: u64,
        make: impl Fn() -> RequestBuilder,
    ) -> Result<Result<Vec<u8>, Response>, RegistryError> {
        let mut failed = 0;
        loop {
            let answer = self.exchange(host, &make).await?;
            if !answer.status().is_success() {
                return Ok(Err(answer));
            }
            let error = match response::body(host, self.timeouts.stall, what, limit, answer).await {
                Ok(bytes) => return Ok(Ok(bytes)),
                Err(error) => error,
            };
            failed += retry::cost(&error);
            if failed >= retry::TRIES || matches!(error, RegistryError::TooLarge { .. }) {
                return Err(error);
            }
            tokio::time::sleep(retry::wait(self.timeouts.again, failed)).await;
        }
    }

    /// Tells answers from failures to be answered.
    pub(crate) async fn judge(
        &self,
        host: &str,
        answer: Result<Response, reqwest::Error>,
    ) -> Result<Response, Failure> {
        let stall = self.timeouts.stall;
        match answer {
            Err(error) => {
                // Who refuses a connection or has no name will hardly be there in a second; a mirror or an error
                // message helps more than waiting.
                let described = response::transport(host, stall, &error);
                let fixed = matches!(described, RegistryError::Tls { .. } | RegistryError::Protocol { .. });
                Err(Failure { error: described, again: !error.is_connect() && !fixed, after: None })
            }
            Ok(answer) if !retry::is_transient(answer.status()) => Ok(answer),
            Ok(answer) => {
                let (status, after) = (answer.status(), response::retry_after(answer.headers()));
                let host = host.to_owned();
                let limit = response::limit(answer.headers());
                let detail = response::detail(stall, answer).await;
                let error = if status == StatusCode::TOO_MANY_REQUESTS {
                    let said: Vec<String> = detail.into_iter().chain(limit).collect();
                    let detail = (!said.is_empty()).then(|| said.join("; "));
                    RegistryError::RateLimited {
                        host,
                        retry_after: after.map(|after| after.as_secs()),
                        detail,
                    }
                } else {
                    RegistryError::Status { host, status: status.as_u16(), detail }
                };
                Err(Failure { error, again: true, after })
            }
        }
    }
}

/// No answer, or one that says that there is none now.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: RegistryError,
    /// It may be another one next time.
    pub(crate) again: bool,
    /// When, if the server says so.
    pub(crate) after: Option<Duration>,
}

impl Failure {
    /// One that will be the same next time.
    pub(crate) fn last(error: RegistryError) -> Self {
        Self { error, again: false, after: None }
    }

    /// Returns how long to wait after the `failed`th failure, or none if it is not worth it.
    pub(crate) fn wait(&self, first: Duration, failed: u32) -> Option<Duration> {
        let wait = self.after.unwrap_or_else(|| retry::wait(first, failed));
        (self.again && failed < retry::TRIES && wait <= retry::LONGEST_WAIT).then_some(wait)
    }
}
