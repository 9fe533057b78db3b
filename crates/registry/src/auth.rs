//! Who we are to a registry.

mod challenge;
mod file;
mod json;
mod keychain;
mod program;
mod save;
#[cfg(test)]
mod testing;

pub(crate) use challenge::{Challenge, parse};
pub(crate) use keychain::{Found, Keychain, Search};
pub(crate) use save::{erase, store};

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What there is to show to a registry or its token service. Shows none of it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Credential {
    /// A user's name and password, or token in its place.
    pub(crate) login: Option<(String, String)>,
    /// What a token service takes instead of name and password: an OAuth 2 refresh token.
    /// <https://distribution.github.io/distribution/spec/auth/oauth/>
    pub(crate) identity: Option<String>,
    /// A token for the registry itself, which needs no token service any more.
    pub(crate) bearer: Option<String>,
}

impl Credential {
    pub(crate) fn of_login(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { login: Some((user.into(), password.into())), ..Self::default() }
    }

    pub(crate) fn of_identity(token: impl Into<String>) -> Self {
        Self { identity: Some(token.into()), ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the value of an `Authorization` header with name and password.
    pub(crate) fn basic(&self) -> Option<String> {
        let (user, password) = self.login.as_ref()?;
        Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}
