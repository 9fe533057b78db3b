//! What containerd is configured with: `certs.d/HOST/hosts.toml`.
//! <https://github.com/containerd/containerd/blob/main/docs/hosts.md>

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The servers for a registry, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostsToml {
    /// Those that are asked before it.
    pub(crate) hosts: Vec<Server>,
    /// The registry itself, if the file has a word on it.
    pub(crate) server: Option<Server>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) url: Url,
    /// Whether its path is all there is before the repository, without `/v2`.
    pub(crate) override_path: bool,
    /// May be asked what a tag means.
    pub(crate) resolve: bool,
    /// May be asked for what has a digest.
    pub(crate) pull: bool,
    /// Takes what is pushed to the registry. Only if that is written: what lists nothing is a mirror, as everywhere else.
    pub(crate) push: bool,
    pub(crate) ca: Vec<PathBuf>,
    /// Certificate and key; one file may have both.
    pub(crate) client: Vec<(PathBuf, PathBuf)>,
    pub(crate) skip_verify: bool,
    pub(crate) headers: Vec<(String, String)>,
    /// File and line.
    pub(crate) from: String,
}

#[derive(Deserialize)]
struct Raw {
    server: Option<String>,
    #[serde(default)]
    host: Ordered<RawServer>,
    #[serde(flatten)]
    itself: RawServer,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawServer {
    capabilities: Option<Vec<String>>,
    ca: Option<Several<String>>,
    client: Option<Several<Pair>>,
    skip_verify: bool,
    override_path: bool,
    header: Ordered<Several<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Several<T> {
    One(T),
    Many(Vec<T>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Pair {
    Both(String),
    Two(Vec<String>),
}

/// A table in the order of the file.
struct Ordered<T>(Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Ordered<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

impl HostsToml {
    /// Reads a file; paths in it start where it is.
    pub(crate) fn parse(text: &str, file: &Path) -> Result<Self, String> {
        let raw: Raw = toml::from_str(text).map_err(|error| super::toml_error(text, &error))?;
        let from = |needle: &str| {
            let at = text.find(needle).map_or(1, |offset| super::line(text, offset));
            format!("{}:{at}", file.display())
        };
        let directory = file.parent().unwrap_or(Path::new("/"));
        let mut hosts = Vec::new();
        for (host, raw) in raw.host.0 {
            hosts.push(server(&host, raw, directory, from(&host))?);
        }
        let server = match raw.server.filter(|server| !server.is_empty()) {
            Some(address) => Some(server(&address, raw.itself, directory, from("server"))?),
            None => None,
        };
        Ok(Self { hosts, server })
    }
}

fn server(address: &str, raw: RawServer, directory: &Path, from: String) -> Result<Server, String> {
    let whole = if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
    let url = Url::parse(&whole).ok().filter(|url| {
        let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        matches!(url.scheme(), "http" | "https") && url.has_host() && plain
    });
    let after = address.rsplit_once('@').map_or(address, |(_, host)| host);
    let url = url.ok_or_else(|| format!("{after:?} is not http://HOST[:PORT] or https://HOST[:PORT]"))?;
    let (mut resolve, mut pull, mut push) = (true, true, false);
    if let Some(capabilities) = &raw.capabilities {
        for capability in capabilities {
            if !matches!(capability.as_str(), "pull" | "resolve" | "push" | "referrers") {
                return Err(format!("{after}: capability {capability:?} is unknown"));
            }
        }
        let has = |name: &str| capabilities.iter().any(|capability| capability == name);
        (resolve, pull, push) = (has("resolve"), has("pull"), has("push"));
    }
    let path = |file: &String| directory.join(file);
    let ca = raw.ca.map_or_else(Vec::new, Several::list).iter().map(path).collect();
    let mut client = Vec::new();
    for pair in raw.client.map_or_else(Vec::new, Several::list) {
        client.push(match pair {
            Pair::Both(file) => (path(&file), path(&file)),
            Pair::Two(files) => match files.as_slice() {
                [both] => (path(both), path(both)),
                [certificate, key] => (path(certificate), path(key)),
                _ => return Err(format!("{after}: a client is a certificate and a key")),
            },
        });
    }
    let headers = raw.header.0.into_iter().flat_map(|(name, values)| {
        let name = name.to_ascii_lowercase();
        values.list().into_iter().map(move |value| (name.clone(), value))
    });
    Ok(Server {
        url,
        override_path: raw.override_path,
        resolve,
        pull,
        push,
        ca,
        client,
        skip_verify: raw.skip_verify,
        headers: headers.collect(),
        from,
    })
}

impl<T> Several<T> {
    fn list(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// Returns the directories of a host below a `certs.d`, in the order they are looked for: the first that is there counts.
pub(crate) fn directories(root: &Path, host: &str) -> Vec<PathBuf> {
    let mut names = Vec::new();
    if let Some((name, port)) = host.rsplit_once(':') {
        names.push(format!("{name}_{port}_"));
    }
    names.extend([host.to_owned(), "_default".to_owned()]);
    names.into_iter().map(|name| root.join(name)).collect()
}

#[cfg(test)]
mod tests;
