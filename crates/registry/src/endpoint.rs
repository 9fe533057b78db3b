//! Who is asked for what is on a registry: its mirrors in order, then itself.

use std::path::PathBuf;

use kiln_core::ImageRef;
use reqwest::{RequestBuilder, Url};

use crate::hosts::{Hosts, Pulls, Rule, Server, insecure};
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
    /// What comes before the repository: `/v2`, unless the server is odd.
    pub(crate) root: String,
    /// The registry that is meant, for a server that stands in for several.
    pub(crate) namespace: Option<String>,
    /// Not the registry itself.
    pub(crate) mirror: bool,
    /// May be asked what a tag means.
    pub(crate) resolve: bool,
    /// May be asked for what has a digest.
    pub(crate) pull: bool,
    /// Takes what is pushed, in the registry's place.
    pub(crate) push: bool,
    /// Where https is not answered, http will do.
    pub(crate) either: bool,
    pub(crate) trust: Trust,
    /// Sent along.
    pub(crate) headers: Vec<(String, String)>,
    /// Whose word it is that this server is asked, and so.
    pub(crate) from: Vec<String>,
}

/// Whose certificates count, and which one is ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Trust {
    /// Nobody's are looked at.
    pub(crate) unverified: bool,
    /// Files with authorities, besides the system's.
    pub(crate) ca: Vec<PathBuf>,
    /// Our certificate and its key.
    pub(crate) client: Vec<(PathBuf, PathBuf)>,
}

impl Endpoint {
    /// `/v2/<repository>/<kind>/<what>` there.
    pub(crate) fn url(&self, kind: &str, what: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{}/{kind}/{what}", self.root, self.repository));
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        url
    }

    /// Puts the headers on a request that this server is to be sent, if it goes there.
    pub(crate) fn dressed(&self, mut request: RequestBuilder, url: &Url, authorized: bool) -> RequestBuilder {
        for (name, value) in &self.headers {
            if url.origin() == self.base.origin() && !(authorized && name == "authorization") {
                request = request.header(name, value);
            }
        }
        request
    }

    /// `/v2/` there, which answers who may come in.
    pub(crate) fn front(&self) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/", self.root));
        url
    }
}

/// Returns the servers for an image, in order.
pub(crate) fn endpoints(
    config: &RegistryConfig,
    hosts: &Hosts,
    image: &ImageRef,
) -> Result<Vec<Endpoint>, RegistryError> {
    let name = image.name();
    let rule = hosts.containers.rule(&name);
    if let Some((rule, _)) = rule
        && rule.blocked
    {
        return Err(RegistryError::Blocked { name, from: rule.from.clone() });
    }
    let router = Router { config, hosts };
    // Where it really is, as registries.conf has it.
    let (registry, repository) = match rule {
        Some((Rule { location, .. }, taken)) if !location.is_empty() => {
            split(&format!("{location}{}", &name[taken..]))
        }
        _ => (image.registry.clone(), image.repository.clone()),
    };
    let of_host = hosts.of(&registry)?;
    let mut endpoints = Vec::new();
    let docker = hosts.docker.as_ref().filter(|_| registry == "docker.io");
    let docker = docker.filter(|(daemon, _)| !daemon.registry_mirrors.is_empty());
    if let Some(mirrors) = config.mirrors.get(&image.registry) {
        for mirror in mirrors {
            endpoints.push(router.address(
                &image.registry,
                mirror,
                &image.repository,
                "kiln's configuration",
            )?);
        }
    } else if let Some((daemon, path)) = docker {
        for mirror in &daemon.registry_mirrors {
            let from = format!("registry-mirrors in {}", path.display());
            endpoints.push(router.address(&registry, mirror, &repository, &from)?);
        }
    } else if let Some((rule, taken)) = rule.filter(|(rule, _)| !rule.mirrors.is_empty()) {
        for mirror in &rule.mirrors {
            let wanted = match mirror.pulls {
                Pulls::All => true,
                Pulls::Digests => image.digest.is_some(),
                Pulls::Tags => image.digest.is_none(),
            };
            if wanted {
                let (host, repository) = split(&format!("{}{}", mirror.location, &name[taken..]));
                let insecure = mirror.insecure.then(|| format!("insecure at {}", mirror.from));
                endpoints.push(router.place(&host, repository, true, &mirror.from, insecure)?);
            }
        }
    } else {
        for host in of_host.hosts.iter().flat_map(|file| &file.hosts) {
            endpoints.push(router.server(host, &registry, &repository, true)?);
        }
    }
    let itself = of_host.hosts.as_ref().and_then(|file| file.server.as_ref());
    let server = server_name(&registry);
    endpoints.push(match itself {
        Some(itself) => router.server(itself, &registry, &repository, false)?,
        None => {
            let insecure =
                rule.filter(|(rule, _)| rule.insecure).map(|(rule, _)| format!("insecure at {}", rule.from));
            let from = rule.map_or_else(String::new, |(rule, _)| rule.from.clone());
            router.place(server, repository, false, &from, insecure)?
        }
    });
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

/// Makes endpoints.
struct Router<'r> {
    config: &'r RegistryConfig,
    hosts: &'r Hosts,
}

