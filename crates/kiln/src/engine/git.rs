//! Git repositories: what a name means, and checkouts that are kept in the store by commit.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use kiln_core::{Cancel, Canonical, Digest, GitOp, Op, Purpose, Secret};
use kiln_git::{
    Access, Auth, CheckoutOptions, GitError, Http, HttpRequest, HttpResponse, Limits, Progress, Resolved, Ssh,
};
use kiln_registry::{Exchanger, Question, RegistryError, Timeouts};
use kiln_store::{RecordKind, SourceId, Store};
use serde::{Deserialize, Serialize};

use super::patience::Patience;
use crate::{BuildRequest, Error};

/// What a repository's name meant when it was last needed. Nobody reads it but collection, which keeps the checkout for it.
#[derive(Serialize, Deserialize)]
struct Meant {
    source: SourceId,
}

/// A server may count objects for a while before it says anything.
const STALL: Duration = Duration::from_secs(120);

/// Fetches commits into the store.
pub(crate) struct Repositories<'a> {
    store: &'a Store,
    secrets: &'a BTreeMap<String, Secret>,
    http: Client,
    patience: Patience,
}

impl<'a> Repositories<'a> {
    /// Asks nobody yet.
    pub(crate) fn new(store: &'a Store, request: &'a BuildRequest) -> Self {
        let timeouts = Timeouts { stall: STALL, ..Timeouts::default() };
        let http = Client(Exchanger::new(request.registry.user_agent.clone(), timeouts));
        Self { store, secrets: &request.secrets, http, patience: Patience::of(request) }
    }

    /// Asks which commit is meant; nobody, if it was given whole.
    pub(crate) fn resolve(&self, op: &GitOp, cancel: &Cancel) -> Result<Resolved, Error> {
        let access = self.access(op, cancel);
        let resolved = kiln_git::resolve(&access, &op.remote, op.reference.as_deref())?;
        match &op.checksum {
            Some(expected) if !resolved.matches(expected) => Err(Error::WrongCommit {
                remote: op.remote.clone(),
                expected: expected.clone(),
                actual: resolved.commit.to_string(),
            }),
            _ => Ok(resolved),
        }
    }

    /// Fetches a commit, unless the store has it. Calls `begin` before the first byte.
    pub(crate) fn fetch(
        &self,
        op: &GitOp,
        resolved: &Resolved,
        begin: &mut dyn FnMut(),
        progress: &mut dyn FnMut(Progress<'_>),
        on_wait: &mut dyn FnMut(&str),
        cancel: &Cancel,
    ) -> Result<SourceId, Error> {
        let key = content(op, resolved);
        let id = SourceId::checkout(&key);
        if !self.store.has_source(&id) {
            let what = format!("fetch-{}", key.hex());
            let _turn = self.patience.turn(self.store, &what, on_wait, cancel)?;
            if !self.store.has_source(&id) {
                self.fetch_new(op, resolved, &id, begin, progress, cancel)?;
            }
        }
        // Also for a checkout that is there: another name may have meant it, or this one before it moved on and back.
        let mut name = Canonical::new("repository");
        Op::Git(op.clone()).encode(Purpose::Id, &mut name);
        self.store.put_record(RecordKind::Source, &name.finish().hex(), &Meant { source: id.clone() })?;
        Ok(id)
    }

    fn fetch_new(
        &self,
        op: &GitOp,
        resolved: &Resolved,
        id: &SourceId,
        begin: &mut dyn FnMut(),
        progress: &mut dyn FnMut(Progress<'_>),
        cancel: &Cancel,
    ) -> Result<(), Error> {
        begin();
        let access = self.access(op, cancel);
        let source = self.store.begin_source()?;
        let files = source.files();
        let options = CheckoutOptions {
            subdir: &op.subdir,
            keep_git_dir: op.keep_git_dir,
            submodules: op.submodules,
            // Beside the files: what is in it is gone before the source is moved to its place.
            scratch: files.parent().unwrap_or(&files),
        };
        kiln_git::checkout(&access, &op.remote, resolved, &options, &files, progress)?;
        Ok(source.publish(id)?)
    }

    fn access(&self, op: &GitOp, cancel: &Cancel) -> Access<'_> {
        Access {
            http: &self.http,
            auth: credentials(&op.remote, self.secrets),
            ssh: Ssh::default(),
            // A graph comes from a Dockerfile: nothing of this machine is for it.
            files: false,
            limits: Limits::default(),
            cancel: cancel.clone(),
        }
    }
}

/// Returns what a checkout is worth in a key: the commit and what is taken of it. A kept `.git` tells which name was asked
/// for, and where.
pub(crate) fn content(op: &GitOp, resolved: &Resolved) -> Digest {
    let mut out = Canonical::new("checkout");
    out.str(&resolved.commit.to_string()).str(&op.subdir).bool(op.submodules);
    let kept = op.keep_git_dir && op.subdir.is_empty();
    out.option(kept.then_some(resolved), |resolved, out| {
        out.str(&op.remote);
        out.option(resolved.full_ref.as_ref(), |name, out| {
            out.str(name);
        });
        out.option(resolved.tag.as_ref(), |tag, out| {
            out.str(&tag.to_string());
        });
    });
    out.finish()
}

/// The secrets that BuildKit knows: `GIT_AUTH_HEADER.HOST`, `GIT_AUTH_TOKEN.HOST`, and without host for the main repository;
/// the first that there is counts.
fn credentials(remote: &str, secrets: &BTreeMap<String, Secret>) -> BTreeMap<String, Auth> {
    let mut found = BTreeMap::new();
    let text = |secret: &Secret| String::from_utf8_lossy(secret.bytes()).trim().to_owned();
    let main = kiln_git::remote_host(remote);
    let kinds = [("GIT_AUTH_HEADER", Auth::header as fn(&str) -> Auth), ("GIT_AUTH_TOKEN", Auth::token)];
    for (name, auth) in kinds {
        for (id, secret) in secrets {
            if let Some(host) = id.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')) {
                found.entry(host.to_owned()).or_insert_with(|| auth(&text(secret)));
            }
        }
    }
    for (name, auth) in kinds {
        if let (Some(host), Some(secret)) = (&main, secrets.get(name)) {
            found.entry(host.clone()).or_insert_with(|| auth(&text(secret)));
        }
    }
    found
}

