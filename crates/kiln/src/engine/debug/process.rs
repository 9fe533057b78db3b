//! A step's process as plain data: enough to start another one in its place, later and in another kiln.

use std::path::PathBuf;

use kiln_core::{Bind, MountKind, Network, Op, Platform, RunOp, Sandbox, Security, Selection, Snapshot};
use kiln_solver::Inputs;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::engine::contexts::Context;
use crate::engine::worker::StepWorker;

/// What a RUN step executes, and where its bind mounts are. What secrets hold is not in it, and neither are URLs, which
/// may hold what nobody must see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) op: RunOp,
    /// One for each bind mount, in their order.
    pub(crate) binds: Vec<BindSource>,
    /// How the build ran its steps.
    #[serde(default)]
    pub(crate) sandbox: Sandbox,
}

/// Where the files of a bind mount are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BindSource {
    /// In a stage or an image.
    Snapshot(Snapshot),
    /// At a path: of a build context, or of a source that was fetched. What is there now is what is mounted.
    Place(PathBuf),
    /// Nowhere, and why: in a URL, which is not kept; or in a build context of which .dockerignore hides a part, so that there
    /// is no directory of what is left.
    Missing(String),
}

impl Process {
    /// What is started where a step had no process, such as COPY: as root in `/`.
    pub(crate) fn none() -> Self {
        let env = [("PATH".to_owned(), crate::engine::run_image::PATH.to_owned())];
        let op = RunOp {
            root: None,
            args: Vec::new(),
            env: env.into_iter().collect(),
            cwd: "/".to_owned(),
            user: String::new(),
            network: Network::Default,
            security: Security::Sandbox,
            mounts: Vec::new(),
            files: Vec::new(),
            platform: Platform::host(),
            hostname: None,
            machine: Box::default(),
        };
        Self { op, binds: Vec::new(), sandbox: Sandbox::default() }
    }
}

impl BindSource {
    /// Finds what a bind mount selects of a build context.
    pub(crate) fn of_context(context: &Context, selection: &Selection) -> Self {
        let selected = match context.tree.select(selection) {
            Ok(selected) => selected,
            Err(error) => return Self::Missing(error.to_string()),
        };
        match selected.single() {
            Some((path, _)) if selected.excluded() == 0 => Self::Place(context.path.join(path)),
            _ => Self::Missing("a part of it is hidden by .dockerignore".to_owned()),
        }
    }
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
        Ok(Process { op: op.clone(), binds, sandbox: self.sandbox.clone() })
    }

    fn bind_source(&self, bind: &Bind, inputs: &Inputs) -> Result<BindSource, Error> {
        let selection = Selection::literal(bind.path.trim_start_matches('/'));
        let (op, snapshot) = self.source(bind.from, inputs)?;
        Ok(match (op, snapshot) {
            (Op::Context(op), _) => BindSource::of_context(self.contexts.get(&op.name)?, &selection),
            (op, _) if op.is_remote() => {
                let remote = self.remotes.get(op, &kiln_core::Cancel::new())?;
                BindSource::Place(remote.path.join(bind.path.trim_start_matches('/')))
            }
            (_, snapshot) => BindSource::Snapshot(snapshot.cloned().unwrap_or_default()),
        })
    }
}
