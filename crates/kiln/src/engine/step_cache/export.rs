//! Leaving records elsewhere, beside the steps that follow: one thread packs, one sends. They do no more at a time, so that
//! the build keeps its processors and its network.

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

use kiln_core::{Digest, LayerId, MountKind, Op, Snapshot, StepGraph, StepId};
use kiln_solver::{KeyInputs, KeyParts, Snapshots, Sought, StepRecord, definition_key};
use kiln_store::{LayerOptions, RecordKind};

use super::StepCache;
use super::far::Whose;
use super::import::{diff_id, parts_of};
use super::place::Place;
use super::record::{Entry, Facts, Packing, StepLayer, without_values};
use super::source::Source;
use crate::engine::chain::chain;
use crate::engine::finished::{layer_options, ways};
use crate::engine::transfer::Origin;
use crate::request::{CacheMode, CacheTarget, ImageForm, RecordPlace};
use crate::{BuildRequest, Error};

/// Records between the two threads.
const WAITING: usize = 16;

/// One `--cache-to`.
pub(super) struct Exporter {
    label: String,
    pub(super) place: Place,
    packing: LayerOptions,
    ignore_error: bool,
    /// The steps whose records are left; all if none.
    only: Option<HashSet<StepId>>,
    /// Whether steps with secrets may have left them in layers.
    leaky: bool,
    /// The same place, to see what is there.
    pub(super) itself: Source,
    queue: Mutex<Queue>,
    pub(super) state: Mutex<State>,
    changed: Condvar,
}

struct Queue {
    sender: Option<Sender<Job>>,
    receiver: Option<Receiver<Job>>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) left: Vec<(StepId, Arc<Entry>)>,
    /// Those of them that were not there, and the bytes that were sent of all.
    pub(super) new: usize,
    pub(super) bytes: u64,
    failed: Option<Error>,
    /// Threads under way.
    working: bool,
}

/// A step that settled.
#[derive(Clone)]
struct Job {
    id: StepId,
    inputs: KeyInputs,
    record: StepRecord,
}

