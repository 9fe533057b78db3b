//! Credentials that people have already: docker's `config.json` and containers' `auth.json`.
//! <https://docs.docker.com/reference/cli/docker/#docker-cli-configuration-file-configjson-properties>,
//! <https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md>

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use serde::Deserialize;

use super::Credential;
use crate::RegistryError;

/// A file with credentials, read.
#[derive(Default)]
pub(crate) struct AuthFile {
    /// By host, perhaps with the start of a repository.
    entries: BTreeMap<String, Found>,
    store: Option<String>,
}

/// What a file says of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Credential(Credential),
    /// There is something, but kiln cannot use it: said to the user when access is denied.
    Unusable(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    auths: Option<BTreeMap<String, RawAuth>>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RawAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl AuthFile {
    /// Reads a file; one that is not there is empty.
    pub(crate) fn read(path: &Path) -> Result<Self, RegistryError> {
        let fail = |reason: String| RegistryError::AuthFile { path: path.to_owned(), reason };
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other.map_err(|error| fail(error.to_string()))?,
        };
        // serde's message may quote a value; the position may not.
        let raw: Raw = serde_json::from_slice(&bytes).map_err(|error| {
            fail(format!("line {}, column {} is not what docker writes", error.line(), error.column()))
        })?;
        let mut entries = BTreeMap::new();
        for (host, auth) in raw.auths.unwrap_or_default() {
            let found = credential(auth).map_err(|reason| fail(format!("{host}: {reason}")))?;
            if let Some(found) = found {
                entries.insert(normal(&host), found);
            }
        }
        for (host, helper) in raw.cred_helpers.unwrap_or_default() {
            entries.insert(normal(&host), unusable_helper(&helper));
        }
        Ok(Self { entries, store: raw.creds_store.filter(|store| !store.is_empty()) })
    }

    /// Returns what is known for a repository on a host: by the longest name that fits.
    pub(crate) fn find(&self, host: &str, repository: &str) -> Option<Found> {
        let hosts: &[&str] = match host {
            "registry-1.docker.io" => &["docker.io", "index.docker.io", "registry-1.docker.io"],
            _ => &[host],
        };
        for host in hosts {
            let mut name = format!("{host}/{repository}");
            loop {
                if let Some(found) = self.entries.get(&name) {
                    return Some(found.clone());
                }
                match name.rfind('/') {
                    Some(slash) => name.truncate(slash),
                    None => break,
                }
            }
        }
        self.store.as_deref().map(unusable_helper)
    }
}

impl fmt::Debug for AuthFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries.keys()).finish()
    }
}

fn credential(auth: RawAuth) -> Result<Option<Found>, &'static str> {
    if auth.identitytoken.is_some_and(|token| !token.is_empty()) {
        return Ok(Some(Found::Unusable("its identity token is not supported yet".to_owned())));
    }
    let pair = match (auth.auth.filter(|auth| !auth.is_empty()), auth.username, auth.password) {
        (Some(encoded), _, _) => {
            let bytes =
                STANDARD_PAD_INDIFFERENT.decode(encoded.trim()).map_err(|_| "its auth is not base64")?;
            let text = String::from_utf8(bytes).map_err(|_| "its auth is not UTF-8")?;
            let (user, password) = text.split_once(':').ok_or("its auth is not USER:PASSWORD in base64")?;
            // Docker for Windows pads with zero bytes.
            (user.to_owned(), password.trim_end_matches('\0').to_owned())
        }
        (None, Some(user), Some(password)) => (user, password),
        _ => return Ok(None),
    };
    Ok(Some(Found::Credential(Credential { user: pair.0, password: pair.1 })))
}

fn unusable_helper(helper: &str) -> Found {
    Found::Unusable(format!(
        "its credentials are with docker-credential-{helper}, which is not supported yet"
    ))
}

/// `https://index.docker.io/v1/` is `index.docker.io`; a path that is no API version is part of a repository.
fn normal(key: &str) -> String {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest).trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    key.to_owned()
}

#[cfg(test)]
mod tests;
