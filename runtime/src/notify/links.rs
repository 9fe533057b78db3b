//! Owners of links, fifos and sockets, which can hold no record: at a step's start from the layers below, at its end for
//! its own.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};

use super::LinkOwners;
use super::layout::Status;
use super::owners::{self, Table};
use super::place::{LOOK, Own};

/// Puts those that the step begins with into the table.
pub(super) fn add_below(table: &mut Table, root: &OwnedFd, below: &LinkOwners) {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    for (path, owner) in below {
        // A link that is no longer there, or no longer by this way, says nothing.
        let parent = path.parent().unwrap_or(Path::new(""));
        let Ok(parent) = rustix::fs::openat2(root, parent_or_dot(parent), LOOK, Mode::empty(), resolve)
        else {
            continue;
        };
        let Some(name) = path.file_name() else { continue };
        let flags = LOOK | OFlags::NOFOLLOW;
        let Ok(file) = rustix::fs::openat(&parent, name, flags, Mode::empty()) else { continue };
        if let Ok(status) = Status::of(&file)
            && !owners::can_hold(&status)
        {
            table.set(status.identity(), status.mode(), *owner);
        }
    }
}

fn parent_or_dot(path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() }
}

/// Notes the number that overlay will show for a link that it has copied up, once it has forgotten the one below.
pub(super) fn note_copy(
    table: &mut Table,
    file: &OwnedFd,
    upper: &OwnedFd,
    status: &Status,
    owner: (u32, u32),
) {
    // As seen from this thread's root, which is the step's.
    let Ok(path) = rustix::fs::readlink(Own::of(file.as_fd()).path(), Vec::new()) else { return };
    let relative = path.to_bytes().trim_ascii_start();
    let relative = relative.strip_prefix(b"/").unwrap_or(relative);
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    let path = Path::new(OsStr::from_bytes(relative));
    let parent = parent_or_dot(path.parent().unwrap_or(Path::new("")));
    let Some(name) = path.file_name() else { return };
    let Ok(parent) = rustix::fs::openat2(upper, &parent, LOOK, Mode::empty(), resolve) else { return };
    let Ok(copy) = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else { return };
    if FileType::from_raw_mode(copy.st_mode) == FileType::from_raw_mode(status.mode()) {
        let (device, _) = status.identity();
        table.set((device, copy.st_ino), status.mode(), owner);
    }
}

/// Finds those that the step leaves in its layer, if there can be any. What cannot be read has none.
pub(super) fn left(table: &Table, root: &OwnedFd, upper: &OwnedFd) -> LinkOwners {
    let mut found = LinkOwners::new();
    if table.is_empty() {
        return found;
    }
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(open) = rustix::fs::openat(upper, parent_or_dot(&dir), flags, Mode::empty()) else {
            continue;
        };
        let Ok(entries) = Dir::read_from(&open) else { continue };
        for entry in entries.flatten() {
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let path = dir.join(name);
            match entry.file_type() {
                FileType::Directory => dirs.push(path),
                FileType::Symlink | FileType::Fifo | FileType::Socket => {
                    // The merged view has the numbers that the table knows.
                    let Ok(file) = rustix::fs::openat(root, &path, LOOK | OFlags::NOFOLLOW, Mode::empty())
                    else {
                        continue;
                    };
                    let Ok(status) = Status::of(&file) else { continue };
                    if let Some(owner) = table.get(&status) {
                        found.insert(path, owner);
                    }
                }
                _ => {}
            }
        }
    }
    found
}
