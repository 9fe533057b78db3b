//! A worker that runs nothing, notes everything, and panics where the solver breaks the rules.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use kiln_core::{
    Cancel, Canonical, Digest, LayerId, Op, Purpose, Selection, Snapshot, Step, StepGraph, StepId,
};
use kiln_solver::{Inputs, Place, SourceUse, Worker};

/// Layers of all fake workers have different names, like those of different executions.
static NEXT_LAYER: AtomicU64 = AtomicU64::new(1);

/// Executes nothing, but knows what would come of it: what a step makes is a function of its operation, its root and
/// the contents of its sources. Files of a context have the version `1` until [`set_content`](Self::set_content)
/// says otherwise; files of a step follow from what it is made of, or are what `set_content` said when it ran.
///
/// Digests of remote sources are known without their files, but for those of [`must_fetch`](FakeWorker::must_fetch).
///
/// Panics if a step is executed that is not in the graph of [`begin`](Self::begin), if a step is executed twice in
/// one build, if a context is executed, if a snapshot is missing or too many, or if two steps of a build are executed
/// on one thread.
#[derive(Debug, Default)]
pub struct FakeWorker {
    state: Mutex<State>,
}

/// What a worker was asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum WorkerCall {
    /// Execute the step with this title.
    Execute(String),
    /// Hash this path of the step with this title.
    Digest(String, String),
    /// Fetch what is behind this URL.
    Fetch(String),
}

/// The failure that a script asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeError(pub String);

impl std::fmt::Display for FakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FakeError {}

/// Holds what runs into it until it is opened.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Debug, Clone, Copy, Default)]
struct GateState {
    entered: bool,
    open: bool,
    cancelled: bool,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<WorkerCall>,
    graph: StepGraph,
    executed: HashSet<StepId>,
    threads: HashSet<ThreadId>,
    versions: HashMap<(String, String), String>,
    layers: HashMap<LayerId, Made>,
    failures: HashMap<String, String>,
    panics: HashSet<String>,
    gates: HashMap<String, Gate>,
    adds_nothing: HashSet<String>,
    must_fetch: HashSet<String>,
    fetched: HashSet<StepId>,
    waits: HashSet<String>,
    busy: usize,
    most_busy: usize,
}

/// What is known of a layer.
#[derive(Debug, Clone)]
struct Made {
    title: String,
    /// The same for layers of the same content, over roots of the same content.
    meaning: Digest,
    /// As they were when it was made.
    versions: HashMap<(String, String), String>,
}

impl Gate {
    /// Waits until something ran into it.
    pub fn wait(&self) {
        self.wait_until(|state| state.entered);
    }

    /// Lets it go on.
    pub fn open(&self) {
        self.set(|state| state.open = true);
    }

    fn pass(&self, cancel: &Cancel) -> Result<(), FakeError> {
        let gate = self.clone();
        let _guard = cancel.on_cancel(move || gate.set(|state| state.cancelled = true));
        self.set(|state| state.entered = true);
        let state = self.wait_until(|state| state.open || state.cancelled);
        if state.open { Ok(()) } else { Err(FakeError("gave up".to_owned())) }
    }

