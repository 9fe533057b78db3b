//! Makes what an entry describes, directories and hard links apart: the same for a layer and for an archive.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use kiln_core::IoResultExt as _;
use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chmodat, chownat,
    fchmod, fchown, fstat, futimens, linkat, makedev, mknodat, openat, symlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use super::entry::{Entries, Entry, Kind, io};
use crate::early::Early;
use crate::error::{ArchiveError, EntryProblem};
use crate::layout::Ids;
use crate::owner::{self, LinkOwners, Owner};

/// Makes files.
pub(crate) struct Maker {
    pub(crate) ids: Ids,
    /// Whom files belong to when made.
    me: (u32, u32),
    pub(crate) links: LinkOwners,
}

/// Where something is made.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) parent: &'a OwnedFd,
    pub(crate) name: &'a [u8],
    /// In the tree.
    pub(crate) path: &'a [u8],
}

const NEW_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Maker {
    pub(crate) fn new(ids: Ids) -> Self {
        let me = (geteuid().as_raw(), getegid().as_raw());
        Self { ids, me, links: LinkOwners::default() }
    }

    /// Makes a file, symbolic link, pipe or device; a file's content comes from `entries`. Returns false, with nothing
    /// done and nothing read, if something is in its place.
    pub(crate) fn make(
        &mut self,
        at: At<'_>,
        entry: &Entry,
        entries: &mut Entries,
    ) -> Result<bool, ArchiveError> {
        match &entry.kind {
            Kind::File => self.file(at, entry, entries),
            Kind::Symlink(target) => {
                if target.is_empty() || target.contains(&0) {
                    return Err(entries.bad(EntryProblem::Header { what: "link target".to_owned() }));
                }
                let made = made(at, symlinkat(target.as_slice(), at.parent, at.name))?.is_some();
                if made {
                    self.dress_link(at, entry)?;
                }
                Ok(made)
            }
            Kind::Fifo => self.node(at, entry, FileType::Fifo, (0, 0)),
            Kind::Char(major, minor) => self.node(at, entry, FileType::CharacterDevice, (*major, *minor)),
            Kind::Block(major, minor) => self.node(at, entry, FileType::BlockDevice, (*major, *minor)),
            Kind::Directory | Kind::HardLink(_) => unreachable!("depends on where it is made"),
        }
    }

    /// Gives a file another name. Returns false if something is in its place.
    pub(crate) fn link(
        &mut self,
        (dir, name, path): (&OwnedFd, &[u8], &[u8]),
        to: At<'_>,
    ) -> Result<bool, ArchiveError> {
        let linked = made(to, linkat(dir, name, to.parent, to.name, AtFlags::empty()))?.is_some();
        if linked && let Some(ids) = self.links.0.get(&shown(path)).copied() {
            self.links.0.insert(shown(to.path), ids);
        }
        Ok(linked)
    }

    fn file(&self, at: At<'_>, entry: &Entry, entries: &mut Entries) -> Result<bool, ArchiveError> {
        let Some(file) = new_file(at)? else { return Ok(false) };
        let (mut early, mut size) = (Early::default(), 0);
        loop {
            let content = entries.content()?;
            if content.is_empty() {
                break;
            }
            let length = rustix::io::write(&file, content).map_err(|error| io("write", at.path, error))?;
            entries.used(length);
            size += length as u64;
            early.written(&file, size);
        }
        self.dress_file(&file, at.path, entry, FileType::RegularFile, (0, 0))?;
        Ok(true)
    }

    /// A fifo, or a device: a real one where that is allowed, else an empty file with a record.
    fn node(
        &mut self,
        at: At<'_>,
        entry: &Entry,
        kind: FileType,
        device: (u32, u32),
    ) -> Result<bool, ArchiveError> {
        let number: Dev = makedev(device.0, device.1);
        // A device 0:0 would be a deletion.
        let real = kind == FileType::Fifo || (self.ids == Ids::Full && number != 0);
        if real {
            match mknodat(at.parent, at.name, kind, Mode::RUSR | Mode::WUSR, number) {
                // Devices are for real root only: mknod(2).
                Err(Errno::PERM) if kind != FileType::Fifo => {}
                tried => {
                    if made(at, tried)?.is_none() {
                        return Ok(false);
                    }
                    self.dress_link(at, entry)?;
                    let mode = Mode::from_raw_mode(entry.mode);
                    chmodat(at.parent, at.name, mode, AtFlags::empty())
                        .map_err(|error| io("set mode of", at.path, error))?;
                    return Ok(true);
                }
            }
        }
        let Some(file) = new_file(at)? else { return Ok(false) };
        self.dress_file(&file, at.path, entry, kind, device)?;
        Ok(true)
    }

    /// Owner, xattrs, mode and time of a file just made, in the one order that works: chown(2) clears capabilities
    /// and set-id bits.
    fn dress_file(
        &self,
        file: &OwnedFd,
        path: &[u8],
        entry: &Entry,
        kind: FileType,
        device: (u32, u32),
    ) -> Result<(), ArchiveError> {
        let (uid, gid) = (entry.uid, entry.gid);
        // A file with a record stays kiln's own, or the record would not count.
        if self.ids == Ids::Full && kind == FileType::RegularFile {
            fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(|error| io("set owner of", path, error))?;
        }
        if kind != FileType::RegularFile || (self.ids == Ids::Single && (uid, gid) != self.me) {
            let stat = fstat(file).map_err(|error| io("stat", path, error))?;
            let owner = Owner { uid, gid, mode: kind.as_raw_mode() | entry.mode, device };
            owner::record(file, &owner, &stat).at("record owner of", shown(path))?;
        }
        set_xattrs(file, entry, path)?;
        fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(|error| io("set mode of", path, error))?;
        futimens(file, &times(entry.mtime)).map_err(|error| io("set times of", path, error))
    }

    /// Owner and time of what cannot be opened.
    fn dress_link(&mut self, At { parent, name, path }: At<'_>, entry: &Entry) -> Result<(), ArchiveError> {
        let (uid, gid) = (entry.uid, entry.gid);
        match self.ids {
            Ids::Full => {
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|error| io("set owner of", path, error))?;
            }
            Ids::Single if (uid, gid) != self.me => {
                self.links.0.insert(shown(path), (uid, gid));
            }
            Ids::Single => {}
        }
        utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| io("set times of", path, error))
    }
}

fn new_file(at: At<'_>) -> Result<Option<OwnedFd>, ArchiveError> {
    made(at, openat(at.parent, at.name, NEW_FILE, Mode::RUSR | Mode::WUSR))
}

/// Returns none if something is in the way.
fn made<T>(at: At<'_>, result: rustix::io::Result<T>) -> Result<Option<T>, ArchiveError> {
    match result {
        Ok(made) => Ok(Some(made)),
        Err(Errno::EXIST) => Ok(None),
        Err(error) => Err(io("create", at.path, error)),
    }
}

pub(super) fn set_xattrs(file: &OwnedFd, entry: &Entry, path: &[u8]) -> Result<(), ArchiveError> {
    for (name, value) in &entry.xattrs {
        owner::set_xattr(file, name, value).at("set xattr of", shown(path))?;
    }
    Ok(())
}

pub(super) fn shown(path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    PathBuf::from(std::ffi::OsStr::from_bytes(path))
}

pub(super) fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
    }
}
