//! Holding a cache outside of a build: to look at it, to work in it, to give it another content.

use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use kiln_core::{Cancel, IoError, IoResultExt as _, Sharing};
use rustix::fs::{CWD, FlockOperation, RenameFlags};

use super::acquire::COUNT_AT_ONCE;
use super::home::{Half, Home};
use super::list::who;
use super::lock::{self, HolderNote, Waited};
use super::{CacheError, CacheMounts, CacheName, CacheRequest, count};
use crate::scratch::random_name;

/// What a cache is held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldAs {
    /// To look at it, or to change files in place. It must be there.
    Read,
    /// To put files into it, each by a rename. It is made if it is not there.
    Fill,
    /// To give it another content as a whole. It is made if it is not there.
    Replace,
}

/// A cache that no step uses in place meanwhile: what is read is one state of it. Private steps still copy it. Dropped,
/// it is given back as it is.
#[derive(Debug)]
pub struct CacheHold {
    home: Home,
    name: CacheName,
    who: String,
    note: HolderNote,
    lock: OwnedFd,
}

/// How a directory is called in which an import lies within a placed cache, for the time that it takes: a cache on a file system of
/// its own has no place beside it.
pub const STAGED_INSIDE: &str = ".kiln-import-";

/// A directory on a cache's file system whose files, or which as a whole, shall become its content; removed when dropped.
#[derive(Debug)]
pub struct Stage {
    half: Half,
    inside: bool,
    /// Says to sweeps that it is in use.
    lock: OwnedFd,
}

impl Stage {
    /// Returns the directory, empty at first. Its own owner and mode become those of the cache.
    pub fn path(&self) -> &Path {
        &self.half.0
    }

    /// Whether it lies within the cache, as it does in a placed one that nothing can be renamed to. Then it cannot become its
    /// content as a whole.
    pub fn is_inside(&self) -> bool {
        self.inside
    }
}

impl CacheMounts {
    /// Holds a cache until the returned value is dropped, waiting for steps that use it; `on_wait` is told for whom, at first
    /// and whenever that changes. `who` is what others see who wait: `process 4711, kiln cache export`.
    ///
    /// # Errors
    /// There is no such cache ([`HoldAs::Read`]); the wait was interrupted, or took too long; it is placed where it cannot be replaced; the
    /// file system failed.
    pub fn hold(
        &self,
        name: &CacheName,
        how: HoldAs,
        who: &str,
        on_wait: &mut dyn FnMut(&str),
        cancel: &Cancel,
    ) -> Result<CacheHold, CacheError> {
        let home = self.home(&name.id, &name.scope);
        let none = || CacheError::NoCache { id: name.id.clone() };
        loop {
            match how {
                HoldAs::Fill | HoldAs::Replace => {
                    let request = plain(name);
                    home.create(&request, self.ids, &mut || Ok(None), cancel)?;
                    if how == HoldAs::Replace {
                        home.can_swap(&name.id)?;
                    }
                }
                HoldAs::Read if !home.lock().exists() => return Err(none()),
                HoldAs::Read if home.place.is_some() => {
                    let request = CacheRequest { read_only: true, ..plain(name) };
                    home.create(&request, self.ids, &mut || Ok(None), cancel)?;
                }
                HoldAs::Read => {}
            }
            let mut shown = String::new();
            let mut blocked = |polls: u32| {
                let text = home.users();
                // One that has just taken the lock has not said yet who it is.
                if text != shown && (polls >= 10 || !home.is_quiet()) {
                    on_wait(&text);
                    shown = text;
                }
            };
            let lock = match lock::wait(&home.lock(), true, self.patience, cancel, &mut blocked)? {
                Waited::Held(lock) => lock,
                // Removed in between.
                Waited::Gone if how == HoldAs::Read => return Err(none()),
                Waited::Gone => continue,
                Waited::TooLong => return Err(self.over(&name.id, &home)),
            };
            if home.adopt_pending_alone()? {
                continue;
            }
            if !home.data().is_dir() {
                // Deleted by hand; or one that a step in a chroot had which was killed.
                if how == HoldAs::Read && !home.is_back()? {
                    return Err(none());
                }
                continue;
            }
            home.sweep_inside();
            let note = home.note(who, true)?;
            let (name, who) = (name.clone(), who.to_owned());
            return Ok(CacheHold { home, name, who, note, lock });
        }
    }
}

