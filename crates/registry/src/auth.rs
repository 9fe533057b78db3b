//! Who we are to a registry.

mod challenge;
mod file;

pub(crate) use challenge::{Challenge, parse};
pub(crate) use file::{AuthFile, Found};

use std::fmt;

/// A user's name and password. Shows neither.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}