impl Router<'_> {
    /// A mirror given as an address. A path there is put before the repository.
    fn address(
        &self,
        registry: &str,
        mirror: &str,
        repository: &str,
        from: &str,
    ) -> Result<Endpoint, RegistryError> {
        let url = parse_mirror(registry, mirror)?;
        let prefix = url.path().trim_matches('/');
        let repository =
            if prefix.is_empty() { repository.to_owned() } else { format!("{prefix}/{repository}") };
        let mut endpoint = self.plain(&url, authority(&url), repository, true)?;
        endpoint.from.insert(0, from.to_owned());
        if url.scheme() == "https"
            && let Some(from) = self.insecure(&endpoint.host)
        {
            endpoint.trust.unverified = true;
            endpoint.from.push(from);
        }
        Ok(endpoint)
    }

    /// A server known by its name alone.
    fn place(
        &self,
        host: &str,
        repository: String,
        mirror: bool,
        from: &str,
        insecure: Option<String>,
    ) -> Result<Endpoint, RegistryError> {
        let insecure = insecure.or_else(|| self.insecure(host));
        let certificates = self.hosts.of(host)?.certificates.is_some();
        let loopback = is_loopback(host) && !certificates && insecure.is_none();
        let scheme = if loopback { "http" } else { "https" };
        let url = Url::parse(&format!("{scheme}://{host}")).map_err(|error| RegistryError::Unreachable {
            host: host.to_owned(),
            cause: error.to_string(),
        })?;
        // With the port that was written, be it the usual one.
        let mut endpoint = self.plain(&url, host.to_owned(), repository, mirror)?;
        if !from.is_empty() {
            endpoint.from.insert(0, from.to_owned());
        }
        if let Some(from) = insecure {
            endpoint.from.push(from);
            endpoint.either = true;
            endpoint.trust.unverified = true;
        }
        Ok(endpoint)
    }

    /// One of containerd's.
    fn server(
        &self,
        server: &Server,
        registry: &str,
        repository: &str,
        mirror: bool,
    ) -> Result<Endpoint, RegistryError> {
        let mut endpoint = self.plain(&server.url, authority(&server.url), repository.to_owned(), mirror)?;
        endpoint.from.insert(0, server.from.clone());
        let path = server.url.path().trim_end_matches('/');
        endpoint.root = if server.override_path || path.ends_with("/v2") {
            path.to_owned()
        } else {
            format!("{path}/v2")
        };
        // A mirror may stand in for many registries.
        endpoint.namespace = mirror.then(|| registry.to_owned());
        (endpoint.resolve, endpoint.pull, endpoint.push) = (server.resolve, server.pull, server.push);
        endpoint.trust.unverified = server.skip_verify;
        endpoint.trust.ca.extend(server.ca.iter().cloned());
        endpoint.trust.client.extend(server.client.iter().cloned());
        endpoint.headers.clone_from(&server.headers);
        Ok(endpoint)
    }

    /// What all have in common: the certificates for the host.
    fn plain(
        &self,
        url: &Url,
        host: String,
        repository: String,
        mirror: bool,
    ) -> Result<Endpoint, RegistryError> {
        let mut trust = Trust::default();
        let mut from = Vec::new();
        if url.scheme() == "https"
            && let Some(certificates) = &self.hosts.of(&host)?.certificates
        {
            trust.ca.clone_from(&certificates.ca);
            trust.client.clone_from(&certificates.client);
            from.push(format!("certificates in {}", certificates.from.display()));
        }
        Ok(Endpoint {
            host,
            repository,
            base: origin(url),
            root: "/v2".to_owned(),
            namespace: None,
            mirror,
            resolve: true,
            pull: true,
            push: false,
            either: false,
            trust,
            headers: Vec::new(),
            from,
        })
    }

    /// Whose word it is that a host need not prove who it is.
    fn insecure(&self, host: &str) -> Option<String> {
        let name = if host == server_name("docker.io") { "docker.io" } else { host };
        if insecure(&self.config.insecure, name).is_some() {
            return Some("insecure in kiln's configuration".to_owned());
        }
        if let Some((daemon, path)) = &self.hosts.docker
            && let Some(entry) = daemon.insecure(name)
        {
            return Some(format!("insecure-registries {entry:?} in {}", path.display()));
        }
        None
    }
}

/// The name of a registry and the name of its server were never the same.
pub(crate) fn server_name(registry: &str) -> &str {
    match registry {
        "docker.io" => "registry-1.docker.io",
        other => other,
    }
}

/// Host and path of a name; docker.io's server has its own name.
fn split(name: &str) -> (String, String) {
    let (host, path) = name.split_once('/').unwrap_or((name, ""));
    (host.to_owned(), path.to_owned())
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
