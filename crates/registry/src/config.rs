//! How registries are reached, as data.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The `registry` part of a configuration file; docs/registries.md describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Per registry host, the mirrors to try first, in order: `http://127.0.0.1:5000`. A path is put before the
    /// repository.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Hosts (with port) reached by plain http. Loopback hosts are anyway.
    pub insecure: Vec<String>,
    /// A `config.json` of docker, or containers' `auth.json`, with credentials. Read when a registry first asks for
    /// some; a file that is not there has none.
    pub auth_file: Option<PathBuf>,
    /// What kiln says it is; `kiln/VERSION` if none.
    pub user_agent: Option<String>,
    /// How long to wait.
    #[serde(skip)]
    pub timeouts: Timeouts,
}

/// How long to wait. Nothing waits endlessly: each request is tried a fixed number of times, and a stream that brings next
/// to nothing within `stall` counts as stalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, name look-up and TLS included.
    pub connect: Duration,
    /// For the next byte.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), stall: Duration::from_secs(30) }
    }
}