impl CacheHold {
    /// Returns the cache's directory.
    pub fn path(&self) -> PathBuf {
        self.home.data()
    }

    /// Returns which one it is.
    pub fn name(&self) -> &CacheName {
        &self.name
    }

    /// Makes an empty directory that can become the cache's content, or whose files can.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn stage(&self) -> Result<Stage, IoError> {
        let inside = self.home.can_swap(&self.name.id).is_err();
        loop {
            let path = match inside {
                true => self.home.data().join(format!("{STAGED_INSIDE}{}", random_name())),
                false => self.home.dir.join(format!("private-{}", random_name())),
            };
            let half = Half(path);
            std::fs::DirBuilder::new().mode(0o700).create(&half.0).at("create", &half.0)?;
            // A sweep may have taken it for a dead one's just now.
            if let Some(lock) = lock::attempt(&half.0, FlockOperation::NonBlockingLockShared)? {
                return Ok(Stage { half, inside, lock });
            }
        }
    }

    /// Makes a stage the cache's content, by one rename, and gives the cache back.
    ///
    /// # Errors
    /// It cannot be renamed; the cache is as it was.
    pub fn replace(self, stage: Stage) -> Result<(), CacheError> {
        if stage.inside {
            self.home.can_swap(&self.name.id)?;
        }
        let Stage { half, lock: staged, .. } = stage;
        let Self { home, name, who, note, lock } = self;
        let counted = count::count_small(&half.0, COUNT_AT_ONCE);
        let Some(guard) = lock::guard(&home.dir)? else { return Err(CacheError::NoCache { id: name.id }) };
        let to = home.data();
        rustix::fs::renameat_with(CWD, &half.0, CWD, &to, RenameFlags::EXCHANGE).at("rename to", &to)?;
        drop((staged, lock));
        // What was there has the stage's name now. Who copies from it goes on.
        home.discard_locked(&half.0)?;
        half.keep();
        drop((guard, note));
        changed(&home, &who, counted)
    }

    /// Gives the cache back after its files were changed in place.
    ///
    /// # Errors
    /// What is known of it cannot be written.
    pub fn changed(self) -> Result<(), CacheError> {
        let counted = count::count_small(&self.home.data(), COUNT_AT_ONCE);
        changed(&self.home, &self.who, counted)
    }
}

fn changed(home: &Home, who: &str, counted: Option<count::Count>) -> Result<(), CacheError> {
    Ok(home.update(|meta| {
        meta.used(who, &[]);
        meta.counted(false, counted);
    })?)
}

impl Home {
    /// Whether what a killed process has taken elsewhere is there again.
    fn is_back(&self) -> Result<bool, IoError> {
        if let Some(scratch) = &self.scratch {
            crate::scratch::sweep(scratch)?;
        }
        Ok(self.data().is_dir())
    }

    /// Removes what a killed import left within a placed cache.
    fn sweep_inside(&self) {
        let Some(place) = &self.place else { return };
        for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(STAGED_INSIDE.as_bytes())
                && let Ok(Some(_lock)) =
                    lock::attempt(&entry.path(), FlockOperation::NonBlockingLockExclusive)
            {
                crate::scratch::remove_tree(&entry.path());
            }
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        lock::holders(&self.holders()).in_place.is_empty()
    }

    /// Who uses the cache in place, in one phrase.
    pub(super) fn users(&self) -> String {
        let notes = lock::holders(&self.holders()).in_place;
        match &self.place {
            Some(place) if notes.is_empty() => lock::locker(place).unwrap_or_else(|| who(&notes)),
            _ => who(&notes),
        }
    }
}

/// A new cache as a mount without options asks for it.
fn plain(name: &CacheName) -> CacheRequest {
    CacheRequest {
        id: name.id.clone(),
        scope: name.scope.clone(),
        sharing: Sharing::Locked,
        mode: 0o755,
        uid: 0,
        gid: 0,
        read_only: false,
        target: String::new(),
    }
}
