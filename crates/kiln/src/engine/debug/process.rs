//! A step's process as plain data: enough to start another one in its place, later and in another kiln.

use std::path::PathBuf;

use kiln_core::{Bind, MountKind, Op, RunOp, Selection, Snapshot};
use kiln_solver::Inputs;
use serde::{Deserialize, Serialize};

use super::super::worker::StepWorker;
use crate::Error;

/// What a RUN step executes, and where its bind mounts are. What secrets hold is not in it, and neither are URLs, which
/// may hold what nobody must see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) op: RunOp,
    /// One for each bind mount, in their order.
    pub(crate) binds: Vec<BindSource>,
}

/// Where the files of a bind mount are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BindSource {
    /// In a stage or an image.
    Snapshot(Snapshot),
    /// At a path: of a build context, or of a source that was fetched. What is there now is what is mounted.
    Place(PathBuf),
    /// In a build context, of which .dockerignore hides a part: there is no directory of what is left.
    Hidden,
}

impl StepWorker<'_> {
    /// Describes a step's process.
    pub(crate) fn process(&self, op: &RunOp, inputs: &Inputs) -> Result<Process, Error> {
        let mut binds = Vec::new();
        for mount in &op.mounts {
            if let MountKind::Bind(bind) = &mount.kind {
                binds.push(self.bind_source(bind, inputs)?);
            }
        }
        Ok(Process { op: op.clone(), binds })
    }

    fn bind_source(&self, bind: &Bind, inputs: &Inputs) -> Result<BindSource, Error> {
        let selection = Selection::literal(bind.path.trim_start_matches('/'));
        let (op, snapshot) = self.source(bind.from, inputs)?;
        Ok(match (op, snapshot) {
            (Op::Context(op), _) => {
                let context = self.contexts.get(&op.name)?;
                let selected = context.tree.select(&selection)?;
                match selected.single() {
                    Some((path, _)) if selected.excluded() == 0 => BindSource::Place(context.path.join(path)),
                    _ => BindSource::Hidden,
                }
            }
            (op, _) if op.is_remote() => {
                let remote = self.remotes.get(op, &kiln_core::Cancel::new())?;
                BindSource::Place(remote.path.join(bind.path.trim_start_matches('/')))
            }
            (_, snapshot) => BindSource::Snapshot(snapshot.cloned().unwrap_or_default()),
        })
    }
}
