//! Connections, and asking until there is an answer worth reading.

use std::sync::OnceLock;

use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode};

use crate::{RegistryError, Timeouts, response, retry, tls};

/// Makes requests. Shared by the tasks of one client.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) timeouts: Timeouts,
    user_agent: Option<String>,
    redirects: Redirects,
    /// With the proxies of the environment, and without for loopback.
    clients: [OnceLock<Client>; 2],
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
        Self { timeouts, user_agent, redirects, clients: [OnceLock::new(), OnceLock::new()] }
    }

    pub(crate) fn client(&self, loopback: bool) -> Result<&Client, RegistryError> {
        let slot = &self.clients[usize::from(loopback)];
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let fail = |cause: String| RegistryError::Client { cause };
        let tls = tls::client_config().map_err(|error| fail(error.to_string()))?;
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(self.user_agent.as_deref().unwrap_or(concat!("kiln/", env!("CARGO_PKG_VERSION"))))
            .connect_timeout(self.timeouts.connect)
            .read_timeout(self.timeouts.stall);
        if loopback {
            builder = builder.no_proxy();
        }
        if self.redirects == Redirects::Shown {
            builder = builder.redirect(Policy::none());
        }
        let client = builder.build().map_err(|error| fail(error.to_string()))?;
        Ok(slot.get_or_init(|| client))
    }

    /// Sends until there is an answer that will not be another one next time.
    pub(crate) async fn exchange(
        &self,
        host: &str,
        make: impl Fn() -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let stall = self.timeouts.stall;
        let mut failed = 0;
        loop {
            let answer = tokio::time::timeout(self.timeouts.connect + stall, make().send()).await;
            let (error, again, after) = match answer {
                Err(_) => {
                    (RegistryError::Stalled { host: host.to_owned(), seconds: stall.as_secs() }, true, None)
                }
                Ok(Err(error)) => {
                    // Who refuses a connection or has no name will hardly be there in a second; a mirror or an error
                    // message helps more than waiting.
                    let described = response::transport(host, stall, &error);
                    let fixed =
                        matches!(described, RegistryError::Tls { .. } | RegistryError::Protocol { .. });
                    (described, !error.is_connect() && !fixed, None)
                }
                Ok(Ok(answer)) if !retry::is_transient(answer.status()) => return Ok(answer),
                Ok(Ok(answer)) => {
                    let (status, after) = (answer.status(), response::retry_after(answer.headers()));
                    let host = host.to_owned();
                    let error = if status == StatusCode::TOO_MANY_REQUESTS {
                        RegistryError::RateLimited { host, retry_after: after.map(|after| after.as_secs()) }
                    } else {
                        let detail = response::detail(stall, answer).await;
                        RegistryError::Status { host, status: status.as_u16(), detail }
                    };
                    (error, true, after)
                }
            };
            failed += retry::cost(&error);
            let wait = after.unwrap_or_else(|| retry::wait(failed));
            if !again || failed >= retry::TRIES || wait > retry::LONGEST_WAIT {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
        }
    }
}