/// A record that is to be sent, and where the blobs of it are.
pub(super) type Ready = (StepId, Arc<Entry>, Vec<Origin>);

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Exporter {
    pub(super) fn new(
        target: &CacheTarget,
        request: &BuildRequest,
        graph: &StepGraph,
        wanted: &[StepId],
    ) -> Result<Option<Self>, Error> {
        let Some(itself) = Source::new(&target.place) else { return Ok(None) };
        let refuse = |reason: String| Error::CacheTo {
            target: target.place.to_string(),
            error: Box::new(Error::Output { output: "--cache-to".to_owned(), reason }),
        };
        if let RecordPlace::Registry(name) = &target.place
            && name.digest.is_some()
        {
            return Err(refuse("a name with a digest cannot be written to; give it a tag".to_owned()));
        }
        let packing = match target.compression {
            Some(compression) => {
                let form = ImageForm { compression, level: target.level, ..ImageForm::default() };
                form.check().map_err(refuse)?;
                layer_options(&form, None)
            }
            // As the image has them, so that a layer is packed once, and is the same blob.
            None => ways(request, None).first().copied().unwrap_or_default(),
        };
        let (sender, receiver) = channel();
        Ok(Some(Self {
            label: itself.label.clone(),
            place: itself.place.clone(),
            packing,
            ignore_error: target.ignore_error,
            only: (target.mode == CacheMode::Min).then(|| parts_of(graph, wanted)),
            leaky: request.allow_secret_leak,
            itself: itself.quiet(),
            queue: Mutex::new(Queue { sender: Some(sender), receiver: Some(receiver) }),
            state: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// Starts the threads. They end when the exporter is closed and what was given to it is done.
    pub(super) fn start<'scope, 'env>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
        cache: &'env StepCache<'_>,
    ) {
        let Some(receiver) = lock(&self.queue).receiver.take() else { return };
        let (ready, sending) = sync_channel(WAITING);
        lock(&self.state).working = true;
        scope.spawn(move || self.pack(cache, receiver, &ready));
        scope.spawn(move || {
            let _done = Done(self);
            self.send(cache, sending);
        });
    }

    /// No more will be given to it.
    pub(super) fn close(&self) {
        lock(&self.queue).sender = None;
    }

    fn give(&self, graph: &StepGraph, job: &Job) {
        let Some(step) = graph.get(job.id) else { return };
        let wanted = self.only.as_ref().is_none_or(|only| only.contains(&job.id));
        let leaky = self.leaky && has_secrets(&step.op);
        if let (true, false, Some(sender)) = (wanted, leaky, &lock(&self.queue).sender) {
            let _ = sender.send(job.clone());
        }
    }

    /// Notes what went wrong first; nothing more is sent then.
    pub(super) fn fail(&self, error: Error) {
        lock(&self.state).failed.get_or_insert(error);
    }

    pub(super) fn has_failed(&self) -> bool {
        lock(&self.state).failed.is_some()
    }

    fn pack(&self, cache: &StepCache<'_>, jobs: Receiver<Job>, ready: &SyncSender<Ready>) {
        let mut diff_ids: HashMap<LayerId, Digest> = HashMap::new();
        for job in jobs {
            if self.has_failed() || cache.cancel.is_cancelled() {
                continue;
            }
            match self.entry(cache, &job, &mut diff_ids) {
                Ok(Some(made)) => drop(ready.send(made)),
                Ok(None) => {}
                Err(error) => self.fail(error),
            }
        }
    }

    /// Makes a step's record, packing what is new.
    fn entry(
        &self,
        cache: &StepCache<'_>,
        job: &Job,
        diff_ids: &mut HashMap<LayerId, Digest>,
    ) -> Result<Option<Ready>, Error> {
        let Some(step) = cache.graph.get(job.id) else { return Ok(None) };
        let base = chain(cache.graph, Some(job.id)).base.and_then(|manifest| cache.bases.get(&manifest));
        let depth = base.map_or(0, |base| base.image.layers.len());
        let mut layers = Vec::new();
        let mut origins = Vec::new();
        for id in job.record.snapshot.layers.get(depth..).unwrap_or_default() {
            let (layer, origin) = match cache.far.get(id).filter(|far| far.whose != Whose::Base) {
                // As it came, so that nothing is packed for it.
                Some(far) => (StepLayer { layer: far.layer, packing: far.packing }, far.origin),
                None => {
                    let way = (id, &self.packing);
                    let layer = cache.patience.blob(cache.store, way, None, cache.reporter, cache.cancel)?;
                    let packing = self.packing.compression.version();
                    (StepLayer { layer, packing }, Origin::Store)
                }
            };
            diff_ids.insert(id.clone(), layer.layer.diff_id);
            layers.push(layer);
            origins.push(origin);
        }
        let definitions = definitions(&step.op, &job.inputs, &|layer| {
            diff_id(layer).or_else(|| diff_ids.get(layer).copied())
        });
        if let Some(entry) = cache.entry_taken(&job.record.key)
            && definitions.iter().all(|definition| entry.facts.definitions.contains(definition))
        {
            return Ok(Some((job.id, entry, origins)));
        }
        let all = job.inputs.sources.iter().all(|source| source.content.is_some());
        let parts = match all {
            true => Some(KeyParts::of(&step.op, &job.inputs)),
            false => cache.store.get_record(RecordKind::KeyParts, &job.record.key.hex())?,
        };
        let packing =
            |layer: &StepLayer| Packing { diff_id: layer.layer.diff_id, packing: layer.packing.clone() };
        let facts = Facts {
            version: 1,
            key: job.record.key,
            definitions,
            title: job.record.title.clone(),
            created: job.record.created,
            duration_us: job.record.duration_us,
            layers: layers.iter().map(packing).collect(),
            parts: parts.map(without_values),
            line: cache.lines.get(&job.id).cloned(),
        };
        Ok(Some((job.id, Arc::new(Entry::new(facts, layers)), origins)))
    }

    /// Waits until all is sent, and writes the list of it.
    fn finish(&self, cache: &StepCache<'_>, built: bool) -> Result<(), Error> {
        self.close();
        let task = built.then(|| cache.reporter.task(&format!("exporting cache to {}", self.label)));
        let mut state = lock(&self.state);
        while state.working {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let State { mut left, failed, new, bytes, .. } = std::mem::take(&mut *state);
        drop(state);
        let count = left.len();
        let written = match failed {
            Some(error) => Err(error),
            None if cache.cancel.is_cancelled() => Err(Error::Interrupted),
            None if built => {
                let order: HashMap<StepId, usize> =
                    cache.graph.iter().enumerate().map(|(position, (id, _))| (id, position)).collect();
                left.sort_by_key(|(id, _)| order.get(id).copied());
                let entries: Vec<Arc<Entry>> = left.into_iter().map(|(_, entry)| entry).collect();
                self.write_list(cache, &entries)
            }
            None => Ok(()),
        };
        if let Some(task) = task {
            if written.is_ok() {
                task.says(&summary(count, new, bytes));
                if bytes > 0 {
                    task.progress("sent", bytes, Some(bytes));
                }
            }
            task.end_with(&written);
        }
        written.map_err(|error| match error {
            Error::Interrupted => Error::Interrupted,
            error => Error::CacheTo { target: self.label.clone(), error: Box::new(error) },
        })
    }
}

impl StepCache<'_> {
    /// Gives a settled step to who leaves it elsewhere.
    pub(super) fn settled(&self, sought: &Sought<'_>, record: &StepRecord) {
        if let Some(notes) = &self.inline {
            let definitions = definitions(&sought.step.op, sought.inputs, &diff_id);
            notes.add(sought.id, record, definitions);
        }
        if !self.exporters.is_empty() {
            let job = Job { id: sought.id, inputs: sought.inputs.clone(), record: record.clone() };
            for exporter in &self.exporters {
                exporter.give(self.graph, &job);
            }
        }
    }

    /// Waits for all exports. The first failure of one whose failures count is returned.
    pub(super) fn finish_exports(&self, built: bool) -> Result<(), Error> {
        let mut first = Ok(());
        for exporter in &self.exporters {
            match exporter.finish(self, built) {
                Err(error) if exporter.ignore_error && !matches!(error, Error::Interrupted) => {
                    self.reporter.warn(error.to_string(), None);
                }
                Err(error) if first.is_ok() => first = Err(error),
                _ => {}
            }
        }
        first
    }

    fn entry_taken(&self, key: &Digest) -> Option<Arc<Entry>> {
        let taken = lock(&self.taken).get(key).map(|taken| Arc::clone(&taken.entry));
        taken.filter(|entry| entry.manifest.is_some())
    }
}

/// Returns the definition keys that a step is found under where the files of its sources are not known: over the sources' layers
/// by diff id, as far as all of those are known, and over their keys alone.
fn definitions(op: &Op, inputs: &KeyInputs, diff_id: &dyn Fn(&LayerId) -> Option<Digest>) -> Vec<Digest> {
    if inputs.sources.iter().all(|source| source.step.is_none()) {
        return Vec::new();
    }
    let mut found = vec![definition_key(op, inputs, Snapshots::Left)];
    let mut named = inputs.clone();
    for source in &mut named.sources {
        if let Some(snapshot) = &mut source.snapshot {
            let layers = snapshot.layers.iter().map(|layer| Some(LayerId(diff_id(layer)?.hex())));
            match layers.collect::<Option<Vec<_>>>() {
                Some(layers) => *snapshot = Snapshot { layers },
                None => return found,
            }
        }
    }
    let known = definition_key(op, &named, Snapshots::Known);
    if known != found[0] {
        found.push(known);
    }
    found
}

/// Says what came of it.
fn summary(results: usize, new: usize, bytes: u64) -> String {
    match (results, new, bytes) {
        (0, ..) => "no step had a result to leave".to_owned(),
        (all, 0, 0) => format!("nothing new: all {all} results are there"),
        (all, 0, _) => {
            format!("nothing new: all {all} results are there; layers of them that got lost are sent again")
        }
        (all, new, _) => format!("{all} results, {new} of them new"),
    }
}

fn has_secrets(op: &Op) -> bool {
    let Op::Run(op) = op else { return false };
    op.mounts.iter().any(|mount| matches!(mount.kind, MountKind::Secret(_)))
}

/// Says that the threads have ended, however they do.
struct Done<'e>(&'e Exporter);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).working = false;
        self.0.changed.notify_all();
    }
}
