//! Checks of what COPY and ADD take from the build context.

use kiln_core::IgnoreList;
use kiln_dockerfile::{Copy, Diagnostic, Rule};

use super::finding;
use crate::lowering::Lowering;
use crate::state::StageState;

/// A name that a pattern matches only if it matches every name.
const ANY_NAME: &str = "\u{1}";

/// A list with `!` is not looked at: what it brings back below a directory only a walk would tell, and the program does
/// not go for one either.
pub(super) fn sources(
    copy: &Copy,
    instruction: &str,
    state: &StageState,
    lowering: &Lowering<'_>,
) -> Vec<Diagnostic> {
    let ignore = lowering.ignore;
    if ignore.brings_back() {
        return Vec::new();
    }
    let check = |written: &kiln_dockerfile::Spanned<String>| {
        let path = clean(&lowering.words.quiet(written, &state.env));
        if is_remote(&path) || !is_ignored(ignore, &path) {
            return None;
        }
        let message = format!("{instruction} names `{path}`, which .dockerignore excludes");
        Some(finding(Rule::CopyIgnoredFile, written.span, message))
    };
    copy.sources.iter().filter_map(check).collect()
}

fn is_ignored(ignore: &IgnoreList, path: &str) -> bool {
    match path {
        "." | "/" => ignore.is_excluded(ANY_NAME),
        path => ignore.is_excluded(path),
    }
}

fn is_remote(path: &str) -> bool {
    ["http:/", "https:/", "git:/", "ssh:/", "git@"].iter().any(|prefix| path.starts_with(prefix))
}

/// As Go's `path.Clean`: no `.` and empty parts, `..` resolved where that is possible; a leading `/` stays.
fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    match (absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}
