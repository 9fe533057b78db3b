//! Signals on their way from the caller to a running process.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Signal, pidfd_send_signal};

/// Passes signals to whatever process runs with it: its init has them blocked, reads them and passes them on.
#[derive(Debug, Clone, Default)]
pub struct Signals(Arc<Mutex<Option<Arc<OwnedFd>>>>);

impl Signals {
    /// Passes one on. Returns false if there is no process.
    pub fn pass(&self, signal: i32) -> bool {
        let init = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*init, Signal::from_named_raw(signal)) {
            // It may just have ended.
            (Some(init), Some(signal)) => pidfd_send_signal(&**init, signal).is_ok(),
            _ => false,
        }
    }

    /// From now on they go to this init, until what is returned is dropped.
    pub(crate) fn attach(&self, init: Arc<OwnedFd>) -> Attached<'_> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(init);
        Attached(self)
    }
}

/// While it lives, signals have somewhere to go.
pub(crate) struct Attached<'a>(&'a Signals);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
