//! From a path or wildcard to the files it means.

use std::borrow::Cow;
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kiln_core::{IgnoreList, IoResultExt, Pattern, Selection};

use super::resolve::{Found, Resolved, Unresolved, look_up, resolve};
use super::selected::{Match, Selected, open_dir};
use super::stat::{FileStat, Kind};
use super::walk::{self, Filter, Rules};
use super::{SourceTree, TreeError, nearby};

pub(super) fn select(tree: &SourceTree, selection: &Selection) -> Result<Selected, TreeError> {
    let mut selected = Selected {
        root: Arc::clone(&tree.root),
        label: tree.label.clone(),
        matches: Vec::new(),
        entries: Vec::new(),
        names: Vec::new(),
        index: tree.index.clone(),
        which: tree.xattrs,
        xattrs: Mutex::new(HashMap::new()),
        excluded: 0,
        other_modes: false,
    };
    let exclude = IgnoreList::from_patterns(selection.exclude.iter().map(String::as_str))?;
    match &selection.parents {
        Some(pivot) => with_parents(tree, &mut selected, selection, pivot, &exclude)?,
        None => {
            let matches = Matches::of(tree, &selection.path, selection.wildcard)?;
            for path in &matches.paths {
                match add_match(tree, &mut selected, path, matches.shown(path, &selection.path), &exclude) {
                    // For a wildcard, what .dockerignore leaves out is just not there.
                    Err(TreeError::NotFound { excluded: Some(_), .. }) if matches.wild => {}
                    other => other?,
                }
            }
        }
    }
    selected.set_link_owners(&tree.links);
    Ok(selected)
}

/// What a path or wildcard stands for.
struct Matches {
    wild: bool,
    /// Relative to the root; links in the part before the first wildcard are resolved.
    paths: Vec<PathBuf>,
}

impl Matches {
    fn of(tree: &SourceTree, path: &str, wildcard: bool) -> Result<Self, TreeError> {
        // A context's paths cannot lead out of it: `..` at the top stays there.
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let Some(first_wild) = parts.iter().position(|part| wildcard && is_wild(part)) else {
            return Ok(Self { wild: false, paths: vec![PathBuf::from(path)] });
        };
        let base: PathBuf = parts[..first_wild].iter().collect();
        let base = follow(tree, &base, path)?;
        let mut paths = Vec::new();
        let patterns: Vec<Pattern> =
            parts[first_wild..].iter().map(|part| Pattern::new(part)).collect::<Result<_, _>>()?;
        if base.found == Found::Dir {
            expand(tree, &base.path, &patterns, &mut paths)?;
        }
        Ok(Self { wild: true, paths })
    }

    /// Returns what a match is called in messages: a literal path as it was written.
    fn shown<'a>(&self, path: &'a Path, written: &'a str) -> Cow<'a, str> {
        if self.wild { path.to_string_lossy() } else { Cow::Borrowed(written) }
    }
}

/// Returns whether a component is a wildcard. Go's copy does not take an escape alone for one, and looks such a name
/// up as it is written.
fn is_wild(part: &str) -> bool {
    let mut chars = part.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => drop(chars.next()),
            _ => {}
        }
    }
    false
}

/// Selects with `--parents`: each directory that the pivot names counts as copied, and of what is in it only that which
/// the rest of the path matches, with the directories that lead there.
fn with_parents(
    tree: &SourceTree,
    selected: &mut Selected,
    selection: &Selection,
    pivot: &str,
    exclude: &IgnoreList,
) -> Result<(), TreeError> {
    let Selection { path, wildcard, .. } = selection;
    let rest = path.strip_prefix(pivot).unwrap_or(path).trim_matches('/');
    let literal = !wildcard || !path.split('/').any(is_wild);
    let rest_as_pattern = if literal { escaped(rest) } else { rest.to_owned() };
    // All but what matches; nothing is left out if nothing is to match, as in `COPY --parents .`.
    let wanted = format!("!{rest_as_pattern}");
    let others = if rest.is_empty() { vec![] } else { vec!["**", wanted.as_str()] };
    let others = IgnoreList::from_patterns(others)?;
    let pivots = Matches::of(tree, pivot, *wildcard)?;
    for base in &pivots.paths {
        let base = follow(tree, base, path)?;
        if literal {
            require(tree, &base, rest, path)?;
        }
        if base.found != Found::Dir || is_excluded(tree, &base.path) {
            continue;
        }
        add_found(tree, selected, &base.path, &base.path, &[&others, exclude])?;
    }
    Ok(())
}

