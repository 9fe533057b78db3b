//! Which work can be done now: the state of one build, without threads and without I/O.
//!
//! A step is asked for in two ways. Who needs its key activates it: its inputs' keys are found out, then it is
//! looked up. Who needs its files wants them: if there is no record, its inputs' files are wanted in turn, and it
//! runs. Both ways go down the graph through an agenda rather than by recursion, since chains can be long.
//!
//! Alone, that would be too lazy: a copy from a stage whose key waits for the stage to run would leave its own root
//! untouched until then, though in all likelihood both must run. So while a step is stuck in this way, the files of
//! all its inputs that have no record are wanted too, and the same goes for the steps above that wait for its key. A
//! step is stuck in the same way while a remote source is fetched to know its digest.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use kiln_core::{Digest, Op, Snapshot, StepGraph, StepId};

use crate::foresight::Foresight;
use crate::node::{Content, Fetch, Node, Phase, Source, Waiter, nodes};
use crate::task::{Below, DigestTask, FetchTask, Known, LookTask, Looked, RunTask};
use crate::{Finished, Inputs, KeyInputs, SourceInput, Verdict};

/// The state of one build.
pub(crate) struct Schedule<'g> {
    nodes: Vec<Node<'g>>,
    contents: Vec<Content>,
    agenda: VecDeque<Act>,
    digests: VecDeque<usize>,
    fetches: VecDeque<usize>,
    looks: VecDeque<usize>,
    /// Earliest step in the graph first, so that one job runs a Dockerfile in its order.
    runs: BinaryHeap<Reverse<usize>>,
    /// Which step runs, or ran, for a key: steps that differ only in what no key holds run once.
    by_key: HashMap<Digest, usize>,
    hits: Vec<usize>,
    /// Where somebody wants to know keys before their turn.
    pub(crate) foresight: Option<Foresight>,
}

enum Act {
    /// Find out its key.
    Activate(usize),
    /// Get its snapshot.
    Want(usize),
    /// What it waited for is there.
    Advance(usize),
    /// Its key waits for a step to run: get what else it needs.
    Stick(usize),
}

impl<'g> Schedule<'g> {
    /// Starts with the wanted steps asked for.
    pub(crate) fn new(graph: &'g StepGraph, wanted: &[StepId], foresees: bool) -> Self {
        let position: HashMap<StepId, usize> =
            graph.iter().enumerate().map(|(position, (id, _))| (id, position)).collect();
        let (nodes, contents) = nodes(graph, &position);
        let foresight = foresees.then(|| Foresight::new(&nodes, &contents));
        let mut schedule = Self {
            nodes,
            contents,
            agenda: VecDeque::new(),
            digests: VecDeque::new(),
            fetches: VecDeque::new(),
            looks: VecDeque::new(),
            runs: BinaryHeap::new(),
            by_key: HashMap::new(),
            hits: Vec::new(),
            foresight,
        };
        for id in wanted {
            let position = position.get(id).unwrap_or_else(|| panic!("wanted step {id} is not in the graph"));
            schedule.agenda.push_back(Act::Want(*position));
        }
        schedule.follow_agenda();
        schedule
    }

