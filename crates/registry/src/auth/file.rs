//! Credentials that people have already: docker's `config.json` and containers' `auth.json`.
//! <https://docs.docker.com/reference/cli/docker/#docker-cli-configuration-file-configjson-properties>,
//! <https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md>

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use serde::Deserialize;

use super::Credential;

/// A file with credentials, read.
#[derive(Default)]
pub(crate) struct AuthFile {
    /// By host, perhaps with the start of a repository.
    entries: BTreeMap<String, Entry<Credential>>,
    /// By host: the program that has the credentials.
    helpers: BTreeMap<String, Entry<String>>,
    /// The program that is asked for all other hosts.
    pub(super) store: Option<String>,
}

/// Something and the key it stands under, as written.
#[derive(Clone)]
pub(super) struct Entry<T> {
    pub(super) key: String,
    pub(super) value: T,
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
    registrytoken: Option<String>,
}

impl AuthFile {
    /// Reads a file's text. A reason never has any of it.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        // Docker makes the file before it writes to it, and an empty one is one without credentials to it.
        if text.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        // serde's message may quote a value; the position may not.
        let raw: Raw = serde_json::from_slice(text).map_err(|error| {
            format!("line {}, column {} is not what docker writes", error.line(), error.column())
        })?;
        let mut entries = BTreeMap::new();
        for (key, auth) in raw.auths.unwrap_or_default() {
            let value = credential(auth).map_err(|reason| format!("{key}: {reason}"))?;
            // Docker leaves an empty one where a helper has the credentials.
            if !value.is_empty() {
                entries.insert(normal(&key), Entry { key, value });
            }
        }
        let helpers = raw.cred_helpers.unwrap_or_default().into_iter();
        let helpers = helpers
            .filter(|(_, program)| !program.is_empty())
            .map(|(key, value)| (normal(&key), Entry { key, value }))
            .collect();
        Ok(Self { entries, helpers, store: raw.creds_store.filter(|store| !store.is_empty()) })
    }

    /// Returns the program that is named for a host.
    pub(super) fn helper(&self, host: &str) -> Option<&Entry<String>> {
        names(&host).iter().find_map(|host| self.helpers.get(*host))
    }

    /// Returns the programs that are named, each with the host's key.
    pub(super) fn helpers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.helpers.values().map(|entry| (entry.key.as_str(), entry.value.as_str()))
    }

    /// Returns what is written of a repository on a host, by the longest name that fits, and whether that is more than the
    /// host's.
    pub(super) fn find(&self, host: &str, repository: &str) -> Option<(&Entry<Credential>, bool)> {
        for host in names(&host) {
            let mut name = format!("{host}/{repository}");
            loop {
                if let Some(entry) = self.entries.get(&name) {
                    return Some((entry, name.len() > host.len()));
                }
                match name.rfind('/') {
                    Some(slash) => name.truncate(slash),
                    None => break,
                }
            }
        }
        None
    }
}

impl fmt::Debug for AuthFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries.keys().chain(self.helpers.keys())).finish()
    }
}

/// The names that people and programs give to a host.
pub(super) fn names<'h>(host: &'h &'h str) -> &'h [&'h str] {
    match *host {
        "docker.io" | "registry-1.docker.io" => &["docker.io", "index.docker.io", "registry-1.docker.io"],
        _ => std::slice::from_ref(host),
    }
}

fn credential(auth: RawAuth) -> Result<Credential, &'static str> {
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    let login = match (some(auth.auth), auth.username, auth.password) {
        (Some(encoded), _, _) => {
            let bytes =
                STANDARD_PAD_INDIFFERENT.decode(encoded.trim()).map_err(|_| "its auth is not base64")?;
            let text = String::from_utf8(bytes).map_err(|_| "its auth is not UTF-8")?;
            let (user, password) = text.split_once(':').ok_or("its auth is not USER:PASSWORD in base64")?;
            // Docker for Windows pads with zero bytes.
            Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
        }
        (None, Some(user), Some(password)) if !user.is_empty() => Some((user, password)),
        _ => None,
    };
    Ok(Credential { login, identity: some(auth.identitytoken), bearer: some(auth.registrytoken) })
}

/// `https://index.docker.io/v1/` is `index.docker.io`; a path that is no API version is part of a repository.
pub(super) fn normal(key: &str) -> String {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest).trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    key.to_owned()
}

#[cfg(test)]
mod tests;
