//! Large caches are counted by threads beside whatever goes on: no step waits for a number.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::home::Home;
use super::{count, lock};

/// The caches that are being counted in this process.
#[derive(Debug, Default)]
pub(super) struct Counting {
    /// By directory: whether it was used again since.
    running: Mutex<HashMap<PathBuf, bool>>,
    ended: Condvar,
}

impl Counting {
    /// Counts a cache, and again if it is used meanwhile. If the process ends before, the kept number stays marked as old.
    pub(super) fn start(self: &Arc<Self>, home: &Home) {
        if let Some(again) = self.running().get_mut(&home.dir) {
            *again = true;
            return;
        }
        self.running().insert(home.dir.clone(), false);
        let (counting, counted) = (Arc::clone(self), home.clone());
        let run = move || {
            loop {
                counted.recount();
                let mut running = counting.running();
                match running.get_mut(&counted.dir) {
                    Some(again) if *again => *again = false,
                    _ => {
                        running.remove(&counted.dir);
                        counting.ended.notify_all();
                        return;
                    }
                }
            }
        };
        if std::thread::Builder::new().name("count a cache".to_owned()).spawn(run).is_err() {
            self.running().remove(&home.dir);
        }
    }

    /// Waits until nothing is counted any more, so long and no longer.
    pub(super) fn settle(&self, limit: Duration) {
        let waited = self.ended.wait_timeout_while(self.running(), limit, |running| !running.is_empty());
        drop(waited);
    }

    fn running(&self) -> MutexGuard<'_, HashMap<PathBuf, bool>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Home {
    fn recount(&self) {
        let Some(counted) = count::count(&self.data()) else { return };
        // One that is in use may have changed while it was counted.
        let idle = lock::holders(&self.holders()).alive.is_empty();
        // If it cannot be written, the next use counts again.
        let _ = self.update(|meta| {
            meta.counted(false, Some(counted));
            meta.counted = idle;
        });
    }
}
