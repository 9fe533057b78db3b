//! How a build stands to others on the same store: what they see of it, and how long it waits for them.

use std::time::Duration;

use kiln_core::{Cancel, Layer, LayerId};
use kiln_store::{Claim, Claimed, Holder, LayerOptions, Store, Waiting};

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
        Self::new(doing, request.lock_timeout.map(Duration::from_secs))
    }

    /// Returns that of something else: what others see, and how long it waits.
    pub(crate) fn new(doing: impl Into<String>, timeout: Option<Duration>) -> Self {
        Self { doing: doing.into(), timeout }
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
            Claimed::TimedOut(holder) => {
                let seconds = self.timeout.unwrap_or_default().as_secs();
                Err(Error::LockTimeout { holder: said(holder.as_ref()), seconds })
            }
        }
    }

    /// Returns a layer's blob. Who waits for another process that packs it says so, and after a wait that takes too long packs, too.
    ///
    /// # Errors
    /// It cannot be packed; the build was interrupted.
    pub(crate) fn blob(
        &self,
        store: &Store,
        (layer, options): (&LayerId, &LayerOptions),
        on_wait: &mut dyn FnMut(&str),
        cancel: &Cancel,
    ) -> Result<Layer, Error> {
        let mut waiting = Waiting {
            doing: &self.doing,
            timeout: self.timeout,
            cancel,
            on_wait: &mut |holder| on_wait(&said(holder)),
        };
        Ok(store.layer_blob_beside(layer, options, &mut waiting)?)
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
