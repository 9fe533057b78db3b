//! Absolute paths as text: Go's path.Clean and path.Join for what a Dockerfile writes.
//! <https://pkg.go.dev/path#Clean>

/// Returns `path` taken from `base`: absolute, without `.`, `..`, doubled and trailing slashes. `..` stops at `/`.
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

/// Returns whether a destination is written as a directory: `x/`, `.`, `x/.`, or nothing at all.
pub(crate) fn is_directory(path: &str) -> bool {
    path.is_empty() || path == "." || path.ends_with('/') || path.ends_with("/.")
}
