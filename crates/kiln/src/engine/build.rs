//! One build, from the request to the outputs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kiln_core::{Cancel, Digest, Event, EventSink, Layer, LayerId, StepId};
use kiln_frontend::{BuildPlan, PlannedImage};
use kiln_oci::Image;
use kiln_registry::RegistryClient;
use kiln_solver::{SolveError, Solved};
use kiln_store::LayerOptions;
use kiln_store::cache_mount::CacheMounts;

use super::Engine;
use super::agent::Backend;
use super::ahead::Ahead;
use super::bases::{Base, Bases};
use super::cache_places::label;
use super::carry::{CarryReport, Restores, Saves};
use super::chain::chain;
use super::contexts::Contexts;
use super::debug::{Failures, Journal};
use super::definition::Definition;
use super::explain::{BuildVerdict, Group, Subject, Why};
use super::export::Exports;
use super::fetch::Fetch;
use super::finished::Packed;
use super::foreign::{self, Ways};
use super::index::StoreIndex;
use super::leak::LeakScanner;
use super::packer::{self, Packer, Rest};
use super::patience::Patience;
use super::planning;
use super::progress::StepProgress;
use super::redact::Redactor;
use super::remote::{self, Remotes};
use super::reporter::Reporter;
use super::step_cache::{CachedIndex, StepCache, Surroundings};
use super::transfer::Early;
use super::worker::StepWorker;
use crate::{Attest, BuildOutcome, BuildRequest, BuiltImage, Error, Output, SourceDate};

/// How long the end of a build waits for large caches to be counted: at most.
const COUNTING: Duration = Duration::from_millis(500);

/// One build whose plan stands.
pub(super) struct Build<'a> {
    pub(super) engine: &'a Engine,
    pub(super) request: &'a BuildRequest,
    pub(super) reporter: &'a Reporter<'a>,
    pub(super) cancel: &'a Cancel,
    pub(super) bases: &'a Bases<'a>,
    pub(super) remotes: &'a Remotes<'a>,
    /// With the places that the request gives them.
    pub(super) caches: CacheMounts,
    /// Results of steps that are somewhere else.
    pub(super) cache: &'a StepCache<'a>,
    pub(super) plan: &'a BuildPlan,
    pub(super) definition: Definition,
    pub(super) contexts: Contexts<'a>,
    pub(super) ways: Ways,
    /// Clamps and replaces times.
    pub(super) epoch: Option<u64>,
    /// When it began, seconds since 1970.
    pub(super) started: u64,
    /// Layers that are pushed beside the steps.
    pub(super) early: Early,
    /// The archive that is begun while layers are packed.
    pub(super) ahead: Mutex<Option<Ahead>>,
    /// What became of cache mounts that travel.
    pub(super) carried: Mutex<CarryReport>,
    /// How far it is with what they leave.
    pub(super) saves: Saves,
}

impl Engine {
    /// Builds.
    ///
    /// # Errors
    /// What is wrong with the request, the Dockerfile, a step, a registry, the store or the machine. Steps that ended
    /// well stay recorded: the next build goes on from them.
    pub fn build(
        &self,
        request: &BuildRequest,
        events: &dyn EventSink,
        cancel: &Cancel,
    ) -> Result<BuildOutcome, Error> {
        let started = Instant::now();
        let reporter = Reporter::new(events);
        self.make_room(request, &reporter);
        let _pin = self.store.pin()?;
        let result = self.build_with(request, &reporter, cancel);
        self.trees.clear();
        // Also after a failure: what was finished is worth keeping. But an interrupt does not wait for the disk; the
        // next build's end does it.
        if !cancel.is_cancelled() {
            self.store.finish_build()?;
            // A share of what the build took, so that nobody feels it.
            self.caches.settle((started.elapsed() / 20).min(COUNTING));
            // Under the pin: what this build made or found stays.
            self.make_room(request, &reporter);
        }
        let (Exports { first, exports, provenance }, cache_mounts) = match result {
            // Whatever broke off first, the interrupt is the reason.
            Err(_) if cancel.is_cancelled() => return Err(Error::Interrupted),
            result => result?,
        };
        let (steps, why) = reporter.into_reports();
        let digest = first.as_ref().and_then(|first| first.root()).map(|root| root.digest);
        Ok(BuildOutcome {
            digest,
            images: first.as_ref().map_or(&[][..], |first| &first.images).iter().map(built).collect(),
            tags: if digest.is_some() { request.tags.clone() } else { Vec::new() },
            exports,
            provenance,
            cache_mounts,
            steps,
            why,
            duration_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        })
    }

