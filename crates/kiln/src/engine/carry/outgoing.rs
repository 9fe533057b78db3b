//! Packs on their way to a place that may be slow. Who reads a cache holds it, and others wait for that: so nobody who reads waits
//! for a network. A few packs lie in memory; a place that takes those as fast as they are made gets all of them so. What a slower one has
//! not taken lies in files of the store until it is sent. Only when the store's file system is short of room does reading wait
//! for sending.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_carry::Pack;
use kiln_core::{Cancel, Digest};
use kiln_store::Store;

use super::depot::{Content, Depot};
use crate::Error;

/// So many packs are in memory, those that are being sent included: some 10 MiB each. With one more for each thread that reads
/// this is most of what an export takes.
const IN_MEMORY: usize = 2;
/// A place that takes no pack for so long is slower than reading is: nobody waits for it any more. To write all down and read it
/// again costs a fast one more than it gains.
const PATIENCE: Duration = Duration::from_millis(100);
/// Who waits looks this often whether all of it was interrupted.
const POLL: Duration = Duration::from_millis(100);
/// So much of the store's file system stays free for others, bytes.
const SPARED: u64 = 1 << 30;

/// Packs that wait to be sent.
pub(super) struct Outgoing<'a> {
    depot: &'a dyn Depot,
    store: &'a Store,
    /// Told how many bytes are sent, and of how many, when no more come.
    progress: &'a (dyn Fn(u64, u64) + Sync),
    cancel: &'a Cancel,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(Digest, Held)>,
    in_memory: usize,
    /// It was waited for in vain.
    slow: bool,
    spare: Vec<Vec<u8>>,
    closed: bool,
    failed: Option<Error>,
    moved: u64,
    /// Bytes of packs that came and that were sent.
    came: u64,
    sent: u64,
}

enum Held {
    Memory(Vec<u8>),
    File { file: File, size: u64 },
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(
        depot: &'a dyn Depot,
        store: &'a Store,
        progress: &'a (dyn Fn(u64, u64) + Sync),
        cancel: &'a Cancel,
    ) -> Self {
        Self { depot, store, progress, cancel, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Takes a pack, and returns memory for the next one.
    pub(super) fn take(&self, pack: &Pack, bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
        if self.depot.senders() == 0 {
            let moved = self.depot.put(&pack.digest, &Content::Memory(&bytes))?;
            self.lock().moved += moved;
            return Ok(bytes);
        }
        let until = Instant::now() + PATIENCE;
        let mut state = self.lock();
        state.came += bytes.len() as u64;
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if self.cancel.is_cancelled() {
                return Err(Error::Interrupted);
            }
            if state.in_memory < IN_MEMORY {
                state.in_memory += 1;
                state.waiting.push_back((pack.digest, Held::Memory(bytes)));
                self.changed.notify_all();
                return Ok(state.spare.pop().unwrap_or_default());
            }
            let left = until.saturating_duration_since(Instant::now());
            if !state.slow && !left.is_zero() {
                state = self.wait(state, left);
                continue;
            }
            state.slow = true;
            drop(state);
            if let Some(file) = self.write_down(&bytes) {
                let held = Held::File { file, size: bytes.len() as u64 };
                self.lock().waiting.push_back((pack.digest, held));
                self.changed.notify_all();
                return Ok(bytes);
            }
            state = self.wait(self.lock(), POLL);
        }
    }

    /// A file with these bytes; none if there is no room for it, whatever the reason.
    fn write_down(&self, bytes: &[u8]) -> Option<File> {
        if self.store.room().ok()? < SPARED + bytes.len() as u64 {
            return None;
        }
        let file = self.store.nameless_file().ok()?;
        file.write_all_at(bytes, 0).ok()?;
        Some(file)
    }

    /// Sends until nothing comes any more: each of the depot's senders does this.
    pub(super) fn send(&self) {
        loop {
            let mut state = self.lock();
            let (digest, held) = loop {
                if state.failed.is_some() || self.cancel.is_cancelled() {
                    return;
                }
                // What is in memory goes first: then the next one need not be written down.
                let in_memory = |(_, held): &(Digest, Held)| matches!(held, Held::Memory(_));
                let next = state.waiting.iter().position(in_memory).unwrap_or(0);
                match state.waiting.remove(next) {
                    Some(next) => break next,
                    None if state.closed => return,
                    None => state = self.wait(state, POLL),
                }
            };
            drop(state);
            let content = match &held {
                Held::Memory(bytes) => Content::Memory(bytes),
                Held::File { file, size } => Content::File { file, size: *size },
            };
            let size = content.size();
            let sent = self.depot.put(&digest, &content);
            let mut state = self.lock();
            if let Held::Memory(mut bytes) = held {
                bytes.clear();
                state.in_memory -= 1;
                state.spare.push(bytes);
            }
            match sent {
                Ok(moved) => state.moved += moved,
                Err(error) => drop(state.failed.get_or_insert(error)),
            }
            state.sent += size;
            let (closed, sent, came) = (state.closed, state.sent, state.came);
            drop(state);
            if closed {
                (self.progress)(sent, came);
            }
            self.changed.notify_all();
        }
    }

    /// Says that no more packs come: after a failure what waits is not sent either.
    pub(super) fn close(&self, failed: Option<&Error>) {
        let mut state = self.lock();
        state.closed = true;
        if let Some(error) = failed {
            state.failed.get_or_insert_with(|| error.clone());
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Returns how many bytes were moved, after all is sent.
    pub(super) fn moved(self) -> Result<u64, Error> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        match state.failed {
            Some(error) => Err(error),
            None if self.cancel.is_cancelled() => Err(Error::Interrupted),
            None => Ok(state.moved),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change, for no longer than that.
    fn wait<'g>(&self, state: MutexGuard<'g, State>, longest: Duration) -> MutexGuard<'g, State> {
        self.changed.wait_timeout(state, longest).unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests;
