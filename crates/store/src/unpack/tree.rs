//! Writes entries into a directory, in overlay form, and never outside of it.
//!
//! Each entry's parent is opened with openat2(2) and `RESOLVE_IN_ROOT`: links and `..` inside links are resolved as if
//! the layer's directory were the root. What follows are *at calls on that descriptor that follow no link. The
//! directory belongs to this thread alone until it is published.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kiln_core::IoResultExt as _;
use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, RawDir, ResolveFlags, Stat, Timespec, Timestamps,
    UTIME_OMIT, Uid, XattrFlags, chmodat, chownat, fchmod, fchown, fsetxattr, fstat, futimens, linkat,
    makedev, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use super::entry::{Entries, Entry, Kind, io};
use crate::error::{EntryProblem, StoreError};
use crate::layer::{OPAQUE, is_whiteout};
use crate::layout::Ids;
use crate::owner::{self, LinkOwners, Owner};

/// A tree in the making.
pub(crate) struct Tree {
    ids: Ids,
    /// Whom files belong to when made.
    me: (u32, u32),
    root: Rc<OwnedFd>,
    /// The directory that was last written to, with its path.
    parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Modes and times of directories, set at the end: writing into one changes its time, and needs permission.
    directories: BTreeMap<Vec<u8>, (u32, (i64, u32))>,
    links: LinkOwners,
    root_said: bool,
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const NEW_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Of directories that are there only because something is in them.
const IMPLICIT: (u32, (i64, u32)) = (0o755, (0, 0));

impl Tree {
    /// Starts in an empty directory.
    pub(crate) fn new(ids: Ids, dir: &Path) -> Result<Self, StoreError> {
        let root = openat(CWD, dir, DIRECTORY, Mode::empty()).at("open", dir)?;
        let stat = fstat(&root).at("stat", dir)?;
        owner::set(ids, &root, &stat, 0, 0).at("set owner of", dir)?;
        Ok(Self {
            ids,
            me: (geteuid().as_raw(), getegid().as_raw()),
            root: Rc::new(root),
            parent: None,
            directories: BTreeMap::from([(Vec::new(), IMPLICIT)]),
            links: LinkOwners::default(),
            root_said: false,
        })
    }

    /// Writes one entry; its content comes from `entries`.
    pub(crate) fn apply(&mut self, entry: &Entry, entries: &mut Entries) -> Result<(), StoreError> {
        let path = clean(&entry.name).map_err(|problem| entries.bad(problem))?;
        if path.is_empty() {
            if entry.kind != Kind::Directory {
                return Err(entries.bad(EntryProblem::Root));
            }
            self.root_said = true;
            let root = Rc::clone(&self.root);
            return self.dress_directory(&root, entry, path);
        }
        let (dir, name) = split(&path);
        let parent = self.parent(dir, entries)?;
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return self.whiteout(&parent, dir, hidden, entries);
        }
        match &entry.kind {
            Kind::Directory => self.directory(&parent, entry, path.clone()),
            Kind::File => self.file(&parent, name, &path, entry, entries),
            Kind::Symlink(target) => self.symlink(&parent, name, &path, target, entry, entries),
            Kind::HardLink(target) => self.hard_link(&parent, name, &path, target, entries),
            Kind::Fifo => self.node(&parent, name, &path, entry, FileType::Fifo, (0, 0)),
            Kind::Char(major, minor) => {
                self.node(&parent, name, &path, entry, FileType::CharacterDevice, (*major, *minor))
            }
            Kind::Block(major, minor) => {
                self.node(&parent, name, &path, entry, FileType::BlockDevice, (*major, *minor))
            }
        }
    }

    /// Sets what had to wait. Returns the owners of links, and whether the tar said something about the root.
    pub(crate) fn finish(mut self) -> Result<(LinkOwners, bool), StoreError> {
        // Deepest first: a mode may forbid to go further down.
        while let Some((path, (mode, mtime))) = self.directories.pop_last() {
            let dir = match self.open_directory(&path) {
                Ok(dir) => dir,
                // Its way led through a link that was replaced later: it is not in the tree any more.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => return Err(io("open", &path, error)),
            };
            futimens(&*dir, &times(mtime)).map_err(|error| io("set times of", &path, error))?;
            fchmod(&*dir, Mode::from_raw_mode(mode)).map_err(|error| io("set mode of", &path, error))?;
        }
        Ok((self.links, self.root_said))
    }

