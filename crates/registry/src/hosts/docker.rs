//! What dockerd is configured with: `daemon.json`.
//! <https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file>

use std::net::IpAddr;

use serde::Deserialize;

/// The two keys that tell how registries are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct DaemonJson {
    /// Of docker.io.
    pub(crate) registry_mirrors: Vec<String>,
    /// Hosts, with a port where it is not the usual one, and networks as `10.0.0.0/8`.
    pub(crate) insecure_registries: Vec<String>,
}

impl DaemonJson {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// Returns the entry that makes a host insecure.
    pub(crate) fn insecure(&self, host: &str) -> Option<&str> {
        insecure(&self.insecure_registries, host)
    }
}

/// Returns the entry of a list that a host is meant by: itself, or a network that its address is in. Names are not looked
/// up for that.
pub(crate) fn insecure<'l>(list: &'l [String], host: &str) -> Option<&'l str> {
    let name = name(host);
    let address: Option<IpAddr> = name.parse().ok();
    let fits = |entry: &&String| {
        entry.as_str() == host || address.is_some_and(|address| network(entry, address) == Some(true))
    };
    list.iter().find(fits).map(String::as_str)
}

/// A host without its port and brackets.
fn name(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    name.trim_start_matches('[').trim_end_matches(']')
}

fn network(entry: &str, address: IpAddr) -> Option<bool> {
    let (network, bits) = entry.split_once('/')?;
    let bits: u32 = bits.parse().ok()?;
    let (network, address, width) = match (network.parse().ok()?, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            (u128::from(u32::from(network)), u128::from(u32::from(address)), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => (u128::from(network), u128::from(address), 128),
        _ => return None,
    };
    let free = width - bits.min(width);
    let same = (network ^ address).checked_shr(free).unwrap_or(0) == 0;
    (bits <= width).then_some(same)
}

#[cfg(test)]
mod tests;
