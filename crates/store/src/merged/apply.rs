//! A layer goes over a tree.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_core::{Cancel, IoError, IoResultExt as _};
use rustix::fs::{AtFlags, CWD, Dir, Mode, linkat, mkdirat, openat};
use rustix::io::Errno;

use super::queue::{self, Queue};
use super::{Bytes, Share, file, interrupted, under};
use crate::error::StoreError;
use crate::layer::stack::is_deletion;
use crate::layer::{DIRECTORY, is_opaque};
use crate::tree::{FileStat, Kind};

/// Files that one thread takes at a time.
const CHUNK: usize = 64;

/// Puts what the directory `layer` has, in overlay form, over the tree `root`, whose own metadata stay.
pub(super) fn apply(
    root: &OwnedFd,
    label: &Path,
    layer: &Path,
    share: Share,
    cancel: &Cancel,
) -> Result<(), StoreError> {
    let from = openat(CWD, layer, DIRECTORY, Mode::empty()).at("open", layer)?;
    let to = root.try_clone().at("open", label)?;
    let place = Place { from, to, path: PathBuf::new(), busy: AtomicUsize::new(1), fresh: false };
    queue::run(
        |queue| Walk { queue, root, label, share, cancel, links: HashMap::new() }.tree(place),
        |files: Files, bytes| files.put(label, share, bytes),
    )
}

/// A directory of the layer and the one of the tree that it goes over.
struct Place {
    from: OwnedFd,
    to: OwnedFd,
    /// In the tree; empty for the root.
    path: PathBuf,
    /// Who still makes something in it. The last one gives it its metadata: making something moves its time.
    busy: AtomicUsize,
    /// Whether nothing was there before.
    fresh: bool,
}

impl Place {
    fn done(&self, label: &Path) -> Result<(), IoError> {
        if self.busy.fetch_sub(1, Ordering::AcqRel) > 1 || self.path.as_os_str().is_empty() {
            return Ok(());
        }
        let finish = || {
            let stat = FileStat::of(&self.from)?;
            file::copy_attributes(&self.from, &stat, &self.to, self.fresh)
        };
        finish().at("set attributes of", label.join(&self.path))
    }
}

/// Files of one directory, for one thread.
struct Files {
    place: Arc<Place>,
    names: Vec<CString>,
}

impl Files {
    fn put(self, label: &Path, share: Share, bytes: &mut Bytes) -> Result<(), StoreError> {
        let Place { from, to, path, .. } = &*self.place;
        for name in &self.names {
            let linked = share == Share::Linked
                && file::link(from, to, name).at("link", under(&label.join(path), name))?;
            if !linked {
                file::copy(from, name, to, name, bytes).at("copy", under(&label.join(path), name))?;
            }
        }
        Ok(self.place.done(label)?)
    }
}

/// Makes the directories, removes what is replaced, and puts the files in the queue.
struct Walk<'a> {
    queue: &'a Queue<'a, Files>,
    root: &'a OwnedFd,
    label: &'a Path,
    share: Share,
    cancel: &'a Cancel,
    /// Where the tree has the first name of a file that may have several in this layer, by inode.
    links: HashMap<u64, PathBuf>,
}

impl Walk<'_> {
    /// One directory after the other, the last one found first: what waits is held open, and that is little.
    fn tree(&mut self, first: Place) -> Result<(), StoreError> {
        let mut waiting = Vec::new();
        self.directory(Arc::new(first), &mut waiting)?;
        while let Some((place, name)) = waiting.pop() {
            let shown = under(&self.label.join(&place.path), &name);
            let child = self.child(&place, &name).at("make", shown)?;
            place.done(self.label)?;
            drop(place);
            self.directory(Arc::new(child), &mut waiting)?;
        }
        Ok(())
    }

    fn directory(
        &mut self,
        place: Arc<Place>,
        waiting: &mut Vec<(Arc<Place>, CString)>,
    ) -> Result<(), StoreError> {
        interrupted(self.cancel)?;
        let shown = self.label.join(&place.path);
        let mut names = Vec::new();
        for entry in Dir::read_from(&place.from).at("read", &shown)? {
            let entry = entry.at("read", &shown)?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                names.push(entry.file_name().to_owned());
            }
        }
        let (mut files, mut directories) = (Vec::new(), Vec::new());
        for name in names {
            let stat = FileStat::at(&place.from, &name).at("stat", under(&shown, &name))?;
            if stat.kind() == Kind::Dir {
                directories.push(name);
                continue;
            }
            if !place.fresh {
                self.clear(&place, &name).at("remove", under(&shown, &name))?;
            }
            if is_deletion(&stat) || self.is_link(&place, &name, &stat)? {
                continue;
            }
            files.push(name);
            if files.len() == CHUNK {
                self.put(&place, std::mem::take(&mut files))?;
            }
        }
        if !files.is_empty() {
            self.put(&place, files)?;
        }
        place.busy.fetch_add(directories.len(), Ordering::Relaxed);
        waiting.extend(directories.into_iter().rev().map(|name| (Arc::clone(&place), name)));
        Ok(place.done(self.label)?)
    }

    fn put(&self, place: &Arc<Place>, names: Vec<CString>) -> Result<(), StoreError> {
        place.busy.fetch_add(1, Ordering::Relaxed);
        self.queue.put(Files { place: Arc::clone(place), names })
    }

    /// Makes a directory, or finds the one that the layer adds to.
    fn child(&self, place: &Place, name: &CStr) -> std::io::Result<Place> {
        let from = openat(&place.from, name, DIRECTORY, Mode::empty())?;
        let there = match FileStat::at(&place.to, name) {
            Ok(stat) => Some(stat.kind()),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error.into()),
        };
        let merges = there == Some(Kind::Dir) && !is_opaque(&from)?;
        if !merges {
            if there.is_some() {
                file::remove(&place.to, name)?;
            }
            mkdirat(&place.to, name, Mode::RWXU)?;
        }
        let to = openat(&place.to, name, DIRECTORY, Mode::empty())?;
        let path = under(&place.path, name);
        Ok(Place { from, to, path, busy: AtomicUsize::new(1), fresh: !merges })
    }

    fn clear(&self, place: &Place, name: &CStr) -> rustix::io::Result<()> {
        match file::remove(&place.to, name) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    /// Makes a further name of a file that this layer has brought already. Layers share files by hard links, so a link
    /// count says only that there may be another name here; files that have one are copied on this thread.
    fn is_link(&mut self, place: &Place, name: &CStr, stat: &FileStat) -> Result<bool, StoreError> {
        if stat.nlink < 2 || self.share == Share::Linked {
            return Ok(false);
        }
        let path = under(&place.path, name);
        let shown = self.label.join(&path);
        if let Some(first) = self.links.get(&stat.ino) {
            linkat(self.root, first, &place.to, name, AtFlags::empty()).at("link", shown)?;
        } else {
            file::copy(&place.from, name, &place.to, name, &mut Bytes::new()).at("copy", shown)?;
            self.links.insert(stat.ino, path);
        }
        Ok(true)
    }
}
