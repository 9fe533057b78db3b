//! Resolving a path inside a root directory, as a process with that root would.
//!
//! By hand and not by openat2(2) alone, because callers need the resolved path: to ask .dockerignore about it, and
//! to make what is missing. What is then opened by that path is opened with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::stat::{FileStat, Kind};

/// As many links as Linux follows in one path (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// What stands at a path whose directories are all real.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing.
    Missing,
    /// A directory.
    Dir,
    /// A symbolic link to this.
    Link(Vec<u8>),
    /// Any other file.
    Other,
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Relative to the root, free of links and of `..`; empty for the root itself.
    pub(crate) path: PathBuf,
    /// What is there; never a link if the last component was to be followed.
    pub(crate) found: Found,
}

/// Why a path leads nowhere.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unresolved<E> {
    /// More than 40 links.
    Loop,
    /// A component before the last is a file; its path.
    NotDirectory(PathBuf),
    /// The look-up failed.
    Lookup(E),
}

/// Follows `path` from the root. Components after a missing one are taken as they are written, as for a path that
/// is about to be made.
pub(crate) fn resolve<E>(
    path: &Path,
    follow_last: bool,
    lookup: &mut dyn FnMut(&Path) -> Result<Found, E>,
) -> Result<Resolved, Unresolved<E>> {
    let mut todo: Vec<OsString> = Vec::new();
    push_components(&mut todo, path.as_os_str().as_bytes());
    let mut at = PathBuf::new();
    let mut found = Found::Dir;
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == ".." {
            at.pop();
            found = if at.as_os_str().is_empty() {
                Found::Dir
            } else {
                lookup(&at).map_err(Unresolved::Lookup)?
            };
            continue;
        }
        match found {
            Found::Missing => {
                at.push(name);
                continue;
            }
            Found::Dir => {}
            Found::Link(_) | Found::Other => return Err(Unresolved::NotDirectory(at)),
        }
        let next = at.join(&name);
        found = lookup(&next).map_err(Unresolved::Lookup)?;
        match &found {
            Found::Link(target) if follow_last || !todo.is_empty() => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Unresolved::Loop);
                }
                if target.first() == Some(&b'/') {
                    at = PathBuf::new();
                }
                push_components(&mut todo, target);
                found = Found::Dir;
            }
            _ => at = next,
        }
    }
    Ok(Resolved { path: at, found })
}

/// Puts the components on the stack, the first on top.
fn push_components(todo: &mut Vec<OsString>, path: &[u8]) {
    for part in path.rsplit(|&b| b == b'/') {
        if !part.is_empty() && part != b"." {
            todo.push(OsStr::from_bytes(part).to_owned());
        }
    }
}

/// Looks a path up in a directory whose file system nobody changes meanwhile.
pub(crate) fn look_up(root: impl AsFd, path: &Path) -> rustix::io::Result<Found> {
    match FileStat::at(&root, path) {
        Ok(stat) => Ok(match stat.kind() {
            Kind::Dir => Found::Dir,
            Kind::Symlink => {
                let target = rustix::fs::readlinkat(&root, path, Vec::new())?;
                Found::Link(target.into_bytes())
            }
            _ => Found::Other,
        }),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(Found::Missing),
        Err(error) => Err(error),
    }
}
