//! Whose word counts: the sources of credentials in order.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::Credential;
use super::file::{AuthFile, Entry};
use super::program::Helper;
use crate::RegistryError;
use crate::config::{CredentialSource, Credentials};

/// What is known for a repository, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// As a reader finds it: the file and the key, or the program.
    pub(crate) source: String,
    pub(crate) credential: Credential,
}

/// What came of a search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Search {
    pub(crate) found: Option<Found>,
    /// Sources that could not say: told to the user when access is denied.
    pub(crate) failed: Vec<String>,
}

/// What a helper said.
type Answer = Result<Option<Credential>, RegistryError>;

/// The sources; each is read when it is first needed, and each helper asked once for a server.
#[derive(Debug)]
pub(crate) struct Keychain {
    sources: Credentials,
    files: Vec<OnceLock<Result<AuthFile, Unread>>>,
    asked: Mutex<BTreeMap<(String, String), Answer>>,
}

/// Why a source says nothing.
#[derive(Debug, Clone)]
enum Unread {
    /// It belongs to somebody else: as good as not there, but worth a word.
    Closed(String),
    /// It is not what it should be.
    Wrong(RegistryError),
}

impl Keychain {
    pub(crate) fn new(sources: Credentials) -> Self {
        let files = sources.sources.iter().map(|_| OnceLock::new()).collect();
        Self { sources, files, asked: Mutex::default() }
    }

    /// Finds what is known for a repository on a host. Waits for helpers, so never from the thread that talks HTTP;
    /// `unwanted` ends that.
    ///
    /// In each source: the program that `credHelpers` has for the host, then an entry of `auths` that names more than the
    /// host, then the program of `credsStore`, then the host's entry. So has docker it, but that it knows no entries for a
    /// part of a host, and no others beside `credsStore`.
    ///
    /// # Errors
    /// A source is not what it should be, or a program that is meant for this very host fails. One that is asked
    /// for every host may fail: most images need no credentials.
    pub(crate) fn search(
        &self,
        host: &str,
        repository: &str,
        unwanted: &Arc<AtomicBool>,
    ) -> Result<Search, RegistryError> {
        let mut search = Search::default();
        for (source, slot) in self.sources.sources.iter().zip(&self.files) {
            let name = source.name();
            let file = match slot.get_or_init(|| read(source)) {
                Ok(file) => file,
                Err(Unread::Closed(reason)) => {
                    search.failed.push(reason.clone());
                    continue;
                }
                Err(Unread::Wrong(error)) => return Err(error.clone()),
            };
            if let Some(Entry { key, value: helper }) = file.helper(host) {
                // Docker asks for https://index.docker.io/v1/, podman for docker.io, each as it wrote it here.
                let by = format!("credHelpers {key:?} in {name}");
                let answer = self.ask(helper, key, unwanted).map_err(|error| named(error, &by))?;
                if let Some(credential) = answer {
                    let source = format!("docker-credential-{helper}, by {by}");
                    search.found = Some(Found { source, credential });
                    return Ok(search);
                }
            }
            let entry = file.find(host, repository);
            let written = entry.map(|(Entry { key, value }, _)| Found {
                source: format!("auths {key:?} in {name}"),
                credential: value.clone(),
            });
            if entry.is_some_and(|(_, narrow)| narrow) {
                search.found = written;
                return Ok(search);
            }
            if let Some(store) = &file.store {
                match self.ask(store, &server(host), unwanted) {
                    Ok(Some(credential)) => {
                        let source = format!("docker-credential-{store}, by credsStore in {name}");
                        search.found = Some(Found { source, credential });
                        return Ok(search);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        search.failed.push(named(error, &format!("credsStore in {name}")).to_string());
                    }
                }
            }
            if written.is_some() {
                search.found = written;
                return Ok(search);
            }
        }
        Ok(search)
    }

    fn ask(
        &self,
        name: &str,
        server: &str,
        unwanted: &Arc<AtomicBool>,
    ) -> Result<Option<Credential>, RegistryError> {
        let key = (name.to_owned(), server.to_owned());
        // Held meanwhile: who wants the same waits for the answer instead of asking again.
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = asked.get(&key) {
            return known.clone();
        }
        let helper = self.sources.helper(name);
        let answer = helper.get(server, unwanted);
        if !unwanted.load(Ordering::Relaxed) {
            asked.insert(key, answer.clone());
        }
        answer
    }
}

/// Says where a program is named that does not help.
fn named(error: RegistryError, by: &str) -> RegistryError {
    match error {
        RegistryError::Helper { program, server, reason } => {
            RegistryError::Helper { program, server, reason: format!("{reason}; {by} names it") }
        }
        other => other,
    }
}

/// What a helper is asked for: docker has an address for docker.io, and hosts for all others.
pub(crate) fn server(host: &str) -> String {
    match host {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => "https://index.docker.io/v1/".to_owned(),
        other => other.to_owned(),
    }
}

impl Credentials {
    pub(crate) fn helper(&self, name: &str) -> Helper {
        Helper {
            name: name.to_owned(),
            programs: self.programs.clone(),
            launcher: self.launcher.clone(),
            limit: self.patience,
        }
    }
}

fn read(source: &CredentialSource) -> Result<AuthFile, Unread> {
    let wrong =
        |reason: String| Unread::Wrong(RegistryError::AuthFile { path: source.name().into(), reason });
    match source {
        CredentialSource::Text { text, .. } => AuthFile::parse(text.bytes()).map_err(wrong),
        CredentialSource::File(path) => match fs::read(path) {
            Ok(bytes) => AuthFile::parse(&bytes).map_err(wrong),
            // A directory on the way may be a file: then there is none either.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(AuthFile::default())
            }
            // In a directory that is closed to us, as root's /run/containers is, nothing is known to be there.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && fs::metadata(path).is_err() => {
                Ok(AuthFile::default())
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Unread::Closed(format!("{} cannot be read: permission denied", path.display())))
            }
            Err(error) => Err(wrong(crate::response::plain(&error.to_string()))),
        },
    }
}

#[cfg(test)]
mod tests;
