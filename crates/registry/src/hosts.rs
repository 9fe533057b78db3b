//! What other programs are told about registries, and kiln heeds. Read when a registry is first reached.

mod certs;
mod containerd;
mod docker;
mod registries_conf;

pub(crate) use certs::Certificates;
pub(crate) use containerd::{HostsToml, Server};
pub(crate) use docker::{DaemonJson, insecure};
pub(crate) use registries_conf::{Pulls, RegistriesConf, Rule};

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{HostFiles, RegistryError};

/// The files, read.
#[derive(Debug)]
pub(crate) struct Hosts {
    files: HostFiles,
    pub(crate) containers: RegistriesConf,
    /// And where it is.
    pub(crate) docker: Option<(DaemonJson, PathBuf)>,
    known: Mutex<BTreeMap<String, Result<Arc<OfHost>, RegistryError>>>,
}

/// What there is for one host alone.
#[derive(Debug, Default)]
pub(crate) struct OfHost {
    pub(crate) hosts: Option<HostsToml>,
    pub(crate) certificates: Option<Certificates>,
}

impl Hosts {
    /// Reads those files that are about all hosts.
    pub(crate) fn read(files: &HostFiles) -> Result<Self, RegistryError> {
        let mut containers = RegistriesConf::default();
        // One file, the first there is, then all that are in directories.
        if let Some((path, text)) = first(&files.registries_conf)? {
            containers = parsed(&path, RegistriesConf::parse(&text, &path.display().to_string()))?;
        }
        for directory in &files.registries_conf_dirs {
            for path in conf_files(directory)? {
                let Some(text) = read(&path)? else { continue };
                containers.over(parsed(&path, RegistriesConf::parse(&text, &path.display().to_string()))?);
            }
        }
        if let Some((path, text)) = first(&files.short_name_aliases)? {
            containers.alias_over(parsed(&path, RegistriesConf::parse(&text, &path.display().to_string()))?);
        }
        let docker = match first(&files.daemon_json)? {
            Some((path, text)) => Some((parsed(&path, DaemonJson::parse(&text))?, path)),
            None => None,
        };
        Ok(Self { files: files.clone(), containers, docker, known: Mutex::default() })
    }

    /// Returns what there is for a host; reads it the first time.
    pub(crate) fn of(&self, host: &str) -> Result<Arc<OfHost>, RegistryError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(host) {
            return found.clone();
        }
        let found = self.look(host).map(Arc::new);
        known.insert(host.to_owned(), found.clone());
        found
    }

    fn look(&self, host: &str) -> Result<OfHost, RegistryError> {
        // A name is below each directory, never above.
        if host.contains('/') || host.starts_with('.') {
            return Ok(OfHost::default());
        }
        let mut hosts = None;
        for root in &self.files.containerd {
            for directory in containerd::directories(root, host) {
                let path = directory.join("hosts.toml");
                if hosts.is_none()
                    && let Some(text) = read(&path)?
                {
                    hosts = Some(parsed(&path, HostsToml::parse(&text, &path))?);
                }
            }
        }
        let certificates = certs::find(&self.files.certs, host)
            .map_err(|reason| RegistryError::Configuration { file: "certs.d".into(), reason })?;
        Ok(OfHost { hosts, certificates })
    }
}

fn first(paths: &[PathBuf]) -> Result<Option<(PathBuf, String)>, RegistryError> {
    for path in paths {
        if let Some(text) = read(path)? {
            return Ok(Some((path.clone(), text)));
        }
    }
    Ok(None)
}

fn conf_files(directory: &Path) -> Result<Vec<PathBuf>, RegistryError> {
    let mut files = Vec::new();
    match fs::read_dir(directory) {
        Ok(entries) => {
            for entry in entries {
                let path = entry.map_err(|error| failed(directory, error.to_string()))?.path();
                if path.extension().is_some_and(|extension| extension == "conf") {
                    files.push(path);
                }
            }
        }
        Err(error) if absent(&error) => {}
        Err(error) => return Err(failed(directory, error.to_string())),
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Option<String>, RegistryError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if absent(&error) => Ok(None),
        Err(error) => Err(failed(path, crate::response::plain(&error.to_string()))),
    }
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn parsed<T>(path: &Path, result: Result<T, String>) -> Result<T, RegistryError> {
    result.map_err(|reason| failed(path, reason))
}

fn failed(path: &Path, reason: String) -> RegistryError {
    RegistryError::Configuration { file: path.to_owned(), reason }
}

/// Returns the line of a byte, counted from 1.
fn line(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

/// Says what is wrong, and where, in one line.
fn toml_error(text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(1, |span| line(text, span.start));
    format!("line {at}: {}", error.message().lines().next().unwrap_or("it is not TOML"))
}

#[cfg(test)]
mod tests;
