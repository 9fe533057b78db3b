//! Keeping credentials where docker would: in its file, or with the program that the file names.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Credential;
use super::file::{AuthFile, names, normal};
use super::json::Json;
use super::keychain::server;
use crate::{Credentials, RegistryError};

/// Keeps credentials for a host. Returns where: the file, or a program.
pub(crate) fn store(
    credentials: &Credentials,
    file: &Path,
    host: &str,
    credential: &Credential,
) -> Result<String, RegistryError> {
    let key = server(host);
    let mut place = file.display().to_string();
    edit(file, |known, json| {
        let Some(auths) = json.below("auths") else {
            return Err("its auths are no object".to_owned().into());
        };
        // Under whatever name they were: two entries for one host would be one too many.
        auths.retain(|(name, _)| name == &key || !names(&host).contains(&normal(name).as_str()));
        let value = match known
            .helper(host)
            .map(|entry| (&entry.value, &entry.key))
            .or(known.store.as_ref().map(|store| (store, &key)))
        {
            Some((name, server)) => {
                let helper = credentials.helper(name);
                helper.store(server, credential)?;
                place = helper.program();
                // So that one sees where one is logged in, as docker leaves it.
                Json::Object(Vec::new())
            }
            None => {
                let (user, password) = credential.login.clone().unwrap_or_default();
                let password = if credential.identity.is_some() { String::new() } else { password };
                let auth = ("auth", STANDARD.encode(format!("{user}:{password}")));
                Json::object(
                    [auth]
                        .into_iter()
                        .chain(credential.identity.clone().map(|token| ("identitytoken", token))),
                )
            }
        };
        match auths.iter_mut().find(|(name, _)| *name == key) {
            Some((_, old)) => *old = value,
            None => auths.push((key.clone(), value)),
        }
        Ok(true)
    })?;
    Ok(place)
}

/// Forgets the credentials of one host, or of all. Returns the entries and programs that had some.
pub(crate) fn erase(
    credentials: &Credentials,
    file: &Path,
    host: Option<&str>,
) -> Result<Vec<String>, RegistryError> {
    let mut erased = Vec::new();
    edit(file, |known, json| {
        let Some(auths) = json.below("auths") else {
            return Err("its auths are no object".to_owned().into());
        };
        let meant = |name: &str| host.is_none_or(|host| names(&host).contains(&normal(name).as_str()));
        let gone: Vec<String> =
            auths.iter().map(|(name, _)| name.clone()).filter(|name| meant(name)).collect();
        auths.retain(|(name, _)| !meant(name));
        // A program that forgets what it never knew says so or says nothing.
        let mut servers: Vec<(String, String)> = Vec::new();
        if let Some(store) = &known.store {
            servers.extend(gone.iter().map(|name| (store.clone(), name.clone())));
            servers.extend(host.map(|host| (store.clone(), server(host))));
        }
        servers.extend(
            known
                .helpers()
                .filter(|(key, _)| meant(key))
                .map(|(key, name)| (name.to_owned(), key.to_owned())),
        );
        servers.sort();
        servers.dedup();
        for (name, server) in servers {
            let helper = credentials.helper(&name);
            if helper.get(&server, &Default::default())?.is_some() {
                helper.erase(&server)?;
                erased.push(format!("{server} in {}", helper.program()));
            }
        }
        let changed = !gone.is_empty();
        erased.extend(gone.into_iter().map(|name| format!("{name} in {}", file.display())));
        Ok(changed)
    })?;
    Ok(erased)
}

/// Why an edit was not made.
enum Stopped {
    File(String),
    Other(RegistryError),
}

impl From<String> for Stopped {
    fn from(reason: String) -> Self {
        Self::File(reason)
    }
}

impl From<RegistryError> for Stopped {
    fn from(error: RegistryError) -> Self {
        Self::Other(error)
    }
}

/// Changes a file: all or nothing, and one process after the other.
fn edit(
    file: &Path,
    change: impl FnOnce(&AuthFile, &mut Json) -> Result<bool, Stopped>,
) -> Result<(), RegistryError> {
    let fail = |reason: String| RegistryError::AuthFile { path: file.to_owned(), reason };
    let failed = |error: io::Error| fail(crate::response::plain(&error.to_string()));
    // Who keeps his file elsewhere has a link here, and wants to keep that too.
    let file: PathBuf = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let directory = file.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    // The directory is what stays when the file is another one. A dead process holds no lock.
    let lock = File::open(directory).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let text = match fs::read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(failed)?,
    };
    let known = AuthFile::parse(&text).map_err(fail)?;
    let mut json = if text.trim_ascii().is_empty() {
        Json::Object(Vec::new())
    } else {
        serde_json::from_slice(&text).map_err(|_| fail("it is not JSON".to_owned()))?
    };
    let changed = change(&known, &mut json).map_err(|stopped| match stopped {
        Stopped::File(reason) => fail(reason),
        Stopped::Other(error) => error,
    })?;
    if !changed {
        return Ok(());
    }
    let text = json.text().ok_or_else(|| fail("it cannot be written as JSON".to_owned()))?;
    // Only its owner may read it, which is how temporary files are made.
    let mut new = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    new.write_all(&text).and_then(|()| new.as_file().sync_all()).map_err(failed)?;
    new.persist(&file).map_err(|error| failed(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests;