/// What `kiln-git` speaks HTTP through.
struct Client(Exchanger);

impl Http for Client {
    fn exchange(&self, request: HttpRequest, cancel: &Cancel) -> io::Result<HttpResponse> {
        let HttpRequest { url, headers, body } = request;
        let reply = self.0.ask(Question { url, headers, body }, cancel).map_err(|error| match error {
            // The repository's name stands before it.
            RegistryError::Unreachable { cause, .. } => io::Error::other(cause),
            error => io::Error::other(error),
        })?;
        let text = |name: &str| reply.header(name).map(str::to_owned);
        let (status, location, content_type) = (reply.status, text("location"), text("content-type"));
        Ok(HttpResponse { status, location, content_type, body: Box::new(reply.body) })
    }
}

impl From<GitError> for Error {
    fn from(error: GitError) -> Self {
        match error {
            GitError::Cancelled => Self::Interrupted,
            error => Self::Git(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_for_hosts() {
        let secrets = [
            ("GIT_AUTH_TOKEN", "general"),
            ("GIT_AUTH_TOKEN.one.example", "one"),
            ("GIT_AUTH_HEADER.one.example", "Bearer one"),
            ("GIT_AUTH_TOKEN.two.example:8443", "two\n"),
            ("GIT_AUTH_TOKENS", "x"),
        ];
        let secrets: BTreeMap<String, Secret> = secrets
            .into_iter()
            .map(|(id, value)| (id.to_owned(), Secret::new(value.as_bytes().to_vec()).unwrap()))
            .collect();
        let of = |remote: &str| credentials(remote, &secrets);
        let main = of("https://main.example/a.git");
        assert_eq!(main.get("main.example"), Some(&Auth::token("general")));
        assert_eq!(main.get("one.example"), Some(&Auth::header("Bearer one")));
        assert_eq!(main.get("two.example:8443"), Some(&Auth::token("two")));
        assert_eq!(main.len(), 3);
        assert_eq!(of("https://one.example/a.git").get("one.example"), Some(&Auth::header("Bearer one")));
        assert_eq!(of("git@main.example:a").len(), 2);
    }

    #[test]
    fn only_what_is_written_counts() {
        let op = |remote: &str, keep_git_dir, subdir: &str| GitOp {
            remote: remote.to_owned(),
            reference: None,
            subdir: subdir.to_owned(),
            checksum: None,
            keep_git_dir,
            submodules: true,
        };
        let resolved = |name: Option<&str>| Resolved {
            commit: "0123456789012345678901234567890123456789".parse().unwrap(),
            tag: None,
            full_ref: name.map(str::to_owned),
        };
        let (branch, commit) = (resolved(Some("refs/heads/main")), resolved(None));
        let plain = content(&op("https://a/x.git", false, ""), &branch);
        assert_eq!(plain, content(&op("https://mirror/x.git", false, ""), &commit));
        assert_ne!(plain, content(&op("https://a/x.git", false, "d"), &branch));
        let kept = content(&op("https://a/x.git", true, ""), &branch);
        assert_ne!(kept, plain);
        assert_ne!(kept, content(&op("https://mirror/x.git", true, ""), &branch));
        assert_ne!(kept, content(&op("https://a/x.git", true, ""), &commit));
        let directory = content(&op("https://a/x.git", false, "d"), &branch);
        assert_eq!(directory, content(&op("https://b/x.git", true, "d"), &commit), "there is no .git");
    }
}