    /// Returns a step by position.
    pub(crate) fn node(&self, position: usize) -> &Node<'g> {
        &self.nodes[position]
    }

    /// Goes through all steps.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node<'g>> {
        self.nodes.iter()
    }

    /// Takes the next content to hash.
    pub(crate) fn next_digest(&mut self) -> Option<DigestTask<'g>> {
        let content = self.digests.pop_front()?;
        let Content { source, selection, usage, waiters, .. } = &self.contents[content];
        let node = &self.nodes[*source];
        Some(DigestTask {
            content,
            // The first that asked speaks for the content should it not be there.
            asker: waiters[0],
            source: node.id,
            op: &node.step.op,
            finished: node.finished.clone(),
            selection: selection.clone(),
            usage: *usage,
        })
    }

    /// Takes the next remote source to fetch.
    pub(crate) fn next_fetch(&mut self) -> Option<FetchTask<'g>> {
        let source = self.fetches.pop_front()?;
        let node = &self.nodes[source];
        let asker = node.on_finished.iter().find_map(|waiter| match waiter {
            Waiter::Node(waiter) => Some(*waiter),
            Waiter::Content(_) => None,
        });
        Some(FetchTask { source, asker: asker.unwrap_or(source), id: node.id, op: &node.step.op })
    }

    /// Takes the next step to look up.
    pub(crate) fn next_look(&mut self) -> Option<LookTask<'g>> {
        let position = self.looks.pop_front()?;
        let node = &self.nodes[position];
        let outdated = |source: &Source| {
            let source = &self.nodes[source.node];
            source.moved && source.finished.is_none()
        };
        Some(LookTask {
            node: position,
            id: node.id,
            step: node.step,
            inputs: self.key_inputs(position),
            below: self.below(node),
            aliases_hold: !node.sources.iter().any(outdated),
        })
    }

    /// Takes the next step to run.
    pub(crate) fn next_run(&mut self) -> Option<RunTask<'g>> {
        let Reverse(position) = self.runs.pop()?;
        let node = &self.nodes[position];
        let snapshot = |input: usize| self.finished(input).snapshot.clone();
        let root = node.root.map_or_else(Snapshot::default, snapshot);
        let sources = node.sources.iter().map(|source| source.node);
        let inputs = node.layers.into_iter().chain(sources).chain(node.seeds.iter().copied());
        let inputs = inputs.filter(|&input| !self.nodes[input].is_source());
        let snapshots = inputs.map(|input| (self.nodes[input].id, snapshot(input))).collect();
        Some(RunTask {
            node: position,
            id: node.id,
            step: node.step,
            key: node.key.unwrap_or_else(|| unreachable!("step {} runs without a key", node.id)),
            keys: self.key_inputs(position),
            inputs: Inputs { root, snapshots },
        })
    }

    /// Takes the steps that became hits.
    pub(crate) fn take_hits(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.hits)
    }

    /// Returns a finished step's result.
    ///
    /// # Panics
    /// If it is not finished.
    pub(crate) fn finished(&self, position: usize) -> &Arc<Finished> {
        let node = &self.nodes[position];
        node.finished.as_ref().unwrap_or_else(|| unreachable!("step {} has no snapshot yet", node.id))
    }

    /// Takes a content's digest.
    pub(crate) fn digested(&mut self, content: usize, digest: Digest) {
        self.contents[content].digest = Some(digest);
        let waiters = std::mem::take(&mut self.contents[content].waiters);
        if let Some(foresight) = &mut self.foresight {
            foresight.follow(waiters.clone(), &self.nodes, &self.contents);
        }
        for waiter in waiters {
            if self.contents[content].late {
                self.nodes[waiter].stuck_inputs -= 1;
            }
            self.release(waiter);
        }
        self.follow_agenda();
    }

    /// Takes note that something is fetched to know a content's digest.
    pub(crate) fn late(&mut self, content: usize) {
        let content = &mut self.contents[content];
        if content.digest.is_some() || std::mem::replace(&mut content.late, true) {
            return;
        }
        for waiter in content.waiters.clone() {
            self.nodes[waiter].stuck_inputs += 1;
            self.agenda.push_back(Act::Stick(waiter));
        }
        self.follow_agenda();
    }

    /// Takes note that a remote source's files are there.
    pub(crate) fn fetched(&mut self, source: usize) {
        self.nodes[source].fetch = Fetch::Done;
        for waiter in std::mem::take(&mut self.nodes[source].on_finished) {
            if let Waiter::Node(waiter) = waiter {
                self.release(waiter);
            }
        }
        self.follow_agenda();
    }

    /// Takes what a look-up found.
    pub(crate) fn looked(&mut self, position: usize, looked: Looked) {
        match looked {
            Looked::Hit(finished) => self.finish(position, Arc::new(finished)),
            Looked::NeedsContents => {
                self.nodes[position].phase = Phase::Hashing;
                self.stick(position);
                self.wait_for_contents(position, false);
            }
            Looked::Missed { key, outdated } => {
                let below = [self.nodes[position].root, self.nodes[position].layers];
                let below_moved = below.into_iter().flatten().any(|input| self.nodes[input].moved);
                let node = &mut self.nodes[position];
                node.key = Some(key);
                node.phase = Phase::Missed;
                node.moved = outdated || below_moved || node.step.info.no_cache;
                self.foresee_over(position);
                let node = &mut self.nodes[position];
                if node.step.info.no_cache {
                    node.files_wanted = true;
                    self.hold_up(position);
                } else {
                    self.resolve(position);
                }
                if self.nodes[position].files_wanted {
                    self.gather(position);
                }
            }
        }
        self.follow_agenda();
    }

    /// Takes what a step made.
    pub(crate) fn ran(&mut self, position: usize, finished: Finished) {
        self.finish(position, Arc::new(finished));
        self.follow_agenda();
    }

    fn follow_agenda(&mut self) {
        while let Some(act) = self.agenda.pop_front() {
            match act {
                Act::Activate(position) => self.activate(position),
                Act::Want(position) => self.want(position),
                Act::Advance(position) => self.advance(position),
                Act::Stick(position) => self.stick(position),
            }
        }
    }

    fn activate(&mut self, position: usize) {
        let node = &mut self.nodes[position];
        if node.phase != Phase::Idle {
            return;
        }
        match &node.step.op {
            Op::Image(image) => {
                node.key = Some(image.manifest);
                node.phase = Phase::Missed;
                return self.resolve(position);
            }
            Op::Context(_) | Op::Http(_) | Op::Git(_) => {
                panic!("source {} is used as a file system of its own", node.id)
            }
            Op::Run(_) | Op::Copy(_) | Op::Workdir(_) | Op::Merge(_) => node.phase = Phase::Keying,
        }
        for input in node.inputs() {
            if !self.nodes[input].is_source() && !self.nodes[input].resolved {
                self.nodes[position].pending += 1;
                self.nodes[input].on_resolved.push(position);
                self.agenda.push_back(Act::Activate(input));
                if self.nodes[input].stuck {
                    self.nodes[position].stuck_inputs += 1;
                    self.agenda.push_back(Act::Stick(position));
                }
            }
        }
        self.wait_for_contents(position, true);
    }

    fn want(&mut self, position: usize) {
        let node = &mut self.nodes[position];
        node.files_wanted = true;
        if node.phase == Phase::Idle {
            self.activate(position);
        }
        if self.nodes[position].phase == Phase::Missed {
            self.gather(position);
        }
    }

    /// Gets what a step needs besides that which its key waits for.
    fn stick(&mut self, position: usize) {
        for input in self.nodes[position].inputs() {
            if self.nodes[input].phase == Phase::Missed {
                self.agenda.push_back(Act::Want(input));
            }
        }
        self.hold_up(position);
    }

    /// Tells the steps above that this one's key waits for a step to run.
    fn hold_up(&mut self, position: usize) {
        let node = &mut self.nodes[position];
        if node.resolved || std::mem::replace(&mut node.stuck, true) {
            return;
        }
        for waiter in node.on_resolved.clone() {
            self.nodes[waiter].stuck_inputs += 1;
            self.agenda.push_back(Act::Stick(waiter));
        }
    }

    /// Goes on with a step that waits for nothing any more.
    fn advance(&mut self, position: usize) {
        match self.nodes[position].phase {
            Phase::Keying | Phase::Hashing => {
                self.nodes[position].phase = Phase::Looking;
                self.looks.push_back(position);
            }
            Phase::Gathering => self.enqueue(position),
            phase => unreachable!("step {} waits in {phase:?}", self.nodes[position].id),
        }
    }

    /// Waits for the digests of the step's contexts, or of its other sources.
    fn wait_for_contents(&mut self, position: usize, contexts: bool) {
        for number in 0..self.nodes[position].sources.len() {
            let content = self.nodes[position].sources[number].content;
            let source = self.contents[content].source;
            if self.nodes[source].is_source() == contexts && self.contents[content].digest.is_none() {
                self.nodes[position].pending += 1;
                self.contents[content].waiters.push(position);
                if self.contents[content].late {
                    self.nodes[position].stuck_inputs += 1;
                    self.agenda.push_back(Act::Stick(position));
                }
                self.ask_for_content(content, source);
            }
        }
        self.advance_if_ready(position);
    }

    fn ask_for_content(&mut self, content: usize, source: usize) {
        if std::mem::replace(&mut self.contents[content].asked, true) {
            return;
        }
        if self.nodes[source].is_source() || self.nodes[source].finished.is_some() {
            self.digests.push_back(content);
        } else {
            self.nodes[source].on_finished.push(Waiter::Content(content));
            self.agenda.push_back(Act::Want(source));
        }
    }

    /// Waits for the snapshots that the step runs over, and for what has to be fetched for it.
    fn gather(&mut self, position: usize) {
        let node = &mut self.nodes[position];
        node.phase = Phase::Gathering;
        // An image is its content: making it present again changes nothing.
        node.moved = !node.is_image();
        for input in node.inputs().into_iter().chain(node.seeds.clone()) {
            if self.nodes[input].is_remote() {
                if self.nodes[input].fetch != Fetch::Done {
                    self.nodes[position].pending += 1;
                    self.nodes[input].on_finished.push(Waiter::Node(position));
                }
                if self.nodes[input].fetch == Fetch::Idle {
                    self.nodes[input].fetch = Fetch::Asked;
                    self.fetches.push_back(input);
                }
            } else if !self.nodes[input].is_source() && self.nodes[input].finished.is_none() {
                self.nodes[position].pending += 1;
                self.nodes[input].on_finished.push(Waiter::Node(position));
                self.agenda.push_back(Act::Want(input));
            }
        }
        self.advance_if_ready(position);
    }

    /// Queues a step to run, unless another does or did the same.
    fn enqueue(&mut self, position: usize) {
        let node = &self.nodes[position];
        if let (false, Some(key)) = (node.is_image(), node.key) {
            match self.by_key.get(&key) {
                None => {
                    self.by_key.insert(key, position);
                }
                // It was queued with all its inputs there, so it cannot be waiting for this one.
                Some(&first) => match self.nodes[first].finished.clone() {
                    None => {
                        self.nodes[position].pending += 1;
                        self.nodes[first].on_finished.push(Waiter::Node(position));
                        return;
                    }
                    Some(same) => {
                        if self.below(node).bears(&same.snapshot) {
                            let finished = Finished { verdict: Verdict::Hit, ..Finished::clone(&same) };
                            return self.finish(position, Arc::new(finished));
                        }
                    }
                },
            }
        }
        self.nodes[position].phase = Phase::Running;
        self.runs.push(Reverse(position));
    }

    fn finish(&mut self, position: usize, finished: Arc<Finished>) {
        let node = &mut self.nodes[position];
        if finished.verdict == Verdict::Hit {
            self.hits.push(position);
        }
        node.key = Some(finished.key);
        node.finished = Some(finished);
        node.phase = Phase::Finished;
        self.foresee_over(position);
        let node = &mut self.nodes[position];
        for waiter in std::mem::take(&mut node.on_finished) {
            match waiter {
                Waiter::Node(waiter) => self.release(waiter),
                Waiter::Content(content) => self.digests.push_back(content),
            }
        }
        self.resolve(position);
    }

    fn foresee_over(&mut self, position: usize) {
        // Above what is made anew no record of others counts.
        if let Some(foresight) = self.foresight.as_mut().filter(|_| !self.nodes[position].moved) {
            foresight.known(position, &self.nodes, &self.contents);
        }
    }

    fn resolve(&mut self, position: usize) {
        self.nodes[position].resolved = true;
        for waiter in std::mem::take(&mut self.nodes[position].on_resolved) {
            if self.nodes[position].stuck {
                self.nodes[waiter].stuck_inputs -= 1;
            }
            if self.nodes[waiter].stuck_inputs > 0 && self.nodes[position].phase == Phase::Missed {
                self.agenda.push_back(Act::Want(position));
            }
            self.release(waiter);
        }
    }

    /// Counts down what a step waits for.
    fn release(&mut self, waiter: usize) {
        self.nodes[waiter].pending -= 1;
        self.advance_if_ready(waiter);
    }

    fn advance_if_ready(&mut self, position: usize) {
        if self.nodes[position].pending == 0 {
            self.agenda.push_back(Act::Advance(position));
        }
    }

    /// Returns the snapshot that a step has, if that says more than its key: an image's key names its layers.
    fn made(&self, position: usize) -> Option<Arc<Finished>> {
        let node = &self.nodes[position];
        if node.is_image() { None } else { node.finished.clone() }
    }

    fn below(&self, node: &Node<'_>) -> Below {
        let known = |input: Option<usize>| input.map_or(Known::Fixed, |input| self.known(input));
        Below { root: known(node.root), layers: node.layers.map(|layers| self.known(layers)) }
    }

    fn known(&self, position: usize) -> Known {
        let node = &self.nodes[position];
        match &node.finished {
            _ if node.is_image() => Known::Fixed,
            Some(finished) => Known::Made(Arc::clone(finished)),
            None if node.moved => Known::Moved,
            None => Known::Gone,
        }
    }

    fn key_inputs(&self, position: usize) -> KeyInputs {
        let node = &self.nodes[position];
        let sources = node.sources.iter().map(|source| SourceInput {
            selection: source.selection.clone(),
            step: self.nodes[source.node].key,
            snapshot: self.made(source.node).map(|finished| finished.snapshot.clone()),
            content: self.contents[source.content].digest,
        });
        let key = |input: Option<usize>| input.and_then(|input| self.nodes[input].key);
        KeyInputs { root: key(node.root), layers: key(node.layers), sources: sources.collect() }
    }
}
