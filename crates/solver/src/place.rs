//! Places among the steps that run at once (`jobs`).
//!
//! A step that waits for another process, or for a locked cache, does nothing: it lets go of its place, and another ready
//! step has it meanwhile. When the wait is over it takes one again, before steps that have not begun, since others may wait
//! for what it holds by then. Whoever has a place runs, and whoever waits has none: so all places are free some day, and no
//! two wait for each other.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use kiln_core::Cancel;

/// All places of a build.
#[derive(Debug, Clone)]
pub(crate) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Steps whose wait is over, and who want a place again.
    returning: usize,
}

/// A step's place among those that run at once. It begins with one.
pub struct Place<'a> {
    places: Places,
    has: Mutex<bool>,
    /// Is told that there is a place for another step.
    left: Box<dyn Fn() + Send + Sync + 'a>,
}

impl Places {
    pub(crate) fn new(jobs: usize) -> Self {
        let state = Mutex::new(State { free: jobs, returning: 0 });
        Self(Arc::new(Shared { state, freed: Condvar::new() }))
    }

    /// Whether a step may begin.
    pub(crate) fn is_free(&self) -> bool {
        let state = self.lock();
        state.free > state.returning
    }

    /// Takes a place for a step that begins; [`is_free`](Self::is_free) was asked on the same thread, and only waits can
    /// have taken it since: then there is one step more for a moment.
    pub(crate) fn take<'a>(&self, left: impl Fn() + Send + Sync + 'a) -> Place<'a> {
        let mut state = self.lock();
        let has = state.free > 0;
        state.free = state.free.saturating_sub(1);
        Place { places: self.clone(), has: Mutex::new(has), left: Box::new(left) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a place back.
    pub(crate) fn free(&self) {
        self.lock().free += 1;
        self.0.freed.notify_all();
    }
}

impl Place<'_> {
    /// Lets another step have it: this one waits for something now. Nothing if it has none.
    pub fn leave(&self) {
        if std::mem::take(&mut *self.has()) {
            self.places.free();
            (self.left)();
        }
    }

    /// Goes on after a wait, when there is a place; at once if it has one, or if the build stops.
    pub fn resume(&self, cancel: &Cancel) {
        let mut has = self.has();
        if *has || cancel.is_cancelled() {
            return;
        }
        let _wake = cancel.on_cancel({
            let shared = Arc::clone(&self.places.0);
            move || {
                // Not between the look at the signal and the wait.
                drop(shared.state.lock().unwrap_or_else(PoisonError::into_inner));
                shared.freed.notify_all();
            }
        });
        let mut state = self.places.lock();
        state.returning += 1;
        let waits = |state: &mut State| state.free == 0 && !cancel.is_cancelled();
        state = self.places.0.freed.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
        state.returning -= 1;
        if state.free > 0 {
            state.free -= 1;
            *has = true;
        }
    }

    /// Ends the step; returns whether it has a place, which is to be given back by who hears of the end: not before, or
    /// another step would begin that the end makes come later.
    pub(crate) fn end(self) -> bool {
        *self.has()
    }

    fn has(&self) -> MutexGuard<'_, bool> {
        self.has.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("has", &*self.has()).finish_non_exhaustive()
    }
}
