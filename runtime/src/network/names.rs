//! What a step is told of its network: /etc/resolv.conf, and the address that `host-gateway` stands for.

use std::net::{IpAddr, Ipv4Addr};

use kiln_core::{NetworkMode, Resolver};

#[cfg(test)]
mod tests;

/// docker's word for the machine itself, as steps reach it.
const HOST_GATEWAY: &str = "host-gateway";

/// The first three numbers of the private network's addresses: what slirp4netns and rootless podman have long used,
/// unless the machine itself is in there.
pub(crate) fn network(host: Option<IpAddr>) -> [u8; 3] {
    match host {
        Some(IpAddr::V4(host)) if host.octets()[..3] == [10, 0, 2] => [10, 0, 3],
        _ => [10, 0, 2],
    }
}

/// The address in it from which pasta passes queries on to the machine's name server.
pub(crate) fn forwarder(host: Option<IpAddr>) -> Ipv4Addr {
    let [a, b, c] = network(host);
    Ipv4Addr::new(a, b, c, 3)
}

/// Makes resolv.conf(5) for a step out of the machine's.
pub(crate) fn resolv_conf(
    machine: &str,
    mode: NetworkMode,
    host: Option<IpAddr>,
    resolver: &Resolver,
) -> String {
    let second = |line: &str, first: &str| {
        let mut words = line.split_whitespace();
        (words.next() == Some(first)).then(|| words.next().unwrap_or_default().to_owned())
    };
    // The one that pasta passes queries on to. It takes what that answers for an answer of its own, so that it cannot be
    // asked directly.
    let passed_on = machine.lines().find_map(|line| second(line, "nameserver"));
    let reached_as = |address: &str| match mode {
        NetworkMode::Private if passed_on.as_deref() == Some(address) => Some(forwarder(host).to_string()),
        // The step's own loopback has nobody listening, unless that is asked for.
        NetworkMode::Private if is_loopback(address) && resolver.servers.is_empty() => None,
        _ => Some(address.to_owned()),
    };
    let mut lines: Vec<String> = Vec::new();
    for line in machine.lines() {
        if let Some(address) = second(line, "nameserver") {
            if resolver.servers.is_empty() {
                lines.extend(reached_as(&address).map(|address| format!("nameserver {address}")));
            }
            continue;
        }
        let replaced =
            [("search", &resolver.search), ("domain", &resolver.search), ("options", &resolver.options)]
                .into_iter()
                .any(|(word, values)| second(line, word).is_some() && !values.is_empty());
        if !replaced {
            lines.push(line.to_owned());
        }
    }
    let asked = resolver.servers.iter().filter_map(|address| reached_as(address));
    lines.extend(asked.map(|address| format!("nameserver {address}")));
    for (word, values) in [("search", &resolver.search), ("options", &resolver.options)] {
        if !values.is_empty() {
            lines.push(format!("{word} {}", values.join(" ")));
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The lines of /etc/hosts that were asked for, as `address, name`. A step without network cannot reach the machine: a
/// line that names it falls away.
pub(crate) fn hosts(
    asked: &[(String, String)],
    mode: NetworkMode,
    host: Option<IpAddr>,
) -> Vec<(String, String)> {
    let gateway = match mode {
        NetworkMode::Host => Some(Ipv4Addr::LOCALHOST.into()),
        NetworkMode::Private => host,
        NetworkMode::None => None,
    };
    let resolve = |(address, name): &(String, String)| {
        let address = if address == HOST_GATEWAY { gateway?.to_string() } else { address.clone() };
        Some((address, name.clone()))
    };
    asked.iter().filter_map(resolve).collect()
}

fn is_loopback(address: &str) -> bool {
    // An interface may follow: fe80::1%eth0.
    let address = address.split('%').next().unwrap_or(address);
    address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
