//! Registries without an engine: logging in and out, and looking at how one is reached.

use std::path::Path;

use kiln_core::{Cancel, ImageRef, Secret};
use kiln_registry::{Account, Kept, RegistryClient, Trace};

use crate::engine::registry_config;
use crate::{Error, RegistryOptions};

/// Tries a name and a password at a registry (`docker.io`, `HOST[:PORT]`), and keeps them if they are good: with the program that `file`
/// names for it, else in `file`, a `config.json` of docker's form.
///
/// # Errors
/// The registry does not take them, or they cannot be kept.
pub fn login(
    options: &RegistryOptions,
    registry: &str,
    user: &str,
    password: &Secret,
    file: &Path,
    cancel: &Cancel,
) -> Result<Kept, Error> {
    let password = String::from_utf8_lossy(password.bytes());
    Ok(client(options, cancel)?.login(registry, user, &password, file)?)
}

/// Forgets the credentials for a registry, or all, in `file` and with the programs it names. Returns what had some.
///
/// # Errors
/// They cannot be forgotten.
pub fn logout(options: &RegistryOptions, registry: Option<&str>, file: &Path) -> Result<Vec<String>, Error> {
    Ok(client(options, &Cancel::new())?.logout(registry, file)?)
}

/// Returns whose credentials would be used for a registry.
///
/// # Errors
/// A place with credentials cannot be read.
pub fn account(options: &RegistryOptions, registry: &str) -> Result<Option<Account>, Error> {
    Ok(client(options, &Cancel::new())?.account(registry)?)
}

/// Looks an image up at each server that may have it, and tells what happened.
///
/// # Errors
/// The name is none, or the configuration is not what it should be, or forbids the image.
pub fn trace_image(options: &RegistryOptions, name: &str, cancel: &Cancel) -> Result<Trace, Error> {
    Ok(client(options, cancel)?.trace(&name.parse::<ImageRef>()?)?)
}

fn client(options: &RegistryOptions, cancel: &Cancel) -> Result<RegistryClient, Error> {
    Ok(RegistryClient::new(registry_config(options), cancel.clone())?)
}
