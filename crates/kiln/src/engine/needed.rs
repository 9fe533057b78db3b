//! Which base images' files a build may look at. The others' layers are not fetched: names are enough to put them into a
//! manifest, and a registry may have them.

use std::collections::HashSet;

use kiln_core::{Op, StepGraph, StepId};

/// Returns the image steps whose files something needs: what runs in them, copies from or into them, or is an output of
/// files. A linked copy needs none of what it is put over: it is a layer of its own.
pub(crate) fn as_files(graph: &StepGraph, outputs: &[StepId]) -> HashSet<StepId> {
    let looked_into = graph.iter().filter(|(_, step)| !matches!(step.op, Op::Merge(_)));
    let mut todo: Vec<StepId> = looked_into.flat_map(|(_, step)| step.op.inputs()).collect();
    todo.extend(outputs);
    let mut seen = HashSet::new();
    let mut needed = HashSet::new();
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        match graph.get(id).map(|step| &step.op) {
            Some(Op::Image(_)) => drop(needed.insert(id)),
            // Its files are those of both.
            Some(op @ Op::Merge(_)) => todo.extend(op.inputs()),
            _ => {}
        }
    }
    needed
}
