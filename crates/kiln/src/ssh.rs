//! `--ssh`: what signs for a step. An agent that runs already, or private keys that kiln keeps to itself.

use std::path::PathBuf;

use kiln_core::Secret;
use serde::{Deserialize, Serialize};

mod key;
mod keyring;
mod openssh;
mod pem;

pub(crate) use key::strings;
pub(crate) use keyring::{Keyring, REQUEST_IDENTITIES, SIGN_REQUEST};

/// What was given for an id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SshAgent {
    /// The socket of an agent.
    Socket(PathBuf),
    /// Private keys as they are in their files: OpenSSH's format, PKCS#8, or RSA's own. They are in no layer, key, log, event or
    /// message, and steps do not see them: they get signatures.
    Keys(Vec<Secret>),
}

/// Why a file cannot be used as a private key. No variant holds anything of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum SshKeyError {
    /// No PEM in it.
    #[error("it is no private key")]
    NoKey,
    /// PEM of something else, or of a kind that kiln does not read.
    #[error(
        "it holds a {label:?}, which kiln does not read (`ssh-keygen -p -f FILE` writes a key anew in OpenSSH's format)"
    )]
    Label {
        /// What stands behind `BEGIN`.
        label: String,
    },
    /// It needs a passphrase.
    #[error(
        "it is protected by a passphrase: add it to an agent with `ssh-add FILE`, and give that with --ssh default"
    )]
    Encrypted,
    /// It ends too early, or contradicts itself.
    #[error("the private key is damaged")]
    Damaged,
    /// Another kind of key.
    #[error(
        "keys of type {algorithm} are not supported: there are ssh-ed25519, ecdsa-sha2-nistp256, ecdsa-sha2-nistp384 and ssh-rsa"
    )]
    Algorithm {
        /// The type.
        algorithm: String,
    },
    /// The cryptographic library does not take it, for instance RSA of less than 2048 bits.
    #[error("the private key cannot be used: {reason}")]
    Refused {
        /// The library's word.
        reason: String,
    },
}

/// Checks that private keys can be used, without using them.
///
/// # Errors
/// The first one that cannot.
pub fn check_ssh_key(file: &Secret) -> Result<(), SshKeyError> {
    key::SigningKey::read(file).map(drop)
}