    fn build_with(
        &self,
        request: &BuildRequest,
        reporter: &Reporter<'_>,
        cancel: &Cancel,
    ) -> Result<(Exports, CarryReport), Error> {
        let started = now();
        let patience = request.lock_timeout.map(Duration::from_secs);
        let caches = self.placing(&request.cache_mounts)?.patient(patience);
        let registry = RegistryClient::new(self.registry_config(&request.registry), cancel.clone())?;
        let bases = Bases::new(&self.store, &registry).patient(Patience::of(request));

        let remotes = Remotes::new(&self.store, request, reporter);
        let fetch = Fetch { store: &self.store, reporter, remotes: &remotes, cancel };
        let (contexts, definition) = Contexts::open(request, fetch)?;
        let ignore = contexts.get("")?.ignore.clone();
        let date = match request.source_date_epoch {
            Some(SourceDate::Seconds(seconds)) => Some(seconds),
            Some(SourceDate::Commit) => Some(contexts.commit_time(&request.context)?),
            None => None,
        };
        let (plan, checked) = planning::plan(request, &definition, (ignore, date), &bases, reporter)?;
        for diagnostic in &checked.diagnostics {
            reporter.warn(diagnostic.message.clone(), Some(definition.lines(diagnostic)));
        }
        for finding in &checked.findings {
            let message = format!("{}: {}", finding.rule.name(), finding.diagnostic.message);
            reporter.warn(message, Some(finding.lines));
        }
        if checked.fails() {
            let rules = checked.rules().into_iter().map(str::to_owned).collect();
            return Err(Error::Checks { rules });
        }
        let epoch = epoch(&plan)?;
        let ways = Ways::find(&self.entered, &plan.graph, &request.emulators);
        let wanted: Vec<StepId> = plan.images.iter().filter_map(|image| image.rootfs).collect();
        let text = definition.text.clone();
        let around = Surroundings {
            store: &self.store,
            registry: &registry,
            bases: &bases,
            graph: &plan.graph,
            text: &text,
            reporter,
            cancel,
        };
        let platforms = plan.images.iter().map(|image| image.platform.clone()).collect();
        let whole = wants_files(request) || wants_blobs(request);
        let cache = StepCache::new(around, request, &wanted, platforms, epoch, whole)?;
        let build = Build {
            engine: self,
            request,
            reporter,
            cancel,
            bases: &bases,
            remotes: &remotes,
            caches,
            cache: &cache,
            plan: &plan,
            definition,
            contexts,
            ways,
            epoch,
            started,
            early: Early::of(request, epoch),
            ahead: Mutex::default(),
            carried: Mutex::default(),
            saves: Saves::of(&plan.graph),
        };
        build.check_outputs()?;
        build.check_places()?;
        let exports = build.saving(|| {
            cache.beside(|| {
                loop {
                    let built = build.attempt();
                    // Each time there is one layer less to count on.
                    if built.is_err() && cache.lost() && !cancel.is_cancelled() {
                        self.trees.clear();
                        build.saves.again();
                        continue;
                    }
                    // Also of a build that failed: the next one goes on from there.
                    let index = StoreIndex::new(&self.store, now());
                    let kept = cache.adopt(&|record, parts| index.adopt(record, parts));
                    let built = built?;
                    return kept.map(|()| built);
                }
            })
        })?;
        Ok((exports, std::mem::take(&mut *build.carried.lock().unwrap_or_else(PoisonError::into_inner))))
    }
}

