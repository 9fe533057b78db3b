//! Keys before their turn.
//!
//! A step is looked up when those below it were, one after the other. Where a look-up is a question to another machine, a
//! chain of them would wait for as many answers. But a key needs the keys below it and digests of files, not the records: so
//! most are known as soon as the build context is hashed, and can be asked for all at once.

use kiln_core::{Digest, Op, StepId};

use crate::node::{Content, Node, Phase};
use crate::{KeyInputs, SourceInput, content_key};

/// Keys as far as they can be known.
pub(crate) struct Foresight {
    keys: Vec<Option<Digest>>,
    /// Who has a step as an input, by the step's position.
    users: Vec<Vec<usize>>,
    fresh: Vec<(StepId, Digest)>,
}

impl Foresight {
    /// Starts with the images' keys, which are their manifests.
    pub(crate) fn new(nodes: &[Node<'_>], contents: &[Content]) -> Self {
        let mut users = vec![Vec::new(); nodes.len()];
        for (position, node) in nodes.iter().enumerate() {
            for input in node.inputs() {
                users[input].push(position);
            }
        }
        let mut foresight = Self { keys: vec![None; nodes.len()], users, fresh: Vec::new() };
        foresight.follow((0..nodes.len()).rev().collect(), nodes, contents);
        foresight
    }

    /// Takes the keys that were not told yet.
    pub(crate) fn take(&mut self) -> Vec<(StepId, Digest)> {
        std::mem::take(&mut self.fresh)
    }

    /// Something became known that these steps' keys are made of.
    pub(crate) fn follow(&mut self, mut todo: Vec<usize>, nodes: &[Node<'_>], contents: &[Content]) {
        while let Some(position) = todo.pop() {
            let node = &nodes[position];
            // Above a step that ignores records none counts.
            if self.keys[position].is_some() || node.is_source() || node.step.info.no_cache {
                continue;
            }
            let key = match &node.step.op {
                Op::Image(image) => Some(image.manifest),
                op => node.key.or_else(|| content_key(op, &self.inputs(node, contents)?)),
            };
            if let Some(key) = key {
                self.keys[position] = Some(key);
                if !node.is_image() && matches!(node.phase, Phase::Idle | Phase::Keying) {
                    self.fresh.push((node.id, key));
                }
                todo.extend(&self.users[position]);
            }
        }
    }

    /// A step's key is known; what is above it may follow.
    pub(crate) fn known(&mut self, position: usize, nodes: &[Node<'_>], contents: &[Content]) {
        if self.keys[position].is_none() {
            self.follow(vec![position], nodes, contents);
        }
    }

    /// What a key is made of; none while some of it is not known.
    fn inputs(&self, node: &Node<'_>, contents: &[Content]) -> Option<KeyInputs> {
        let key = |input: Option<usize>| match input {
            None => Some(None),
            Some(input) => self.keys[input].map(Some),
        };
        let source = |source: &crate::node::Source| {
            Some(SourceInput {
                selection: source.selection.clone(),
                step: None,
                snapshot: None,
                content: Some(contents[source.content].digest?),
            })
        };
        let sources = node.sources.iter().map(source).collect::<Option<Vec<_>>>()?;
        Some(KeyInputs { root: key(node.root)?, layers: key(node.layers)?, sources })
    }
}
