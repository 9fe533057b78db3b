//! A layer's tree becomes a tar: sorted, in one pass, read straight into the compressor's blocks.

use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_core::{Cancel, IoError, IoResultExt as _};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::header::{self, Item};
use super::{DIRECTORY, is_opaque, is_whiteout};
use crate::compress::Packer;
use crate::copy::CopyManifest;
use crate::error::StoreError;
use crate::estargz;
use crate::owner::{self, LinkOwners, Owner};
use crate::tree::selected::open_dir;

/// What is written besides the tree itself.
pub(crate) struct Plan<'a> {
    /// The tree.
    pub(crate) tree: &'a Path,
    /// A directory of the tar that it goes into; empty for the tar's own root.
    pub(crate) below: &'a str,
    /// What is said of the root directory.
    pub(crate) root: RootEntry,
    pub(crate) links: LinkOwners,
    /// What a copy put there.
    pub(crate) copied: Option<&'a CopyManifest>,
    /// Latest time that may appear.
    pub(crate) epoch: Option<u64>,
    pub(crate) cancel: &'a Cancel,
}

/// What a tar says of its root directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RootEntry {
    /// Nothing: no step changed it.
    None,
    /// All, as of any other directory.
    Whole,
    /// All but the time of its last change, where a date is given: of a merged tree that is when the tree was put together
    /// (by the kernel, or by copying), and no layer knows it.
    Dated,
}

/// Writes the tar, [`END`] included unless the packer has a list of contents to add. Returns the sockets, which a tar cannot hold.
pub(crate) fn write(plan: &Plan<'_>, out: &mut Packer<'_, '_>) -> Result<Vec<PathBuf>, StoreError> {
    let root = openat(CWD, plan.tree, DIRECTORY, Mode::empty()).at("open", plan.tree)?;
    let mut writer =
        Writer { plan, out, path: plan.below.into(), inodes: HashMap::new(), sockets: Vec::new() };
    if writer.out.has_toc() {
        let (item, content) = estargz::landmark();
        writer.out.header(&item)?;
        writer.out.put(&content)?;
    }
    if plan.root != RootEntry::None {
        let mut stat = fstat(&root).at("stat", plan.tree)?;
        if let (RootEntry::Dated, Some(epoch)) = (plan.root, plan.epoch) {
            stat.st_mtime = epoch.cast_signed();
        }
        let shown = if plan.below.is_empty() { "." } else { plan.below };
        writer.directory(&root, &stat, format!("{shown}/").as_bytes())?;
    }
    writer.all(&root)?;
    let sockets = std::mem::take(&mut writer.sockets);
    // Else the last entry is still to come.
    if !out.has_toc() {
        out.put(&[0; END])?;
    }
    Ok(sockets)
}

/// Bytes at the end of a tar, all zero.
pub(crate) const END: usize = 2 * header::BLOCK;

/// A file that got a name in another layer a moment ago has changed since it was last read: so its time of access would be written
/// anew, which costs more than opening it.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NOATIME);

/// Longest path in bytes: what is longer nobody can unpack by its name (PATH_MAX), and [`unpack`](crate::unpack) refuses.
pub(crate) const MAX_PATH: usize = 4095;

/// So many of the directories on the way are kept open.
const OPEN_LEVELS: usize = 64;

/// Bytes of holes in a file from which on a tar of it is refused.
const MAX_HOLES: u64 = 64 << 30;

/// A directory that is being written.
struct Level {
    /// None for the root, and for those that have to be opened again.
    dir: Option<OwnedFd>,
    /// Length of its path.
    path: usize,
    names: std::vec::IntoIter<(CString, FileType)>,
}

struct Writer<'a, 'p, 'scope, 'env> {
    plan: &'a Plan<'a>,
    out: &'p mut Packer<'scope, 'env>,
    /// Where we are, without leading slash.
    path: Vec<u8>,
    /// First names of files with several. Layers share files by hard links, so a link count says only that there
    /// may be another name here.
    inodes: HashMap<(u64, u64), Vec<u8>>,
    sockets: Vec<PathBuf>,
}

