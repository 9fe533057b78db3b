//! Which network a step gets.

use std::net::IpAddr;

use kiln_core::{Network, NetworkChoice, NetworkMode};
use kiln_runtime::{Entered, Isolation, NetworkError};

/// Variables that name a proxy, in lower case.
const PROXIES: [&str; 4] = ["http_proxy", "https_proxy", "ftp_proxy", "all_proxy"];

/// A network, and why it is not the one that would be expected, if so.
pub(crate) struct Chosen {
    pub(crate) mode: NetworkMode,
    pub(crate) note: Option<String>,
}

/// Decides for a step that asks for `asked` in a build that chose `choice`.
pub(crate) fn choose(
    entered: &Entered,
    asked: Network,
    choice: NetworkChoice,
    env: &[(String, String)],
) -> Chosen {
    let just = |mode| Chosen { mode, note: None };
    match (asked, choice) {
        (Network::None, _) => just(NetworkMode::None),
        (Network::Host, _) | (_, NetworkChoice::Host) => just(NetworkMode::Host),
        (Network::Default, NetworkChoice::Private) => just(NetworkMode::Private),
        (Network::Default, NetworkChoice::Default) => default(entered, env),
    }
}

/// A private one where it can be had, unless that would cut a step off from a proxy on this machine.
fn default(entered: &Entered, env: &[(String, String)]) -> Chosen {
    let host = |note| Chosen { mode: NetworkMode::Host, note };
    if let Some((name, _)) = env.iter().find(|(name, value)| is_proxy(name) && is_on_loopback(value)) {
        let note = format!(
            "steps use this machine's network: the proxy that {name} names listens on its loopback (--network=host says \
             the same)"
        );
        return host(Some(note));
    }
    if entered.isolation() == Isolation::Chroot {
        return host(None);
    }
    match entered.make_private_network() {
        Ok(()) => Chosen { mode: NetworkMode::Private, note: None },
        Err(NetworkError::NoPasta) => host(None),
        Err(error) => {
            host(Some(format!("steps use this machine's network: {error} (--network=host says the same)")))
        }
    }
}

fn is_proxy(name: &str) -> bool {
    PROXIES.contains(&name.to_ascii_lowercase().as_str())
}

/// Whether `scheme://user:password@host:port/` has a host of this machine's alone.
fn is_on_loopback(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let host = match place.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => place.split(':').next().unwrap_or(place),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_on_loopback() {
        for url in
            ["http://127.0.0.1:3128", "localhost:3128", "http://me:p@LOCALHOST/", "socks5://[::1]:1080"]
        {
            assert!(is_on_loopback(url), "{url}");
        }
        for url in
            ["http://proxy:3128", "http://10.0.0.1", "", "http://[fd00::1]:1", "http://127.0.0.1@proxy"]
        {
            assert!(!is_on_loopback(url), "{url}");
        }
        assert!(is_proxy("HTTPS_PROXY") && !is_proxy("no_proxy"));
    }
}
