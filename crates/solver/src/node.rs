//! What the schedule knows of one step.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_core::{Digest, Op, Selection, Step, StepGraph, StepId};

use crate::{Finished, SourceUse};

/// A step and how far it is. Steps are named by their position in the graph.
pub(crate) struct Node<'g> {
    pub(crate) id: StepId,
    pub(crate) step: &'g Step,
    pub(crate) root: Option<usize>,
    /// Whose layers go over the root.
    pub(crate) layers: Option<usize>,
    /// In the order of [`Op::sources`].
    pub(crate) sources: Vec<Source>,
    /// Those that are there only when something has made or fetched them.
    pub(crate) seeds: Vec<usize>,
    pub(crate) phase: Phase,
    /// How many things it waits for before it goes on from its phase.
    pub(crate) pending: usize,
    /// Whether its snapshot is needed, not only its key.
    pub(crate) files_wanted: bool,
    /// Whether the steps above can go on: its key is known, and whether there is a record. A step that ignores
    /// records is resolved when it ran.
    pub(crate) resolved: bool,
    /// How many of its inputs have a key that waits for some step to run, or files that are fetched to know the digest.
    pub(crate) stuck_inputs: usize,
    /// Whether its own key waits for a step to run or for something to be fetched, so that the steps above are stuck.
    pub(crate) stuck: bool,
    /// Whether it runs in this build, or must if it is needed: what was recorded over its old snapshot is outdated.
    pub(crate) moved: bool,
    pub(crate) key: Option<Digest>,
    pub(crate) finished: Option<Arc<Finished>>,
    pub(crate) on_resolved: Vec<usize>,
    pub(crate) on_finished: Vec<Waiter>,
    /// Of a remote source: whether its files were asked for, and whether they are there.
    pub(crate) fetch: Fetch,
}

/// How far the files of a remote source are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Fetch {
    /// Nobody needs them.
    #[default]
    Idle,
    /// They are being fetched.
    Asked,
    /// They are there.
    Done,
}

/// Where a step takes files from.
pub(crate) struct Source {
    pub(crate) node: usize,
    pub(crate) selection: Selection,
    /// Position of its content digest.
    pub(crate) content: usize,
}

/// Waits for a step's snapshot.
pub(crate) enum Waiter {
    Node(usize),
    Content(usize),
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nobody asked.
    Idle,
    /// Waits for its inputs' keys and its contexts' digests.
    Keying,
    /// Is being looked up.
    Looking,
    /// Waits for the digests of what it takes from stages and images.
    Hashing,
    /// Has a key and no usable record; runs if its files are wanted.
    Missed,
    /// Waits for its inputs' snapshots.
    Gathering,
    /// Waits for its turn, or runs.
    Running,
    /// Has a snapshot.
    Finished,
}

/// The digest of what a selection selects from a source: computed once, whoever needs it.
pub(crate) struct Content {
    pub(crate) source: usize,
    pub(crate) selection: Selection,
    pub(crate) usage: SourceUse,
    pub(crate) digest: Option<Digest>,
    pub(crate) asked: bool,
    /// Whether something is fetched to know it.
    pub(crate) late: bool,
    pub(crate) waiters: Vec<usize>,
}

impl Node<'_> {
    /// Returns its root, its layers and its sources, contexts among them.
    pub(crate) fn inputs(&self) -> Vec<usize> {
        let below = self.root.into_iter().chain(self.layers);
        below.chain(self.sources.iter().map(|source| source.node)).collect()
    }

    pub(crate) const fn is_image(&self) -> bool {
        matches!(self.step.op, Op::Image(_))
    }

    /// Whether it stands for files from outside, and is never executed.
    pub(crate) const fn is_source(&self) -> bool {
        self.step.op.is_source()
    }

    /// Whether it is a source whose files are somewhere else at first.
    pub(crate) const fn is_remote(&self) -> bool {
        self.step.op.is_remote()
    }
}

/// Lays out a graph as nodes and the contents that they use. `position` says where each step is in it.
pub(crate) fn nodes<'g>(
    graph: &'g StepGraph,
    position: &HashMap<StepId, usize>,
) -> (Vec<Node<'g>>, Vec<Content>) {
    let mut nodes: Vec<Node<'_>> = Vec::with_capacity(graph.len());
    let mut contents: Vec<Content> = Vec::new();
    let mut known: HashMap<(usize, Selection, SourceUse), usize> = HashMap::new();
    for (id, step) in graph.iter() {
        let usage = SourceUse::of(&step.op);
        let sources = step.op.sources().into_iter().map(|(source, selection)| {
            let node = position[&source];
            let content = *known.entry((node, selection.clone(), usage)).or_insert_with(|| {
                let selection = selection.clone();
                contents.push(Content {
                    source: node,
                    selection,
                    usage,
                    digest: None,
                    asked: false,
                    late: false,
                    waiters: Vec::new(),
                });
                contents.len() - 1
            });
            Source { node, selection, content }
        });
        let sources = sources.collect();
        let seeds = step.op.seeds().into_iter().map(|(seed, _)| position[&seed]);
        let seeds =
            seeds.filter(|&seed: &usize| !nodes[seed].is_source() || nodes[seed].is_remote()).collect();
        nodes.push(Node {
            id,
            step,
            root: step.op.root().map(|root| position[&root]),
            layers: step.op.layers().map(|layers| position[&layers]),
            sources,
            seeds,
            phase: Phase::Idle,
            pending: 0,
            files_wanted: false,
            resolved: false,
            stuck_inputs: 0,
            stuck: false,
            moved: false,
            key: None,
            finished: None,
            on_resolved: Vec::new(),
            on_finished: Vec::new(),
            fetch: Fetch::default(),
        });
    }
    (nodes, contents)
}
