//! Executes steps on this machine: the solver's worker.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use kiln_core::{
    Cancel, Chmod, ContextOp, CopyOp, CopySource, Digest, Event, GitOp, HttpOp, Op, Sandbox, Secret,
    Selection, Snapshot, Step, StepGraph, StepId, StepUsage, WorkdirOp,
};
use kiln_dockerfile::Rule;
use kiln_runtime::Entered;
use kiln_solver::{Claim, Inputs, Place, SourceUse, Worker};
use kiln_store::Store;
use kiln_store::cache_mount::CacheMounts;
use kiln_store::copy::{CopyInput, CopyRequest, CopyRules, lookup_owner, make_dir};
use kiln_store::tree::{DigestRule, Facts, SourceTree};

use super::agent::Backend;
use super::arrival::LayerProgress;
use super::bases::Bases;
use super::carry::Restores;
use super::contexts::Contexts;
use super::debug::Failures;
use super::explain::{BuildElsewhere, FactsOf, Why};
use super::foreign::Ways;
use super::last_copy::LastCopy;
use super::leak::LeakScanner;
use super::patience::{Patience, Turn};
use super::redact::Redactor;
use super::remote::Remotes;
use super::reporter::Reporter;
use super::step_cache::StepCache;
use super::trees::{Snapshotter, Trees, View};
use crate::Error;

/// All that executing the steps of one build needs.
pub(crate) struct StepWorker<'a> {
    pub(crate) entered: &'a Entered,
    pub(crate) store: &'a Store,
    pub(crate) trees: &'a Trees,
    pub(crate) caches: &'a CacheMounts,
    /// What others see who wait for one of its caches.
    pub(crate) build: String,
    /// What may still be on its way into them.
    pub(crate) restores: &'a Restores,
    pub(crate) graph: &'a StepGraph,
    pub(crate) contexts: &'a Contexts<'a>,
    pub(crate) bases: &'a Bases<'a>,
    pub(crate) remotes: &'a Remotes<'a>,
    /// Results of steps that are somewhere else.
    pub(crate) cache: &'a StepCache<'a>,
    pub(crate) reporter: &'a Reporter<'a>,
    /// How programs of foreign architectures run.
    pub(crate) ways: &'a Ways,
    /// Environment of every RUN that is no part of a key: proxies.
    pub(crate) run_env: &'a [(String, String)],
    pub(crate) sandbox: &'a Sandbox,
    /// Whether it was told that steps have another network than expected.
    pub(crate) network_told: Once,
    /// Whether it was told that no control groups keep the limits.
    pub(crate) limits_told: Once,
    /// Given with the request, by id.
    pub(crate) secrets: &'a BTreeMap<String, Secret>,
    /// Keeps them out of layers; knows none if they may be there.
    pub(crate) leaks: LeakScanner,
    /// Ssh agents, by id.
    pub(crate) agents: BTreeMap<String, Backend>,
    /// Keeps secrets out of logs.
    pub(crate) redactor: Redactor,
    /// Merged views of snapshots that files are taken from: one walk serves the key and the copy.
    pub(crate) views: Mutex<HashMap<Snapshot, Arc<SourceView<'a>>>>,
    /// Whether it was said that there is no overlay.
    pub(crate) told: AtomicBool,
    /// What the processes of steps used, until their end is reported.
    pub(crate) usages: Mutex<HashMap<StepId, StepUsage>>,
    /// Keeps what failed steps leave.
    pub(crate) failures: Failures,
    /// How it waits for others.
    pub(crate) patience: Patience,
    /// Images whose files something may look at.
    pub(crate) needed: HashSet<StepId>,
    /// Says why steps run, and whether it is told before they do.
    pub(crate) why: Why<'a>,
    pub(crate) explain: bool,
}

