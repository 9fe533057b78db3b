//! What a selection found: entries in one arena, and the matches that lead into it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kiln_core::Digest;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::StatIndex;
use super::stat::{FileStat, Kind, kind_of};
use super::xattr::{Which, Xattrs};
use crate::owner::LinkOwners;

/// The files that a selection means, with what stat says of them. One walk serves the digest and the copy.
#[derive(Debug)]
pub struct Selected {
    pub(crate) root: Arc<OwnedFd>,
    pub(crate) label: PathBuf,
    pub(crate) matches: Vec<Match>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) names: Vec<u8>,
    pub(crate) index: Option<Arc<StatIndex>>,
    /// Which attributes count.
    pub(crate) which: Which,
    /// Of those entries that have any; files are added when they are hashed.
    pub(crate) xattrs: Mutex<HashMap<u32, Arc<Xattrs>>>,
    pub(crate) excluded: usize,
    /// Whether a file counts with other permission bits than it has on disk.
    pub(crate) other_modes: bool,
}

/// One thing that a selection names.
#[derive(Debug)]
pub(crate) struct Match {
    /// The base name that it arrives under: a link's own, where a link was followed. Empty for the root.
    pub(crate) name: Vec<u8>,
    /// Where it is, relative to the root, free of links.
    pub(crate) path: PathBuf,
    /// Its entry.
    pub(crate) entry: u32,
}

/// One file. 50,000 of them, names included, take 8 MB.
#[derive(Debug)]
pub(crate) struct Entry {
    name_start: u32,
    name_len: u16,
    /// Not here by itself, only as the parent of something that is: it goes if there is nothing.
    pub(crate) only_parent: bool,
    /// A directory that leads to what `--parents` or `--exclude` selects below it, and is not selected itself.
    pub(crate) on_the_way: bool,
    /// Left out after all.
    pub(crate) dropped: bool,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u32,
    first_child: u32,
    child_count: u32,
    pub(crate) stat: Identity,
    pub(crate) digest: OnceLock<[u8; 32]>,
}

/// The part of a file's stat that says whether it is the same as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    /// Bytes; the device number for a device node.
    pub(crate) size: u64,
    pub(crate) mtime: super::Time,
    pub(crate) ctime: super::Time,
}

impl From<&FileStat> for Identity {
    fn from(stat: &FileStat) -> Self {
        let size = match stat.kind() {
            Kind::CharDevice | Kind::BlockDevice => stat.rdev,
            _ => stat.size,
        };
        Self { dev: stat.dev, ino: stat.ino, size, mtime: stat.mtime, ctime: stat.ctime }
    }
}

impl Entry {
    pub(crate) fn kind(&self) -> Kind {
        kind_of(self.mode)
    }

    pub(crate) fn children(&self) -> Range<u32> {
        self.first_child..self.first_child + self.child_count
    }
}

/// What [`Selected::visit`] shows of one file.
#[derive(Debug)]
pub struct Visit<'a> {
    /// The path under which it arrives: match names, then names below.
    pub path: &'a Path,
    /// Its type.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Bytes of a regular file.
    pub size: u64,
    /// Of a regular file's content, if it was needed so far.
    pub digest: Option<Digest>,
}

impl Selected {
    /// Returns whether a wildcard matched nothing.
    pub fn is_empty(&self) -> bool {
        self.matches.is_empty()
    }

