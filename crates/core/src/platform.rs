//! What an image runs on, in Go's words, normalised as containerd does.
//! <https://github.com/opencontainers/image-spec/blob/main/image-index.md#platform-variants>

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Canonical, Encode};

/// An operating system, an architecture and perhaps a variant of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// GOOS: always `linux` for what kiln builds.
    pub os: String,
    /// GOARCH: `amd64`, `arm64`, ...
    pub architecture: String,
    /// `v7` of `linux/arm/v7`; absent where there is one variant only (`arm64` is `v8`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{text:?} is not a platform: write os/architecture[/variant], such as linux/amd64 or linux/arm64")]
pub struct PlatformError {
    /// What was given.
    pub text: String,
}

impl Platform {
    /// Makes a normalised platform of its parts.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let lower = architecture.to_ascii_lowercase();
        let variant = variant.map(str::to_ascii_lowercase).filter(|v| !v.is_empty());
        let (architecture, variant) = match (lower.as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64" | "amd64", Some(v)) => ("amd64", Some(v)),
            ("i386" | "i486" | "i586" | "i686" | "x86" | "386", _) => ("386", None),
            ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
            ("aarch64" | "arm64", Some(v)) => ("arm64", Some(v)),
            ("armhf", _) | ("arm", None | Some("7" | "v7")) => ("arm", Some("v7")),
            ("armel", _) | ("arm", Some("6" | "v6")) => ("arm", Some("v6")),
            ("arm", Some("5" | "v5")) => ("arm", Some("v5")),
            ("arm", Some("8" | "v8")) => ("arm", Some("v8")),
            (other, v) => (other, v),
        };
        Self { os, architecture: architecture.to_owned(), variant: variant.map(str::to_owned) }
    }

    /// Returns the platform this program was compiled for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self::new("linux", architecture, None)
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// Reads `os/arch`, `os/arch/variant`, or an architecture alone (the system is then linux).
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let sound = |p: &&str| {
            !p.is_empty() && p.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        };
        if !parts.iter().all(sound) {
            return Err(PlatformError { text: text.to_owned() });
        }
        match parts[..] {
            ["linux"] => Ok(Self::host()),
            [architecture] => Ok(Self::new("linux", architecture, None)),
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(PlatformError { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl Encode for Platform {
    fn encode(&self, out: &mut Canonical) {
        out.str(&self.os).str(&self.architecture).option(self.variant.as_ref(), |v, out| {
            out.str(v);
        });
    }
}
