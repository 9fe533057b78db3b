//! What steps of a build run under that is in no key: it says how a result is come by, not what it is.

use serde::{Deserialize, Serialize};

/// How steps run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sandbox {
    /// What the default network is.
    pub network: NetworkChoice,
    /// How names are looked up.
    pub resolver: Resolver,
}

/// What a step gets that asks for the default network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkChoice {
    /// A private one where pasta is installed and works, else the machine's.
    #[default]
    Default,
    /// The machine's.
    Host,
    /// A private one; steps fail if there can be none.
    Private,
}

/// `--dns`, `--dns-search`, `--dns-option`: what stands in /etc/resolv.conf. What is empty is as on the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resolver {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Domains that names are looked up in; a single `.` for none.
    pub search: Vec<String>,
    /// Options, such as `timeout:1`.
    pub options: Vec<String>,
}
