//! Takes away what was made only to mount something on it.
//!
//! A step's layer must not hold the empty directory that a cache mount needed, nor a new time on its parent, nor the
//! bare copy of a parent that overlay made for it; see docs/dockerfile.md, "Mount points".

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kiln_core::{IoError, IoResultExt};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// A modification time: seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Time(i64, i64);

impl Time {
    pub(crate) fn modified(stat: &rustix::fs::Stat) -> Self {
        Self(stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0))
    }

    fn of(metadata: &Metadata) -> Self {
        Self(metadata.mtime(), metadata.mtime_nsec())
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
        let mut changed = BTreeSet::new();
        let mut times = Vec::new();
        for parent in &self.parents {
            let path = root.join(&parent.path);
            if let Some(metadata) = stat(&path)? {
                let now = Time::of(&metadata);
                if now != parent.after {
                    changed.insert(parent.path.as_path());
                }
                times.push((path, if now == parent.after { parent.before } else { now }));
            }
        }
        for stub in self.made.iter().rev().filter(|stub| !changed.contains(stub.as_path())) {
            remove_if_empty(&root.join(stub))?;
        }
        for (path, time) in times {
            if stat(&path)?.is_some() {
                set_modified(&path, time)?;
            }
        }
        Ok(())
    }

    /// Removes from `upper` the stubs that are still empty. Their parents get their times back, unless the step changed
    /// them itself; and those that overlay copied from `lower` (lowest first) for the stub alone go, too.
    ///
    /// # Errors
    /// A file operation failed.
    pub(crate) fn remove(&self, upper: &Path, lower: &[PathBuf]) -> Result<(), IoError> {
        let mut parents = Vec::new();
        for parent in &self.parents {
            let path = upper.join(&parent.path);
            if let Some(metadata) = stat(&path)? {
                let now = Time::of(&metadata);
                parents.push((parent, path, if now == parent.after { parent.before } else { now }));
            }
        }
        for stub in self.made.iter().rev() {
            remove_if_empty(&upper.join(stub))?;
        }
        for (_, path, time) in &parents {
            set_modified(path, *time)?;
        }
        // Deepest first: a copy that goes makes the one above it empty.
        parents.sort_by_key(|(parent, ..)| std::cmp::Reverse(parent.path.components().count()));
        for (parent, ..) in &parents {
            for directory in parent.path.ancestors().filter(|path| !path.as_os_str().is_empty()) {
                if !remove_if_bare_copy(upper, lower, directory)? {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Removes a directory that overlay copied up, if nothing is in it and nothing about it differs.
fn remove_if_bare_copy(upper: &Path, lower: &[PathBuf], directory: &Path) -> Result<bool, IoError> {
    let copy = upper.join(directory);
    let Some(metadata) = stat(&copy)? else { return Ok(true) };
    let same = match topmost(lower, directory)? {
        Some((original, below)) => {
            let same = |of: fn(&Metadata) -> u64| of(&metadata) == of(&below);
            below.is_dir()
                && same(|m| m.mode().into())
                && same(|m| m.uid().into())
                && same(|m| m.gid().into())
                && Time::of(&metadata) == Time::of(&below)
                && attributes(&copy)? == attributes(&original)?
        }
        None => {
            Time::of(&metadata) == Time(0, 0)
                && metadata.mode() & 0o7777 == 0o755
                && (metadata.uid(), metadata.gid()) == (0, 0)
                && attributes(&copy)?.is_empty()
        }
    };
    let alike = same && fs::read_dir(&copy).at("list", &copy)?.next().is_none();
    if alike {
        let parent = copy.parent().unwrap_or(upper);
        let time = stat(parent)?.map(|metadata| Time::of(&metadata));
        fs::remove_dir(&copy).at("remove", &copy)?;
        if let Some(time) = time {
            set_modified(parent, time)?;
        }
    }
    Ok(alike)
}

/// The entry that the merged view of `lower` shows at `path`, for one that is known to be a directory there.
fn topmost(lower: &[PathBuf], path: &Path) -> Result<Option<(PathBuf, Metadata)>, IoError> {
    for layer in lower.iter().rev() {
        let path = layer.join(path);
        if let Some(metadata) = stat(&path)? {
            return Ok(Some((path, metadata)));
        }
    }
    Ok(None)
}

/// Extended attributes that matter for the layer. Of overlay's own only "opaque" does: it means that the step removed
/// the directory and made it anew.
fn attributes(path: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, IoError> {
    let mut names = vec![0; 4096];
    let length = loop {
        match rustix::fs::llistxattr(path, &mut names) {
            Err(rustix::io::Errno::RANGE) => names.resize(names.len() * 2, 0),
            Err(rustix::io::Errno::NOTSUP) => return Ok(BTreeMap::new()),
            other => break other.at("list attributes of", path)?,
        }
    };
    let mut found = BTreeMap::new();
    for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let overlays = name.starts_with(b"user.overlay.") || name.starts_with(b"trusted.overlay.");
        if name == b"security.selinux" || (overlays && !name.ends_with(b".opaque")) {
            continue;
        }
        let mut value = vec![0; 65_536];
        let length = rustix::fs::lgetxattr(path, name, &mut value).at("read attributes of", path)?;
        value.truncate(length);
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}

fn remove_if_empty(path: &Path) -> Result<(), IoError> {
    match stat(path)? {
        Some(metadata) if metadata.is_dir() => match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            other => other.at("remove", path),
        },
        Some(metadata) if metadata.is_file() && metadata.len() == 0 => {
            fs::remove_file(path).at("remove", path)
        }
        _ => Ok(()),
    }
}

fn stat(path: &Path) -> Result<Option<Metadata>, IoError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(IoError::new("stat", path, &error)),
    }
}

fn set_modified(path: &Path, time: Time) -> Result<(), IoError> {
    utimensat(CWD, path, &time.only(), AtFlags::SYMLINK_NOFOLLOW).at("set the time of", path)
}