    /// Returns the number of files and directories, matched directories included.
    pub fn len(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.dropped).count()
    }

    /// Returns how many paths below the matches patterns left out (a pruned directory counts once).
    pub fn excluded(&self) -> usize {
        self.excluded
    }

    /// Returns whether the source, where it is, shows exactly what is selected: nothing is left out, and all have the
    /// permission bits that they count with.
    pub fn is_as_it_is(&self) -> bool {
        self.excluded == 0 && !self.other_modes
    }

    /// Returns where the only match is, relative to the source's root: what a bind mount mounts.
    pub fn single(&self) -> Option<(&Path, Kind)> {
        match &self.matches[..] {
            [only] => Some((&only.path, self.entry(only.entry).kind())),
            _ => None,
        }
    }

    /// Shows each file in a fixed order: sorted by name in each directory, directories before what they hold.
    pub fn visit(&self, see: &mut dyn FnMut(&Visit<'_>)) {
        for m in &self.matches {
            let mut path = PathBuf::from(OsStr::from_bytes(&m.name));
            self.visit_entry(m.entry, &mut path, see);
        }
    }

    fn visit_entry(&self, id: u32, path: &mut PathBuf, see: &mut dyn FnMut(&Visit<'_>)) {
        let entry = self.entry(id);
        see(&Visit {
            path,
            kind: entry.kind(),
            mode: entry.mode & 0o7777,
            size: if entry.kind() == Kind::File { entry.stat.size } else { 0 },
            digest: entry.digest.get().map(|bytes| Digest::from_bytes(*bytes)),
        });
        for child in self.live_children(id) {
            path.push(self.name(child));
            self.visit_entry(child, path, see);
            path.pop();
        }
    }

    /// Whether it is a user's directory. What the store has never changes, but gets and loses names, which moves the change
    /// time.
    pub(crate) fn may_change(&self) -> bool {
        self.which == Which::Portable
    }

    pub(crate) fn entry(&self, id: u32) -> &Entry {
        &self.entries[id as usize]
    }

    pub(crate) fn name(&self, id: u32) -> &OsStr {
        OsStr::from_bytes(name_in(&self.names, self.entry(id)))
    }

    pub(crate) fn live_children(&self, id: u32) -> impl Iterator<Item = u32> {
        self.entry(id).children().filter(|child| !self.entry(*child).dropped)
    }

    /// Takes owners of links, fifos and devices from a list by path.
    pub(super) fn set_link_owners(&mut self, links: &LinkOwners) {
        for (path, ids) in &links.0 {
            for index in 0..self.matches.len() {
                let Some(id) = self.found_below(&self.matches[index], path) else { continue };
                let entry = &mut self.entries[id as usize];
                if !matches!(entry.kind(), Kind::File | Kind::Dir) {
                    (entry.uid, entry.gid) = *ids;
                }
            }
        }
    }

    /// Returns what a match has at a path of the root.
    fn found_below(&self, m: &Match, path: &Path) -> Option<u32> {
        let mut id = m.entry;
        for name in path.strip_prefix(&m.path).ok()? {
            let children = self.entry(id).children();
            let names = &self.entries[children.start as usize..children.end as usize];
            let at = names.binary_search_by(|entry| name_in(&self.names, entry).cmp(name.as_bytes())).ok()?;
            id = children.start + u32::try_from(at).ok()?;
        }
        Some(id)
    }

    pub(crate) fn xattrs_of(&self, id: u32) -> Option<Arc<Xattrs>> {
        self.xattrs.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Returns the full path of something below the root, for messages.
    pub(crate) fn full(&self, path: &Path) -> PathBuf {
        self.label.join(path)
    }

    pub(crate) fn open_dir(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        open_dir(self.root.as_fd(), path)
    }
}

/// Opens a directory below a root; no component may be a link.
pub(crate) fn open_dir(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

pub(crate) fn name_in<'a>(names: &'a [u8], entry: &Entry) -> &'a [u8] {
    &names[entry.name_start as usize..][..usize::from(entry.name_len)]
}

/// Fills the arena.
pub(super) fn push(names: &mut Vec<u8>, entries: &mut Vec<Entry>, name: &[u8], stat: &FileStat) -> u32 {
    let id = u32::try_from(entries.len()).expect("a selection has fewer than four thousand million files");
    entries.push(Entry {
        name_start: u32::try_from(names.len()).expect("names take less than 4 GiB"),
        name_len: u16::try_from(name.len()).expect("the kernel limits names to 255 bytes"),
        only_parent: false,
        on_the_way: false,
        dropped: false,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        nlink: stat.nlink,
        first_child: 0,
        child_count: 0,
        stat: Identity::from(stat),
        digest: OnceLock::new(),
    });
    names.extend_from_slice(name);
    id
}

pub(super) fn set_children(entry: &mut Entry, children: Range<u32>) {
    entry.first_child = children.start;
    entry.child_count = children.end - children.start;
}
