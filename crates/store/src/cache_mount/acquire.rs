//! Getting caches for a step, and giving them back.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_core::{Cancel, IoError, IoResultExt, Sharing};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::counting::Counting;
use super::home::{Half, Home, copy_error, open_dir};
use super::lock::{self, HolderNote, Waited};
use super::{CacheError, CacheMounts, CacheRequest, count};
use crate::copy::clone_tree;
use crate::scratch::random_name;

/// Up to so many entries a cache is counted when a step gives it back: some milliseconds.
pub(super) const COUNT_AT_ONCE: u64 = 2000;

/// Gives the directory that a new cache starts with, if its mount names one (`from=`).
pub type Seeds<'a> = dyn Fn(&CacheRequest) -> Result<Option<OwnedFd>, IoError> + 'a;

/// The caches of one running step. Dropped, it gives them back as after a failure.
#[derive(Debug)]
pub struct Held {
    caches: Vec<HeldCache>,
    grips: Vec<Grip>,
    step: String,
    counting: Arc<Counting>,
}

/// One cache, ready to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldCache {
    /// The directory to mount.
    pub path: PathBuf,
    /// Whether it was made for this step.
    pub new: bool,
    /// How long the step waited for it.
    pub waited: Duration,
    /// Whether it is a copy that will not be kept: a private step beside one that holds the cache alone and had not
    /// finished, so what was copied may be in the middle of a change.
    pub thrown_away: bool,
}

/// What a step holds of one cache.
#[derive(Debug)]
struct Grip {
    home: Home,
    targets: Vec<String>,
    read_only: bool,
    kind: GripKind,
    note: HolderNote,
}

#[derive(Debug)]
enum GripKind {
    /// In place, under the cache's lock; the data directory shows whether the cache is still this one.
    InPlace { lock: OwnedFd, data: OwnedFd },
    /// On a copy, whose own lock says that it is in use.
    Copy { path: PathBuf, lock: OwnedFd, publish: bool },
}

impl CacheMounts {
    /// Gets all caches that a step wants, making those that are not there. Waits where the table of
    /// docs/cache-mounts.md says so; `on_wait` is told for whom, at first and whenever that changes. Caches are
    /// taken in one order by everyone, so that no two steps wait for each other. A cache that is wanted twice is
    /// shared by the two mounts.
    ///
    /// # Errors
    /// [`CacheError::TimedOut`], see [`patient`](Self::patient). The build was interrupted; a seed cannot be had; the file system failed.
    pub fn acquire(
        &self,
        requests: &[CacheRequest],
        step: &str,
        on_wait: &mut dyn FnMut(&CacheRequest, &str),
        seed: &Seeds<'_>,
        cancel: &Cancel,
    ) -> Result<Held, CacheError> {
        // By directory: two names of one placed directory are one cache, and one order holds between all stores.
        let mut wanted: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
        for (number, request) in requests.iter().enumerate() {
            let home = self.home(&request.id, &request.scope);
            wanted.entry(home.place.unwrap_or(home.dir)).or_default().push(number);
        }
        let mut caches: Vec<Option<HeldCache>> = vec![None; requests.len()];
        let mut held = Held {
            caches: Vec::new(),
            grips: Vec::new(),
            step: step.to_owned(),
            counting: Arc::clone(&self.counting),
        };
        for numbers in wanted.values() {
            let mounts: Vec<&CacheRequest> = numbers.iter().map(|number| &requests[*number]).collect();
            let mut taking =
                Taking { caches: self, mounts: &mounts, step, on_wait: &mut *on_wait, seed, cancel };
            let (cache, grip) = taking.take()?;
            held.grips.push(grip);
            for number in numbers {
                caches[*number] = Some(cache.clone());
            }
        }
        held.caches = caches.into_iter().flatten().collect();
        Ok(held)
    }
}

impl Held {
    /// Returns the caches in the order in which they were asked for.
    pub fn caches(&self) -> &[HeldCache] {
        &self.caches
    }

    /// Gives the caches back. If the step ended well, what private copies hold becomes the cache.
    ///
    /// # Errors
    /// A copy cannot be put into place, or what is known of a cache not be written. The locks are gone all the same.
    pub fn release(mut self, ok: bool) -> Result<(), IoError> {
        self.let_go(ok)
    }

    fn let_go(&mut self, ok: bool) -> Result<(), IoError> {
        let mut result = Ok(());
        // In the other order than taken.
        while let Some(grip) = self.grips.pop() {
            let done = grip.let_go(ok, &self.step, &self.counting);
            result = result.and(done);
        }
        result
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Who drops it has an error already that says more.
        let _ = self.let_go(false);
    }
}

/// Getting one cache.
struct Taking<'a, 'b> {
    caches: &'a CacheMounts,
    /// All mounts of it; there is at least one.
    mounts: &'a [&'a CacheRequest],
    step: &'a str,
    on_wait: &'b mut dyn FnMut(&CacheRequest, &str),
    seed: &'a Seeds<'a>,
    cancel: &'a Cancel,
}

impl Taking<'_, '_> {
    fn take(&mut self) -> Result<(HeldCache, Grip), CacheError> {
        let request = self.mounts[0];
        let home = self.caches.home(&request.id, &request.scope);
        let mut new = false;
        let started = Instant::now();
        // Two mounts of one step share the cache, by the strictest of what they want.
        let locked = self.mounts.iter().any(|mount| mount.sharing == Sharing::Locked);
        let private = self.mounts.iter().any(|mount| mount.sharing == Sharing::Private) && !locked;
        let alone = locked || self.caches.moves;
        loop {
            let mut seeds = || self.mounts.iter().find_map(|m| (self.seed)(m).transpose()).transpose();
            new |= home.create(request, self.caches.ids, &mut seeds, self.cancel)?;
            let taken = if private { self.copy(&home)? } else { self.in_place(&home, alone)? };
            // None: it was removed in between. Then it is made again.
            let Some((path, kind, thrown_away, note)) = taken else { continue };
            let targets = self.mounts.iter().map(|mount| mount.target.clone()).collect();
            let read_only = self.mounts.iter().all(|mount| mount.read_only);
            let cache = HeldCache { path, new, waited: started.elapsed(), thrown_away };
            return Ok((cache, Grip { home, targets, read_only, kind, note }));
        }
    }

