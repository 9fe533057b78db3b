//! Who is asked for what is on a registry: its mirrors in order, then itself.

use kiln_core::ImageRef;
use reqwest::Url;

use crate::{RegistryConfig, RegistryError};

/// One server that may have an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Host and port, for messages and credentials.
    pub(crate) host: String,
    /// The repository there.
    pub(crate) repository: String,
    /// Scheme, host and port.
    pub(crate) base: Url,
    /// Not the registry itself.
    pub(crate) mirror: bool,
}

impl Endpoint {
    /// `/v2/<repository>/<kind>/<what>` there.
    pub(crate) fn url(&self, kind: &str, what: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{}/{kind}/{what}", self.repository));
        url
    }
}

/// Returns the servers for an image, in order.
pub(crate) fn endpoints(config: &RegistryConfig, image: &ImageRef) -> Result<Vec<Endpoint>, RegistryError> {
    let mut endpoints = Vec::new();
    for mirror in config.mirrors.get(&image.registry).into_iter().flatten() {
        let base = parse_mirror(&image.registry, mirror)?;
        let prefix = base.path().trim_matches('/');
        let repository = match prefix {
            "" => image.repository.clone(),
            prefix => format!("{prefix}/{}", image.repository),
        };
        let host = authority(&base);
        let base = origin(&base);
        endpoints.push(Endpoint { host, repository, base, mirror: true });
    }
    let host = match image.registry.as_str() {
        // The name of the registry and the name of its server were never the same.
        "docker.io" => "registry-1.docker.io",
        other => other,
    };
    let plain = is_loopback(host) || config.insecure.contains(&image.registry);
    let scheme = if plain { "http" } else { "https" };
    let base = Url::parse(&format!("{scheme}://{host}"))
        .map_err(|error| RegistryError::Unreachable { host: host.to_owned(), cause: error.to_string() })?;
    let repository = image.repository.clone();
    endpoints.push(Endpoint { host: host.to_owned(), repository, base, mirror: false });
    Ok(endpoints)
}

/// Refuses what is no mirror before the first request.
pub(crate) fn check(config: &RegistryConfig) -> Result<(), RegistryError> {
    for (registry, mirrors) in &config.mirrors {
        for mirror in mirrors {
            parse_mirror(registry, mirror)?;
        }
    }
    Ok(())
}

fn parse_mirror(registry: &str, text: &str) -> Result<Url, RegistryError> {
    let fail = |mirror: &str, reason: &str| RegistryError::Mirror {
        registry: registry.to_owned(),
        mirror: mirror.to_owned(),
        reason: reason.to_owned(),
    };
    let after_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
    if after_scheme.split('/').next().is_some_and(|authority| authority.contains('@')) {
        let hidden = after_scheme.rsplit_once('@').map_or("", |(_, host)| host);
        return Err(fail(hidden, "credentials belong into the file with credentials"));
    }
    let url = Url::parse(text).map_err(|_| fail(text, "write http://HOST[:PORT] or https://HOST[:PORT]"))?;
    match (url.scheme(), url.host_str(), url.query(), url.fragment()) {
        ("http" | "https", Some(_), None, None) => Ok(url),
        _ => Err(fail(text, "write http://HOST[:PORT] or https://HOST[:PORT]")),
    }
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn origin(url: &Url) -> Url {
    let mut url = url.clone();
    url.set_path("/");
    url
}

/// `localhost`, `127.0.0.0/8` and `[::1]`, which docker reaches by plain http too.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok_and(|address| address.is_loopback()),
        None => {
            name == "localhost"
                || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

#[cfg(test)]
mod tests;