    fn directory(&mut self, parent: &OwnedFd, entry: &Entry, path: Vec<u8>) -> Result<(), StoreError> {
        let name = split(&path).1;
        let dir = self.make_directory(parent, name, &path)?;
        self.dress_directory(&dir, entry, path.clone())?;
        self.parent = Some((path, dir));
        Ok(())
    }

    /// Makes a directory, or takes the one that is there.
    fn make_directory(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
    ) -> Result<Rc<OwnedFd>, StoreError> {
        let mut opaque = false;
        loop {
            match mkdirat(parent, name, Mode::RWXU) {
                Ok(()) => break,
                Err(Errno::EXIST) => {
                    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(|error| io("stat", path, error))?;
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                        break;
                    }
                    // Deleted below and made anew here: what was in it below stays deleted.
                    opaque |= is_whiteout(&stat);
                    self.clear(parent, name, path, &stat)?;
                }
                Err(error) => return Err(io("create", path, error)),
            }
        }
        let dir = openat(parent, name, DIRECTORY, Mode::empty()).map_err(|error| io("open", path, error))?;
        if opaque {
            mark_opaque(&dir, path)?;
        }
        Ok(Rc::new(dir))
    }

    fn dress_directory(&mut self, dir: &OwnedFd, entry: &Entry, path: Vec<u8>) -> Result<(), StoreError> {
        let stat = fstat(dir).map_err(|error| io("stat", &path, error))?;
        owner::set(self.ids, dir, &stat, entry.uid, entry.gid).at("set owner of", shown(&path))?;
        set_xattrs(dir, entry, &path)?;
        self.directories.insert(path, (entry.mode, entry.mtime));
        Ok(())
    }

    fn file(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        entries: &mut Entries,
    ) -> Result<(), StoreError> {
        let file = self.make_file(parent, name, path)?;
        loop {
            let content = entries.content()?;
            if content.is_empty() {
                break;
            }
            let length = rustix::io::write(&file, content).map_err(|error| io("write", path, error))?;
            entries.used(length);
        }
        let kind = FileType::RegularFile;
        self.dress_file(
            &file,
            path,
            entry,
            Owner { uid: entry.uid, gid: entry.gid, mode: kind.as_raw_mode() | entry.mode, device: (0, 0) },
        )
    }

    fn make_file(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<OwnedFd, StoreError> {
        self.instead(parent, name, path, |parent, name| {
            openat(parent, name, NEW_FILE, Mode::RUSR | Mode::WUSR)
        })
    }

    /// Owner, xattrs, mode and time of a file just made, in the one order that works: chown(2) clears capabilities
    /// and set-id bits.
    fn dress_file(&self, file: &OwnedFd, path: &[u8], entry: &Entry, owner: Owner) -> Result<(), StoreError> {
        let device = owner.file_type() != FileType::RegularFile;
        match self.ids {
            Ids::Full => {
                let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
                fchown(file, Some(uid), Some(gid)).map_err(|error| io("set owner of", path, error))?;
            }
            Ids::Single => {}
        }
        if device || (self.ids == Ids::Single && (owner.uid, owner.gid) != self.me) {
            let stat = fstat(file).map_err(|error| io("stat", path, error))?;
            owner::record(file, &owner, &stat).at("record owner of", shown(path))?;
        }
        set_xattrs(file, entry, path)?;
        fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(|error| io("set mode of", path, error))?;
        futimens(file, &times(entry.mtime)).map_err(|error| io("set times of", path, error))
    }

    fn symlink(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        target: &[u8],
        entry: &Entry,
        entries: &Entries,
    ) -> Result<(), StoreError> {
        if target.is_empty() || target.contains(&0) {
            return Err(entries.bad(EntryProblem::Header { what: "link target".to_owned() }));
        }
        self.instead(parent, name, path, |parent, name| symlinkat(target, parent, name))?;
        self.dress_link(parent, name, path, entry)
    }

    /// A fifo, or a device: a real one where that is allowed, else an empty file with a record.
    fn node(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
        kind: FileType,
        device: (u32, u32),
    ) -> Result<(), StoreError> {
        let number: Dev = makedev(device.0, device.1);
        // A device 0:0 would be a deletion.
        let real = kind == FileType::Fifo || (self.ids == Ids::Full && number != 0);
        let make =
            |parent: &OwnedFd, name: &[u8]| mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, number);
        if real {
            let mut denied = false;
            self.instead(parent, name, path, |parent, name| match make(parent, name) {
                // Devices are for real root only: mknod(2).
                Err(Errno::PERM) if kind != FileType::Fifo => {
                    denied = true;
                    Ok(())
                }
                other => other,
            })?;
            if !denied {
                self.dress_link(parent, name, path, entry)?;
                let mode = Mode::from_raw_mode(entry.mode);
                return chmodat(parent, name, mode, AtFlags::empty())
                    .map_err(|error| io("set mode of", path, error));
            }
        }
        let file = self.make_file(parent, name, path)?;
        let mode = kind.as_raw_mode() | entry.mode;
        self.dress_file(&file, path, entry, Owner { uid: entry.uid, gid: entry.gid, mode, device })
    }

    /// Owner and time of what cannot be opened.
    fn dress_link(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
    ) -> Result<(), StoreError> {
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

    fn hard_link(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        target: &[u8],
        entries: &Entries,
    ) -> Result<(), StoreError> {
        let text = || String::from_utf8_lossy(target).into_owned();
        let missing = || entries.bad(EntryProblem::LinkTarget { target: text() });
        let to = clean(target).map_err(|problem| entries.bad(problem))?;
        if to.is_empty() {
            return Err(entries.bad(EntryProblem::LinkToDirectory { target: text() }));
        }
        let (dir, to_name) = split(&to);
        let from = self.open_directory(dir).map_err(|_| missing())?;
        let stat = statat(&*from, to_name, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| missing())?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(entries.bad(EntryProblem::LinkToDirectory { target: text() }));
        }
        if is_whiteout(&stat) {
            return Err(missing());
        }
        // A link to itself, perhaps by another way to the same directory: it is there, and must not be removed.
        if let Ok(own) = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            && (own.st_dev, own.st_ino) == (stat.st_dev, stat.st_ino)
        {
            return Ok(());
        }
        self.instead(parent, name, path, |parent, name| {
            linkat(&*from, to_name, parent, name, AtFlags::empty())
        })?;
        if let Some(ids) = self.links.0.get(&shown(&to)).copied() {
            self.links.0.insert(shown(path), ids);
        }
        Ok(())
    }

    /// Layers say what they delete with names: <https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts>.
    fn whiteout(
        &mut self,
        parent: &OwnedFd,
        dir: &[u8],
        hidden: &[u8],
        entries: &Entries,
    ) -> Result<(), StoreError> {
        if hidden == b".wh..opq" {
            return match dir {
                [] => Err(entries.bad(EntryProblem::OpaqueRoot)),
                _ => mark_opaque(parent, dir),
            };
        }
        // Aufs's own files, which it left in layers: they mean nothing elsewhere.
        if hidden.starts_with(b".wh.") {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(entries.bad(EntryProblem::Name));
        }
        // Deletions are of what is below, never of what this layer brings itself.
        match statat(parent, hidden, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let fd = openat(parent, hidden, DIRECTORY, Mode::empty())
                    .map_err(|error| io("open", hidden, error))?;
                mark_opaque(&fd, hidden)
            }
            Ok(_) => Ok(()),
            // Anyone may make this one device: <https://git.kernel.org/linus/a3c751a50fe6>.
            Err(Errno::NOENT) => mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(|error| io("create whiteout", hidden, error)),
            Err(error) => Err(io("stat", hidden, error)),
        }
    }

    /// Makes something where perhaps something else is; that goes.
    fn instead<T>(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        mut make: impl FnMut(&OwnedFd, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T, StoreError> {
        loop {
            match make(parent, name) {
                Ok(made) => return Ok(made),
                Err(Errno::EXIST) => {
                    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(|error| io("stat", path, error))?;
                    self.clear(parent, name, path, &stat)?;
                }
                Err(error) => return Err(io("create", path, error)),
            }
        }
    }

    /// Removes what an entry replaces, and what is known about it.
    fn clear(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], stat: &Stat) -> Result<(), StoreError> {
        self.parent = None;
        self.links.0.remove(&shown(path));
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return unlinkat(parent, name, AtFlags::empty()).map_err(|error| io("remove", path, error));
        }
        let below = |other: &[u8]| {
            other.strip_prefix(path).is_some_and(|rest| rest.first().is_none_or(|&b| b == b'/'))
        };
        self.directories.retain(|other, _| !below(other));
        let gone = shown(path);
        self.links.0.retain(|other, _| !other.starts_with(&gone));
        remove_directory(parent, name).map_err(|error| io("remove", path, error))
    }

    /// Opens the directory that an entry goes into, making what is missing of it.
    fn parent(&mut self, dir: &[u8], entries: &Entries) -> Result<Rc<OwnedFd>, StoreError> {
        if let Some((path, fd)) = &self.parent
            && path == dir
        {
            return Ok(Rc::clone(fd));
        }
        let fd = match self.open_directory(dir) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(dir, entries)?,
            other => other.map_err(|error| unusable(dir, error, entries))?,
        };
        self.parent = Some((dir.to_vec(), Rc::clone(&fd)));
        Ok(fd)
    }

    fn make_parents(&mut self, dir: &[u8], entries: &Entries) -> Result<Rc<OwnedFd>, StoreError> {
        let mut at = Rc::clone(&self.root);
        let ends = dir.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        for end in ends.chain([dir.len()]) {
            let path = &dir[..end];
            at = match self.open_directory(path) {
                Ok(found) => found,
                Err(error @ (Errno::NOENT | Errno::NOTDIR)) => {
                    let name = split(path).1;
                    match statat(&*at, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(stat) if !is_whiteout(&stat) => return Err(unusable(path, error, entries)),
                        _ => {}
                    }
                    let made = self.make_directory(&at, name, path)?;
                    let stat = fstat(&*made).map_err(|error| io("stat", path, error))?;
                    owner::set(self.ids, &*made, &stat, 0, 0).at("set owner of", shown(path))?;
                    self.directories.insert(path.to_vec(), IMPLICIT);
                    made
                }
                Err(error) => return Err(unusable(path, error, entries)),
            };
        }
        Ok(at)
    }

    /// Opens a directory of the tree, by a path that may lead through links, which stay inside.
    fn open_directory(&self, path: &[u8]) -> rustix::io::Result<Rc<OwnedFd>> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match openat2(&*self.root, path, flags, Mode::empty(), resolve) {
                // Something was renamed somewhere while a link with `..` was resolved: openat2(2).
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other.map(Rc::new),
            }
        }
    }
}

