//! Absolute paths as text.

pub(crate) use kiln_core::resolve_path as resolve;

/// Whether `path` is `dir` or in it.
pub(crate) fn is_in(path: &str, dir: &str) -> bool {
    dir == "/" || path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether one of two is in the other.
pub(crate) fn overlap(a: &str, b: &str) -> bool {
    is_in(a, b) || is_in(b, a)
}
