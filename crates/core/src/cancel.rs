//! One signal that ends a build.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

type Hook = Box<dyn FnOnce() + Send>;

/// Tells everything that works on a build to stop: an interrupt, or a step that failed.
///
/// Clones share one state. What waits in the kernel (a process, a socket, a file lock) registers a hook that wakes
/// it; what loops asks [`is_cancelled`](Self::is_cancelled).
#[derive(Clone, Default)]
pub struct Cancel(Arc<Inner>);

#[derive(Default)]
struct Inner {
    cancelled: AtomicBool,
    hooks: Mutex<Hooks>,
}

#[derive(Default)]
struct Hooks {
    next: u64,
    by_number: BTreeMap<u64, Hook>,
}

impl Cancel {
    /// Starts as not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Cancels, and runs every hook once, on this thread. Not for signal handlers: it takes a lock.
    pub fn cancel(&self) {
        let hooks = {
            let mut hooks = self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.cancelled.store(true, Ordering::SeqCst);
            std::mem::take(&mut hooks.by_number)
        };
        for hook in hooks.into_values() {
            hook();
        }
    }

    /// Calls `hook` on cancellation, at once if that has happened; dropping the guard takes the hook back.
    #[must_use = "the hook is taken back when the guard is dropped"]
    pub fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) -> CancelGuard {
        let mut hooks = self.0.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        let number = hooks.next;
        hooks.next += 1;
        if self.is_cancelled() {
            drop(hooks);
            hook();
        } else {
            hooks.by_number.insert(number, Box::new(hook));
        }
        CancelGuard { cancel: self.clone(), number }
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancel").field("cancelled", &self.is_cancelled()).finish()
    }
}

/// Keeps a hook registered.
#[derive(Debug)]
pub struct CancelGuard {
    cancel: Cancel,
    number: u64,
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        let mut hooks = self.cancel.0.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        hooks.by_number.remove(&self.number);
    }
}
