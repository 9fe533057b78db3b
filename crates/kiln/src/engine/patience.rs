//! How a build stands to others on the same store: what they see of it, and how long it waits for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use kiln_core::{Cancel, CancelGuard};
use kiln_store::{Claim, Claimed, Holder, Store, Waiting};

use super::build::now;
use crate::{BuildRequest, Error};

/// What others see of this build, and how long it waits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Patience {
    /// Without anything that nobody must see: arguments may be secret, a context's place is not.
    doing: String,
    timeout: Option<Duration>,
}

/// A turn to do what others may be doing.
pub(crate) enum Turn {
    /// Others wait for this one.
    Mine {
        /// Until this goes.
        claim: Claim,
        /// Whether it may be done by now.
        waited: bool,
    },
    /// Who had it failed: it is anybody's.
    Anybodys,
}

impl Patience {
    /// Returns that of a build.
    pub(crate) fn of(request: &BuildRequest) -> Self {
        let doing = format!("kiln build {}", request.context);
        Self { doing, timeout: request.lock_timeout.map(Duration::from_secs) }
    }

    /// Waits until nobody else does what is called so. `on_wait` is told for whom.
    ///
    /// # Errors
    /// [`Error::LockTimeout`], [`Error::Interrupted`], or the lock file cannot be made.
    pub(crate) fn turn(
        &self,
        store: &Store,
        what: &str,
        on_wait: &mut dyn FnMut(&str),
        cancel: &Cancel,
    ) -> Result<Turn, Error> {
        let mut waiting = Waiting {
            doing: &self.doing,
            timeout: self.timeout,
            cancel,
            on_wait: &mut |holder| on_wait(&said(holder)),
        };
        match store.claim(what, &mut waiting)? {
            Claimed::Held { claim, waited } => Ok(Turn::Mine { claim, waited }),
            Claimed::Failed => Ok(Turn::Anybodys),
            Claimed::Cancelled => Err(Error::Interrupted),
            Claimed::TimedOut(holder) => Err(self.over(said(holder.as_ref()))),
        }
    }

    /// Returns a signal for a wait that cannot be bounded otherwise: it is raised with `cancel`, and when the wait takes too
    /// long.
    pub(crate) fn bounded(&self, cancel: &Cancel) -> Bounded {
        let stop = Cancel::new();
        let forward = cancel.on_cancel({
            let stop = stop.clone();
            move || stop.cancel()
        });
        Bounded { stop, timeout: self.timeout, expired: Arc::default(), timer: None, _forward: forward }
    }

    /// A wait that took too long.
    pub(crate) fn over(&self, holder: String) -> Error {
        Error::LockTimeout { holder, seconds: self.timeout.unwrap_or_default().as_secs() }
    }
}

/// A wait that ends by itself.
pub(crate) struct Bounded {
    /// Raised when it shall end.
    pub(crate) stop: Cancel,
    timeout: Option<Duration>,
    expired: Arc<AtomicBool>,
    /// Ends its thread when it is dropped.
    timer: Option<Sender<()>>,
    _forward: CancelGuard,
}

impl Bounded {
    /// It begins to count now, unless it does already.
    pub(crate) fn begin(&mut self) {
        let Some(timeout) = self.timeout.filter(|_| self.timer.is_none()) else { return };
        let (timer, over) = channel();
        self.timer = Some(timer);
        let (stop, expired) = (self.stop.clone(), Arc::clone(&self.expired));
        let count = move || {
            if over.recv_timeout(timeout) == Err(RecvTimeoutError::Timeout) {
                expired.store(true, Ordering::Release);
                stop.cancel();
            }
        };
        // Without a thread to spare the wait is as long as it takes.
        let _ = std::thread::Builder::new().name("lock timeout".to_owned()).spawn(count);
    }

    /// Whether it took too long.
    pub(crate) fn expired(&self) -> bool {
        self.expired.load(Ordering::Acquire)
    }
}

/// `process 4711, kiln build /src/app, for 12 s`.
fn said(holder: Option<&Holder>) -> String {
    match holder {
        Some(holder) => {
            let seconds = now().saturating_sub(holder.since);
            format!("process {}, {}, for {seconds} s", holder.process, holder.doing)
        }
        None => "another process".to_owned(),
    }
}
