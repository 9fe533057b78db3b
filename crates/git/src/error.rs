//! What can go wrong with a repository. No variant holds a credential: remotes are named without.

use kiln_core::IoError;
use serde::{Deserialize, Serialize};

/// Why a commit could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum GitError {
    /// A remote of a kind that is not read.
    #[error("{remote} cannot be fetched: {reason}")]
    Unsupported {
        /// Which.
        remote: String,
        /// Why not.
        reason: String,
    },
    /// No connection, or one that broke.
    #[error("{remote} cannot be reached: {cause}")]
    Unreachable {
        /// Whom.
        remote: String,
        /// The system's words.
        cause: String,
    },
    /// It wants credentials, or others.
    #[error("{remote} {}", credentials.said())]
    Unauthorized {
        /// Who.
        remote: String,
        /// What it got.
        credentials: Credentials,
    },
    /// There is no repository.
    #[error("{remote} is no git repository{}", said(detail))]
    NoRepository {
        /// Where.
        remote: String,
        /// The server's words.
        detail: String,
    },
    /// A server that speaks otherwise than git does.
    #[error("{remote} answers wrongly: {reason}")]
    Protocol {
        /// Who.
        remote: String,
        /// How.
        reason: String,
    },
    /// The server's own refusal.
    #[error("{remote} refuses: {message}")]
    Refused {
        /// Who.
        remote: String,
        /// In its words.
        message: String,
    },
    /// A repository without a commit.
    #[error("{remote} has no commits")]
    Empty {
        /// Which.
        remote: String,
    },
    /// Neither branch nor tag nor ref.
    #[error("{remote} has no ref {reference}{}", near_names(near))]
    NoSuchRef {
        /// Where.
        remote: String,
        /// Asked for.
        reference: String,
        /// Names like it.
        near: Vec<String>,
    },
    /// It does not have the commit, or gives it to nobody.
    #[error("{remote} has no commit {commit}")]
    NoSuchCommit {
        /// Where.
        remote: String,
        /// Asked for.
        commit: String,
    },
    /// The commit has other files.
    #[error("{remote} has no directory {subdir} in commit {commit}")]
    NoSuchDirectory {
        /// Where.
        remote: String,
        /// In which commit.
        commit: String,
        /// Asked for.
        subdir: String,
    },
    /// Objects that are damaged, missing or of the wrong kind.
    #[error("what {remote} sends is not sound: {reason}")]
    Pack {
        /// Who.
        remote: String,
        /// In which way.
        reason: String,
    },
    /// A path in a tree that no honest repository has.
    #[error("{remote} has a file that must not be written, {path:?}: {reason}")]
    Path {
        /// Where.
        remote: String,
        /// What it is called.
        path: String,
        /// Why not.
        reason: String,
    },
    /// More than [`Limits`](crate::Limits) allow.
    #[error("{remote} is too large: {what}")]
    TooLarge {
        /// Which.
        remote: String,
        /// What is, with the limit.
        what: String,
    },
    /// A submodule could not be had.
    #[error("submodule {path}: {error}")]
    Submodule {
        /// Where in the repository above it.
        path: String,
        /// Why.
        error: Box<GitError>,
    },
    /// `.gitmodules` does not tell what is needed.
    #[error(".gitmodules of {remote}: {reason}")]
    Modules {
        /// Of which repository.
        remote: String,
        /// What is wrong.
        reason: String,
    },
    /// The file system.
    #[error(transparent)]
    Io(#[from] IoError),
    /// The build was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl GitError {
    /// Returns the failure that matters: of a submodule, its own.
    pub fn root(&self) -> &Self {
        match self {
            Self::Submodule { error, .. } => error.root(),
            other => other,
        }
    }
}

fn near_names(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; there are {}", near.join(", ")) }
}

fn said(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}

/// What a server was shown that denies access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credentials {
    /// There are none for it.
    None,
    /// There are some, but everybody on the way could read them.
    Withheld,
    /// Those that there are.
    Sent,
}

impl Credentials {
    fn said(self) -> &'static str {
        match self {
            Self::None => "does not exist or needs credentials",
            Self::Withheld => "needs credentials, which are sent over https only",
            Self::Sent => "does not accept the credentials that it got",
        }
    }
}

/// Other people's words, fit for a terminal: one line, no control characters, not endless.
pub(crate) fn plain(text: &str) -> String {
    let clean: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    clean.trim().to_owned()
}
