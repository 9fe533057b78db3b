//! The walk: getdents and statx from directory descriptors, entries into one arena.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_core::{IgnoreList, IoError, IoResultExt};
use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::selected::{Selected, name_in, push, set_children};
use super::stat::{FileStat, Kind};
use super::xattr::{self, Which};

/// What a walk may see.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    /// What one of them leaves out is left out.
    pub(super) filters: &'a [Filter<'a>],
    pub(super) modes: Modes,
    pub(super) xattrs: Which,
    /// Whether others may change the tree meanwhile: what vanishes is then left out.
    pub(super) live: bool,
}

/// Patterns that leave files out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filter<'a> {
    pub(super) patterns: &'a IgnoreList,
    /// The directory that they are relative to.
    pub(super) base: &'a Path,
    /// Whether they are the selection's own, and not .dockerignore's.
    pub(super) own: bool,
}

/// How much of a file is wanted.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    only_parent: bool,
    on_the_way: bool,
}

/// How permission bits of a source count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Modes {
    /// As they are.
    #[default]
    AsIs,
    /// As git would record them: 0755 for directories and what its owner may execute, else 0644. So that checkouts
    /// made under different umasks are equal (moby#32816).
    Git,
}

impl Modes {
    /// Returns whether the file counts with other bits than it has.
    fn apply(self, stat: &mut FileStat) -> bool {
        let bits = match (self, stat.kind()) {
            (Self::Git, Kind::Dir) => 0o755,
            (Self::Git, Kind::File) if stat.mode & 0o100 != 0 => 0o755,
            (Self::Git, Kind::File) => 0o644,
            _ => return false,
        };
        let other = stat.permissions() != bits;
        stat.mode = stat.mode & !0o7777 | bits;
        other
    }
}

/// Adds the file at `path` and all below it; returns its entry, or None if all of it is excluded.
pub(super) fn add(
    selected: &mut Selected,
    path: &Path,
    mut stat: FileStat,
    only_parent: bool,
    rules: Rules<'_>,
) -> Result<Option<u32>, IoError> {
    selected.other_modes |= rules.modes.apply(&mut stat);
    let name = path.file_name().unwrap_or_default();
    let first =
        push(&mut selected.names, &mut selected.entries, std::os::unix::ffi::OsStrExt::as_bytes(name), &stat);
    selected.entries[first as usize].only_parent = only_parent;
    let mut buffer = vec![MaybeUninit::uninit(); 64 << 10];
    // Directories still to be read. Depth first, so that few paths are held at once.
    let mut todo = Vec::new();
    if stat.kind() == Kind::Dir {
        todo.push((first, path.to_owned()));
    }
    while let Some((dir, path)) = todo.pop() {
        let children = read_dir(selected, dir, &path, rules, &mut buffer)?;
        for child in children {
            if selected.entry(child).kind() == Kind::Dir {
                todo.push((child, path.join(selected.name(child))));
            }
        }
    }
    drop_empty_parents(selected, first);
    Ok((!selected.entry(first).dropped).then_some(first))
}

/// Reads one directory: its children stand together in the arena, sorted by name.
fn read_dir(
    selected: &mut Selected,
    id: u32,
    path: &Path,
    rules: Rules<'_>,
    buffer: &mut [MaybeUninit<u8>],
) -> Result<std::ops::Range<u32>, IoError> {
    let fd = match selected.open_dir(path) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if rules.live => {
            selected.entries[id as usize].dropped = true;
            return Ok(0..0);
        }
        opened => opened.at("open", selected.full(path))?,
    };
    let start = selected.entries.len();
    list(&fd, buffer, &mut |name, file_type| {
        let Some(standing) = judge(rules.filters, path, name, &fd, file_type) else {
            selected.excluded += 1;
            return Ok(());
        };
        let mut stat = match FileStat::at(&fd, name) {
            Ok(stat) => stat,
            // Gone since it was listed.
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error),
        };
        selected.other_modes |= rules.modes.apply(&mut stat);
        let child = push(&mut selected.names, &mut selected.entries, name.to_bytes(), &stat);
        let entry = &mut selected.entries[child as usize];
        (entry.only_parent, entry.on_the_way) = (standing.only_parent, standing.on_the_way);
        Ok(())
    })
    .at("read", selected.full(path))?;
    let Selected { entries, names, .. } = selected;
    entries[start..].sort_unstable_by(|a, b| name_in(names, a).cmp(name_in(names, b)));
    let (start, end) = (start as u32, entries.len() as u32);
    set_children(&mut selected.entries[id as usize], start..end);
    let found = xattr::read(&fd, rules.xattrs).at("read attributes of", selected.full(path))?;
    if !found.is_empty() {
        let xattrs = selected.xattrs.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        xattrs.insert(id, Arc::new(found));
    }
    Ok(start..end)
}

/// Returns None for what is left out.
fn judge(
    filters: &[Filter<'_>],
    dir: &Path,
    name: &std::ffi::CStr,
    fd: &OwnedFd,
    file_type: FileType,
) -> Option<Standing> {
    let mut standing = Standing::default();
    if filters.is_empty() {
        return Some(standing);
    }
    let is_dir = || match file_type {
        FileType::Directory => true,
        FileType::Unknown => FileStat::at(fd, name).is_ok_and(|stat| stat.kind() == Kind::Dir),
        _ => false,
    };
    for filter in filters {
        let dir = dir.strip_prefix(filter.base).unwrap_or(dir);
        let path = dir.join(std::ffi::OsStr::new(&*name.to_string_lossy()));
        let path = path.to_string_lossy();
        if filter.patterns.is_excluded(&path) {
            if !is_dir() || filter.patterns.prunes(&path) {
                return None;
            }
            standing.only_parent = true;
            standing.on_the_way |= filter.own;
        }
    }
    Some(standing)
}

/// Directories that are here only for what is below them go if nothing is.
fn drop_empty_parents(selected: &mut Selected, first: u32) {
    if !selected.entries[first as usize..].iter().any(|entry| entry.only_parent) {
        return;
    }
    // Children stand after their parents, so backwards sees them first.
    for id in (first..selected.entries.len() as u32).rev() {
        if selected.entry(id).only_parent && selected.live_children(id).next().is_none() {
            selected.entries[id as usize].dropped = true;
            selected.excluded += 1;
        }
    }
}

/// Lists a directory, without `.` and `..`.
pub(crate) fn list(
    fd: &OwnedFd,
    buffer: &mut [MaybeUninit<u8>],
    see: &mut dyn FnMut(&std::ffi::CStr, FileType) -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    let mut dir = RawDir::new(fd, buffer);
    while let Some(entry) = dir.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            see(entry.file_name(), entry.file_type())?;
        }
    }
    Ok(())
}

/// Lists the names in a directory, sorted.
pub(crate) fn names(fd: &OwnedFd) -> rustix::io::Result<Vec<PathBuf>> {
    let mut buffer = vec![MaybeUninit::uninit(); 16 << 10];
    let mut names = Vec::new();
    list(fd, &mut buffer, &mut |name, _| {
        names.push(PathBuf::from(std::ffi::OsString::from(
            <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name.to_bytes()),
        )));
        Ok(())
    })?;
    names.sort_unstable();
    Ok(names)
}
