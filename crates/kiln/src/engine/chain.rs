//! The way from a root file system down to the image it starts from.

use kiln_core::{Digest, Op, StepGraph, StepId};

/// Steps that a root file system is made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// Those above the base, the last first.
    pub(crate) steps: Vec<StepId>,
    /// The base's manifest; none for scratch.
    pub(crate) base: Option<Digest>,
}

/// Follows each step's root down from `root`.
pub(crate) fn chain(graph: &StepGraph, root: Option<StepId>) -> Chain {
    let mut steps = Vec::new();
    let mut next = root;
    while let Some(id) = next {
        let Some(step) = graph.get(id) else { break };
        if let Op::Image(op) = &step.op {
            return Chain { steps, base: Some(op.manifest) };
        }
        steps.push(id);
        next = step.op.root();
    }
    Chain { steps, base: None }
}
