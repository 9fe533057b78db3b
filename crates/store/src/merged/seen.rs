//! What a tree looked like when a step began: enough to find whatever the step changed without reading any file.
//!
//! A change of a file, or of what is known of it, moves its change time, and no process can set that back; another file in
//! its place has another inode or a later change time. Times move in ticks, so what changed in the tick in which the tree
//! was looked at is not believed: like an index of git's, such an entry is "racy" and its file is compared.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use kiln_core::{Cancel, IoError, IoResultExt as _};
use rustix::fs::{Dir, Mode, openat};

use super::{interrupted, under};
use crate::deep::{below, with_stack};
use crate::error::StoreError;
use crate::layer::DIRECTORY;
use crate::tree::{FileStat, Kind, Time};

/// One file of a tree; a directory with what was in it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) inode: u64,
    /// How many names the file had.
    pub(super) names: u32,
    /// None if it cannot be believed.
    changed: Option<Time>,
    /// Sorted by name. None for what is no directory.
    pub(super) entries: Option<Box<[(CString, Seen)]>>,
}

impl Seen {
    /// Looks at a tree that nobody changes. `probe` is a path on the same file system, where a file can be made for a moment.
    pub(super) fn take(
        root: &OwnedFd,
        label: &Path,
        probe: &Path,
        cancel: &Cancel,
    ) -> Result<Self, StoreError> {
        let now = now(probe)?;
        let root = root.try_clone().at("open", label)?;
        with_stack(|| directory(root, label, 0, now, cancel).map(|(seen, _)| seen))
    }

    /// Whether the file is the one that was seen, unchanged.
    pub(super) fn is(&self, stat: &FileStat) -> bool {
        self.inode == stat.ino && self.changed == Some(stat.ctime)
    }

    /// Returns what was in it under a name.
    pub(super) fn get(&self, name: &CString) -> Option<&Self> {
        let entries = self.entries.as_deref()?;
        let at = entries.binary_search_by(|(known, _)| known.cmp(name)).ok()?;
        Some(&entries[at].1)
    }

    fn of(stat: &FileStat, now: Time, entries: Option<Box<[(CString, Self)]>>) -> Self {
        Self {
            inode: stat.ino,
            names: stat.nlink,
            changed: (stat.ctime < now).then_some(stat.ctime),
            entries,
        }
    }
}

/// Gives the directory back.
fn directory(
    mut dir: OwnedFd,
    label: &Path,
    depth: usize,
    now: Time,
    cancel: &Cancel,
) -> Result<(Seen, OwnedFd), StoreError> {
    interrupted(cancel)?;
    let own = FileStat::of(&dir).at("stat", label)?;
    let mut entries = Vec::new();
    for name in names(&dir, label)? {
        let path = under(label, &name);
        let stat = FileStat::at(&dir, &name).at("stat", &path)?;
        let seen = if stat.kind() == Kind::Dir {
            let child = openat(&dir, &name, DIRECTORY, Mode::empty()).at("open", &path)?;
            let walk = |child| directory(child, &path, depth + 1, now, cancel);
            let (seen, back, _) = below(dir, child, depth, label, walk)?;
            dir = back;
            seen
        } else {
            Seen::of(&stat, now, None)
        };
        entries.push((name, seen));
    }
    Ok((Seen::of(&own, now, Some(entries.into_boxed_slice())), dir))
}

/// Returns the names in a directory, sorted.
pub(super) fn names(dir: &OwnedFd, label: &Path) -> Result<Vec<CString>, IoError> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).at("read", label)? {
        let entry = entry.at("read", label)?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The file system's clock.
fn now(probe: &Path) -> Result<Time, IoError> {
    std::fs::write(probe, "").at("write", probe)?;
    let stat = FileStat::at(rustix::fs::CWD, probe).at("stat", probe)?;
    std::fs::remove_file(probe).at("remove", probe)?;
    Ok(stat.ctime)
}
