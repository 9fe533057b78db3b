//! What a step did: the tree compared with what it was.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use kiln_core::{Cancel, IoError, IoResultExt as _};
use rustix::fs::{Mode, openat};
use rustix::io::Errno;

use super::seen::{Seen, names};
use super::{file, interrupted, under};
use crate::deep::{self, DEEP, with_stack};
use crate::error::StoreError;
use crate::fixed::{loosen, loosen_open};
use crate::layer::DIRECTORY;
use crate::layer::archive::MAX_PATH;
use crate::layer::same::same;
use crate::layer::stack::{Stack, is_deletion};
use crate::tree::{FileStat, Kind};

/// One entry of the layer that a step makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// A directory that is new, or known under other metadata.
    Directory,
    /// A file that is new or another one.
    File,
    /// A further name of the file at a path.
    Link(PathBuf),
    /// What was there is not any more.
    Gone,
}

/// By path in the tree.
pub(super) type Changes = BTreeMap<PathBuf, Change>;

/// Finds what differs between the tree and `below`, the layers that it held when it was `seen`. Files at `other_owner`
/// belong to somebody else than below, although the file system cannot say so.
pub(super) fn find(
    root: &OwnedFd,
    label: &Path,
    seen: &Seen,
    below: Stack,
    other_owner: &BTreeSet<PathBuf>,
    cancel: &Cancel,
) -> Result<Changes, StoreError> {
    let mut search = Search { label, other_owner, cancel, changes: Changes::new(), several: HashMap::new() };
    let root = root.try_clone().at("open", label)?;
    loosen_if(FileStat::of(&root).at("stat", label)?, || loosen_open(&root)).at("unlock", label)?;
    with_stack(|| {
        search.directory(root, Path::new(""), Some(seen), &Below::root(below))?;
        search.names_of_one()?;
        Ok(search.changes)
    })
}

/// The layers at one path, opened when they are asked for: most directories are as they were.
struct Below<'a> {
    above: Option<(&'a Below<'a>, &'a CString)>,
    depth: usize,
    stack: RefCell<Option<Rc<Stack>>>,
}

impl<'a> Below<'a> {
    fn root(stack: Stack) -> Self {
        Self { above: None, depth: 0, stack: RefCell::new(Some(Rc::new(stack))) }
    }

    /// Of a directory in it. Far down, what was open here is not kept open.
    fn child(&'a self, name: &'a CString) -> rustix::io::Result<Self> {
        let open = if self.depth < DEEP { None } else { self.stack.borrow_mut().take() };
        let stack = open.map(|stack| stack.child(name)).transpose()?.map(Rc::new);
        Ok(Self { above: Some((self, name)), depth: self.depth + 1, stack: RefCell::new(stack) })
    }

    fn stack(&self) -> rustix::io::Result<Rc<Stack>> {
        let found = self.found()?;
        *self.stack.borrow_mut() = Some(Rc::clone(&found));
        Ok(found)
    }

    fn found(&self) -> rustix::io::Result<Rc<Stack>> {
        if let Some(stack) = &*self.stack.borrow() {
            return Ok(Rc::clone(stack));
        }
        let Some((above, name)) = self.above else { return Err(Errno::NOENT) };
        let stack = if above.depth < DEEP { above.stack()? } else { above.found()? };
        Ok(Rc::new(stack.child(name)?))
    }
}

/// A mark that a step set on its files is none of the layer's, and in the next step's way.
fn loosen_if(stat: FileStat, take_off: impl FnOnce() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    if stat.fixed { take_off() } else { Ok(()) }
}

/// A name of a file with several.
struct Name {
    path: PathBuf,
    differs: bool,
    /// If it was a name of this file before: how many there were.
    was: Option<u32>,
}

struct Search<'a> {
    label: &'a Path,
    other_owner: &'a BTreeSet<PathBuf>,
    cancel: &'a Cancel,
    changes: Changes,
    /// By inode.
    several: HashMap<u64, Vec<Name>>,
}