impl Worker for StepWorker<'_> {
    type Error = Error;

    fn content_digest(
        &self,
        source: StepId,
        op: &Op,
        snapshot: Option<&Snapshot>,
        selection: &Selection,
        usage: SourceUse,
        late: &dyn Fn(),
        cancel: &Cancel,
    ) -> Result<Digest, Error> {
        if op.is_remote() {
            let digest = self.remotes.digest(op, selection, late, cancel)?;
            self.why.content(source, selection, usage, digest, DigestRule::COPY);
            return Ok(digest);
        }
        let rule = match (usage, snapshot) {
            (SourceUse::Copied { modes, owners }, snapshot) => {
                DigestRule { modes, owners: owners && snapshot.is_some(), ..DigestRule::COPY }
            }
            (SourceUse::Mounted, None) => DigestRule::BIND_CONTEXT,
            (SourceUse::Mounted, Some(_)) => DigestRule::BIND_STAGE,
        };
        let progress = ImageProgress { reporter: self.reporter, step: self.step_number(source), place: None };
        self.cache.present(snapshot, &progress, cancel)?;
        let digest =
            self.with_tree(op, snapshot, cancel, |tree| Ok(tree.select(selection)?.digest(rule)?))?;
        self.why.content(source, selection, usage, digest, rule);
        Ok(digest)
    }

    fn fetch(&self, _source: StepId, op: &Op, cancel: &Cancel) -> Result<(), Error> {
        self.remotes.get(op, cancel).map(drop)
    }

    fn claim(
        &self,
        id: StepId,
        step: &Step,
        key: &Digest,
        place: &Place<'_>,
        cancel: &Cancel,
    ) -> Result<Option<Box<dyn Claim>>, Error> {
        if self.sandbox.variation.is_some() {
            // Nobody shall find what it makes.
            return Ok(None);
        }
        let number = self.number(id, step);
        let what = format!("step-{}-{}", self.store.ids().dir(), key.hex());
        let mut waited = false;
        let mut on_wait = |holder: &str| {
            waited = true;
            place.leave();
            self.reporter.emit(Event::StepWaiting { step: number, holder: Some(holder.to_owned()) });
        };
        let turn = self.patience.turn(self.store, &what, &mut on_wait, cancel);
        if waited {
            place.resume(cancel);
            self.reporter.emit(Event::StepWaiting { step: number, holder: None });
        }
        match turn {
            Ok(Turn::Mine { claim, .. }) => Ok(Some(Box::new(StepClaim(claim)))),
            Ok(Turn::Anybodys) => Ok(None),
            // Nothing keeps it from running twice: the wait only spares work.
            Err(error @ Error::LockTimeout { .. }) => {
                self.reporter.warn(format!("{error}; the step runs here, too"), step.info.lines);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn execute(
        &self,
        id: StepId,
        step: &Step,
        inputs: &Inputs,
        place: &Place<'_>,
        cancel: &Cancel,
    ) -> Result<Snapshot, Error> {
        // That a result is there and not fetched is told in any case: it was kiln's choice.
        if (self.explain || self.why.is_choice(id))
            && let Some(why) = self.why.explain(id, self)
        {
            let step = why.step;
            self.reporter.emit(Event::StepReason { step, why: Box::new(why) });
        }
        if !matches!(step.op, Op::Image(_) | Op::Merge(_)) {
            let step = self.number(id, step);
            let progress = ImageProgress { reporter: self.reporter, step, place: Some((place, cancel)) };
            let snapshots = std::iter::once(&inputs.root).chain(inputs.snapshots.values());
            self.cache.present(snapshots, &progress, cancel)?;
        }
        match &step.op {
            Op::Image(op) => {
                let base =
                    self.bases.get(&op.manifest).ok_or(Error::NotResolved { manifest: op.manifest })?;
                if !self.needed.contains(&id) {
                    return Ok(self.bases.unfetched(&base));
                }
                let step = self.number(id, step);
                let progress = ImageProgress { reporter: self.reporter, step, place: Some((place, cancel)) };
                self.bases.unpack(&base, &progress, cancel)
            }
            Op::Run(op) => self.run(id, step, op, inputs, place, cancel),
            Op::Copy(op) => self.copy(step, op, inputs, cancel),
            Op::Workdir(op) => self.workdir(op, inputs, cancel),
            Op::Merge(op) => {
                let mut merged = inputs.root.clone();
                if let Some(layers) = inputs.snapshots.get(&op.layers) {
                    merged.layers.extend(layers.layers.iter().cloned());
                }
                Ok(merged)
            }
            // The solver never executes a source.
            Op::Context(ContextOp { name })
            | Op::Http(HttpOp { url: name, .. })
            | Op::Git(GitOp { remote: name, .. }) => Err(Error::NoSuchContext { name: name.clone() }),
        }
    }
}

impl FactsOf for StepWorker<'_> {
    fn facts(&self, source: StepId, selection: &Selection, rule: DigestRule) -> Option<Facts> {
        let op = &self.graph.get(source)?.op;
        let settled = self.failures.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = settled.get(&source).cloned();
        drop(settled);
        // Of what was fetched only the digest is known.
        if op.is_remote() || snapshot.is_none() && !op.is_source() {
            return None;
        }
        let facts = |tree: &SourceTree| Ok(tree.select(selection)?.facts(rule)?);
        self.with_tree(op, snapshot.as_ref(), &Cancel::new(), facts).ok()
    }

    fn number(&self, id: StepId) -> Option<u32> {
        Some(self.number(id, self.graph.get(id)?))
    }

    fn elsewhere(&self) -> Vec<BuildElsewhere> {
        self.cache.builds_elsewhere(&self.redactor)
    }

    fn files_elsewhere(&self, source: usize, content: &Digest) -> Option<Facts> {
        // Who does not ask for reasons pays nothing for them.
        self.explain.then(|| self.cache.files_elsewhere(source, content)).flatten()
    }
}

impl<'a> StepWorker<'a> {
    /// Returns the number that a step has in events.
    pub(crate) fn number(&self, id: StepId, step: &Step) -> u32 {
        self.reporter.number(id, &step.info.title, step.info.lines)
    }

    fn step_number(&self, id: StepId) -> u32 {
        self.graph.get(id).map_or(0, |step| self.number(id, step))
    }

    /// Calls `work` with the tree that a source step stands for.
    pub(crate) fn with_tree<T>(
        &self,
        op: &Op,
        snapshot: Option<&Snapshot>,
        cancel: &Cancel,
        work: impl FnOnce(&SourceTree) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match (op, snapshot) {
            (Op::Context(op), _) => {
                let context = self.contexts.get(&op.name)?;
                work(&context.tree).map_err(|error| context.explain(error))
            }
            (op, _) if op.is_remote() => work(&self.remotes.get(op, cancel)?.tree),
            (_, Some(snapshot)) => work(&self.view(snapshot, cancel)?.tree),
            (_, None) => work(&self.view(&Snapshot::default(), cancel)?.tree),
        }
    }

    /// Says, if steps will run without namespaces, that they do.
    pub(crate) fn announce_chroot(&self) {
        if let Some((why, _)) = self.entered.why_bare()
            && self.graph.iter().any(|(_, step)| matches!(step.op, Op::Run(_)))
        {
            let message = format!(
                "steps run in a chroot, without namespaces: slower, and nothing keeps them from this machine or container \
                 ({why})"
            );
            self.reporter.warn(message, None);
        }
    }

    /// Says once that steps are slower here than they could be, and why.
    pub(crate) fn announce(&self) -> Result<(), Error> {
        if self.trees.snapshotter(self.entered)? == Snapshotter::Copy
            && let Some(why) = self.trees.refused()
            && !self.told.swap(true, Ordering::Relaxed)
        {
            let message = format!("no overlay here, so files are copied, which is slower: {why}");
            self.reporter.warn(message, None);
        }
        Ok(())
    }

    /// Returns the merged view of a snapshot.
    pub(crate) fn view(&self, snapshot: &Snapshot, cancel: &Cancel) -> Result<Arc<SourceView<'a>>, Error> {
        self.announce()?;
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = views.get(snapshot) {
            return Ok(Arc::clone(view));
        }
        let files = self.trees.view(self.entered, snapshot, cancel)?;
        let tree = SourceTree::view(files.root()?, "").with_link_owners(self.store.link_owners(snapshot)?);
        let view = Arc::new(SourceView { tree, files });
        views.insert(snapshot.clone(), Arc::clone(&view));
        Ok(view)
    }

    /// Returns a source step's operation and snapshot.
    pub(crate) fn source<'s>(
        &self,
        id: StepId,
        inputs: &'s Inputs,
    ) -> Result<(&Op, Option<&'s Snapshot>), Error> {
        let step = self.graph.get(id).ok_or(Error::NoSuchStep { step: id })?;
        Ok((&step.op, inputs.snapshots.get(&id)))
    }

    fn copy(&self, step: &Step, op: &CopyOp, inputs: &Inputs, cancel: &Cancel) -> Result<Snapshot, Error> {
        let parent = self.parent(&inputs.root, cancel)?;
        let parent = parent.as_ref().map(AsFd::as_fd);
        let owner = op.chown.as_deref().map(|owner| lookup_owner(parent, owner)).transpose()?;
        let sources: Vec<CopyInput> = op
            .sources
            .iter()
            .map(|source| match source {
                CopySource::From(from) => {
                    let (op, snapshot) = self.source(from.step, inputs)?;
                    self.with_tree(op, snapshot, cancel, |tree| {
                        Ok(CopyInput::Files(tree.select(&from.selection)?))
                    })
                }
                CopySource::Inline(file) => Ok(CopyInput::Inline(file.clone())),
            })
            .collect::<Result<_, Error>>()?;
        self.warn_of_empty_wildcards(step, op, &sources);
        let last = LastCopy::of(op);
        let reuse = last.reuse(self.store)?;
        let layer = self.store.begin_layer(&inputs.root)?;
        let request = CopyRequest {
            layer: layer.upper(),
            parent,
            inputs: &sources,
            dest: &op.dest,
            dest_is_dir: op.dest_is_dir,
            unpack: op.unpack,
            rules: &CopyRules {
                keep_owners: !inputs.snapshots.is_empty(),
                ..self.rules(owner, op.chmod.clone())
            },
            reuse: reuse.as_ref(),
            cancel,
        };
        let report = kiln_store::copy::copy(&request)?;
        if let Some(path) = report.changed.first() {
            return Err(Error::ContextChanged { path: path.clone() });
        }
        layer.record_links(&report.link_owners)?;
        self.leaks.check(layer.upper(), cancel)?;
        let made = layer.commit()?;
        if let Some(made) = &made {
            last.keep(self.store, made, &report.manifest)?;
        }
        Ok(extend(&inputs.root, made))
    }

    /// The program takes such a wildcard without a word, and does not even make the destination.
    fn warn_of_empty_wildcards(&self, step: &Step, op: &CopyOp, inputs: &[CopyInput]) {
        for (source, input) in op.sources.iter().zip(inputs) {
            if let (CopySource::From(from), CopyInput::Files(files)) = (source, input)
                && files.is_empty()
            {
                let rule = Rule::EmptyWildcard.name();
                let message =
                    format!("{rule}: `{}` matches no file, so nothing is copied", from.selection.path);
                self.reporter.warn(message, step.info.lines);
            }
        }
    }

    fn workdir(&self, op: &WorkdirOp, inputs: &Inputs, cancel: &Cancel) -> Result<Snapshot, Error> {
        let parent = self.parent(&inputs.root, cancel)?;
        let parent = parent.as_ref().map(AsFd::as_fd);
        let user = Some(op.user.as_str()).filter(|user| !user.is_empty());
        let owner = user.map(|user| lookup_owner(parent, user)).transpose()?;
        let layer = self.store.begin_layer(&inputs.root)?;
        make_dir(layer.upper(), parent, &op.path, &self.rules(owner, None))?;
        Ok(extend(&inputs.root, layer.commit()?))
    }

    /// Returns a root file system so far; none for scratch.
    fn parent(&self, root: &Snapshot, cancel: &Cancel) -> Result<Option<View<'a>>, Error> {
        if root.layers.is_empty() {
            return Ok(None);
        }
        self.announce()?;
        Ok(Some(self.trees.view(self.entered, root, cancel)?))
    }

    /// Times are clamped when a layer is packed, so that builds with and without an epoch share their layers.
    pub(crate) fn rules(&self, owner: Option<(u32, u32)>, chmod: Option<Chmod>) -> CopyRules {
        CopyRules { owner, keep_owners: false, chmod, epoch: None, ids: self.store.ids() }
    }
}

