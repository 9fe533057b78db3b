//! Logging in and out: credentials are tried, and kept where docker would keep them.

use std::path::Path;
use std::sync::Arc;

use kiln_core::ImageRef;

use crate::auth::{Credential, Keychain, erase, store};
use crate::{RegistryClient, RegistryError};

/// What became of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The file or the program that has the credentials now.
    pub place: String,
    /// Whether everybody who may read the file can read them.
    pub plain: bool,
    /// Whose word comes before it, if that is not what was kept.
    pub behind: Option<String>,
}

/// Somebody's credentials that kiln would use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user's name, unless there is only a token.
    pub user: Option<String>,
    /// File and key, or program.
    pub source: String,
}

impl RegistryClient {
    /// Tries a name and a password at a registry (`docker.io`, `HOST[:PORT]`), and keeps them if they are good: with the program
    /// that `file` names for it, else in `file`, which is docker's `config.json` or of its form.
    ///
    /// # Errors
    /// The registry does not take them ([`RegistryError::Login`]), or they cannot be kept.
    pub fn login(
        &self,
        registry: &str,
        user: &str,
        password: &str,
        file: &Path,
    ) -> Result<Kept, RegistryError> {
        let image = anything(registry)?;
        let session = self.session.clone();
        let credential = Credential::of_login(user, password);
        let credential = self.run(async move { session.log_in(&image, credential).await })?;
        let credentials = &self.session.config.credentials;
        let place = store(credentials, file, registry, &credential)?;
        let found = Keychain::new(credentials.clone()).search(server(registry), "", &Arc::default())?.found;
        let same = |found: &Credential| match &credential.identity {
            Some(identity) => found.identity.as_ref() == Some(identity),
            None => found.login == credential.login,
        };
        let behind = found.filter(|found| !same(&found.credential)).map(|found| found.source);
        Ok(Kept { plain: place == file.display().to_string(), place, behind })
    }

    /// Forgets the credentials for a registry, or all, in `file` and with the programs that it names. Returns what had some.
    ///
    /// # Errors
    /// They cannot be forgotten.
    pub fn logout(&self, registry: Option<&str>, file: &Path) -> Result<Vec<String>, RegistryError> {
        if let Some(registry) = registry {
            anything(registry)?;
        }
        erase(&self.session.config.credentials, file, registry)
    }

    /// Returns whose credentials are used for a registry, wherever they come from.
    ///
    /// # Errors
    /// One of the places cannot be read.
    pub fn account(&self, registry: &str) -> Result<Option<Account>, RegistryError> {
        anything(registry)?;
        let keychain = Keychain::new(self.session.config.credentials.clone());
        let found = keychain.search(server(registry), "", &Arc::default())?.found;
        Ok(found.map(|found| Account {
            user: found.credential.login.map(|(user, _)| user),
            source: found.source,
        }))
    }
}

fn server(registry: &str) -> &str {
    crate::endpoint::server_name(registry)
}

/// The name of an image on a registry, to find the way there.
fn anything(registry: &str) -> Result<ImageRef, RegistryError> {
    let image = format!("{registry}/x").parse::<ImageRef>().ok().filter(|image| image.registry == registry);
    image.ok_or_else(|| RegistryError::Host { name: registry.to_owned() })
}
