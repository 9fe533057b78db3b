//! What the last build did: of each step what it started from and what it left, so that it can be looked at.

use std::collections::HashMap;

use kiln_core::{
    Digest, Env, LayerId, MountKind, Op, RunOp, Sandbox, Selection, Snapshot, StepGraph, StepId,
};
use kiln_store::{RecordKind, Store};
use serde::{Deserialize, Serialize};

use super::process::{BindSource, Process};
use super::{Candidate, StepSummary};
use crate::Error;
use crate::engine::contexts::Contexts;

/// The key of the one record that there is.
const LAST: &str = "last";

/// One build, as far as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// The Dockerfile's name.
    pub(super) file: String,
    /// When it began, seconds since 1970.
    pub(crate) time: u64,
    /// Each after those that it names.
    pub(super) steps: Vec<Entry>,
    /// The step that failed.
    pub(crate) failed: Option<StepId>,
}

/// How many variables there are, and those that differ, with their places.
type EnvChange = (usize, Vec<(usize, String, String)>);

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    step: StepId,
    title: String,
    lines: Option<(usize, usize)>,
    /// Position of the step that it started from.
    root: Option<usize>,
    /// What it put over that; none if it did not come to its end.
    layers: Option<Vec<LayerId>>,
    /// Of a RUN.
    process: Option<Process>,
    /// As it is kept, its environment stands here: how many variables, and those that the RUN before had not at their places.
    /// A Dockerfile with many ENV and many RUN takes no more than itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    env: Option<EnvChange>,
    /// Where bind mounts are from that are in steps of this journal: their positions.
    binds: Vec<Option<usize>>,
}

/// Finds the snapshots of images that nothing had to unpack: what was made over them begins with theirs.
fn images(graph: &StepGraph, settled: &mut HashMap<StepId, Snapshot>, depth: &dyn Fn(&Digest) -> usize) {
    for (id, step) in graph.iter() {
        let Some(root) = step.op.root() else { continue };
        if let (Some(Op::Image(image)), Some(after), false) =
            (graph.get(root).map(|step| &step.op), settled.get(&id), settled.contains_key(&root))
            && let Some(layers) = after.layers.get(..depth(&image.manifest))
        {
            let below = Snapshot { layers: layers.to_vec() };
            settled.insert(root, below);
        }
    }
}

impl Journal {
    /// Describes a build whose steps left these snapshots.
    pub(crate) fn of(
        (file, time): (&str, u64),
        graph: &StepGraph,
        mut settled: HashMap<StepId, Snapshot>,
        depth: &dyn Fn(&Digest) -> usize,
        contexts: &Contexts<'_>,
        sandbox: &Sandbox,
        failed: Option<StepId>,
    ) -> Self {
        images(graph, &mut settled, depth);
        let mut position: HashMap<StepId, usize> = HashMap::new();
        let mut steps: Vec<Entry> = Vec::new();
        let mut before = Env::new();
        for (id, step) in graph.iter() {
            if step.op.is_source() {
                continue;
            }
            let root = step.op.root().and_then(|root| position.get(&root).copied());
            let below = step.op.root().and_then(|root| settled.get(&root));
            let own = settled.get(&id).and_then(|after| match (root, below) {
                (None, _) => Some(after.layers.clone()),
                (Some(_), Some(below)) => Some(after.layers.get(below.layers.len()..)?.to_vec()),
                (Some(_), None) => None,
            });
            let mut entry = Entry {
                step: id,
                title: step.info.title.clone(),
                lines: step.info.lines,
                root,
                layers: own,
                process: None,
                env: None,
                binds: Vec::new(),
            };
            if let Op::Run(op) = &step.op {
                let mut sources = Vec::new();
                for mount in &op.mounts {
                    let MountKind::Bind(bind) = &mount.kind else { continue };
                    entry.binds.push(position.get(&bind.from).copied());
                    let selection = Selection::literal(bind.path.trim_start_matches('/'));
                    sources.push(match graph.get(bind.from).map(|step| &step.op) {
                        Some(Op::Context(context)) => contexts.get(&context.name).map_or_else(
                            |error| BindSource::Missing(error.to_string()),
                            |c| BindSource::of_context(c, &selection),
                        ),
                        _ => BindSource::Missing("it was fetched".to_owned()),
                    });
                }
                let places = op.env.places_that_differ(&before).into_iter();
                let pair = |place| op.env.at(place).map(|(name, value)| (place, name.clone(), value.clone()));
                entry.env = Some((op.env.len(), places.filter_map(pair).collect()));
                before = op.env.clone();
                let op = RunOp { env: Env::new(), ..op.clone() };
                entry.process = Some(Process { op, binds: sources, sandbox: sandbox.clone() });
            }
            position.insert(id, steps.len());
            steps.push(entry);
        }
        Self { file: file.to_owned(), time, steps, failed }
    }