impl Writer<'_, '_, '_, '_> {
    /// Writes all that is below the root. By hand and not by recursion: how deep it goes is for the step to say.
    fn all(&mut self, root: &OwnedFd) -> Result<(), StoreError> {
        let mut levels = vec![self.level(None, root)?];
        while let Some(level) = levels.last_mut() {
            self.path.truncate(level.path);
            let Some((name, kind)) = level.names.next() else {
                levels.pop();
                continue;
            };
            if level.path > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            if self.path.len() > MAX_PATH {
                return Err(StoreError::LongPath { path: self.shown(), length: self.path.len() });
            }
            let above = OsStr::from_bytes(self.path[..level.path].get(self.skip()..).unwrap_or_default());
            if level.dir.is_none() && !above.is_empty() {
                level.dir =
                    Some(open_dir(root.as_fd(), Path::new(above)).map_err(|error| self.io("open", error))?);
            }
            if kind != FileType::Directory && self.out.has_toc() && estargz::is_own(&self.path) {
                continue;
            }
            let child = self.child(level.dir.as_ref().unwrap_or(root), &name, kind)?;
            if let Some(child) = child {
                let next = self.level(Some(child), root)?;
                if let Some(far) = levels.len().checked_sub(OPEN_LEVELS) {
                    levels[far].dir = None;
                }
                levels.push(next);
            }
        }
        Ok(())
    }

