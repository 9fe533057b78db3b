//! From a path or wildcard to the files it means.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kiln_core::{IoResultExt, Pattern, Selection};

use super::resolve::{Found, Unresolved, look_up, resolve};
use super::selected::{Match, Selected, open_dir};
use super::stat::{FileStat, Kind};
use super::walk::{self, Rules};
use super::{SourceTree, TreeError, nearby};

pub(super) fn select(tree: &SourceTree, selection: &Selection) -> Result<Selected, TreeError> {
    let mut selected = Selected {
        root: Arc::clone(&tree.root),
        label: tree.label.clone(),
        matches: Vec::new(),
        entries: Vec::new(),
        names: Vec::new(),
        index: tree.index.clone(),
        xattrs: Mutex::new(HashMap::new()),
        excluded: 0,
    };
    // A context's paths cannot lead out of it: `..` at the top stays there.
    let parts: Vec<&str> = selection.path.split('/').filter(|part| !part.is_empty()).collect();
    let first_wild = parts.iter().position(|part| selection.wildcard && Pattern::is_wildcard(part));
    let Some(first_wild) = first_wild else {
        add_match(tree, &mut selected, Path::new(&selection.path), &selection.path)?;
        return Ok(selected);
    };
    let base: PathBuf = parts[..first_wild].iter().collect();
    let base = follow(tree, &base, &selection.path)?;
    if base.found == Found::Dir {
        let patterns: Vec<Pattern> =
            parts[first_wild..].iter().map(|part| Pattern::new(part)).collect::<Result<_, _>>()?;
        let mut paths = Vec::new();
        expand(tree, &base.path, &patterns, &mut paths)?;
        for path in paths {
            match add_match(tree, &mut selected, &path, &path.to_string_lossy()) {
                // For a wildcard, what .dockerignore leaves out is just not there.
                Err(TreeError::NotFound { excluded: Some(_), .. }) => {}
                other => other?,
            }
        }
    }
    Ok(selected)
}

/// Adds what stands at a literal path; a link there is followed, inside the root.
fn add_match(tree: &SourceTree, selected: &mut Selected, path: &Path, wanted: &str) -> Result<(), TreeError> {
    let target = follow(tree, path, wanted)?;
    if target.found == Found::Missing {
        return Err(nearby::not_found(tree, path, wanted, None));
    }
    if is_excluded(tree, path) || is_excluded(tree, &target.path) {
        return Err(nearby::not_found(tree, path, wanted, why(tree, [path, &target.path])));
    }
    let full = tree.label.join(&target.path);
    let stat = if target.path.as_os_str().is_empty() {
        FileStat::of(&tree.root)
    } else {
        FileStat::at(&tree.root, &target.path)
    }
    .at("stat", &full)?;
    let rules =
        Rules { ignore: tree.ignore.as_ref(), modes: tree.modes, xattrs: tree.xattrs, live: tree.live };
    let only_parent = is_matched(tree, &target.path);
    let target_path = target.path;
    match walk::add(selected, &target_path, stat, only_parent, rules)? {
        Some(entry) => {
            let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
            selected.matches.push(Match { name, path: target_path, entry });
            Ok(())
        }
        None => Err(nearby::not_found(tree, path, wanted, why(tree, [path, &target_path]))),
    }
}

/// Collects what matches the patterns, one per component, below a directory; sorted. Links are not followed on the
/// way, as in Go's filepath.Walk.
fn expand(
    tree: &SourceTree,
    dir: &Path,
    patterns: &[Pattern],
    out: &mut Vec<PathBuf>,
) -> Result<(), TreeError> {
    let [pattern, rest @ ..] = patterns else { return Ok(()) };
    let full = tree.label.join(dir);
    let fd = open_dir(tree.root(), dir).at("open", &full)?;
    for name in walk::names(&fd).at("read", &full)? {
        if !pattern.matches(&name.to_string_lossy()) {
            continue;
        }
        let path = dir.join(&name);
        if rest.is_empty() {
            out.push(path);
        } else if FileStat::at(&fd, &name).is_ok_and(|stat| stat.kind() == Kind::Dir) {
            expand(tree, &path, rest, out)?;
        }
    }
    Ok(())
}

fn follow(tree: &SourceTree, path: &Path, wanted: &str) -> Result<super::resolve::Resolved, TreeError> {
    resolve(path, true, &mut |path| look_up(&tree.root, path)).map_err(|error| match error {
        Unresolved::Loop => TreeError::LinkLoop { path: wanted.to_owned() },
        Unresolved::NotDirectory(file) => TreeError::NotDirectory { path: wanted.to_owned(), file },
        Unresolved::Lookup(errno) => {
            TreeError::Io(kiln_core::IoError::new("stat", tree.label.join(path), &errno.into()))
        }
    })
}

/// Returns whether .dockerignore matches a path at all.
fn is_matched(tree: &SourceTree, path: &Path) -> bool {
    let Some(ignore) = &tree.ignore else { return false };
    !path.as_os_str().is_empty() && ignore.is_excluded(&path.to_string_lossy())
}

/// Returns the line of .dockerignore that leaves out one of two ways to a file.
fn why(tree: &SourceTree, paths: [&Path; 2]) -> Option<usize> {
    let ignore = tree.ignore.as_ref()?;
    // Excluded, so there is a line; 0 would say that there is none.
    Some(paths.iter().find_map(|path| ignore.why(&path.to_string_lossy())).unwrap_or_default())
}

/// Returns whether a path is left out with all below it.
pub(super) fn is_excluded(tree: &SourceTree, path: &Path) -> bool {
    let Some(ignore) = &tree.ignore else { return false };
    let may_hold_more = || {
        FileStat::at(&tree.root, path).is_ok_and(|stat| stat.kind() == Kind::Dir)
            && !ignore.prunes(&path.to_string_lossy())
    };
    is_matched(tree, path) && !may_hold_more()
}
