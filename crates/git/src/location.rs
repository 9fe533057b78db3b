//! Where a repository is.

use std::path::PathBuf;

use kiln_core::{GitCredentials, GitScheme, GitUrl};

use crate::GitError;

/// A remote, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// As it is named in messages and `.git/config`: without credentials.
    pub(crate) name: String,
    pub(crate) reach: Reach,
    pub(crate) credentials: Option<GitCredentials>,
}

/// How one gets there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Base URL.
    Http(String),
    Git {
        /// With port if one was given.
        authority: String,
        path: String,
    },
    Ssh {
        /// `user@host` or `host`.
        host: String,
        port: Option<u16>,
        path: String,
    },
    File(PathBuf),
}

impl Location {
    /// Reads a remote, as in [`GitOp::remote`](kiln_core::GitOp) or `.gitmodules`: a URL needs no `.git` at its end.
    pub(crate) fn parse(remote: &str) -> Result<Self, GitError> {
        let unsupported = |reason: &str| GitError::Unsupported {
            remote: crate::error::plain(&without_user(remote)),
            reason: reason.to_owned(),
        };
        // The rules for what a URL is are those of `GitUrl`, which asks for the suffix.
        let padded = match remote.split_once("://") {
            Some(_) => format!("{}/.git", remote.trim_end_matches('/')),
            None => remote.to_owned(),
        };
        let url = match GitUrl::parse(&padded) {
            // `ext::sh -c ...` would run a program.
            _ if !remote.contains("://") && remote.contains("::") => {
                return Err(unsupported("remote helpers are not run"));
            }
            _ if remote.contains(['#', '?']) => return Err(unsupported("its URL has a query or a fragment")),
            Some(Ok(url)) if !url.looks_like_path => url,
            Some(Err(error)) => return Err(unsupported(&error.reason)),
            _ => return Err(unsupported("it is no http, https, git, ssh or file URL")),
        };
        let name = match remote.contains("://") {
            true => url.remote.strip_suffix("/.git").unwrap_or(&url.remote).to_owned(),
            false => url.remote.clone(),
        };
        let reach = reach(url.scheme, &name).map_err(|reason| unsupported(&reason))?;
        Ok(Self { name, reach, credentials: url.credentials })
    }

    /// Returns where a URL in `.gitmodules` leads: one that begins with `./` or `../` starts from here.
    /// <https://git-scm.com/docs/git-submodule#Documentation/git-submodule.txt-add>
    pub(crate) fn submodule(&self, url: &str) -> Result<Self, GitError> {
        if !url.starts_with("./") && !url.starts_with("../") {
            return Self::parse(url);
        }
        let mut base = self.name.trim_end_matches('/').to_owned();
        let mut rest = url;
        loop {
            if let Some(after) = rest.strip_prefix("./") {
                rest = after;
            } else if let Some(after) = rest.strip_prefix("../") {
                rest = after;
                let start = base.find("://").map_or(0, |at| at + 3);
                // `host:path` has a colon where a URL has the slash behind its host.
                let colon = if start == 0 && !base.ends_with(':') { base.find(':') } else { None };
                match (base[start..].rfind('/'), colon) {
                    (Some(at), _) => base.truncate(start + at),
                    (None, Some(at)) => base.truncate(at + 1),
                    (None, None) => {
                        let reason = format!("{url:?} leads out of {}", self.name);
                        return Err(GitError::Modules { remote: self.name.clone(), reason });
                    }
                }
            } else {
                break;
            }
        }
        let joint = if base.ends_with(':') { "" } else { "/" };
        let mut found = Self::parse(&format!("{base}{joint}{}", rest.trim_end_matches('/')))?;
        if found.credentials.is_none() {
            found.credentials.clone_from(&self.credentials);
        }
        Ok(found)
    }

    /// Host and port, for credentials; none for what needs none.
    pub(crate) fn host(&self) -> Option<&str> {
        match &self.reach {
            Reach::Http(url) => url.split('/').nth(2),
            Reach::Git { .. } | Reach::Ssh { .. } | Reach::File(_) => None,
        }
    }
}

/// Returns host and port of a remote that may want credentials over HTTP.
pub fn remote_host(remote: &str) -> Option<String> {
    Location::parse(remote).ok()?.host().map(str::to_owned)
}

fn reach(scheme: GitScheme, name: &str) -> Result<Reach, String> {
    let Some((_, rest)) = name.split_once("://") else {
        let (host, path) = name.split_once(':').ok_or("it names no repository on the host")?;
        return Ok(Reach::Ssh { host: host.to_owned(), port: None, path: path.to_owned() });
    };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    Ok(match scheme {
        GitScheme::Http | GitScheme::Https => Reach::Http(name.to_owned()),
        GitScheme::Git => Reach::Git { authority: authority.to_owned(), path: decoded(path)? },
        GitScheme::File => Reach::File(PathBuf::from(decoded(path)?)),
        GitScheme::Ssh => {
            let (host, port) = match authority.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => {
                    (host, Some(port.parse().map_err(|_| format!("{port:?} is no port"))?))
                }
                _ => (authority, None),
            };
            let host = host.replace(['[', ']'], "");
            // `/~user/x` is in the home directory; git passes it on without the slash.
            let path = decoded(path)?;
            let path = if path.starts_with("/~") { path[1..].to_owned() } else { path };
            Reach::Ssh { host, port, path }
        }
    })
}

fn decoded(path: &str) -> Result<String, String> {
    kiln_core::decode_percent(path)
        .filter(|path| !path.contains('\0'))
        .ok_or_else(|| "its path is broken".to_owned())
}

/// A URL that may be none, without what might be a password.
fn without_user(remote: &str) -> String {
    match remote.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => remote.to_owned(),
    }
}

#[cfg(test)]
mod tests;
