//! The ignore matcher, held against the definition: the last match wins, a match of a directory is a match of all
//! below it, and what may be skipped holds nothing that is wanted.

use kiln_core::{IgnoreList, clean_path};

/// The last line is a path; those before are the file.
pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, path) = text.rsplit_once('\n').unwrap_or(("", text));
    let cleaned = IgnoreList::cleaned(file);
    let Ok(list) = IgnoreList::parse(file) else { return };
    let Ok(cleaned) = cleaned else { panic!("{file:?} is a list, and cannot be shown") };
    let path = clean_path(path);
    let path = path.trim_start_matches('/');
    if path.is_empty() || path == "." || path.starts_with("..") {
        return;
    }
    let excluded = list.is_excluded(path);
    assert_eq!(excluded, list.why(path).is_some());
    if let Some(expected) = by_definition(&cleaned, path) {
        assert_eq!(excluded, expected, "{cleaned:?} and {path:?}");
    }
    // Asked of each directory on the way down, it would be a walk of its own.
    for (at, _) in path.match_indices('/').take(4) {
        if list.prunes(&path[..at]) {
            assert!(excluded, "{:?} may be skipped, and {path:?} is wanted", &path[..at]);
        }
    }
}

/// Each pattern for itself, over the path and each directory above it. None if a pattern cannot stand for itself:
/// behind a `!`, another one is an ordinary character, and `./` is not cleaned away.
fn by_definition(patterns: &[String], path: &str) -> Option<bool> {
    let mut above: Vec<&str> = path.match_indices('/').map(|(at, _)| &path[..at]).collect();
    above.push(path);
    let mut excluded = false;
    for pattern in patterns {
        // Trimmed and cleaned once more with its `!`: `!../../a` is `a`.
        if clean_path(pattern.trim()) != *pattern {
            return None;
        }
        let (pattern, brings_back) = match pattern.strip_prefix('!') {
            Some(pattern) => (pattern, true),
            None => (pattern.as_str(), false),
        };
        if pattern.starts_with('!') || clean_path(pattern.trim()) != pattern {
            return None;
        }
        let Ok(alone) = IgnoreList::from_patterns([pattern]) else { return None };
        if above.iter().any(|path| alone.is_excluded(path)) {
            excluded = !brings_back;
        }
    }
    Some(excluded)
}
