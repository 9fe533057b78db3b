//! Smart HTTP. <https://git-scm.com/docs/http-protocol>

use std::io::Read;

use crate::error::plain;
use crate::greeting::Version;
use crate::location::{Location, Reach};
use crate::transport::broken;
use crate::{Access, Auth, Credentials, GitError, HttpRequest, HttpResponse};

const ADVERTISEMENT: &str = "application/x-git-upload-pack-advertisement";
const RESULT: &str = "application/x-git-upload-pack-result";
const GREETING: &str = "/info/refs?service=git-upload-pack";
/// git's own patience.
const REDIRECTS: usize = 20;

/// Where a repository's service answers, after redirects.
pub(super) struct Endpoint<'a> {
    access: &'a Access<'a>,
    location: &'a Location,
    base: String,
    auth: Option<Auth>,
    credentials: Credentials,
}

impl<'a> Endpoint<'a> {
    /// Asks for the greeting; follows redirects for this first request only, as git does: whoever answers it is who gets
    /// the next one. <https://git-scm.com/docs/git-config#Documentation/git-config.txt-httpfollowRedirects>
    pub(super) fn connect(
        access: &'a Access<'_>,
        location: &'a Location,
        base: &str,
    ) -> Result<(Self, Box<dyn Read + Send>), GitError> {
        let base = base.trim_end_matches('/').to_owned();
        let mut endpoint = Self { access, location, base, auth: None, credentials: Credentials::None };
        for _ in 0..REDIRECTS {
            (endpoint.auth, endpoint.credentials) = endpoint.credentials();
            let url = format!("{}{GREETING}", endpoint.base);
            let answer = endpoint.exchange(url, Vec::new(), None, Version::Two)?;
            let Some(to) = answer.location.as_deref().filter(|_| (300..400).contains(&answer.status)) else {
                endpoint.check(&answer, ADVERTISEMENT)?;
                return Ok((endpoint, answer.body));
            };
            endpoint.base = endpoint.redirected(to)?;
        }
        Err(endpoint.wrong(format!("it redirects more than {REDIRECTS} times")))
    }

    /// Posts a request.
    pub(super) fn ask(&self, request: Vec<u8>, version: Version) -> Result<Box<dyn Read + '_>, GitError> {
        let headers = vec![
            ("Content-Type", "application/x-git-upload-pack-request".to_owned()),
            ("Accept", RESULT.to_owned()),
        ];
        let url = format!("{}/git-upload-pack", self.base);
        let answer = self.exchange(url, headers, Some(request), version)?;
        self.check(&answer, RESULT)?;
        Ok(answer.body)
    }

    fn exchange(
        &self,
        url: String,
        mut headers: Vec<(&'static str, String)>,
        body: Option<Vec<u8>>,
        version: Version,
    ) -> Result<HttpResponse, GitError> {
        if version == Version::Two {
            headers.push(("Git-Protocol", "version=2".to_owned()));
        }
        if let Some(auth) = &self.auth {
            headers.push(("Authorization", auth.value().to_owned()));
        }
        let cancel = &self.access.cancel;
        let request = HttpRequest { url, headers, body };
        self.access.http.exchange(request, cancel).map_err(|error| broken(self.location, cancel, &error))
    }

    /// What this host gets: what its URL was written with, or what there is for its name.
    fn credentials(&self) -> (Option<Auth>, Credentials) {
        let host = self.base.split('/').nth(2).unwrap_or_default();
        let written = self.location.credentials.as_ref().filter(|_| self.location.host() == Some(host));
        match written.map(Auth::from).or_else(|| self.access.auth.get(host).cloned()) {
            None => (None, Credentials::None),
            Some(auth) if self.base.starts_with("https://") || is_loopback(host) => {
                (Some(auth), Credentials::Sent)
            }
            Some(_) => (None, Credentials::Withheld),
        }
    }

    fn redirected(&self, to: &str) -> Result<String, GitError> {
        let origin: String = self.base.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        let target = match to {
            to if to.starts_with("//") => return Err(self.wrong("it redirects without a scheme".to_owned())),
            to if to.starts_with('/') => format!("{origin}{to}"),
            to => to.to_owned(),
        };
        let Some(base) = target.strip_suffix(GREETING) else {
            return Err(self.wrong("it redirects to what is no git repository".to_owned()));
        };
        let found = Location::parse(base).map_err(|_| self.wrong("it redirects to no URL".to_owned()))?;
        match found.reach {
            Reach::Http(base) if base.starts_with("https://") || self.base.starts_with("http://") => Ok(base),
            Reach::Http(_) => Err(self.wrong("it redirects from https to http".to_owned())),
            _ => Err(self.wrong("it redirects to another protocol".to_owned())),
        }
    }

    fn check(&self, answer: &HttpResponse, wanted: &str) -> Result<(), GitError> {
        let remote = self.location.name.clone();
        match answer.status {
            200 => {}
            401 | 403 => return Err(GitError::Unauthorized { remote, credentials: self.credentials }),
            404 | 410 => {
                let detail = format!("it answers {}", answer.status);
                return Err(GitError::NoRepository { remote, detail });
            }
            300..=399 => return Err(self.wrong("it redirects in the middle".to_owned())),
            status => return Err(self.wrong(format!("HTTP status {status}"))),
        }
        let kind = answer.content_type.as_deref().unwrap_or_default().split(';').next().unwrap_or_default();
        if kind.trim() == wanted {
            return Ok(());
        }
        let detail = match kind.trim() {
            "" | "text/plain" | "application/octet-stream" if wanted == ADVERTISEMENT => {
                "or is served as files alone, git's old dumb protocol".to_owned()
            }
            other => format!("it answers with {}", plain(other)),
        };
        Err(GitError::NoRepository { remote, detail })
    }

    fn wrong(&self, reason: String) -> GitError {
        GitError::Protocol { remote: self.location.name.clone(), reason }
    }
}

/// Nobody listens on the way to this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
