//! One cache's directory, and what may be in it.
//!
//! `data/` is the cache. `lock` says who uses it in place: shared or alone. `holders/` has a note of each user.
//! `private-*` are copies that steps work on; `pending/` is a finished one that waits for `data/` to be free;
//! `gone-*` is on its way out. The directory itself is locked for the moments in which these are moved about. A
//! directory that is used otherwise than through `lock` carries a lock of its own, and is only deleted without one.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use kiln_core::{Cancel, IoError, IoResultExt};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::lock::{self, HolderNote};
use super::meta::Meta;
use super::place::{self, PLACE};
use super::{CacheError, CacheRequest};
use crate::copy::clone_tree;
use crate::layout::Ids;
use crate::owner;
use crate::scratch::{random_name, remove_tree};

#[derive(Debug, Clone)]
pub(super) struct Home {
    pub(super) dir: PathBuf,
    /// Where a dead process may have left its data.
    pub(super) scratch: Option<PathBuf>,
    /// The user's directory that is the cache, if it is not in here: see [`super::place`].
    pub(super) place: Option<PathBuf>,
}

impl Home {
    /// The one in this directory.
    pub(super) fn found(dir: PathBuf) -> Self {
        let place = if place::is_name(&dir) { std::fs::read_link(dir.join(PLACE)).ok() } else { None };
        Self { dir, scratch: None, place }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.place.clone().unwrap_or_else(|| self.dir.join("data"))
    }

    /// What is locked. Of a placed cache the directory itself: that is one, whatever stores have it placed.
    pub(super) fn lock(&self) -> PathBuf {
        self.place.clone().unwrap_or_else(|| self.dir.join("lock"))
    }

    pub(super) fn holders(&self) -> PathBuf {
        self.dir.join("holders")
    }

    pub(super) fn pending(&self) -> PathBuf {
        self.dir.join("pending")
    }

    pub(super) fn note(&self, text: &str, in_place: bool) -> Result<HolderNote, IoError> {
        HolderNote::leave(&self.holders(), text, in_place)
    }

    /// Makes the cache if it is not there; returns whether it was made. It appears whole, seed included.
    pub(super) fn create(
        &self,
        request: &CacheRequest,
        ids: Ids,
        seed: &mut dyn FnMut() -> Result<Option<OwnedFd>, IoError>,
        cancel: &Cancel,
    ) -> Result<bool, CacheError> {
        if let Some(place) = &self.place {
            return self.create_placed(place, request, ids, seed, cancel);
        }
        if self.is_whole() || self.is_away()? {
            return Ok(false);
        }
        let scope = self.dir.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(scope).at("create", scope)?;
        let (new, _alive) = loop {
            let new = Half(scope.join(format!(".new-{}", random_name())));
            std::fs::create_dir(&new.0).at("create", &new.0)?;
            // A sweep may have taken it for a dead one's just now.
            match lock::attempt(&new.0, FlockOperation::NonBlockingLockExclusive)? {
                Some(alive) => break (new, alive),
                None => continue,
            }
        };
        let home = Self { dir: new.0.clone(), scratch: None, place: None };
        for dir in [home.data(), home.holders()] {
            std::fs::create_dir(&dir).at("create", dir)?;
        }
        std::fs::File::create_new(home.lock()).at("create", home.lock())?;
        let mut seeded = false;
        if let Some(from) = seed()? {
            clone_tree(from, Path::new("/"), &home.data(), cancel)
                .map_err(|source| copy_error(request, Path::new("the seed"), source))?;
            seeded = true;
        }
        // A seed brings its own owner and mode; what the mount says besides the defaults goes over them.
        if !seeded || !request.has_default_owner() {
            give(&home.data(), request, ids)?;
        }
        Meta::new(&request.id, &request.scope).write(&new.0)?;
        match rustix::fs::renameat_with(CWD, &new.0, CWD, &self.dir, RenameFlags::NOREPLACE) {
            Ok(()) => {
                new.keep();
                Ok(true)
            }
            // Another step was faster: its cache is the cache.
            Err(Errno::EXIST | Errno::NOTEMPTY) if self.is_whole() => Ok(false),
            Err(Errno::EXIST | Errno::NOTEMPTY) => self.mend(&home),
            Err(error) => Err(error).at("rename to", &self.dir)?,
        }
    }

    /// Returns whether what is missing is in use: a step in a chroot has the directory itself. What one left that was
    /// killed is moved back.
    fn is_away(&self) -> Result<bool, IoError> {
        if !self.lock().exists() {
            return Ok(false);
        }
        let Some(_alone) = lock::attempt(&self.lock(), FlockOperation::NonBlockingLockExclusive)? else {
            return Ok(true);
        };
        if let Some(scratch) = &self.scratch {
            crate::scratch::sweep(scratch)?;
        }
        Ok(self.is_whole())
    }

    pub(super) fn is_whole(&self) -> bool {
        self.data().is_dir() && self.lock().exists() && self.holders().is_dir()
    }