impl Build<'_> {
    /// Does the steps and writes the outputs.
    fn attempt(&self) -> Result<Exports, Error> {
        let (solved, packed) = self.solve()?;
        let wanted = self.plan.images.iter().filter_map(|image| solved.results.get(&image.rootfs?));
        let wanted: Vec<_> = wanted.map(|finished| &finished.snapshot).collect();
        if wants_files(self.request) && self.cache.lacks_files(wanted.iter().copied()) {
            let task = self.reporter.task("fetching cached layers");
            self.cache.present(wanted, &task, self.cancel)?;
            task.done();
        }
        let claims = self.claims(&solved)?;
        let exports = self.export(&solved, &packed, &claims)?;
        if self.epoch.is_none() {
            self.engine.remember_layers(&packed)?;
        }
        Ok(exports)
    }

    /// Does the steps, and packs layers beside them.
    fn solve(&self) -> Result<(Solved, Packed), Error> {
        let Self { engine, plan, reporter, cancel, .. } = self;
        let store = &engine.store;
        let began = Instant::now();
        let variation = self.request.sandbox.variation.as_ref();
        let mut index = StoreIndex::new(store, now() + variation.map_or(0, |variation| variation.ahead));
        if variation.is_some() {
            index = index.forgetful();
        }
        let index = CachedIndex { here: index, cache: self.cache };
        let wanted: Vec<_> = plan.images.iter().filter_map(|image| image.rootfs).collect();
        reporter.emit(Event::PlanReady { steps: plan.graph.len() });
        // Steps get their numbers in the order of the Dockerfile, whatever order they end in.
        for (id, step) in plan.graph.iter() {
            if !step.op.is_source() || step.op.is_remote() {
                let title = remote::title(&step.op);
                reporter.number(id, title.as_ref().unwrap_or(&step.info.title), step.info.lines);
            }
        }
        let mut agents = std::collections::BTreeMap::new();
        for (id, agent) in &self.request.ssh {
            agents.insert(id.clone(), Backend::new(id, agent)?);
        }
        let restores = Restores::of(self.request, &plan.graph);
        let worker = StepWorker {
            restores: &restores,
            entered: &engine.entered,
            store,
            trees: &engine.trees,
            caches: &self.caches,
            build: label(self.request),
            graph: &plan.graph,
            contexts: &self.contexts,
            bases: self.bases,
            remotes: self.remotes,
            cache: self.cache,
            reporter,
            ways: &self.ways,
            run_env: &plan.run_env,
            sandbox: &self.request.sandbox,
            network_told: std::sync::Once::new(),
            limits_told: std::sync::Once::new(),
            secrets: &self.request.secrets,
            leaks: match self.request.allow_secret_leak {
                true => LeakScanner::default(),
                false => LeakScanner::new(&self.request.secrets),
            },
            agents,
            redactor: Redactor::new(&self.request.secrets),
            views: Default::default(),
            told: Default::default(),
            usages: Default::default(),
            failures: Failures {
                policy: self.request.on_error,
                file: self.definition.file.clone(),
                now: now(),
                kept: Mutex::default(),
                settled: Mutex::default(),
            },
            patience: Patience::of(self.request),
            needed: super::needed::as_files(
                &plan.graph,
                if wants_files(self.request) { &wanted } else { &[] },
            ),
            why: Why::new(Subject {
                store,
                graph: &plan.graph,
                definition: &self.definition,
                redactor: Redactor::new(&self.request.secrets),
                group: Group::of(&self.definition, &self.request.context, &self.contexts.get("")?.path),
                now: self.started,
                // Of a build that keeps nothing there is nothing to explain later.
                is_on: self.request.sandbox.variation.is_none(),
            }),
            explain: self.request.explain,
        };
        worker.announce_chroot();
        let blocked = foreign::blocked(&worker, &wanted, &index, cancel)
            .map_err(|error| self.blame(error, &HashMap::new()))?;
        if !blocked.is_empty() {
            return Err(self.foreign(&blocked));
        }
        let jobs = self
            .request
            .jobs
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(2, std::num::NonZero::get).max(4));
        let depth = |manifest: &Digest| self.bases.get(manifest).map_or(0, |base| base.image.layers.len());
        let (packer, queue) = Packer::new(&plan.graph, &wanted, depth);
        let ways = super::finished::ways(self.request, self.epoch);
        let rest = Rest::new(reporter);
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = self.begin_archive();
        let (solved, packed, saved) = std::thread::scope(|scope| {
            let stop = Cancel::new();
            let _forward = cancel.on_cancel({
                let stop = stop.clone();
                move || stop.cancel()
            });
            let (layers, made) = std::sync::mpsc::channel();
            // A client of its own, for it ends when a step fails.
            let client = self.early.any().then(|| {
                let config = self.engine.registry_config(&self.request.registry);
                RegistryClient::new(config, stop.clone())
            });
            if let Some(Ok(client)) = client {
                let stop = stop.clone();
                scope.spawn(move || self.early.run(&made, (store, &client), reporter, &stop));
            }
            let packing = scope.spawn({
                let stop = stop.clone();
                let made = move |way: &_, layer: &Layer| drop(layers.send((*way, layer.clone())));
                let rest = &rest;
                let blob = move |layer: &LayerId, way: &LayerOptions| {
                    let _packing = rest.packs(!self.has_layer_blob(layer, way));
                    self.layer_ahead(layer, way, &stop)
                };
                move || packer::pack(&ways, queue, made, &blob)
            });
            if !restores.is_empty() {
                self.saves.restoring(true);
                scope.spawn(|| {
                    restores.run((engine, &self.caches), self.request, reporter, cancel);
                    self.saves.restoring(false);
                });
            }
            let packer_of_images = self.wants_images().then_some(&packer);
            let progress = StepProgress { worker: &worker, packer: packer_of_images, saves: &self.saves };
            let solved = kiln_solver::solve(&plan.graph, &wanted, &worker, &index, &progress, jobs, cancel);
            packer.close();
            self.saves.steps_over();
            // What no step has waited for, none needs.
            restores.give_up();
            // What is packed already stays; the rest of a failed build is not worth waiting for.
            match &solved {
                Err(_) => stop.cancel(),
                Ok(_) => rest.begin(),
            }
            // Beside packing, which does not keep all processors busy to its end.
            let saved = self.contexts.save();
            worker.why.prepare(&worker);
            let packed = packing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            self.early.end();
            rest.end_with(&packed);
            (solved, packed, saved)
        });
        saved?;
        let verdict = match &solved {
            Ok(_) => BuildVerdict::Done,
            Err(_) if cancel.is_cancelled() => BuildVerdict::Cancelled,
            Err(_) => BuildVerdict::Failed,
        };
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match worker.why.keep(verdict, took_ms, &worker) {
            Ok(why) => reporter.explained(why),
            Err(error) => {
                reporter.warn(format!("later builds cannot be compared with this one: {error}"), None)
            }
        }
        let Failures { file, now, kept, settled, .. } = worker.failures;
        let (kept, settled) = (kept.into_inner(), settled.into_inner());
        let (kept, settled) =
            (kept.unwrap_or_else(PoisonError::into_inner), settled.unwrap_or_else(PoisonError::into_inner));
        self.carried.lock().unwrap_or_else(PoisonError::into_inner).restored = restores.report(&self.caches);
        let failed = solved.as_ref().err().and_then(SolveError::step);
        let journal = Journal::of(
            (&file, now),
            &plan.graph,
            settled,
            &depth,
            &self.contexts,
            &self.request.sandbox,
            failed,
        );
        if let Err(error) = journal.keep(store) {
            reporter.warn(format!("the steps of this build cannot be looked at afterwards: {error}"), None);
        }
        Ok((solved.map_err(|error| self.blame(error, &kept))?, packed?))
    }

    /// Returns the image that a planned one starts from.
    pub(super) fn base_of(&self, planned: &PlannedImage) -> Option<Arc<Base>> {
        self.bases.get(&chain(&self.plan.graph, planned.rootfs).base?)
    }

    /// Whether any output is an image, and not files alone.
    fn wants_images(&self) -> bool {
        let outputs = &self.request.outputs;
        outputs.is_empty() || outputs.iter().any(super::export::is_image)
    }
}

/// Whether any output is files, or says what files there are.
fn wants_files(request: &BuildRequest) -> bool {
    let BuildRequest { outputs, attest, sbom_file, provenance_file, .. } = request;
    outputs.iter().any(|output| matches!(output, Output::Local { .. } | Output::Tar { .. }))
        || attest.contains(&Attest::Sbom)
        || sbom_file.is_some()
        || provenance_file.is_some()
}

/// Whether any output holds the bytes of all layers.
fn wants_blobs(request: &BuildRequest) -> bool {
    request.outputs.is_empty() || request.outputs.iter().any(super::export::needs_blobs)
}

fn built(image: &Image) -> BuiltImage {
    BuiltImage {
        platform: image.platform.clone(),
        manifest: image.manifest.digest,
        config: image.config.digest,
        size: image.layers.iter().map(|layer| layer.size).sum(),
    }
}

/// Reads SOURCE_DATE_EPOCH.
fn epoch(plan: &BuildPlan) -> Result<Option<u64>, Error> {
    let read = |text: &String| text.parse().map_err(|_| Error::BadEpoch { text: text.clone() });
    plan.source_date_epoch.as_ref().map(read).transpose()
}

/// The engine's clock, seconds since 1970: what new records and images are dated.
pub(crate) fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}