/// Keeps other processes from a step.
struct StepClaim(kiln_store::Claim);

impl Claim for StepClaim {
    fn end(self: Box<Self>, well: bool) {
        if !well {
            self.0.fail();
        }
    }
}

/// A snapshot's files, as a source.
pub(crate) struct SourceView<'a> {
    pub(crate) tree: SourceTree,
    pub(crate) files: View<'a>,
}

/// Puts a layer over a snapshot, if the step made one.
pub(crate) fn extend(root: &Snapshot, layer: Option<kiln_core::LayerId>) -> Snapshot {
    match layer {
        Some(layer) => root.with(layer),
        None => root.clone(),
    }
}

/// Reports layers that are fetched under the number of a step: a base's, or the one that needs their files.
struct ImageProgress<'a> {
    reporter: &'a Reporter<'a>,
    step: u32,
    /// A step's, which it leaves while it waits.
    place: Option<(&'a Place<'a>, &'a Cancel)>,
}

impl LayerProgress for ImageProgress<'_> {
    fn progress(&self, item: &str, current: u64, total: u64) {
        let item = item.to_owned();
        self.reporter.emit(Event::StepProgress { step: self.step, item, current, total: Some(total) });
    }

    fn waiting(&self, holder: Option<&str>) {
        match (self.place, holder) {
            (Some((place, _)), Some(_)) => place.leave(),
            (Some((place, cancel)), None) => place.resume(cancel),
            (None, _) => {}
        }
        self.reporter.emit(Event::StepWaiting { step: self.step, holder: holder.map(str::to_owned) });
    }
}
