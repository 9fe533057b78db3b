//! Writes entries into a directory, in overlay form, and never outside of it.
//!
//! Each entry's parent is opened with openat2(2) and `RESOLVE_IN_ROOT`: links and `..` inside links are resolved as if
//! the layer's directory were the root. What follows are *at calls on that descriptor that follow no link. The
//! directory belongs to this thread alone until it is published.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use kiln_core::IoResultExt as _;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, XattrFlags, fchmod, fsetxattr, fstat,
    futimens, mkdirat, mknodat, openat, openat2, statat, unlinkat,
};
use rustix::io::Errno;

use super::entry::{Entries, Entry, Kind, io};
use super::make::{At, Maker, set_xattrs, shown, times};
use crate::error::{ArchiveError, EntryProblem};
use crate::layer::{DIRECTORY, OPAQUE, is_whiteout};
use crate::layout::Ids;
use crate::owner::{self, LinkOwners};

/// A tree in the making.
pub(crate) struct Tree {
    maker: Maker,
    root: Rc<OwnedFd>,
    /// The directory that was last written to, with its path.
    parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Modes and times of directories, set at the end: writing into one changes its time, and needs permission.
    directories: BTreeMap<Vec<u8>, (u32, (i64, u32))>,
    root_said: bool,
}

/// Of directories that are there only because something is in them.
const IMPLICIT: (u32, (i64, u32)) = (0o755, (0, 0));

impl Tree {
    /// Starts in an empty directory.
    pub(crate) fn new(ids: Ids, dir: &Path) -> Result<Self, ArchiveError> {
        let root = openat(CWD, dir, DIRECTORY, Mode::empty()).at("open", dir)?;
        let stat = fstat(&root).at("stat", dir)?;
        owner::set(ids, &root, &stat, 0, 0).at("set owner of", dir)?;
        Ok(Self {
            maker: Maker::new(ids),
            root: Rc::new(root),
            parent: None,
            directories: BTreeMap::from([(Vec::new(), IMPLICIT)]),
            root_said: false,
        })
    }

    /// Writes one entry; its content comes from `entries`.
    pub(crate) fn apply(&mut self, entry: &Entry, entries: &mut Entries) -> Result<(), ArchiveError> {
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
            Kind::HardLink(target) => self.hard_link(&parent, name, &path, target, entries),
            _ => {
                while !self.maker.make(At { parent: &parent, name, path: &path }, entry, entries)? {
                    self.clear_at(&parent, name, &path)?;
                }
                Ok(())
            }
        }
    }

    /// Sets what had to wait. Returns the owners of links, and whether the tar said something about the root.
    pub(crate) fn finish(mut self) -> Result<(LinkOwners, bool), ArchiveError> {
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
        Ok((self.maker.links, self.root_said))
    }

    fn directory(&mut self, parent: &OwnedFd, entry: &Entry, path: Vec<u8>) -> Result<(), ArchiveError> {
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
    ) -> Result<Rc<OwnedFd>, ArchiveError> {
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

    fn dress_directory(&mut self, dir: &OwnedFd, entry: &Entry, path: Vec<u8>) -> Result<(), ArchiveError> {
        let stat = fstat(dir).map_err(|error| io("stat", &path, error))?;
        owner::set(self.maker.ids, dir, &stat, entry.uid, entry.gid).at("set owner of", shown(&path))?;
        set_xattrs(dir, entry, &path)?;
        self.directories.insert(path, (entry.mode, entry.mtime));
        Ok(())
    }

    fn hard_link(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        target: &[u8],
        entries: &Entries,
    ) -> Result<(), ArchiveError> {
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
        while !self.maker.link((&from, to_name, &to), At { parent, name, path })? {
            self.clear_at(parent, name, path)?;
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
    ) -> Result<(), ArchiveError> {
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

    /// Removes what an entry replaces.
    fn clear_at(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), ArchiveError> {
        let stat =
            statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| io("stat", path, error))?;
        self.clear(parent, name, path, &stat)
    }

    /// Removes what an entry replaces, and what is known about it.
    fn clear(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], stat: &Stat) -> Result<(), ArchiveError> {
        self.parent = None;
        self.maker.links.0.remove(&shown(path));
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return unlinkat(parent, name, AtFlags::empty()).map_err(|error| io("remove", path, error));
        }
        let below = |other: &[u8]| {
            other.strip_prefix(path).is_some_and(|rest| rest.first().is_none_or(|&b| b == b'/'))
        };
        self.directories.retain(|other, _| !below(other));
        let gone = shown(path);
        self.maker.links.0.retain(|other, _| !other.starts_with(&gone));
        remove_directory(parent, name).map_err(|error| io("remove", path, error))
    }

    /// Opens the directory that an entry goes into, making what is missing of it.
    fn parent(&mut self, dir: &[u8], entries: &Entries) -> Result<Rc<OwnedFd>, ArchiveError> {
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

    fn make_parents(&mut self, dir: &[u8], entries: &Entries) -> Result<Rc<OwnedFd>, ArchiveError> {
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
                    owner::set(self.maker.ids, &*made, &stat, 0, 0).at("set owner of", shown(path))?;
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
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

fn unusable(parent: &[u8], error: Errno, entries: &Entries) -> ArchiveError {
    let parent = String::from_utf8_lossy(parent).into_owned();
    let reason = match error {
        Errno::NOENT => "it is a link that leads nowhere".to_owned(),
        other => kiln_core::IoError::new("open", "", &other.into()).message,
    };
    entries.bad(EntryProblem::Parent { parent, reason })
}

fn mark_opaque(dir: &OwnedFd, path: &[u8]) -> Result<(), ArchiveError> {
    fsetxattr(dir, OPAQUE, b"y", XattrFlags::empty()).map_err(|error| io("mark opaque", path, error))
}

/// Removes a directory with all that is in it, following nothing.
pub(crate) fn remove_directory(parent: &OwnedFd, name: &[u8]) -> rustix::io::Result<()> {
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
