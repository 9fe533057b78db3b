//! How registries are reached, as data.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kiln_core::Secret;
use serde::{Deserialize, Serialize};

/// How registries are reached; docs/registries.md describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Per registry host, the mirrors to try first, in order: `http://127.0.0.1:5000`. A path is put before the
    /// repository.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Hosts (with port), and networks as `10.0.0.0/8`, that are reached by https whose certificates are not checked, or,
    /// where nobody answers so, by http. Loopback hosts are reached by http anyway.
    pub insecure: Vec<String>,
    /// Where credentials are.
    pub credentials: Credentials,
    /// What other programs on this machine are told about registries.
    pub files: HostFiles,
    /// Who says what a name without a registry is.
    pub short_names: ShortNames,
    /// What kiln says it is; `kiln/VERSION` if none.
    pub user_agent: Option<String>,
    /// How long to wait.
    #[serde(skip)]
    pub timeouts: Timeouts,
}

/// Who says what a name without a registry is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShortNames {
    /// Containers' `registries.conf`, where it says something; else docker.
    #[default]
    Containers,
    /// Docker: each is on docker.io.
    Docker,
}

/// Files that tell other programs how registries are reached. Each may be missing; none is read before a registry is
/// first reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostFiles {
    /// Docker's `daemon.json`: the first there is counts.
    pub daemon_json: Vec<PathBuf>,
    /// Containers' `registries.conf`: the first there is counts.
    pub registries_conf: Vec<PathBuf>,
    /// Directories whose `*.conf` are read over it, in this order, each by name.
    pub registries_conf_dirs: Vec<PathBuf>,
    /// Where podman notes what its users chose for short names: the first there is counts, before all others.
    pub short_name_aliases: Vec<PathBuf>,
    /// containerd's directories with `HOST/hosts.toml`.
    pub containerd: Vec<PathBuf>,
    /// Docker's and containers' directories with certificates in `HOST/`: the first that has the host counts.
    pub certs: Vec<PathBuf>,
}

/// Where credentials are looked for. Nothing is read before a registry first asks for some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// In order; the first that has some for a registry decides.
    pub sources: Vec<CredentialSource>,
    /// The directories where programs named `docker-credential-NAME` are looked for: what PATH says.
    pub programs: Vec<PathBuf>,
    /// What starts them as the user, where kiln's own process is somebody else to itself.
    #[serde(default)]
    pub launcher: Option<Launcher>,
    /// How long such a program may take.
    pub patience: Duration,
}

impl Default for Credentials {
    fn default() -> Self {
        // It may have to ask its user for a password.
        let patience = Duration::from_secs(60);
        Self { sources: Vec::new(), programs: Vec::new(), launcher: None, patience }
    }
}

/// A program that executes another one, whose path and arguments follow its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launcher {
    /// Where it is.
    pub program: PathBuf,
    /// Its own arguments, the zeroth first.
    pub args: Vec<String>,
}

/// One place with credentials, in the form of docker's `config.json` and containers' `auth.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CredentialSource {
    /// A file; one that is not there has none.
    File(PathBuf),
    /// A text, as in the variable DOCKER_AUTH_CONFIG.
    Text {
        /// What messages call it.
        name: String,
        /// The text.
        text: Secret,
    },
}

impl CredentialSource {
    /// Returns what to call it.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Text { name, .. } => name.clone(),
        }
    }
}

/// How long to wait. Nothing waits endlessly: each request is tried a fixed number of times, and a stream that brings next
/// to nothing within `stall` counts as stalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, name look-up and TLS included.
    pub connect: Duration,
    /// For the next byte.
    pub stall: Duration,
    /// Before the second try of what failed; doubled for each one after that.
    pub again: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            again: Duration::from_millis(100),
        }
    }
}
