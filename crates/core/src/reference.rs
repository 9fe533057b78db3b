//! Image names, by the grammar of the distribution project with docker's defaults.
//! <https://github.com/distribution/reference/blob/main/reference.go>

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// A reference to an image: `[registry/]repository[:tag][@digest]`, completed with docker's defaults.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    /// Registry host, with port if given; `docker.io` by default.
    pub registry: String,
    /// Path below the registry; `library/` is put before a single name on docker.io.
    pub repository: String,
    /// `latest` if neither tag nor digest was given.
    pub tag: Option<String>,
    /// The manifest's digest, if pinned.
    pub digest: Option<Digest>,
    /// Whether it was written without a registry.
    pub short: Short,
}

/// Whether a name was written without a registry, so that other programs' files may say which one is meant. It is no
/// part of what a name is: however they were written, equal names are equal, and as text each has its registry.
#[derive(Debug, Clone, Copy, Default)]
pub struct Short(pub bool);

impl PartialEq for Short {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Short {}

impl PartialOrd for Short {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Short {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

impl Hash for Short {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// Why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{text:?} is not an image reference: {reason}")]
pub struct ReferenceError {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl FromStr for ImageRef {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let fail = |reason: &str| ReferenceError { text: text.to_owned(), reason: reason.to_owned() };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse::<Digest>().map_err(|error| fail(&error.to_string()))?))
            }
            None => (text, None),
        };
        // A colon after the last slash is a tag; before it, a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(fail(
                "a tag has up to 128 letters, digits, '_', '.' and '-', and starts with none of the last two",
            ));
        }
        let (registry, path, short) = match name.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" || has_upper(host) => {
                (host, path, false)
            }
            _ => ("docker.io", name, true),
        };
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        if path.is_empty() {
            return Err(fail("the name is empty"));
        }
        if has_upper(path) {
            return Err(fail("repository names are lower case"));
        }
        if !path.split('/').all(is_component) {
            return Err(fail(
                "a path component has lower-case letters and digits, separated by '.', '_', '__' or dashes",
            ));
        }
        if !is_host(registry) {
            return Err(fail("the registry is not a host name with an optional port"));
        }
        let repository = if registry == "docker.io" && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if repository.len() + registry.len() + 1 > 255 {
            return Err(fail("a repository name has 255 characters at most"));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, None) => Some("latest".to_owned()),
            (None, Some(_)) => None,
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest, short: Short(short) })
    }
}

impl ImageRef {
    /// Returns the name as people write it: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        match full.strip_prefix("docker.io/") {
            Some(rest) => rest.strip_prefix("library/").unwrap_or(rest).to_owned(),
            None => full,
        }
    }

    /// Returns the name as one that was written with its registry: no file says what it stands for.
    pub fn in_full(self) -> Self {
        Self { short: Short(false), ..self }
    }

    /// Returns `registry/repository` without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl Serialize for ImageRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn has_upper(text: &str) -> bool {
    text.chars().any(|c| c.is_ascii_uppercase())
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128 && tag.starts_with(word) && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let sound_port = port.is_none_or(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_digit()));
    let v6 = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let sound_name = match v6 {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        }),
    };
    sound_port && sound_name
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !component.starts_with(alnum) || !component.ends_with(alnum) {
        return false;
    }
    component
        .split(alnum)
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.chars().all(|c| c == '-'))
}
