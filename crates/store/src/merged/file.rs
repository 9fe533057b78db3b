//! One file of a layer or a tree in another place, with all that a step sees of it.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_core::{Cancel, IoResultExt as _};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, fchmod, fchown, fremovexattr, futimens,
    linkat, mknodat, openat, readlinkat, renameat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::{Bytes, as_file, interrupted};
use crate::copy::timestamps;
use crate::error::StoreError;
use crate::tree::selected::open_dir;
use crate::tree::xattr::{self, Which};
use crate::tree::{FileStat, Kind};

/// Gives `to` another name of what `name` is in `from`.
pub(super) fn link(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> rustix::io::Result<bool> {
    match linkat(from, name, to, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        // As many names as a file can have, or a file system or machine that allows none.
        Err(Errno::MLINK | Errno::XDEV | Errno::PERM | Errno::NOTSUP) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Copies what `name` is in `from`, which is no directory, to `as_name` in `to`.
pub(super) fn copy(
    from: &OwnedFd,
    name: &CStr,
    to: &OwnedFd,
    as_name: &CStr,
    bytes: &mut Bytes,
) -> std::io::Result<()> {
    let stat = FileStat::at(from, name)?;
    let (uid, gid) = (Some(Uid::from_raw(stat.uid)), Some(Gid::from_raw(stat.gid)));
    let mode = Mode::from_raw_mode(stat.permissions());
    match stat.kind() {
        Kind::File => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source = as_file(openat(from, name, flags, Mode::empty())?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = as_file(openat(to, as_name, flags, Mode::RUSR | Mode::WUSR)?);
            bytes.mover.copy(&source, &stat, &file, &mut bytes.buffer)?;
            return Ok(copy_attributes(&source, &stat, &file, true)?);
        }
        Kind::Symlink => symlinkat(readlinkat(from, name, Vec::new())?, to, as_name)?,
        Kind::Dir => return Err(Errno::ISDIR.into()),
        Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => {
            mknodat(to, as_name, FileType::from_raw_mode(stat.mode), Mode::RUSR, stat.rdev)?;
        }
    }
    let own = FileStat::at(to, as_name)?;
    if (own.uid, own.gid) != (stat.uid, stat.gid) {
        chownat(to, as_name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    if stat.kind() != Kind::Symlink {
        chmodat(to, as_name, mode, AtFlags::empty())?;
    }
    Ok(utimensat(to, as_name, &timestamps(stat.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Gives an open file or directory the owner, attributes, mode and time of another one: in this order, because chown(2)
/// clears set-id bits and capabilities. `fresh` is one that can have no attributes yet.
pub(super) fn copy_attributes(
    from: impl AsFd,
    stat: &FileStat,
    to: impl AsFd,
    fresh: bool,
) -> rustix::io::Result<()> {
    let own = FileStat::of(&to)?;
    if (own.uid, own.gid) != (stat.uid, stat.gid) {
        fchown(&to, Some(Uid::from_raw(stat.uid)), Some(Gid::from_raw(stat.gid)))?;
    }
    let wanted = xattr::read(&from, Which::Seen)?;
    // Not only where it is not fresh: a directory inherits access control lists from the one it is made in.
    if !fresh || stat.kind() == Kind::Dir {
        for (name, _) in xattr::read(&to, Which::Seen)? {
            if !wanted.iter().any(|(kept, _)| *kept == name) {
                fremovexattr(&to, name.as_slice())?;
            }
        }
    }
    xattr::write(&to, &wanted)?;
    fchmod(&to, Mode::from_raw_mode(stat.permissions()))?;
    futimens(&to, &timestamps(stat.mtime))
}

/// Gives a tree files of its own again in place of those that a layer has a link to.
pub(super) fn take_back(
    root: &OwnedFd,
    label: &Path,
    lent: &[PathBuf],
    cancel: &Cancel,
) -> Result<(), StoreError> {
    let mut bytes = Bytes::new();
    for path in lent {
        interrupted(cancel)?;
        take_one_back(root, path, &mut bytes).at("copy", label.join(path))?;
    }
    Ok(())
}

fn take_one_back(root: &OwnedFd, path: &Path, bytes: &mut Bytes) -> std::io::Result<()> {
    const OWN: &CStr = c".kiln-own";
    let dir = match open_dir(root.as_fd(), path.parent().unwrap_or(Path::new(""))) {
        // Layers that came since have something else there.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        opened => opened?,
    };
    let name = c_name(path);
    match FileStat::at(&dir, &name) {
        Ok(stat) if stat.nlink > 1 && stat.kind() != Kind::Dir => {}
        Ok(_) | Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let time = FileStat::of(&dir)?.mtime;
    copy(&dir, &name, &dir, OWN, bytes)?;
    renameat(&dir, OWN, &dir, &name)?;
    Ok(futimens(&dir, &timestamps(time))?)
}

/// The last name of a path.
pub(super) fn c_name(path: &Path) -> CString {
    let name = path.file_name().unwrap_or(OsStr::new("."));
    CString::new(name.as_bytes()).unwrap_or_default()
}

/// Removes whatever has a name.
pub(super) fn remove(dir: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => crate::unpack::tree::remove_directory(dir, name.to_bytes()),
        other => other,
    }
}
