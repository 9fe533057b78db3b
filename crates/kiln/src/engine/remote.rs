//! Sources that have to be fetched: what they hold, and where it is when it is here.
//!
//! A URL in a graph is a name, as a build context's is; what it is worth in a key is what it holds
//! (docs/decisions/0007-remote-sources-are-contexts.md).

mod file;
mod repository;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_core::{Cancel, Canonical, Digest, Event, GitOp, Op, Selection, StepId};
use kiln_git::Resolved;
use kiln_registry::{DownloadConfig, Downloader, HostCredentials};
use kiln_store::tree::SourceTree;
use kiln_store::{SourceId, Store};

use super::git::Repositories;
use super::patience::Patience;
use super::reporter::Reporter;
use crate::{BuildRequest, Error};

/// The remote sources of one build. Each is asked for and fetched at most once, whoever needs it first.
pub(crate) struct Remotes<'a> {
    store: &'a Store,
    reporter: &'a Reporter<'a>,
    downloader: Downloader,
    repositories: Repositories<'a>,
    patience: Patience,
    known: Mutex<HashMap<StepId, Arc<Slot>>>,
}

/// Held while its source is asked for, so that others wait for the answer.
type Slot = Mutex<Known>;

/// What is known of a source so far.
#[derive(Default)]
struct Known {
    /// Whose source it is.
    op: Option<Op>,
    /// Of a repository: which commit is meant.
    commit: Option<Resolved>,
    /// Of a file: its bytes.
    file: Option<Digest>,
    here: Option<Arc<Remote>>,
}

/// A source that is here.
pub(crate) struct Remote {
    /// Where its files are.
    pub(crate) path: PathBuf,
    /// Its files.
    pub(crate) tree: SourceTree,
    /// What it holds, in one number.
    content: Digest,
}

impl<'a> Remotes<'a> {
    /// Knows nothing yet, and asks nobody.
    pub(crate) fn new(store: &'a Store, request: &'a BuildRequest, reporter: &'a Reporter<'a>) -> Self {
        let secrets = request.secrets.iter().map(|(id, secret)| (id.as_str(), secret.bytes()));
        let downloader = Downloader::new(DownloadConfig {
            user_agent: request.registry.user_agent.clone(),
            credentials: HostCredentials::of_secrets(secrets),
            ..DownloadConfig::default()
        });
        let repositories = Repositories::new(store, request);
        let patience = Patience::of(request);
        Self { store, reporter, downloader, repositories, patience, known: Mutex::default() }
    }

    /// Returns the digest of what a selection selects of a source. Asks whether the source is what it was, and fetches it if
    /// that does not tell; calls `late` before it does.
    pub(crate) fn digest(
        &self,
        op: &Op,
        selection: &Selection,
        late: &dyn Fn(),
        cancel: &Cancel,
    ) -> Result<Digest, Error> {
        let content = match op {
            Op::Http(http) => match http.checksum {
                // What it will hold if it is ever needed.
                Some(checksum) => file::content(http, &checksum),
                None => self.here(op, late, cancel)?.content,
            },
            // The commit tells what it holds.
            Op::Git(git) => self.with(op, |known, step| {
                let commit = self.known_commit(known, git, step, cancel)?;
                Ok(super::git::content(git, &commit))
            })?,
            other => return Err(unsupported(other)),
        };
        let mut out = Canonical::new("remote source");
        out.digest(&content);
        selection.encode(&mut out);
        Ok(out.finish())
    }

    /// Returns a source's files, which are fetched if they are not here.
    pub(crate) fn get(&self, op: &Op, cancel: &Cancel) -> Result<Arc<Remote>, Error> {
        self.here(op, &|| (), cancel)
    }

    fn here(&self, op: &Op, late: &dyn Fn(), cancel: &Cancel) -> Result<Arc<Remote>, Error> {
        self.with(op, |known, step| {
            if let Some(remote) = &known.here {
                return Ok(Arc::clone(remote));
            }
            if cancel.is_cancelled() {
                return Err(Error::Interrupted);
            }
            let (source, content) = match op {
                Op::Http(http) => {
                    let (source, digest) = self.file(http, step, late, cancel)?;
                    known.file = Some(digest);
                    (source, file::content(http, &digest))
                }
                Op::Git(git) => {
                    let commit = self.known_commit(known, git, step, cancel)?;
                    let source = self.checkout(git, &commit, step, late, cancel)?;
                    (source, super::git::content(git, &commit))
                }
                other => return Err(unsupported(other)),
            };
            let remote = Arc::new(self.open(&source, content)?);
            known.here = Some(Arc::clone(&remote));
            Ok(remote)
        })
    }

    /// Does something with what is known of a source, and nobody else does meanwhile.
    fn with<T>(&self, op: &Op, work: impl FnOnce(&mut Known, u32) -> Result<T, Error>) -> Result<T, Error> {
        let id = StepId::of(op);
        let slot =
            Arc::clone(self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default());
        let mut known = slot.lock().unwrap_or_else(PoisonError::into_inner);
        known.op.get_or_insert_with(|| op.clone());
        work(&mut known, self.number(id, op))
    }

    /// Returns what sources turned out to be: their addresses, without what nobody must see, with a digest's algorithm and
    /// hexadecimal digits.
    pub(crate) fn materials(&self) -> Vec<(String, &'static str, String)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let slots: Vec<Arc<Slot>> = known.values().map(Arc::clone).collect();
        drop(known);
        let material = |slot: Arc<Slot>| {
            let known = slot.lock().unwrap_or_else(PoisonError::into_inner);
            let op = known.op.as_ref()?;
            let (algorithm, hex) = match (&known.commit, known.file) {
                (Some(resolved), _) => ("sha1", resolved.commit.to_string()),
                (None, Some(file)) => ("sha256", file.hex()),
                (None, None) => return None,
            };
            Some((title(op)?, algorithm, hex))
        };
        slots.into_iter().filter_map(material).collect()
    }

    fn known_commit(
        &self,
        known: &mut Known,
        op: &GitOp,
        step: u32,
        cancel: &Cancel,
    ) -> Result<Resolved, Error> {
        if let Some(commit) = &known.commit {
            return Ok(commit.clone());
        }
        let commit = self.commit(op, step, cancel)?;
        Ok(known.commit.insert(commit).clone())
    }

    fn open(&self, source: &SourceId, content: Digest) -> Result<Remote, Error> {
        let path = self.store.source_dir(source);
        let root =
            std::fs::File::open(&path).map_err(|error| kiln_core::IoError::new("open", &path, &error))?;
        Ok(Remote { tree: SourceTree::view(root.into(), ""), path, content })
    }

    /// Says for whom a source waits.
    fn waits(&self, step: u32, holder: &str) {
        self.reporter.emit(Event::StepWaiting { step, holder: Some(holder.to_owned()) });
    }

    fn number(&self, id: StepId, op: &Op) -> u32 {
        self.reporter.number(id, &title(op).unwrap_or_default(), None)
    }
}

/// Returns what a remote source is called in events: its address without what nobody must see.
pub(crate) fn title(op: &Op) -> Option<String> {
    match op {
        Op::Http(op) => Some(kiln_registry::redacted(&op.url)),
        Op::Git(op) => {
            let reference = op.reference.as_ref().map(|reference| format!("#{reference}"));
            Some(kiln_registry::redacted(&op.remote) + &reference.unwrap_or_default())
        }
        _ => None,
    }
}

fn unsupported(op: &Op) -> Error {
    Error::NoSuchContext { name: title(op).unwrap_or_default() }
}
