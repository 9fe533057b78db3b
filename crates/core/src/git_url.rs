//! Git repositories as BuildKit writes them: where `ADD`, a build context and `--build-context` accept one.
//! <https://docs.docker.com/build/concepts/context/#git-repositories>

mod parse;
mod query;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::GitOp;

/// A git repository with what is wanted of it.
///
/// Nothing in here but [`credentials`](Self::credentials) is secret: [`Display`](fmt::Display) and the [`GitOp`] do not have
/// them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitUrl {
    /// How it is reached.
    pub scheme: GitScheme,
    /// The repository's URL without fragment, query and credentials; `user@host:path` stays as it was written. The
    /// user name of ssh is no credential: it stays.
    pub remote: String,
    /// What it was written with, for http and https.
    pub credentials: Option<GitCredentials>,
    /// Branch, tag, full ref or commit; none means the remote's default branch.
    pub reference: Option<String>,
    /// The directory in it that is wanted; cleaned, without leading slash, empty for all.
    pub subdir: String,
    /// What the commit's id begins with; hexadecimal digits.
    pub checksum: Option<String>,
    /// Whether `.git` is kept, if the URL says.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched, if the URL says.
    pub submodules: Option<bool>,
    /// It was written `github.com/...`, as a directory might be called: a build context may be meant, never the source of
    /// an `ADD`.
    pub looks_like_path: bool,
}

/// How a git repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GitScheme {
    /// Smart HTTP without TLS.
    Http,
    /// Smart HTTP.
    Https,
    /// git's own protocol, without encryption.
    Git,
    /// Through the host's `ssh`; `ssh://` or `user@host:path`.
    Ssh,
    /// A directory of this machine. Whoever accepts one must know that it came from the user and not from a Dockerfile.
    File,
}

/// A user name and password out of a URL.
#[derive(Clone, PartialEq, Eq)]
pub struct GitCredentials {
    /// Often a token.
    pub user: String,
    /// May be empty.
    pub password: String,
}

/// What is wrong with a git URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{url} is no usable git URL: {reason}")]
pub struct GitUrlError {
    /// The repository, without credentials, query and fragment.
    pub url: String,
    /// Why not.
    pub reason: String,
}

impl GitUrl {
    /// Reads a git reference; none if the text is not one at all.
    ///
    /// One is `git://`, `ssh://`, `http://` or `https://` with a path that ends in `.git`, `[user@]host:path`,
    /// `github.com/...`, and (not in BuildKit) `file://` with a path that ends in `.git`. What is wanted of it stands in
    /// the fragment (`#ref:subdir`) or the query (`ref`, `tag`, `branch`, `commit` or `checksum`, `subdir`,
    /// `keep-git-dir`, `submodules`).
    ///
    /// The rules are those of BuildKit's `dfgitutil.ParseGitRef`:
    /// <https://github.com/moby/buildkit/blob/master/frontend/dockerfile/dfgitutil/git_ref.go>
    pub fn parse(text: &str) -> Option<Result<Self, GitUrlError>> {
        parse::parse(text)
    }

    /// Returns what a step does that stands for this; where the URL leaves a choice, `.git` is dropped and submodules
    /// are fetched.
    pub fn op(&self) -> GitOp {
        GitOp {
            remote: self.remote.clone(),
            reference: self.reference.clone(),
            subdir: self.subdir.clone(),
            checksum: self.checksum.clone(),
            keep_git_dir: self.keep_git_dir.unwrap_or(false),
            submodules: self.submodules.unwrap_or(true),
        }
    }
}

/// Undoes `%41` in a part of a URL; none if it is broken, or not UTF-8.
pub fn decode_percent(text: &str) -> Option<String> {
    query::decode(text, false)
}

impl fmt::Display for GitUrl {
    /// The repository with `#ref:subdir`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.remote)?;
        let reference = self.reference.as_deref().unwrap_or_default();
        match (reference, self.subdir.as_str()) {
            ("", "") => Ok(()),
            (reference, "") => write!(f, "#{reference}"),
            (reference, subdir) => write!(f, "#{reference}:{subdir}"),
        }
    }
}

impl fmt::Debug for GitCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GitCredentials(..)")
    }
}