/// Takes a name apart and puts it together again: no leading slash, no `.`, no empty part; `..` is refused.
pub(super) fn clean(name: &[u8]) -> Result<Vec<u8>, EntryProblem> {
    if name.is_empty() || name.contains(&0) {
        return Err(EntryProblem::Name);
    }
    let mut path = Vec::with_capacity(name.len());
    for part in name.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(EntryProblem::DotDot),
            _ => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(part);
            }
        }
    }
    Ok(path)
}

/// Directory and last part.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

fn shown(path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    PathBuf::from(std::ffi::OsStr::from_bytes(path))
}

fn unusable(parent: &[u8], error: Errno, entries: &Entries) -> StoreError {
    let parent = String::from_utf8_lossy(parent).into_owned();
    let reason = match error {
        Errno::NOENT => "it is a link that leads nowhere".to_owned(),
        other => kiln_core::IoError::new("open", "", &other.into()).message,
    };
    entries.bad(EntryProblem::Parent { parent, reason })
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanos.into() },
    }
}

fn mark_opaque(dir: &OwnedFd, path: &[u8]) -> Result<(), StoreError> {
    fsetxattr(dir, OPAQUE, b"y", XattrFlags::empty()).map_err(|error| io("mark opaque", path, error))
}

fn set_xattrs(file: &OwnedFd, entry: &Entry, path: &[u8]) -> Result<(), StoreError> {
    for (name, value) in &entry.xattrs {
        owner::set_xattr(file, name, value).at("set xattr of", shown(path))?;
    }
    Ok(())
}

/// Removes a directory with all that is in it, following nothing.
fn remove_directory(parent: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
    let dir = openat(parent, name, DIRECTORY, Mode::empty())?;
    let mut buffer = Vec::with_capacity(8192);
    loop {
        // Read anew after each round: what was removed moves the rest about.
        let mut entries = RawDir::new(&dir, buffer.spare_capacity_mut());
        let mut found = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                found.push(entry.file_name().to_owned());
            }
        }
        if found.is_empty() {
            break;
        }
        for child in &found {
            match unlinkat(&dir, child, AtFlags::empty()) {
                Err(Errno::ISDIR) => remove_directory(&dir, child.to_bytes())?,
                other => other?,
            }
        }
        rustix::fs::seek(&dir, rustix::fs::SeekFrom::Start(0))?;
        buffer.clear();
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}
