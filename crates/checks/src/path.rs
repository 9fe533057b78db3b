//! Absolute paths as text.

/// Returns `path` taken from `base`: absolute, without `.`, `..`, doubled and trailing slashes.
/// <https://pkg.go.dev/path#Clean>
pub(crate) fn resolve(base: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { base };
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Whether `path` is `dir` or in it.
pub(crate) fn is_in(path: &str, dir: &str) -> bool {
    dir == "/" || path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether one of two is in the other.
pub(crate) fn overlap(a: &str, b: &str) -> bool {
    is_in(a, b) || is_in(b, a)
}