    fn set(&self, change: impl FnOnce(&mut GateState)) {
        change(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.1.notify_all();
    }

    fn wait_until(&self, condition: impl Fn(&GateState) -> bool) -> GateState {
        let state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        *self.0.1.wait_while(state, |state| !condition(state)).unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeWorker {
    /// Starts with no script.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a path of a context, or of what a step will make from now on, another content.
    pub fn set_content(&self, title: &str, path: &str, version: &str) {
        self.lock().versions.insert((title.to_owned(), path.to_owned()), version.to_owned());
    }

    /// Makes executing a step (or hashing a context) fail, until [`heal`](Self::heal).
    pub fn fail(&self, title: &str, message: &str) {
        self.lock().failures.insert(title.to_owned(), message.to_owned());
    }

    /// Takes back all failures.
    pub fn heal(&self) {
        self.lock().failures.clear();
    }

    /// Makes a step wait for others before it does anything, until what is returned is opened: it leaves its place meanwhile.
    pub fn waits(&self, title: &str) -> Gate {
        self.lock().waits.insert(title.to_owned());
        self.gate(title)
    }

    /// Returns how many steps did something at once, at most, in all builds so far.
    pub fn most_at_once(&self) -> usize {
        self.lock().most_busy
    }

    /// Makes executing a step panic.
    pub fn panic_in(&self, title: &str) {
        self.lock().panics.insert(title.to_owned());
    }

    /// Makes the digest of a remote source one that is known only when it is fetched.
    pub fn must_fetch(&self, url: &str) {
        self.lock().must_fetch.insert(url.to_owned());
    }

    /// Makes a step leave its root as it is, as a WORKDIR does whose directory is there.
    pub fn add_nothing(&self, title: &str) {
        self.lock().adds_nothing.insert(title.to_owned());
    }

    /// Holds the next execution of a step or the next fetch of a URL, or with a title of the form `STEP:PATH` the next
    /// hashing, until the gate
    /// is opened or the build is cancelled.
    pub fn gate(&self, title: &str) -> Gate {
        let gate = Gate::default();
        self.lock().gates.insert(title.to_owned(), gate.clone());
        gate
    }

    /// Begins a build of a graph: every step may be executed once more.
    pub fn begin(&self, graph: &StepGraph) {
        let mut state = self.lock();
        state.graph = graph.clone();
        state.executed.clear();
        state.fetched.clear();
        state.threads.clear();
        state.calls.clear();
    }

    /// Returns what was asked since the build began, in order.
    pub fn calls(&self) -> Vec<WorkerCall> {
        self.lock().calls.clone()
    }

    /// Returns the titles of the steps executed since the build began, in order.
    pub fn executed(&self) -> Vec<String> {
        let title = |call| match call {
            WorkerCall::Execute(title) => Some(title),
            WorkerCall::Digest(..) | WorkerCall::Fetch(_) => None,
        };
        self.calls().into_iter().filter_map(title).collect()
    }

    /// Gets to know the layers that another worker made, like two processes with one store.
    pub fn learn(&self, other: &Self) {
        let layers = other.lock().layers.clone();
        self.lock().layers.extend(layers);
    }

    /// Returns what a snapshot is, whenever and however often it was made.
    pub fn meaning(&self, snapshot: &Snapshot) -> Digest {
        self.lock().meaning(snapshot)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits at the gate if there is one. The state is not locked meanwhile.
    fn pass_gate(&self, title: &str, cancel: &Cancel) -> Result<(), FakeError> {
        let gate = self.lock().gates.remove(title);
        gate.map_or(Ok(()), |gate| gate.pass(cancel))
    }

    /// Returns who made a snapshot.
    fn title(&self, source: StepId, snapshot: &Snapshot) -> String {
        let state = self.lock();
        let made = snapshot.layers.last().and_then(|layer| state.layers.get(layer));
        let made =
            made.unwrap_or_else(|| panic!("the snapshot that came with step {source} is none made here"));
        made.title.clone()
    }
}

impl Worker for FakeWorker {
    type Error = FakeError;

    fn content_digest(
        &self,
        source: StepId,
        op: &Op,
        snapshot: Option<&Snapshot>,
        selection: &Selection,
        usage: SourceUse,
        late: &dyn Fn(),
        cancel: &Cancel,
    ) -> Result<Digest, FakeError> {
        let title = match (op, snapshot) {
            (Op::Context(context), None) => context.name.clone(),
            (Op::Http(source), None) => source.url.clone(),
            (Op::Git(source), None) => source.remote.clone(),
            (op, Some(_)) if op.is_source() => panic!("source {source} came with a snapshot"),
            (_, None) => panic!("the files of step {source} are asked for, and its snapshot is not there"),
            (_, Some(snapshot)) => self.title(source, snapshot),
        };
        self.lock().calls.push(WorkerCall::Digest(title.clone(), selection.path.clone()));
        if self.lock().must_fetch.contains(&title) {
            late();
        }
        self.pass_gate(&format!("{title}:{}", selection.path), cancel)?;
        let state = self.lock();
        if op.is_source()
            && let Some(message) = state.failures.get(&title)
        {
            return Err(FakeError(message.clone()));
        }
        Ok(state.content(&title, snapshot, selection, usage))
    }

    fn fetch(&self, source: StepId, op: &Op, cancel: &Cancel) -> Result<(), FakeError> {
        let title = match op {
            Op::Http(source) => source.url.clone(),
            Op::Git(source) => source.remote.clone(),
            _ => panic!("step {source} is fetched and is not remote"),
        };
        self.lock().calls.push(WorkerCall::Fetch(title.clone()));
        self.pass_gate(&title, cancel)?;
        let mut state = self.lock();
        assert!(state.fetched.insert(source), "{title} was fetched twice in one build");
        match state.failures.get(&title) {
            Some(message) => Err(FakeError(message.clone())),
            None => Ok(()),
        }
    }

    fn execute(
        &self,
        id: StepId,
        step: &Step,
        inputs: &Inputs,
        place: &Place<'_>,
        cancel: &Cancel,
    ) -> Result<Snapshot, FakeError> {
        let title = &step.info.title;
        assert!(!step.op.is_source(), "source {title} was executed");
        {
            let mut state = self.lock();
            state.calls.push(WorkerCall::Execute(title.clone()));
            assert_eq!(state.graph.get(id), Some(step), "{title} is not in the graph of this build");
            assert!(state.executed.insert(id), "{title} was executed twice in one build");
            let thread = std::thread::current().id();
            assert!(
                state.threads.insert(thread),
                "{title} was executed on a thread that served another step"
            );
            state.check_inputs(step, inputs);
        }
        if self.lock().waits.contains(title) {
            place.leave();
            self.pass_gate(title, cancel)?;
            place.resume(cancel);
        }
        let _busy = Busy::begin(self);
        self.pass_gate(title, cancel)?;
        let mut state = self.lock();
        if let Some(message) = state.failures.get(title) {
            return Err(FakeError(message.clone()));
        }
        assert!(!state.panics.contains(title), "{title} panics as asked");
        if state.adds_nothing.contains(title) {
            return Ok(inputs.root.clone());
        }
        if let Op::Merge(op) = &step.op {
            let mut merged = inputs.root.clone();
            merged.layers.extend(inputs.snapshots[&op.layers].layers.iter().cloned());
            return Ok(merged);
        }
        let layer = match &step.op {
            Op::Image(image) => LayerId(image.manifest.short()),
            _ => LayerId(format!("{title}#{}", NEXT_LAYER.fetch_add(1, Ordering::Relaxed))),
        };
        let meaning = state.meaning_of(step, inputs);
        let made = Made { title: title.clone(), meaning, versions: state.versions.clone() };
        state.layers.insert(layer.clone(), made);
        Ok(inputs.root.with(layer))
    }
}

/// A step that does something.
struct Busy<'a>(&'a FakeWorker);

impl<'a> Busy<'a> {
    fn begin(worker: &'a FakeWorker) -> Self {
        let mut state = worker.lock();
        state.busy += 1;
        state.most_busy = state.most_busy.max(state.busy);
        drop(state);
        Self(worker)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.lock().busy -= 1;
    }
}

impl State {
    fn check_inputs(&self, step: &Step, inputs: &Inputs) {
        let title = &step.info.title;
        let needed = step.op.sources().into_iter().map(|(id, _)| id);
        for id in needed.chain(step.op.seeds().into_iter().map(|(id, _)| id)) {
            let remote = self.graph.get(id).is_some_and(|step| step.op.is_remote());
            assert!(!remote || self.fetched.contains(&id), "{title} runs before {id} was fetched");
        }
        let is_source = |id: &StepId| self.graph.get(*id).is_some_and(|step| step.op.is_source());
        let sources = step.op.sources().into_iter().map(|(id, _)| id);
        let seeds = step.op.seeds().into_iter().map(|(id, _)| id);
        let others = step.op.layers().into_iter().chain(sources).chain(seeds);
        let wanted: HashSet<StepId> = others.filter(|id| !is_source(id)).collect();
        let given: HashSet<StepId> = inputs.snapshots.keys().copied().collect();
        assert_eq!(given, wanted, "{title} came with other snapshots than those of its inputs");
        let root_made = !inputs.root.layers.is_empty();
        assert_eq!(root_made, step.op.root().is_some(), "{title} came over a wrong root");
        for layer in inputs.root.layers.iter().chain(inputs.snapshots.values().flat_map(|s| &s.layers)) {
            assert!(self.layers.contains_key(layer), "{title} came with layer {layer}, which nobody made");
        }
    }

    fn meaning(&self, snapshot: &Snapshot) -> Digest {
        // All of them, not the topmost alone: a merge's was made without those below.
        let mut out = Canonical::new("fake snapshot");
        out.list(&snapshot.layers, |layer, out| {
            out.digest(&self.layers[layer].meaning);
        });
        out.finish()
    }

    fn meaning_of(&self, step: &Step, inputs: &Inputs) -> Digest {
        let mut out = Canonical::new("fake step");
        step.op.encode(Purpose::Key, &mut out);
        out.digest(&self.meaning(&inputs.root));
        let usage = SourceUse::of(&step.op);
        out.list(&step.op.sources(), |(source, selection), out| {
            let title = self.graph.get(*source).map_or("", |step| &step.info.title);
            out.digest(&self.content(title, inputs.snapshots.get(source), selection, usage));
        });
        out.finish()
    }

    fn content(
        &self,
        title: &str,
        snapshot: Option<&Snapshot>,
        selection: &Selection,
        usage: SourceUse,
    ) -> Digest {
        let top = snapshot.and_then(|snapshot| snapshot.layers.last()).map(|layer| &self.layers[layer]);
        let whole = snapshot.map(|snapshot| self.meaning(snapshot));
        let versions = top.map_or(&self.versions, |made| &made.versions);
        let version = versions.get(&(title.to_owned(), selection.path.clone()));
        let mut out = Canonical::new("fake content");
        out.str(&selection.path)
            .bool(usage == SourceUse::Mounted)
            .bool(matches!(usage, SourceUse::Copied { modes: true, .. }));
        match (version, whole) {
            (Some(version), _) => out.str(version),
            (None, Some(whole)) => out.digest(&whole),
            (None, None) => out.str(title).str("1"),
        };
        out.finish()
    }
}