/// Makes sure that there is something at a literal path, and that the walk, which follows no link, gets there.
fn require(tree: &SourceTree, base: &Resolved, rest: &str, wanted: &str) -> Result<(), TreeError> {
    let path = base.path.join(rest);
    let target = resolve_path(tree, &path, false, wanted)?;
    if base.found == Found::Missing || target.found == Found::Missing {
        return Err(nearby::not_found(tree, &path, wanted, None));
    }
    if is_excluded(tree, &path) {
        return Err(nearby::not_found(tree, &path, wanted, why(tree, [&path, &target.path])));
    }
    let mut ancestors: Vec<&Path> = path.ancestors().skip(1).collect();
    ancestors.reverse();
    for parent in ancestors {
        if let Found::Link(_) = look_up(&tree.root, parent).at("stat", tree.label.join(parent))? {
            return Err(TreeError::ThroughLink { path: wanted.to_owned(), link: parent.to_owned() });
        }
    }
    Ok(())
}

/// Takes the special meaning from all characters of a path.
fn escaped(path: &str) -> String {
    path.chars()
        .flat_map(|c| matches!(c, '*' | '?' | '[' | '\\').then_some('\\').into_iter().chain([c]))
        .collect()
}

/// Adds what stands at a path; a link there is followed, inside the root.
fn add_match(
    tree: &SourceTree,
    selected: &mut Selected,
    path: &Path,
    wanted: Cow<'_, str>,
    exclude: &IgnoreList,
) -> Result<(), TreeError> {
    let target = follow(tree, path, &wanted)?;
    if target.found == Found::Missing {
        return Err(nearby::not_found(tree, path, &wanted, None));
    }
    if is_excluded(tree, path) || is_excluded(tree, &target.path) {
        return Err(nearby::not_found(tree, path, &wanted, why(tree, [path, &target.path])));
    }
    let name = path.file_name().unwrap_or_default();
    if target.found != Found::Dir && exclude.is_excluded(&name.to_string_lossy()) {
        return Ok(());
    }
    if add_found(tree, selected, path, &target.path, &[exclude])? {
        return Ok(());
    }
    Err(nearby::not_found(tree, path, &wanted, why(tree, [path, &target.path])))
}

/// Adds what stands at a resolved path, under the name that `path` has, without what .dockerignore and the selection's own
/// patterns leave out. Returns whether anything is left.
fn add_found(
    tree: &SourceTree,
    selected: &mut Selected,
    path: &Path,
    target: &Path,
    patterns: &[&IgnoreList],
) -> Result<bool, TreeError> {
    let full = tree.label.join(target);
    let stat = if target.as_os_str().is_empty() {
        FileStat::of(&tree.root)
    } else {
        FileStat::at(&tree.root, target)
    }
    .at("stat", &full)?;
    let own = patterns.iter().map(|patterns| Filter { patterns, base: target, own: true });
    let ignore = tree.ignore.iter().map(|patterns| Filter { patterns, base: Path::new(""), own: false });
    let filters: Vec<Filter<'_>> =
        ignore.chain(own).filter(|filter| *filter.patterns != IgnoreList::default()).collect();
    let rules = Rules { filters: &filters, modes: tree.modes, xattrs: tree.xattrs, live: tree.live };
    let only_parent = is_matched(tree, target);
    let Some(entry) = walk::add(selected, target, stat, only_parent, rules)? else { return Ok(false) };
    let name = path.file_name().unwrap_or_default().as_bytes().to_vec();
    selected.matches.push(Match { name, path: target.to_owned(), entry });
    Ok(true)
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

fn follow(tree: &SourceTree, path: &Path, wanted: &str) -> Result<Resolved, TreeError> {
    resolve_path(tree, path, true, wanted)
}

fn resolve_path(
    tree: &SourceTree,
    path: &Path,
    follow_last: bool,
    wanted: &str,
) -> Result<Resolved, TreeError> {
    resolve(path, follow_last, &mut |path| look_up(&tree.root, path)).map_err(|error| match error {
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
