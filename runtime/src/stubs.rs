//! Takes away what was made only to mount something on it.
//!
//! A step's layer must not hold the empty directory that a cache mount needed, nor a new time on its parent, nor the
//! bare copy of a parent that overlay made for it; see docs/dockerfile.md, "Mount points".

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_core::{IoError, IoResultExt};
use rustix::fs::{AtFlags, Stat, Timespec, Timestamps, UTIME_OMIT, unlinkat};
use serde::{Deserialize, Serialize};

use tree::{At, Tree};

#[cfg(test)]
mod tests;
mod tree;

/// A modification time: seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Time(i64, i64);

impl Time {
    pub(crate) fn modified(stat: &Stat) -> Self {
        Self(stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0))
    }

    /// To be set without the time of the last access.
    fn only(self) -> Timestamps {
        Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: self.0, tv_nsec: self.1 },
        }
    }
}

/// The time of the directories that lead to mount points and that no layer of the image has. With it, overlay's copy of
/// one is told from what a step made.
pub(crate) const MOUNT_POINT_TIMES: Timestamps = Timestamps {
    last_access: Timespec { tv_sec: 0, tv_nsec: 0 },
    last_modification: Timespec { tv_sec: 0, tv_nsec: 0 },
};

/// What was made in a root file system, as paths inside it without the leading slash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stubs {
    /// Files and directories, in the order in which they were made.
    made: Vec<PathBuf>,
    /// Directories in which that happened, and that were there before.
    parents: Vec<Parent>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Parent {
    path: PathBuf,
    /// Before the first stub in it.
    before: Time,
    /// After the last one.
    after: Time,
}

impl Stubs {
    /// Notes that `name` was made in `parent`, whose time went from `before` to `after`.
    pub(crate) fn made(&mut self, parent: &Path, name: &OsStr, before: Time, after: Time) {
        self.made.push(parent.join(name));
        if let Some(known) = self.parents.iter_mut().find(|known| known.path == parent) {
            known.after = after;
        } else if !self.made.iter().any(|made| made == parent) {
            self.parents.push(Parent { path: parent.to_owned(), before, after });
        }
    }

    /// Returns what was made, in the order in which it was.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.made.clone()
    }

    /// Gives the directories in which stubs were made their times back, by `set`; made ones get the time of those that no
    /// image has. Afterwards another time is the step's doing. `set` answers false for what it cannot reach.
    ///
    /// # Errors
    /// `set` failed.
    pub(crate) fn restore_times(
        &mut self,
        mut set: impl FnMut(&Path, Timestamps) -> io::Result<bool>,
    ) -> io::Result<()> {
        let above: BTreeSet<&Path> = self.made.iter().filter_map(|made| made.parent()).collect();
        for path in self.made.iter().filter(|made| above.contains(made.as_path())) {
            if set(path, MOUNT_POINT_TIMES)? {
                self.parents.push(Parent { path: path.clone(), before: Time(0, 0), after: Time(0, 0) });
            }
        }
        for parent in self.parents.iter_mut().filter(|parent| parent.before != parent.after) {
            if set(&parent.path, parent.before.only())? {
                parent.after = parent.before;
            }
        }
        Ok(())
    }

    /// Removes from a root file system that is one directory the stubs that the step left as they were. Their parents
    /// keep the times that they have, or get back the ones that they had.
    ///
    /// # Errors
    /// A file operation failed.
    pub(crate) fn remove_from_tree(&self, root: &Path) -> Result<(), IoError> {
        if self.made.is_empty() {
            return Ok(());
        }
        let root = Tree::open(root)?;
        let mut changed = BTreeSet::new();
        let mut times = Vec::new();
        for parent in &self.parents {
            if let At::Directory(directory) = root.at(&parent.path)? {
                let now = Time::modified(&root.stat(&directory, &parent.path)?);
                if now != parent.after {
                    changed.insert(parent.path.as_path());
                }
                times.push((parent, directory, if now == parent.after { parent.before } else { now }));
            }
        }
        for stub in self.made.iter().rev().filter(|stub| !changed.contains(stub.as_path())) {
            root.remove_if_empty(stub)?;
        }
        for (parent, directory, time) in times {
            root.set_times(&directory, &parent.path, time.only())?;
        }
        Ok(())
    }

    /// Removes from `upper` the stubs that are still empty. Their parents get their times back, unless the step changed
    /// them itself; and those that overlay copied from `lower` (lowest first) for the stub alone go, too.
    ///
    /// # Errors
    /// A file operation failed.
    pub(crate) fn remove(&self, upper: &Path, lower: &[PathBuf]) -> Result<(), IoError> {
        if self.made.is_empty() {
            return Ok(());
        }
        let upper = Tree::open(upper)?;
        let lower = lower.iter().map(|layer| Tree::open(layer)).collect::<Result<Vec<_>, _>>()?;
        let mut parents = Vec::new();
        for parent in &self.parents {
            if let At::Directory(directory) = upper.at(&parent.path)? {
                let now = Time::modified(&upper.stat(&directory, &parent.path)?);
                parents.push((parent, directory, if now == parent.after { parent.before } else { now }));
            }
        }
        for stub in self.made.iter().rev() {
            upper.remove_if_empty(stub)?;
        }
        for (parent, directory, time) in &parents {
            upper.set_times(directory, &parent.path, time.only())?;
        }
        // Deepest first: a copy that goes makes the one above it empty.
        parents.sort_by_key(|(parent, ..)| std::cmp::Reverse(parent.path.components().count()));
        for (parent, ..) in &parents {
            for directory in parent.path.ancestors().filter(|path| !path.as_os_str().is_empty()) {
                if !remove_if_bare_copy(&upper, &lower, directory)? {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Removes a directory that overlay copied up, if nothing is in it and nothing about it differs.
fn remove_if_bare_copy(upper: &Tree, lower: &[Tree], path: &Path) -> Result<bool, IoError> {
    let copy = match upper.at(path)? {
        At::Nothing => return Ok(true),
        At::Other => return Ok(false),
        At::Directory(copy) => copy,
    };
    let stat = upper.stat(&copy, path)?;
    let same = match topmost(lower, path)? {
        Some((layer, original)) => {
            let below = layer.stat(&original, path)?;
            (stat.st_mode, stat.st_uid, stat.st_gid) == (below.st_mode, below.st_uid, below.st_gid)
                && Time::modified(&stat) == Time::modified(&below)
                && upper.attributes(&copy, path)? == layer.attributes(&original, path)?
        }
        None => {
            Time::modified(&stat) == Time(0, 0)
                && stat.st_mode & 0o7777 == 0o755
                && (stat.st_uid, stat.st_gid) == (0, 0)
                && upper.attributes(&copy, path)?.is_empty()
        }
    };
    if !same || !upper.is_empty(&copy, path)? {
        return Ok(false);
    }
    let (Some(parent), Some(name)) = (upper.above(path)?, path.file_name()) else { return Ok(false) };
    let time = Time::modified(&upper.stat(&parent, path)?);
    unlinkat(&parent, name, AtFlags::REMOVEDIR).at("remove", upper.shown(path))?;
    upper.set_times(&parent, path, time.only())?;
    Ok(true)
}

/// The directory that the merged view of `lower` shows at `path`, for what is known to be one there.
fn topmost<'a>(lower: &'a [Tree], path: &Path) -> Result<Option<(&'a Tree, OwnedFd)>, IoError> {
    for layer in lower.iter().rev() {
        match layer.at(path)? {
            At::Nothing => {}
            At::Other => return Ok(None),
            At::Directory(found) => return Ok(Some((layer, found))),
        }
    }
    Ok(None)
}
