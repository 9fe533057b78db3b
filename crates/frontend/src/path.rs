//! Paths as a Dockerfile writes them.

pub(crate) use kiln_core::resolve_path as resolve;

/// Returns whether a destination is written as a directory: `x/`, `.`, `x/.`, or nothing at all.
pub(crate) fn is_directory(path: &str) -> bool {
    path.is_empty() || path == "." || path.ends_with('/') || path.ends_with("/.")
}