    /// Takes the cache's lock, and tells for whom it waits. None if it was removed meanwhile.
    fn wait(&mut self, home: &Home, alone: bool) -> Result<Option<OwnedFd>, CacheError> {
        let mut shown = String::new();
        let mut blocked = |polls: u32| {
            // One that has just taken the lock has not said yet who it is.
            if home.is_quiet() && polls < 10 {
                return;
            }
            let text = home.users();
            if text != shown {
                (self.on_wait)(self.mounts[0], &text);
                shown = text;
            }
        };
        let timeout = self.caches.patience;
        match lock::wait(&home.lock(), alone, timeout, self.cancel, &mut blocked)? {
            Waited::Held(lock) => Ok(Some(lock)),
            Waited::Gone => Ok(None),
            Waited::TooLong => Err(self.caches.over(&self.mounts[0].id, home)),
        }
    }

    fn in_place(&mut self, home: &Home, alone: bool) -> Result<Option<Taken>, CacheError> {
        home.adopt_pending()?;
        let Some(lock) = self.wait(home, alone)? else { return Ok(None) };
        // A private step may have ended while this one waited.
        if alone && home.adopt_pending_alone()? {
            return Ok(None);
        }
        if !home.data().is_dir() {
            // Who had it was killed.
            return Ok(None);
        }
        let data = open_dir(&home.data())?;
        let note = home.note(self.step, true)?;
        Ok(Some((home.data(), GripKind::InPlace { lock, data }, false, note)))
    }

    fn copy(&mut self, home: &Home) -> Result<Option<Taken>, CacheError> {
        if !home.data().is_dir() && !home.pending().is_dir() {
            // A step in a chroot has it.
            drop(self.wait(home, false)?);
            return Ok(None);
        }
        home.can_swap(&self.mounts[0].id)?;
        let Some(guard) = lock::guard(&home.dir)? else { return Ok(None) };
        home.sweep();
        let note = home.note(self.step, false)?;
        // The last finished generation: a copy that waits to be put into place, or else the cache itself, unless
        // somebody has it alone and is changing it.
        let pending = home.pending().is_dir();
        let from = if pending { home.pending() } else { home.data() };
        let unchanging = match pending {
            true => None,
            false => lock::attempt(&home.lock(), FlockOperation::NonBlockingLockShared)?,
        };
        let finished = pending || unchanging.is_some();
        if !finished && home.place.is_some() {
            // Another store's steps would not know of a copy that is being made, and could take away what is copied.
            drop((guard, note));
            drop(self.wait(home, false)?);
            return Ok(None);
        }
        let source = match open_dir(&from) {
            // Just now, or it was removed.
            Err(error) if error.errno == Some(Errno::NOENT.raw_os_error()) => return Ok(None),
            opened => opened?,
        };
        flock(&source, FlockOperation::LockShared).at("lock", &from)?;
        let copy = Half(home.dir.join(format!("private-{}", random_name())));
        std::fs::create_dir(&copy.0).at("create", &copy.0)?;
        let own = open_dir(&copy.0)?;
        flock(&own, FlockOperation::LockShared).at("lock", &copy.0)?;
        drop(guard);
        clone_tree(source, &from, &copy.0, self.cancel)
            .map_err(|source| copy_error(self.mounts[0], &from, source))?;
        let path = copy.0.clone();
        copy.keep();
        let kind = GripKind::Copy { path: path.clone(), lock: own, publish: finished };
        Ok(Some((path, kind, !finished, note)))
    }
}

type Taken = (PathBuf, GripKind, bool, HolderNote);

impl Grip {
    fn let_go(self, ok: bool, step: &str, counting: &Arc<Counting>) -> Result<(), IoError> {
        let Self { home, targets, read_only, kind, note } = self;
        match kind {
            GripKind::InPlace { lock, data } => {
                if !home.is_same(&data)? {
                    return Ok(());
                }
                let counted = if read_only { None } else { count::count_small(&home.data(), COUNT_AT_ONCE) };
                home.update(|meta| {
                    meta.stepped(step, &targets);
                    meta.counted(read_only, counted);
                })?;
                if ok && !read_only {
                    home.drop_pending()?;
                }
                drop(lock);
                if counted.is_none() && !read_only {
                    // Its note is gone by then: nobody who looks finds it in use.
                    drop(note);
                    counting.start(&home);
                }
                home.adopt_pending()
            }
            GripKind::Copy { path, lock, publish } => {
                let copy = Half(path);
                if !ok || !publish || read_only {
                    drop(copy);
                    return home.update(|meta| meta.stepped(step, &targets));
                }
                let counted = count::count_small(&copy.0, COUNT_AT_ONCE);
                // From here on it is in use no more, only waiting.
                drop(lock);
                if home.publish(&copy.0)? {
                    copy.keep();
                    home.update(|meta| {
                        meta.stepped(step, &targets);
                        meta.counted(false, counted);
                    })?;
                    if counted.is_none() {
                        drop(note);
                        counting.start(&home);
                    }
                }
                Ok(())
            }
        }
    }
}
