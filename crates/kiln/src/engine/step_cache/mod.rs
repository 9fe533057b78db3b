//! Results of steps in registries, directories and images: `--cache-from` and `--cache-to`. docs/remote-cache.md,
//! docs/decisions/0026.
//!
//! A record that is taken names layers that need not be here ([`far`]); a step that needs their files gets them first. Should
//! they not be had after all, the build begins again without them: what was done until then is recorded, so that only what
//! counted on them is done.

mod export;
mod far;
mod import;
mod index;
mod inline;
mod kept;
mod list;
mod place;
mod rates;
mod record;
mod send;
mod source;

use std::collections::HashMap;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};

use kiln_core::{Cancel, Digest, Platform, Reason, StepGraph, StepId};
use kiln_registry::RegistryClient;
use kiln_store::Store;

use super::bases::Bases;
use super::explain::{SharedLine, shared_lines};
use super::patience::Patience;
use super::redact::Redactor;
use super::reporter::Reporter;
use crate::request::RecordPlace;
use crate::{BuildRequest, Error};
use export::Exporter;
use far::Far;
use import::Taken;
use kept::Kept;
use rates::Rates;
use source::{Asking, Source};

pub(super) use index::CachedIndex;

/// Questions that are under way at once.
const ASKING: usize = 6;

/// The caches of one build, besides the store.
pub(crate) struct StepCache<'a> {
    store: &'a Store,
    registry: &'a RegistryClient,
    bases: &'a Bases<'a>,
    graph: &'a StepGraph,
    reporter: &'a Reporter<'a>,
    cancel: &'a Cancel,
    platforms: Vec<Platform>,
    epoch: Option<u64>,
    sources: Vec<Source>,
    /// What earlier builds took from theirs.
    kept: Kept,
    exporters: Vec<Exporter>,
    /// Records for the image's own configuration, if it shall hold them.
    inline: Option<inline::Notes>,
    patience: Patience,
    far: Far,
    rates: Rates,
    /// What records say of their lines; empty where none are left.
    lines: HashMap<StepId, SharedLine>,
    taken: Mutex<HashMap<Digest, Taken>>,
    passed_over: Mutex<HashMap<Digest, Reason>>,
    foreseen: Mutex<Option<Sender<Digest>>>,
}

/// What a [`StepCache`] works with.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) store: &'a Store,
    pub(crate) registry: &'a RegistryClient,
    pub(crate) bases: &'a Bases<'a>,
    pub(crate) graph: &'a StepGraph,
    /// The Dockerfile's.
    pub(crate) text: &'a str,
    pub(crate) reporter: &'a Reporter<'a>,
    pub(crate) cancel: &'a Cancel,
}

impl<'a> StepCache<'a> {
    /// Opens nothing yet.
    ///
    /// # Errors
    /// [`Error::CacheTo`].
    pub(crate) fn new(
        around: Surroundings<'a>,
        request: &BuildRequest,
        wanted: &[StepId],
        platforms: Vec<Platform>,
        epoch: Option<u64>,
        whole: bool,
    ) -> Result<Self, Error> {
        let Surroundings { store, registry, bases, graph, text, reporter, cancel } = around;
        // What is tried for itself alone is neither taken from anywhere nor left.
        let alone = request.sandbox.variation.is_some();
        let sources = request.cache_from.iter().filter(|_| !alone).filter_map(Source::new).collect();
        let mut exporters = Vec::new();
        let mut inline = None;
        for target in request.cache_to.iter().filter(|_| !alone) {
            match target.place {
                RecordPlace::Inline => inline = Some(inline::Notes::default()),
                _ => exporters.extend(Exporter::new(target, request, graph, wanted)?),
            }
        }
        let rates = Rates::new(store, graph, wanted, whole);
        let kept = Kept::new(store, !alone);
        let lines = match exporters.is_empty() {
            true => HashMap::new(),
            false => shared_lines(graph, text, &Redactor::new(&request.secrets)),
        };
        Ok(Self {
            store,
            registry,
            bases,
            graph,
            reporter,
            cancel,
            platforms,
            epoch,
            sources,
            kept,
            exporters,
            inline,
            patience: Patience::of(request),
            far: Far::default(),
            rates,
            lines,
            taken: Mutex::default(),
            passed_over: Mutex::default(),
            foreseen: Mutex::default(),
        })
    }

    /// Builds, with threads beside it that ask for records and leave them.
    ///
    /// # Errors
    /// What `build` fails with, or [`Error::CacheTo`] of a cache that could not be written.
    pub(crate) fn beside<T>(&self, build: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        std::thread::scope(|scope| {
            if !self.sources.is_empty() {
                let (sender, receiver) = channel::<Digest>();
                *self.foreseen.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
                let receiver = std::sync::Arc::new(Mutex::new(receiver));
                for _ in 0..ASKING {
                    let receiver = std::sync::Arc::clone(&receiver);
                    scope.spawn(move || {
                        loop {
                            let key = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                            let Ok(key) = key else { return };
                            if !self.cancel.is_cancelled() {
                                self.ask_ahead(&key);
                            }
                        }
                    });
                }
            }
            for exporter in &self.exporters {
                exporter.start(scope, self);
            }
            // The threads end when nobody is left who could give them something, also after a panic.
            let _ended = Ended(self);
            let built = build();
            self.foreseen.lock().unwrap_or_else(PoisonError::into_inner).take();
            let left = self.finish_exports(built.is_ok());
            let built = built?;
            left?;
            Ok(built)
        })
    }

    /// Asks the sources for a key that will be looked up, the later ones only if the earlier have none, as then.
    fn ask_ahead(&self, key: &Digest) {
        for source in &self.sources {
            if source.find(key, &self.asking()).is_some() {
                return;
            }
        }
    }

    fn foresee(&self, id: StepId, key: &Digest) {
        self.rates.foresee(id, key);
        let foreseen = self.foreseen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*foreseen {
            let _ = sender.send(*key);
        }
    }

    fn asking(&self) -> Asking<'_> {
        Asking {
            registry: self.registry,
            reporter: self.reporter,
            platforms: &self.platforms,
            epoch: self.epoch,
        }
    }
}

struct Ended<'c, 'a>(&'c StepCache<'a>);

impl Drop for Ended<'_, '_> {
    fn drop(&mut self) {
        self.0.foreseen.lock().unwrap_or_else(PoisonError::into_inner).take();
        for exporter in &self.0.exporters {
            exporter.close();
        }
    }
}
