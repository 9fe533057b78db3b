//! Whether two files are the same, as a step sees them.

use std::ffi::CStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat, readlinkat};

use crate::tree::xattr::{self, Which};
use crate::tree::{FileStat, Kind};

/// A file by its name in a directory, and what stat says of it.
pub(crate) type Named<'a> = (BorrowedFd<'a>, &'a CStr, &'a FileStat);

/// Compares all but the link count and what the machine keeps for itself. Content is read only where nothing else
/// differs: sizes and times to the nanosecond can be the same by intent.
pub(crate) fn same(a: Named<'_>, b: Named<'_>) -> rustix::io::Result<bool> {
    let ((_, _, one), (_, _, other)) = (a, b);
    let facts = |stat: &FileStat| (stat.mode, stat.uid, stat.gid, stat.mtime);
    if facts(one) != facts(other) {
        return Ok(false);
    }
    match one.kind() {
        Kind::Dir => same_attributes(open(a, OFlags::DIRECTORY)?, open(b, OFlags::DIRECTORY)?),
        Kind::File if one.size != other.size => Ok(false),
        Kind::File => {
            let (a, b) = (open(a, OFlags::empty())?, open(b, OFlags::empty())?);
            Ok(same_attributes(&a, &b)? && same_content(a.into(), b.into(), one)?)
        }
        Kind::Symlink => Ok(readlinkat(a.0, a.1, Vec::new())? == readlinkat(b.0, b.1, Vec::new())?),
        Kind::CharDevice | Kind::BlockDevice => Ok(one.rdev == other.rdev),
        Kind::Fifo | Kind::Socket => Ok(true),
    }
}

/// Compares two open directories or files without their content.
pub(crate) fn same_attributes(a: impl AsFd, b: impl AsFd) -> rustix::io::Result<bool> {
    Ok(xattr::read(a, Which::Seen)? == xattr::read(b, Which::Seen)?)
}

fn same_content(mut a: File, mut b: File, stat: &FileStat) -> rustix::io::Result<bool> {
    const CHUNK: usize = 128 << 10;
    if FileStat::of(&a)?.ino == FileStat::of(&b)?.ino && FileStat::of(&b)?.dev == stat.dev {
        return Ok(true);
    }
    let io =
        |error: std::io::Error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO);
    let length = usize::try_from(stat.size).unwrap_or(CHUNK).clamp(1, CHUNK);
    let (mut one, mut other) = (vec![0; length], vec![0; length]);
    let mut rest = stat.size;
    while rest > 0 {
        let part = usize::try_from(rest).unwrap_or(CHUNK).min(CHUNK);
        a.read_exact(&mut one[..part]).map_err(io)?;
        b.read_exact(&mut other[..part]).map_err(io)?;
        if one[..part] != other[..part] {
            return Ok(false);
        }
        rest -= part as u64;
    }
    Ok(true)
}

fn open((dir, name, _): Named<'_>, more: OFlags) -> rustix::io::Result<OwnedFd> {
    openat(dir, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | more, Mode::empty())
}
