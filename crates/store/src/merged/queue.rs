//! One thread finds work, the others do it.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Bytes;
use crate::error::StoreError;

/// Pieces of work that wait at most: each holds two descriptors.
const WAITING: usize = 64;

/// Calls `find` with a place to put work, and `work` for each piece of it, on as many threads as there are processors.
/// Returns the first error; after one, what waits is dropped.
pub(super) fn run<J: Send>(
    find: impl FnOnce(&Queue<'_, J>) -> Result<(), StoreError>,
    work: impl Fn(J, &mut Bytes) -> Result<(), StoreError> + Sync,
) -> Result<(), StoreError> {
    let failed = Mutex::new(None);
    let (sender, receiver) = sync_channel(WAITING);
    let receiver = Mutex::new(receiver);
    let worker = || {
        let mut bytes = Bytes::new();
        while let Some(piece) = next(&receiver) {
            if lock(&failed).is_some() {
                continue;
            }
            if let Err(error) = work(piece, &mut bytes) {
                lock(&failed).get_or_insert(error);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let found = std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(worker);
        }
        // Moved in, and gone when all is found: then who waits for more ends.
        find(&Queue { sender, failed: &failed })
    });
    let first = lock(&failed).take();
    first.map_or(found, Err)
}

/// Where work is put.
pub(super) struct Queue<'a, J> {
    sender: SyncSender<J>,
    failed: &'a Mutex<Option<StoreError>>,
}

impl<J> Queue<'_, J> {
    /// Waits while there is much to do. Fails if some of it failed: then there is no use in finding more.
    pub(super) fn put(&self, piece: J) -> Result<(), StoreError> {
        if let Some(error) = &*lock(self.failed) {
            return Err(error.clone());
        }
        // Nobody takes it only if all workers panicked, which the scope tells.
        let _ = self.sender.send(piece);
        Ok(())
    }
}

fn next<J>(receiver: &Mutex<Receiver<J>>) -> Option<J> {
    lock(receiver).recv().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
