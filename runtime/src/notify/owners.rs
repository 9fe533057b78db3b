//! Whose a file is: by its record, or, for what can hold none, by a table in memory.

use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::{AsFd as _, OwnedFd};

use kiln_core::{STAT_XATTR, StatRecord};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::layout::Status;
use super::place::Own;

const TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

/// Returns the record of the file at a path of this thread's; none where it has none, or cannot.
pub(super) fn record_at(path: &CStr, follow: bool) -> Option<StatRecord> {
    let mut buffer = [0_u8; 80];
    let length = if follow {
        rustix::fs::getxattr(path, STAT_XATTR_C, &mut buffer)
    } else {
        rustix::fs::lgetxattr(path, STAT_XATTR_C, &mut buffer)
    };
    std::str::from_utf8(&buffer[..length.ok()?]).ok()?.parse().ok()
}

/// Whether an open file has one; none where that cannot be told, as with O_PATH.
pub(super) fn has_record(file: &OwnedFd) -> Option<bool> {
    let mut buffer = [0_u8; 80];
    match rustix::fs::fgetxattr(file, STAT_XATTR_C, &mut buffer) {
        Ok(_) => Some(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Some(false),
        Err(_) => None,
    }
}

/// The same name, as the kernel takes it.
const STAT_XATTR_C: &CStr = c"user.kiln.stat";

/// Owners of what can hold no record: links, fifos, sockets, and all files of file systems without such attributes.
#[derive(Debug, Default)]
pub(super) struct Table {
    owners: HashMap<(u64, u64), Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Type bits: the number of a file that is gone may be given to another.
    kind: u32,
    owner: (u32, u32),
}

impl Table {
    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Whether there is an entry for a number, of whatever kind.
    pub(super) fn has(&self, identity: (u64, u64)) -> bool {
        self.owners.contains_key(&identity)
    }

    pub(super) fn get(&self, status: &Status) -> Option<(u32, u32)> {
        let entry = self.owners.get(&status.identity())?;
        (entry.kind == status.mode() & TYPE).then_some(entry.owner)
    }

    /// Root's need no entry, but if it was another's before: that is news for the layer.
    pub(super) fn set(&mut self, identity: (u64, u64), mode: u32, owner: (u32, u32)) {
        if owner != (0, 0) || self.has(identity) {
            self.owners.insert(identity, Entry { kind: mode & TYPE, owner });
        }
    }
}

/// Whose a file is, and what it stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    pub(super) owner: (u32, u32),
    pub(super) mode: u32,
    pub(super) device: (u32, u32),
    /// Whether that differs from what the kernel says.
    pub(super) differs: bool,
    /// Whether the file says so itself.
    recorded: bool,
}

impl Shown {
    /// What the kernel says.
    pub(super) fn of(status: &Status) -> Self {
        let (owner, mode) = (status.owner(), status.mode());
        Self { owner, mode, device: (0, 0), differs: false, recorded: false }
    }
}

/// Finds out about an open file whose status is given.
pub(super) fn shown(file: &OwnedFd, status: &Status, table: &Table) -> Shown {
    let record = if can_hold(status) { record_at(Own::of(file.as_fd()).path(), true) } else { None };
    let own = Shown::of(status);
    match record {
        Some(record) => Shown {
            owner: (record.uid, record.gid),
            mode: record.shown_mode(status.mode()),
            device: record.device,
            differs: true,
            recorded: true,
        },
        None => match table.get(status) {
            Some(owner) => Shown { owner, differs: true, ..own },
            None => own,
        },
    }
}

/// Gives an open file to somebody, whatever it was before; devices stay what they are.
pub(super) fn give(
    file: &OwnedFd,
    status: &Status,
    was: &Shown,
    owner: (u32, u32),
    table: &mut Table,
    is_ours: bool,
) -> Result<(), Errno> {
    let (uid, gid) = owner;
    let record = StatRecord { uid, gid, mode: was.mode, device: was.device };
    if is_ours && can_hold(status) {
        match write(file, &record, was.recorded) {
            Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            other => return other,
        }
    }
    table.set(status.identity(), status.mode(), owner);
    Ok(())
}

/// Writes a record, or takes one away that says no more than the file.
pub(super) fn write(file: &OwnedFd, record: &StatRecord, has_one: bool) -> Result<(), Errno> {
    let own = Own::of(file.as_fd());
    if (record.uid, record.gid) == (0, 0) && !record.is_device() {
        return if has_one { rustix::fs::removexattr(own.path(), STAT_XATTR) } else { Ok(()) };
    }
    rustix::fs::setxattr(own.path(), STAT_XATTR, record.to_string().as_bytes(), XattrFlags::empty())
}

/// Only regular files and directories can have `user.*` attributes: xattr(7).
pub(super) fn can_hold(status: &Status) -> bool {
    matches!(status.mode() & TYPE, REGULAR | DIRECTORY)
}
