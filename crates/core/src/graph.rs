//! The step graph: steps by identity, equal steps once.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Canonical, Digest, Op, Purpose};

/// A step's identity: the hash of its operation and of its inputs' identities.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepId(Digest);

impl StepId {
    /// Returns the identity of an operation.
    pub fn of(op: &Op) -> Self {
        let mut out = Canonical::new("step");
        op.encode(Purpose::Id, &mut out);
        out.option(op.root().as_ref(), |root, out| {
            out.digest(&root.0);
        });
        if let Some(layers) = op.layers() {
            out.digest(&layers.0);
        }
        out.list(&op.sources(), |(step, selection), out| {
            out.digest(&step.0);
            selection.encode(out);
        });
        Self(out.finish())
    }

    /// Returns the hash itself.
    pub const fn digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.short())
    }
}

impl fmt::Debug for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StepId({self})")
    }
}

/// One operation in a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it does.
    pub op: Op,
    /// How to speak of it. Never part of an identity or a key.
    pub info: StepInfo,
}

/// How to speak of a step: of the first place that wrote it, where several did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepInfo {
    /// `[build 2/4] RUN make`, as progress shows it.
    pub title: String,
    /// The stage's name or number; empty for sources.
    pub stage: String,
    /// First and last line in the Dockerfile, from 1; none for what is not written there.
    pub lines: Option<(usize, usize)>,
    /// Whether records are not looked up for it (`--no-cache`).
    pub no_cache: bool,
}

/// Steps in an order in which each comes after its inputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepGraph {
    order: Vec<StepId>,
    steps: HashMap<StepId, Step>,
}

impl StepGraph {
    /// Starts empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step whose inputs are there already, or finds the equal one.
    ///
    /// # Panics
    /// If an input was never added: the caller made its id up.
    pub fn add(&mut self, op: Op, info: StepInfo) -> StepId {
        for input in op.inputs() {
            assert!(self.steps.contains_key(&input), "input {input} of {:?} is not in the graph", info.title);
        }
        let id = StepId::of(&op);
        self.steps.entry(id).or_insert_with(|| {
            self.order.push(id);
            Step { op, info }
        });
        id
    }

    /// Returns a step.
    pub fn get(&self, id: StepId) -> Option<&Step> {
        self.steps.get(&id)
    }

    /// Goes through all steps, inputs first.
    pub fn iter(&self) -> impl Iterator<Item = (StepId, &Step)> {
        self.order.iter().filter_map(|id| Some((*id, self.steps.get(id)?)))
    }

    /// Returns the number of steps.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Returns whether there is no step.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}
