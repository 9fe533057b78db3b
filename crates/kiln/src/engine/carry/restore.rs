//! Restoring for a build: beside everything else; only a step that mounts a cache waits for it.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_carry::Index;
use kiln_core::{Cancel, Digest, MountKind, Op, StepGraph};
use kiln_registry::RegistryClient;
use kiln_store::cache_mount::{CacheMounts, CacheName};

use super::Carrier;
use super::depot::{self, Depot};
use super::report::CarryImport;
use super::tree::read_since;
use crate::engine::Engine;
use crate::engine::reporter::Reporter;
use crate::{BuildRequest, CarryFailure, Error};

/// The caches of one build that are being restored.
pub(crate) struct Restores {
    gates: Mutex<HashMap<CacheName, Gate>>,
    changed: Condvar,
    done: Mutex<Done>,
    required: bool,
    /// Ends a restore that nobody waits for.
    abandoned: Cancel,
}

#[derive(Clone)]
enum Gate {
    /// It is not there yet; from which place it comes.
    Coming(String),
    Open,
    /// It had to come and did not.
    Failed(Error),
}

/// What was restored.
#[derive(Default)]
struct Done {
    imports: Vec<CarryImport>,
    /// Files by cache, with their last access as it was set.
    files: Vec<(CacheName, Vec<(PathBuf, i64)>)>,
}

/// Which caches the steps of a graph mount.
pub(crate) fn used(graph: &StepGraph) -> BTreeSet<(String, kiln_core::CacheScope)> {
    let mounts = graph.iter().filter_map(|(_, step)| match &step.op {
        Op::Run(run) => Some(&run.mounts),
        _ => None,
    });
    let caches = mounts.flatten().filter_map(|mount| match &mount.kind {
        MountKind::Cache(cache) => Some((cache.id.clone(), cache.scope.clone())),
        _ => None,
    });
    caches.collect()
}

impl Restores {
    /// Begins for a build: steps wait from now on for what one of its sources may have.
    pub(crate) fn of(request: &BuildRequest, graph: &StepGraph) -> Self {
        let mut gates = HashMap::new();
        for (id, scope) in used(graph) {
            let from = request.cache_mounts_from.iter().find(|s| s.ids.is_empty() || s.ids.contains(&id));
            if let Some(from) = from {
                gates.insert(CacheName { id, scope }, Gate::Coming(from.place.to_string()));
            }
        }
        let (changed, done) = (Condvar::new(), Mutex::default());
        let (required, abandoned) = (request.cache_mounts_required, Cancel::new());
        Self { gates: Mutex::new(gates), changed, done, required, abandoned }
    }

