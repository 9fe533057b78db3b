//! What a caller lets this crate use.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_core::{Cancel, GitCredentials};

use crate::Http;

/// The means by which remotes are reached.
pub struct Access<'a> {
    /// Speaks HTTP.
    pub http: &'a dyn Http,
    /// What to send to which host (`example.com`, `example.com:8443`). It is sent to submodules on that host too, and to no
    /// other host, whatever redirects say.
    pub auth: BTreeMap<String, Auth>,
    /// For `ssh://`.
    pub ssh: Ssh,
    /// Whether `file://` may be read: only if the user himself wrote it, never because a Dockerfile or a repository did.
    pub files: bool,
    /// What is too much.
    pub limits: Limits,
    /// Ends everything soon.
    pub cancel: Cancel,
}

/// An `Authorization` header's value.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth(String);

impl Auth {
    /// A header as it is sent: `basic ...`, `Bearer ...`. BuildKit's secret `GIT_AUTH_HEADER`.
    pub fn header(value: &str) -> Self {
        Self(value.trim().to_owned())
    }

    /// A token as most forges want it. BuildKit's secret `GIT_AUTH_TOKEN`.
    pub fn token(token: &str) -> Self {
        Self::basic("x-access-token", token.trim())
    }

    /// A user name with a password.
    pub fn basic(user: &str, password: &str) -> Self {
        Self(format!("basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }

    pub(crate) fn value(&self) -> &str {
        &self.0
    }
}

impl From<&GitCredentials> for Auth {
    fn from(credentials: &GitCredentials) -> Self {
        Self::basic(&credentials.user, &credentials.password)
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth(..)")
    }
}

/// What `ssh` is told.
#[derive(Debug, Clone, Default)]
pub struct Ssh {
    /// The agent's socket, for `SSH_AUTH_SOCK`; as inherited if none.
    pub agent: Option<PathBuf>,
    /// Hosts that are known; what ssh's configuration says if none. In a user namespace ssh takes root's home for the
    /// user's, so there it is worth naming.
    pub known_hosts: Option<PathBuf>,
}

/// What is more than any honest repository has. Each is an error, nothing is cut.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of one object, bytes. Objects are read into memory one at a time, with the bases of deltas.
    pub object: usize,
    /// Of what is received for one repository, bytes.
    pub pack: u64,
    /// Files, directories and links, submodules included.
    pub entries: u64,
    /// All files together, bytes.
    pub total: u64,
    /// Directories in directories.
    pub depth: usize,
    /// Submodules in submodules.
    pub submodules: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            object: 512 << 20,
            pack: 16 << 30,
            entries: 4_000_000,
            total: 64 << 30,
            depth: 200,
            submodules: 16,
        }
    }
}

/// How far a checkout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// A repository is being asked: the main one, or a submodule.
    Fetching {
        /// Without credentials.
        remote: &'a str,
    },
    /// So much came of its pack, bytes; a few times per megabyte.
    Received {
        /// Of this repository.
        bytes: u64,
    },
    /// All files of a repository are written.
    Written {
        /// In all so far, submodules included.
        entries: u64,
    },
}
