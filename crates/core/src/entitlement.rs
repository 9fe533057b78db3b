//! What a build may do only if it was allowed: `--allow`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A permission, under buildx's name: <https://docs.docker.com/reference/cli/docker/buildx/build/#allow>
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Entitlement {
    /// `RUN --security=insecure`.
    #[serde(rename = "security.insecure")]
    SecurityInsecure,
    /// `RUN --network=host`.
    #[serde(rename = "network.host")]
    NetworkHost,
    /// `RUN --device`. There is no device to be had; known so that a command line that grants it is understood.
    #[serde(rename = "device")]
    Device,
}

/// A name that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{text:?} is nothing that could be allowed: there are security.insecure, network.host and device")]
pub struct EntitlementError {
    /// As written.
    pub text: String,
}

impl Entitlement {
    /// Returns its name, as `--allow` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SecurityInsecure => "security.insecure",
            Self::NetworkHost => "network.host",
            Self::Device => "device",
        }
    }
}

impl fmt::Display for Entitlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Entitlement {
    type Err = EntitlementError;

    fn from_str(text: &str) -> Result<Self, EntitlementError> {
        [Self::SecurityInsecure, Self::NetworkHost, Self::Device]
            .into_iter()
            .find(|one| one.name() == text)
            .ok_or_else(|| EntitlementError { text: text.to_owned() })
    }
}