impl Search<'_> {
    /// Gives the directory back.
    fn directory(
        &mut self,
        mut dir: OwnedFd,
        path: &Path,
        seen: Option<&Seen>,
        below: &Below<'_>,
    ) -> Result<OwnedFd, StoreError> {
        interrupted(self.cancel)?;
        let length = path.as_os_str().len();
        if length > MAX_PATH {
            return Err(StoreError::LongPath { path: path.to_owned(), length });
        }
        let label = self.label.join(path);
        let mut left = Vec::new();
        for name in names(&dir, &label)? {
            let inside = under(path, &name);
            let full = self.label.join(&inside);
            let stat = FileStat::at(&dir, &name).at("stat", &full)?;
            if is_deletion(&stat) {
                // Overlay lets nobody make one; in a layer it means something.
                file::remove(&dir, &name).at("remove", full)?;
                continue;
            }
            loosen_if(stat, || loosen(&dir, &name)).at("unlock", &full)?;
            let seen = seen.and_then(|seen| seen.get(&name));
            self.entry(&dir, &name, &stat, &inside, seen, below)?;
            if stat.kind() == Kind::Dir {
                let child = openat(&dir, &name, DIRECTORY, Mode::empty()).at("open", &full)?;
                // In place of a file there was nothing in it.
                let seen = seen.filter(|seen| seen.entries.is_some());
                let lower = below.child(&name).at("open below", &full)?;
                let walk = |child| self.directory(child, &inside, seen, &lower).map(|child| ((), child));
                ((), dir, _) = deep::below(dir, child, below.depth, &label, walk)?;
            }
            left.push(name);
        }
        for (name, _) in seen.and_then(|seen| seen.entries.as_deref()).unwrap_or_default() {
            if left.binary_search(name).is_err() {
                self.changes.insert(under(path, name), Change::Gone);
            }
        }
        Ok(dir)
    }

    fn entry(
        &mut self,
        dir: &OwnedFd,
        name: &CString,
        stat: &FileStat,
        path: &Path,
        seen: Option<&Seen>,
        below: &Below<'_>,
    ) -> Result<(), StoreError> {
        let full = self.label.join(path);
        let differs = || -> rustix::io::Result<bool> {
            if self.other_owner.contains(path) {
                return Ok(true);
            }
            if seen.is_some_and(|seen| seen.is(stat)) {
                return Ok(false);
            }
            match below.stack()?.find(name)? {
                Some((lower, original)) => Ok(!same((dir.as_fd(), name, stat), (lower, name, &original))?),
                None => Ok(true),
            }
        };
        let differs = differs().at("compare", &full)?;
        if stat.kind() == Kind::Dir {
            if differs {
                self.changes.insert(path.to_owned(), Change::Directory);
            }
        } else if stat.nlink > 1 {
            let was = seen.filter(|seen| seen.inode == stat.ino).map(|seen| seen.names);
            let name = Name { path: path.to_owned(), differs, was };
            self.several.entry(stat.ino).or_default().push(name);
        } else if differs {
            self.changes.insert(path.to_owned(), Change::File);
        }
        Ok(())
    }

    /// Files with several names. Overlay parts the names of a file of a lower layer when it changes, so the ones that it had
    /// before are separate files from then on; so they are when one of them is moved. A file that got a further name is one
    /// file under all its names.
    fn names_of_one(&mut self) -> Result<(), IoError> {
        for names in std::mem::take(&mut self.several).into_values() {
            let (old, new): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.was.is_some());
            let before = old.iter().find_map(|name| name.was).map_or(0, |before| before as usize);
            let moved = new.len() + old.len() <= before && old.iter().all(|name| !name.differs);
            if new.is_empty() || moved {
                for name in names.into_iter().filter(|name| name.differs) {
                    self.changes.insert(name.path, Change::File);
                }
                continue;
            }
            // In the order of the walk, which is sorted.
            let mut names = names.into_iter().map(|name| name.path);
            let Some(first) = names.next() else { continue };
            for other in names {
                self.changes.insert(other, Change::Link(first.clone()));
            }
            self.changes.insert(first, Change::File);
        }
        Ok(())
    }
}