    /// Lists a directory; none is the root.
    fn level(&self, dir: Option<OwnedFd>, root: &OwnedFd) -> Result<Level, StoreError> {
        let mut names = Vec::new();
        for entry in Dir::read_from(dir.as_ref().unwrap_or(root)).map_err(|error| self.io("read", error))? {
            let entry = entry.map_err(|error| self.io("read", error))?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                names.push((entry.file_name().to_owned(), entry.file_type()));
            }
        }
        names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(Level { dir, path: self.path.len(), names: names.into_iter() })
    }

    /// Writes an entry; a directory is given back, for what is in it.
    fn child(
        &mut self,
        dir: &OwnedFd,
        name: &CString,
        kind: FileType,
    ) -> Result<Option<OwnedFd>, StoreError> {
        self.go_on()?;
        let mut kind = kind;
        let mut stat = None;
        if !matches!(kind, FileType::RegularFile | FileType::Directory) {
            let found =
                statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| self.io("stat", error))?;
            kind = FileType::from_raw_mode(found.st_mode);
            stat = Some(found);
        }
        match (kind, stat) {
            (FileType::Directory, _) => {
                let child = self.open(dir, name, DIRECTORY)?;
                let stat = fstat(&child).map_err(|error| self.io("stat", error))?;
                let shown = [&self.path[..], b"/"].concat();
                self.directory(&child, &stat, &shown)?;
                return Ok(Some(child));
            }
            (FileType::RegularFile, _) => {
                let file = self.open(dir, name, FILE)?;
                let stat = fstat(&file).map_err(|error| self.io("stat", error))?;
                self.file(&file, &stat)?;
            }
            (_, Some(stat)) => self.special(dir, name, &stat)?,
            (_, None) => unreachable!("looked up above"),
        }
        Ok(None)
    }

    fn directory(&mut self, dir: &OwnedFd, stat: &Stat, shown: &[u8]) -> Result<(), StoreError> {
        let (owner, xattrs) = owner::look(dir, stat).map_err(|error| self.fail("read xattrs of", &error))?;
        let mut item = self.item(&owner, stat.st_mtime, b'5');
        (item.name, item.xattrs) = (shown, xattrs);
        self.out.header(&item)?;
        if is_opaque(dir).map_err(|error| self.fail("read xattrs of", &error))? {
            let marker = [shown, b".wh..wh..opq"].concat();
            self.marker(&marker)?;
        }
        Ok(())
    }

    /// A regular file, or a device that is recorded as one.
    fn file(&mut self, file: &OwnedFd, stat: &Stat) -> Result<(), StoreError> {
        let (owner, xattrs) = owner::look(file, stat).map_err(|error| self.fail("read xattrs of", &error))?;
        if self.linked(stat, &owner)? {
            return Ok(());
        }
        let (flag, size) = match owner.file_type() {
            FileType::CharacterDevice => (b'3', 0),
            FileType::BlockDevice => (b'4', 0),
            _ => (b'0', stat.st_size.cast_unsigned()),
        };
        let data = stat.st_blocks.cast_unsigned() * 512;
        if size.saturating_sub(data) > MAX_HOLES {
            return Err(StoreError::Sparse { path: Path::new("/").join(self.shown()), size, data });
        }
        let path = std::mem::take(&mut self.path);
        let mut item = self.item(&owner, stat.st_mtime, flag);
        (item.name, item.size, item.xattrs) = (&path, size, xattrs);
        let written = self.out.header(&item);
        self.path = path;
        written?;
        if let Some(id) = self.plan.copied.and_then(|copied| copied.file(&self.shown())) {
            self.out.content_of(id, size);
        }
        self.content(file, size)
    }

    /// Asked before each file and each block of one: an interrupt must not wait for a large layer.
    fn go_on(&self) -> Result<(), StoreError> {
        if self.plan.cancel.is_cancelled() { Err(StoreError::Interrupted) } else { Ok(()) }
    }

    fn content(&mut self, file: &OwnedFd, size: u64) -> Result<(), StoreError> {
        let mut rest = size;
        while rest > 0 {
            self.go_on()?;
            let space = self.out.space()?;
            let wanted = usize::try_from(rest).unwrap_or(usize::MAX).min(space.len());
            let length = match rustix::io::read(file, &mut space[..wanted]) {
                // The header has said how long it is.
                Ok(0) => {
                    let error = std::io::Error::other("it became shorter while it was read");
                    return Err(self.fail("read", &error));
                }
                Ok(length) => length,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(self.io("read", error)),
            };
            self.out.filled(length);
            rest -= length as u64;
        }
        let padding = size.wrapping_neg() as usize % header::BLOCK;
        self.out.put(&[0; header::BLOCK][..padding])
    }

    /// What cannot be opened: links, fifos, devices, deletions, sockets.
    fn special(&mut self, dir: &OwnedFd, name: &CStr, stat: &Stat) -> Result<(), StoreError> {
        if is_whiteout(stat) {
            let above = self.path.len() - name.to_bytes().len();
            let marker = [&self.path[..above], b".wh.", name.to_bytes()].concat();
            return self.marker(&marker);
        }
        let mut owner = Owner::of_stat(stat);
        if owner.file_type() == FileType::Socket {
            self.sockets.push(self.shown());
            return Ok(());
        }
        if let Some((uid, gid)) = self.plan.links.0.get(&self.shown()) {
            (owner.uid, owner.gid) = (*uid, *gid);
        }
        if self.linked(stat, &owner)? {
            return Ok(());
        }
        let target = match owner.file_type() {
            FileType::Symlink => readlinkat(dir, name, Vec::new()).map_err(|error| self.io("read", error))?,
            _ => CString::default(),
        };
        let flag = match owner.file_type() {
            FileType::Symlink => b'2',
            FileType::CharacterDevice => b'3',
            FileType::BlockDevice => b'4',
            _ => b'6',
        };
        let mut item = self.item(&owner, stat.st_mtime, flag);
        (item.name, item.link) = (&self.path, target.to_bytes());
        self.out.header(&item)
    }

    /// Writes a hard link if the file was written under another name.
    fn linked(&mut self, stat: &Stat, owner: &Owner) -> Result<bool, StoreError> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        let inode = (stat.st_dev, stat.st_ino);
        let Some(first) = self.inodes.get(&inode) else {
            self.inodes.insert(inode, self.path.clone());
            return Ok(false);
        };
        let mut item = self.item(owner, stat.st_mtime, b'1');
        (item.name, item.link) = (&self.path, first);
        self.out.header(&item)?;
        Ok(true)
    }

    /// Writes an empty file whose name means something. Nothing else about it does.
    fn marker(&mut self, name: &[u8]) -> Result<(), StoreError> {
        let mtime = self.plan.epoch.unwrap_or(0).cast_signed();
        self.out.header(&Item { name, flag: b'0', mtime, ..Item::default() })
    }

    fn item<'i>(&self, owner: &Owner, mtime: i64, flag: u8) -> Item<'i> {
        let mtime = self.plan.epoch.map_or(mtime, |epoch| mtime.min(epoch.cast_signed()));
        let Owner { uid, gid, mode, device } = *owner;
        Item { flag, uid, gid, mode: mode & 0o7777, mtime, device, ..Item::default() }
    }

    fn open(&self, dir: &OwnedFd, name: &CStr, flags: OFlags) -> Result<OwnedFd, StoreError> {
        let open = |flags| openat(dir, name, flags, Mode::empty());
        match open(flags) {
            // Others' files may be read, but not without a trace: open(2).
            Err(Errno::PERM) => open(flags.difference(OFlags::NOATIME)),
            opened => opened,
        }
        .map_err(|error| self.io("open", error))
    }

    /// Where we are in the tree.
    fn shown(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(self.path.get(self.skip()..).unwrap_or_default()))
    }

    /// Bytes of a path in the tar before the path in the tree.
    fn skip(&self) -> usize {
        if self.plan.below.is_empty() { 0 } else { self.plan.below.len() + 1 }
    }

    fn io(&self, op: &str, error: Errno) -> StoreError {
        self.fail(op, &error.into())
    }

    fn fail(&self, op: &str, error: &std::io::Error) -> StoreError {
        StoreError::Io(IoError::new(op, self.plan.tree.join(self.shown()), error))
    }
}