    /// Takes from a new cache what this one lacks: people may delete `data/`, that is what it is there for.
    fn mend(&self, new: &Self) -> Result<bool, CacheError> {
        let Some(_guard) = lock::guard(&self.dir)? else { return Ok(false) };
        let emptied = !self.data().is_dir();
        for part in ["data", "holders", "lock", "meta.json"] {
            let to = self.dir.join(part);
            match rustix::fs::renameat_with(CWD, new.dir.join(part), CWD, &to, RenameFlags::NOREPLACE) {
                Ok(()) | Err(Errno::EXIST | Errno::NOTEMPTY) => {}
                Err(error) => return Err(error).at("rename to", to)?,
            }
        }
        Ok(emptied)
    }

    /// Puts a finished private copy that waits into place, if nobody uses the cache in place.
    pub(super) fn adopt_pending(&self) -> Result<(), IoError> {
        // Nearly always: nothing waits.
        if !self.pending().is_dir() {
            return Ok(());
        }
        let Some(_alone) = lock::attempt(&self.lock(), FlockOperation::NonBlockingLockExclusive)? else {
            return Ok(());
        };
        self.adopt_pending_alone().map(drop)
    }

    /// The same for who holds the cache alone. Returns whether a placed cache is another directory now, which nobody holds.
    pub(super) fn adopt_pending_alone(&self) -> Result<bool, IoError> {
        if !self.pending().is_dir() {
            return Ok(false);
        }
        let Some(_guard) = lock::guard(&self.dir)? else { return Ok(false) };
        match rustix::fs::renameat_with(CWD, self.pending(), CWD, self.data(), RenameFlags::EXCHANGE) {
            Ok(()) => {
                self.discard_locked(&self.pending())?;
                Ok(self.place.is_some())
            }
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error).at("publish", self.pending()),
        }
    }

    /// Makes a private copy the finished generation; returns whether the cache is still there to take it.
    pub(super) fn publish(&self, copy: &Path) -> Result<bool, IoError> {
        let Some(_guard) = lock::guard(&self.dir)? else { return Ok(false) };
        if self.pending().is_dir() {
            self.discard_locked(&self.pending())?;
        }
        std::fs::rename(copy, self.pending()).at("rename", copy)?;
        drop(_guard);
        self.adopt_pending()?;
        Ok(true)
    }

    /// Drops a finished copy that waits: a step that used the cache in place ended well after it.
    pub(super) fn drop_pending(&self) -> Result<(), IoError> {
        if !self.pending().is_dir() {
            return Ok(());
        }
        let Some(_guard) = lock::guard(&self.dir)? else { return Ok(()) };
        if self.pending().is_dir() { self.discard_locked(&self.pending()) } else { Ok(()) }
    }

    /// Removes a directory of this cache; the cache itself is locked. Whoever still copies from it holds a lock on
    /// it: then it stays until the next sweep.
    pub(super) fn discard_locked(&self, path: &Path) -> Result<(), IoError> {
        let gone = self.dir.join(format!("gone-{}", random_name()));
        std::fs::rename(path, &gone).at("rename", path)?;
        if lock::attempt(&gone, FlockOperation::NonBlockingLockExclusive)?.is_some() {
            remove_tree(&gone);
        }
        Ok(())
    }

    /// Removes what dead processes left.
    pub(super) fn sweep(&self) {
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            if (name.starts_with(b"private-") || name.starts_with(b"gone-"))
                && let Ok(Some(_lock)) =
                    lock::attempt(&entry.path(), FlockOperation::NonBlockingLockExclusive)
            {
                remove_tree(&entry.path());
            }
        }
    }

    /// Changes the meta; the cache is locked for it.
    pub(super) fn update(&self, change: impl FnOnce(&mut Meta)) -> Result<(), IoError> {
        let Some(_guard) = lock::guard(&self.dir)? else { return Ok(()) };
        let mut meta = Meta::read(&self.dir);
        change(&mut meta);
        meta.write(&self.dir)
    }

    /// Returns whether the cache is still the one that was opened.
    pub(super) fn is_same(&self, data: impl AsFd) -> Result<bool, IoError> {
        let held = crate::tree::FileStat::of(data).at("stat", self.data())?;
        Ok(crate::tree::FileStat::at(CWD, self.data())
            .is_ok_and(|now| (now.dev, now.ino) == (held.dev, held.ino)))
    }
}

/// A half-made directory: removed when dropped.
#[derive(Debug)]
pub(super) struct Half(pub(super) PathBuf);

impl Half {
    /// Lets it stay.
    pub(super) fn keep(mut self) {
        self.0 = PathBuf::new();
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty() {
            remove_tree(&self.0);
        }
    }
}

/// Makes a new cache's directory what its mount asks for.
pub(super) fn give(data: &Path, request: &CacheRequest, ids: Ids) -> Result<(), IoError> {
    let file = open_dir(data)?;
    let stat = rustix::fs::fstat(&file).at("stat", data)?;
    owner::set(ids, &file, &stat, request.uid, request.gid).at("set the owner of", data)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(request.mode & 0o7777)).at("set the mode of", data)
}

pub(super) fn open_dir(path: &Path) -> Result<OwnedFd, IoError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty()).at("open", path)
}

pub(super) fn copy_error(request: &CacheRequest, from: &Path, source: crate::copy::CopyError) -> CacheError {
    match source {
        crate::copy::CopyError::Cancelled => CacheError::Cancelled,
        source => {
            CacheError::Copy { id: request.id.clone(), from: from.to_owned(), source: Box::new(source) }
        }
    }
}