    /// Whether there is nothing to restore.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.gates).is_empty()
    }

    /// Restores everything, source by source: of each cache what the first source has that has it. A failure is told and
    /// no more, unless restoring is required.
    pub(crate) fn run(
        &self,
        (engine, caches): (&Engine, &CacheMounts),
        request: &BuildRequest,
        reporter: &Reporter<'_>,
        cancel: &Cancel,
    ) {
        let abandoned = self.abandoned.clone();
        let _forward = cancel.on_cancel(move || abandoned.cancel());
        let cancel = &self.abandoned;
        for source in &request.cache_mounts_from {
            let open: Vec<CacheName> = lock(&self.gates)
                .iter()
                .filter(|(name, gate)| {
                    matches!(gate, Gate::Coming(_))
                        && (source.ids.is_empty() || source.ids.contains(&name.id))
                })
                .map(|(name, _)| name.clone())
                .collect();
            if open.is_empty() || cancel.is_cancelled() {
                continue;
            }
            let place = source.place.to_string();
            let task = reporter.task(&format!("restoring cache mounts from {place}"));
            let started = Instant::now();
            let restored = self.source((engine, caches), request, source, open, reporter, &task, cancel);
            task.end_with(&restored);
            match restored {
                Ok(Some(mut import)) => {
                    import.duration_us = micros(started.elapsed());
                    for note in &import.notes {
                        reporter.warn(note.clone(), None);
                    }
                    lock(&self.done).imports.push(import);
                }
                Ok(None) => {}
                Err(_) if cancel.is_cancelled() => {}
                Err(error) if self.required => {
                    for gate in lock(&self.gates).values_mut().filter(|gate| matches!(gate, Gate::Coming(_)))
                    {
                        *gate = Gate::Failed(error.clone());
                    }
                }
                Err(error) => {
                    let message = format!(
                        "cache mounts cannot be restored from {place}, the build goes on without: {error}"
                    );
                    reporter.warn(message, None);
                }
            }
        }
        let mut gates = lock(&self.gates);
        for (name, gate) in gates.iter_mut().filter(|(_, gate)| matches!(gate, Gate::Coming(_))) {
            *gate = match &gate {
                Gate::Coming(place) if self.required && !cancel.is_cancelled() => {
                    Gate::Failed(Error::Carry(CarryFailure::Lacks {
                        place: place.clone(),
                        id: name.id.clone(),
                        there: Vec::new(),
                    }))
                }
                _ => Gate::Open,
            };
        }
        drop(gates);
        self.changed.notify_all();
    }

    #[expect(clippy::too_many_arguments, reason = "what a source, a build and its messages are, once")]
    fn source(
        &self,
        (engine, caches): (&Engine, &CacheMounts),
        request: &BuildRequest,
        source: &crate::request::CarrySource,
        mut open: Vec<CacheName>,
        reporter: &Reporter<'_>,
        task: &crate::engine::reporter::Task<'_>,
        cancel: &Cancel,
    ) -> Result<Option<CarryImport>, Error> {
        let registry = engine.registry_config(&request.registry);
        let registry = RegistryClient::new(registry, cancel.clone())?;
        let depot = depot::open(&source.place, false, &registry, &engine.store, cancel)?;
        let place = source.place.to_string();
        let carrier = Carrier { engine, caches, reporter, cancel, name: String::new() };
        let (index, generations) = carrier.index(&*depot, &place, source.strategy)?;
        open.retain(|name| index.tree(&name.id, name.scope_text()).is_some());
        if open.is_empty() {
            reporter.warn(format!("{place} has no cache mount that this build uses yet"), None);
            return Ok(None);
        }
        open.sort_by(|a, b| (&a.id, &a.scope).cmp(&(&b.id, &b.scope)));
        let mut import = CarryImport { place, caches: vec![], moved: 0, duration_us: 0, notes: vec![] };
        for name in open {
            self.one(&carrier, &index, &generations, &*depot, &name, &mut import, task)?;
        }
        Ok(Some(import))
    }

    #[expect(clippy::too_many_arguments, reason = "as above")]
    fn one(
        &self,
        carrier: &Carrier<'_>,
        index: &Index,
        generations: &[Digest],
        depot: &dyn Depot,
        name: &CacheName,
        into: &mut CarryImport,
        task: &crate::engine::reporter::Task<'_>,
    ) -> Result<(), Error> {
        let Some(tree) = index.tree(&name.id, name.scope_text()) else { return Ok(()) };
        let imported = carrier.import(index, tree, generations, depot, false, task)?;
        into.moved += imported.moved;
        into.notes.extend(imported.notes);
        into.caches.push(imported.cache);
        lock(&self.done).files.push((name.clone(), imported.written));
        lock(&self.gates).insert(name.clone(), Gate::Open);
        self.changed.notify_all();
        Ok(())
    }

    /// Ends what is still going on: all steps are done.
    pub(crate) fn give_up(&self) {
        self.abandoned.cancel();
    }

    /// Waits until a cache is restored, or will not be. `on_wait` is told from where it comes.
    pub(crate) fn wait(
        &self,
        name: &CacheName,
        on_wait: &mut dyn FnMut(&str),
        cancel: &Cancel,
    ) -> Result<(), Error> {
        /// A wait looks this often whether the build was interrupted.
        const POLL: Duration = Duration::from_millis(50);
        let mut told = false;
        let mut gates = lock(&self.gates);
        loop {
            match gates.get(name) {
                None | Some(Gate::Open) => return Ok(()),
                Some(Gate::Failed(error)) => return Err(error.clone()),
                Some(Gate::Coming(_)) if cancel.is_cancelled() => return Err(Error::Interrupted),
                Some(Gate::Coming(place)) => {
                    if !std::mem::replace(&mut told, true) {
                        on_wait(&format!("its restore from {place}"));
                    }
                }
            }
            gates = self.changed.wait_timeout(gates, POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Returns what was restored, with the bytes that steps read of it as far as the file system noted that.
    pub(crate) fn report(&self, caches: &CacheMounts) -> Vec<CarryImport> {
        let Done { mut imports, files } = std::mem::take(&mut *lock(&self.done));
        for (name, files) in files {
            let Ok(Some(info)) = caches.find(&name) else { continue };
            let read = read_since(&info.path, &files);
            let caches = imports.iter_mut().flat_map(|import| &mut import.caches);
            for cache in caches.filter(|cache| cache.id == name.id && cache.scope == name.scope_text()) {
                cache.used = read;
            }
        }
        imports
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
