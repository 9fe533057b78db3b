//! I/O errors that know what was done to which path, and that survive a trip between processes.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A failed system call or file operation: verb, path, errno.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoError {
    /// What was tried, as a verb: "open", "mount overlay on".
    pub op: String,
    /// To what.
    pub path: PathBuf,
    /// The errno, where the system gave one.
    pub errno: Option<i32>,
    /// The system's words.
    pub message: String,
}

impl IoError {
    /// Describes a failed operation.
    pub fn new(op: impl Into<String>, path: impl AsRef<Path>, source: &io::Error) -> Self {
        Self {
            op: op.into(),
            path: path.as_ref().to_owned(),
            errno: source.raw_os_error(),
            message: describe(source),
        }
    }

    /// Returns the kind of failure, as the standard library sorts them.
    pub fn kind(&self) -> io::ErrorKind {
        self.errno.map_or(io::ErrorKind::Other, |errno| io::Error::from_raw_os_error(errno).kind())
    }

    /// Returns whether the file system had no room (or no quota) left.
    pub fn is_full(&self) -> bool {
        matches!(self.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

impl std::fmt::Display for IoError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.op, self.path.display(), self.message)
    }
}

impl std::error::Error for IoError {}

/// Gives an [`io::Result`] its operation and path.
pub trait IoResultExt<T> {
    /// Names what was tried and on which path.
    ///
    /// # Errors
    /// The same failure, described.
    fn at(self, op: &str, path: impl AsRef<Path>) -> Result<T, IoError>;
}

impl<T, E: Into<io::Error>> IoResultExt<T> for Result<T, E> {
    fn at(self, op: &str, path: impl AsRef<Path>) -> Result<T, IoError> {
        self.map_err(|error| IoError::new(op, path, &error.into()))
    }
}

/// "Permission denied (os error 13)" -> "permission denied": lower case, without the number.
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if error.raw_os_error().is_some() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}
