//! How a build stands to others on the same store: what they see of it, and how long it waits for them.

use std::time::Duration;

use kiln_core::{Cancel, Layer, LayerId};
use kiln_store::{
    Claim, Claimed, Compression, GaveUp, Holder, LayerOptions, Store, StoreError, Twin, Waiting,
};

use super::build::now;
use super::reporter::{Reporter, Task};
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

    /// Returns a layer's blob. Who waits for another process that packs it says so in a task of its own, and after a wait that
    /// takes too long says so, and packs, too.
    ///
    /// # Errors
    /// It cannot be packed; the build was interrupted.
    pub(crate) fn blob(
        &self,
        store: &Store,
        (layer, options): (&LayerId, &LayerOptions),
        twin: Option<Twin>,
        reporter: &Reporter<'_>,
        cancel: &Cancel,
    ) -> Result<Layer, Error> {
        self.packs(reporter, cancel, |waiting, gave_up| {
            store.layer_blob_beside(layer, options, twin, waiting, gave_up)
        })
    }

    /// The same of a blob that is packed another way.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn repack(
        &self,
        store: &Store,
        (layer, compression): (&Layer, Compression),
        reporter: &Reporter<'_>,
        cancel: &Cancel,
    ) -> Result<Layer, Error> {
        self.packs(reporter, cancel, |waiting, gave_up| store.repack(layer, compression, waiting, gave_up))
    }

    fn packs(
        &self,
        reporter: &Reporter<'_>,
        cancel: &Cancel,
        pack: impl FnOnce(&mut Waiting<'_>, GaveUp<'_>) -> Result<Layer, StoreError>,
    ) -> Result<Layer, Error> {
        let mut waits: Option<Task<'_>> = None;
        let mut on_wait = |holder: Option<&Holder>| {
            waits.get_or_insert_with(|| reporter.task("pack a layer")).waiting(Some(&said(holder)));
        };
        let Self { doing, timeout } = self;
        let mut waiting = Waiting { doing, timeout: *timeout, cancel, on_wait: &mut on_wait };
        let packed = pack(&mut waiting, &mut |holder| {
            let seconds = timeout.unwrap_or_default().as_secs();
            let error = Error::LockTimeout { holder: said(holder), seconds };
            reporter.warn(format!("{error}; the layer is packed here, too"), None);
        });
        if let Some(task) = waits {
            task.waiting(None);
            task.end_with(&packed);
        }
        Ok(packed?)
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use kiln_core::{Digest, Event};
    use kiln_store::Ids;

    use super::*;

    /// One that packs a layer and does not come to its end.
    #[test]
    fn a_wait_for_who_packs_a_layer_is_shown_and_its_end_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Ids::Single).unwrap();
        let layer = store.begin_layer(&Default::default()).unwrap();
        std::fs::write(layer.upper().join("file"), "content").unwrap();
        let layer = layer.commit().unwrap().unwrap();
        let options = LayerOptions::default();
        let key = format!("layer {layer}, {}, epoch none", options.compression.version());
        let name = format!("pack-{}-{}", store.ids().dir(), Digest::of(key.as_bytes()).hex());
        let cancel = Cancel::new();
        let other = Patience::new("kiln build elsewhere", None);
        let Turn::Mine { claim, .. } = other.turn(&store, &name, &mut |_| (), &cancel).unwrap() else {
            panic!("it is free")
        };
        let said = Mutex::new(Vec::new());
        let sink = |event: Event| match event {
            Event::StepDeclared { title, .. } => said.lock().unwrap().push(title),
            Event::StepWaiting { holder: Some(holder), .. } => said.lock().unwrap().push(holder),
            Event::Warning { message, .. } => said.lock().unwrap().push(message),
            _ => {}
        };
        let reporter = Reporter::new(&sink);
        let patience = Patience::new("a test", Some(Duration::ZERO));
        let blob = patience.blob(&store, (&layer, &options), None, &reporter, &cancel).unwrap();
        let holder = format!("process {}, kiln build elsewhere, for ", std::process::id());
        let said_then = std::mem::take(&mut *said.lock().unwrap());
        assert_eq!(said_then.len(), 3, "{said_then:?}");
        assert_eq!(said_then[0], "pack a layer");
        assert!(said_then[1].starts_with(&holder), "{said_then:?}");
        assert!(said_then[2].starts_with("waited 0 s for process"), "{said_then:?}");
        assert!(said_then[2].ends_with("; the layer is packed here, too"), "{said_then:?}");
        // It is known now, and nobody is waited for.
        assert_eq!(patience.blob(&store, (&layer, &options), None, &reporter, &cancel).unwrap(), blob);
        assert_eq!(*said.lock().unwrap(), [""; 0]);
        drop(claim);
    }
}