    /// Keeps it in place of the one before.
    pub(crate) fn keep(&self, store: &Store) -> Result<(), Error> {
        Ok(store.put_record(RecordKind::Build, LAST, self)?)
    }

    /// Reads the last one; an empty one if there is none.
    pub(crate) fn last(store: &Store) -> Result<Self, Error> {
        let kept: Option<Self> = store.get_record(RecordKind::Build, LAST)?;
        Ok(kept.unwrap_or_default().whole())
    }

    /// Puts environments back to where they belong.
    fn whole(mut self) -> Self {
        let mut env = Env::new();
        for entry in &mut self.steps {
            let (Some((length, changed)), Some(process)) = (entry.env.take(), &mut entry.process) else {
                continue;
            };
            for (place, name, value) in changed {
                if place <= env.len() {
                    env.put(place, name, value);
                }
            }
            env.truncate(length);
            process.op.env = env.clone();
        }
        self
    }

    /// Returns the title of a step.
    pub(crate) fn title(&self, step: StepId) -> Option<&str> {
        self.steps.iter().find(|entry| entry.step == step).map(|entry| entry.title.as_str())
    }

    /// Returns the steps that came to their end.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        let ended = |position: &usize| self.snapshot(*position).is_some();
        (0..self.steps.len()).filter(ended).map(|position| self.candidate(position)).collect()
    }

    fn candidate(&self, position: usize) -> Candidate {
        let entry = &self.steps[position];
        let process = entry.process.clone().map(|mut process| {
            for (source, at) in process.binds.iter_mut().zip(&entry.binds) {
                if let Some(snapshot) = at.and_then(|at| self.snapshot(at)) {
                    *source = BindSource::Snapshot(snapshot);
                }
            }
            process
        });
        Candidate {
            summary: StepSummary {
                name: entry.step.to_string(),
                title: entry.title.clone(),
                file: self.file.clone(),
                lines: entry.lines,
                failed: None,
                time: self.time,
            },
            step: entry.step,
            below: entry.root.and_then(|root| self.snapshot(root)).unwrap_or_default(),
            own: entry.layers.clone().unwrap_or_default(),
            process,
        }
    }

    fn snapshot(&self, position: usize) -> Option<Snapshot> {
        let mut chain = Vec::new();
        let mut at = Some(position);
        while let Some(position) = at {
            let entry = self.steps.get(position)?;
            chain.push(entry.layers.as_ref()?);
            // Roots come first.
            if entry.root.is_some_and(|root| root >= position) {
                return None;
            }
            at = entry.root;
        }
        Some(Snapshot { layers: chain.into_iter().rev().flatten().cloned().collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_of_many_variables_and_steps_is_kept_in_the_room_of_its_dockerfile() {
        let mut env = Env::new();
        let mut journal = Journal::default();
        let mut before = Env::new();
        let mut whole = Vec::new();
        for number in 0..300 {
            env.push(format!("NAME_{number}"), "a value");
            if number % 7 == 0 {
                env.set_at(number / 2, "another");
            }
            let places = env.places_that_differ(&before).into_iter();
            let pair = |place| env.at(place).map(|(name, value)| (place, name.clone(), value.clone()));
            let changed = places.filter_map(pair).collect();
            before = env.clone();
            whole.push(env.clone());
            let step = serde_json::from_value(serde_json::json!(Digest::of(&[1, 2]))).expect("an id");
            let (title, layers) = (String::new(), Some(vec![LayerId(number.to_string())]));
            let root = number.checked_sub(1);
            let (process, env) = (Some(Process::none()), Some((env.len(), changed)));
            journal.steps.push(Entry { step, title, lines: None, root, layers, process, env, binds: vec![] });
        }
        let text = serde_json::to_string(&journal).expect("JSON");
        assert!(text.len() < 300 * 1500, "{} bytes", text.len());
        let read = serde_json::from_str::<Journal>(&text).expect("the same").whole();
        let envs: Vec<Env> =
            read.steps.iter().filter_map(|entry| Some(entry.process.as_ref()?.op.env.clone())).collect();
        assert_eq!(envs, whole);
        assert_eq!(read.snapshot(299).map(|snapshot| snapshot.layers.len()), Some(300));
    }
}
