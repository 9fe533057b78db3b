//! A step's layer says how the tree differs from the one below, not how it came to be so.
//!
//! Overlay copies a file up when it is opened for writing (a lock file), or when its owner is set to what it was; it
//! hides a directory that was removed and made again, and leaves out of sight what is the same in both. A step without
//! overlay leaves no such traces. So they are taken out, and the layer is the same however the step was run; and
//! `chown -R` over what has that owner already adds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_core::IoResultExt as _;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, fremovexattr, futimens, mknodat,
    openat, unlinkat,
};

use super::archive::MAX_PATH;
use super::same::same;
use super::stack::{Stack, is_deletion};
use super::{DIRECTORY, OPAQUE, is_opaque};
use crate::deep::{self, DEEP, with_stack};
use crate::error::StoreError;
use crate::tree::{FileStat, Time};

/// Takes out of the tree `upper` what is the same in `below` (trees, lowest first). Files at `other_owner` belong to
/// somebody else than below, although the file system cannot say so.
pub(super) fn take_out(
    upper: &Path,
    below: &[PathBuf],
    other_owner: &BTreeSet<PathBuf>,
) -> Result<(), StoreError> {
    let root = openat(CWD, upper, DIRECTORY, Mode::empty()).at("open", upper)?;
    let walk = Walk { upper, other_owner };
    walk.directory(root, Path::new(""), 0, &Stack::open(below)?, false).map(drop)
}

struct Walk<'a> {
    upper: &'a Path,
    other_owner: &'a BTreeSet<PathBuf>,
}

impl Walk<'_> {
    /// `hides`: whether nothing of `below` is seen through it. Returns whether anything is left in it, and the directory.
    fn directory(
        &self,
        mut dir: OwnedFd,
        path: &Path,
        depth: usize,
        below: &Stack,
        hides: bool,
    ) -> Result<(bool, OwnedFd), StoreError> {
        let length = path.as_os_str().len();
        if length > MAX_PATH {
            return Err(StoreError::LongPath { path: path.to_owned(), length });
        }
        let full = self.upper.join(path);
        let mut names = BTreeMap::new();
        for entry in Dir::read_from(&dir).at("read", &full)? {
            let entry = entry.at("read", &full)?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                let kind = match entry.file_type() {
                    FileType::Unknown => {
                        let stat = FileStat::at(&dir, entry.file_name()).at("stat in", &full)?;
                        FileType::from_raw_mode(stat.mode)
                    }
                    known => known,
                };
                names.insert(entry.file_name().to_owned(), kind);
            }
        }
        let opaque = is_opaque(&dir).at("read xattrs of", &full)?;
        if opaque {
            fremovexattr(&dir, OPAQUE).at("remove xattr of", &full)?;
        }
        let time = FileStat::of(&dir).at("stat", &full)?.mtime;
        let mut gone = 0;
        for (name, kind) in &names {
            let inside = path.join(OsStr::from_bytes(name.to_bytes()));
            let taken_out = match kind {
                FileType::Directory => {
                    let (taken_out, back) = self.child(dir, name, &inside, depth, below, hides || opaque)?;
                    dir = back;
                    taken_out
                }
                _ if below.is_empty() => false,
                _ => self.file(&dir, name, &inside, below).at("compare", self.upper.join(inside))?,
            };
            gone += usize::from(taken_out);
        }
        let mut hidden = 0;
        if hides || opaque {
            for name in below.names().at("read below", &full)? {
                if !names.contains_key(&name) {
                    let made = mknodat(&dir, &name, FileType::CharacterDevice, Mode::empty(), 0);
                    made.at("create whiteout in", &full)?;
                    hidden += 1;
                }
            }
        }
        if gone + hidden > 0 {
            set_modified(&dir, time).at("set time of", &full)?;
        }
        Ok((names.len() + hidden > gone, dir))
    }

    /// Returns whether the directory was taken out, and the one that it is in.
    fn child(
        &self,
        dir: OwnedFd,
        name: &CStr,
        path: &Path,
        depth: usize,
        below: &Stack,
        hides: bool,
    ) -> Result<(bool, OwnedFd), StoreError> {
        let full = self.upper.join(path);
        let merged = below.child(name).at("open below", &full)?;
        let child = openat(&dir, name, DIRECTORY, Mode::empty()).at("open", &full)?;
        let walk = |child| {
            let deeper = || self.directory(child, path, depth + 1, &merged, hides);
            if depth == DEEP { with_stack(deeper) } else { deeper() }
        };
        let (left, dir, child) = deep::below(dir, child, depth, &full, walk)?;
        let Some(top) = merged.top().filter(|_| !left) else { return Ok((false, dir)) };
        let alike = || {
            let (own, original) = (FileStat::of(&child)?, FileStat::of(top)?);
            same((dir.as_fd(), name, &own), (top, c".", &original))
        };
        let alike = alike().at("compare", &full)?;
        if alike {
            unlinkat(&dir, name, AtFlags::REMOVEDIR).at("remove", full)?;
        }
        Ok((alike, dir))
    }

    /// Returns whether the file, which is no directory, was taken out.
    fn file(&self, dir: &OwnedFd, name: &CStr, path: &Path, below: &Stack) -> rustix::io::Result<bool> {
        let stat = FileStat::at(dir, name)?;
        let gone = match below.find(name)? {
            // Nothing there that it could hide.
            None => is_deletion(&stat),
            Some((lower, original)) => {
                !is_deletion(&stat)
                    // Another name of it is new.
                    && stat.nlink == 1
                    && !self.other_owner.contains(path)
                    && same((dir.as_fd(), name, &stat), (lower, name, &original))?
            }
        };
        if gone {
            unlinkat(dir, name, AtFlags::empty())?;
        }
        Ok(gone)
    }
}

/// Sets the time of a directory after something in it was taken out or put in.
fn set_modified(dir: &OwnedFd, time: Time) -> rustix::io::Result<()> {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let time = Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() };
    futimens(dir, &Timestamps { last_access: omit, last_modification: time })
}
