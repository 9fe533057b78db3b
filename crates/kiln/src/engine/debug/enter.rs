//! Starts a process where a step's was.

use std::collections::BTreeMap;

use kiln_core::{Cancel, ExitStatus, MountSpec, RunSpec, Sandbox, Secret, Snapshot};
use kiln_runtime::{EmulatorSearch, RunError, Signals};
use serde::{Deserialize, Serialize};

use super::world::{StepMount, World, own_program};
use super::{HeldStep, Process, Side};
use crate::Error;
use crate::engine::step_files::Scratch;
use crate::engine::{Engine, network};
use crate::ssh::SshAgent;

/// The shells of an image that are tried, in this order.
const SHELLS: [&str; 3] = ["bash", "sh", "/bin/sh"];

/// What to start in a step's place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnterRequest {
    /// Which files it sees.
    pub side: Side,
    /// Command and arguments; a shell if empty.
    pub command: Vec<String>,
    /// Which shell.
    pub shell: StepShell,
    /// Secrets for the step's secret mounts, by id: those of the build are not kept.
    pub secrets: BTreeMap<String, Secret>,
    /// Ssh agents, by id, likewise.
    pub ssh: BTreeMap<String, SshAgent>,
    /// Added to the step's environment.
    pub env: BTreeMap<String, String>,
    /// Instead of the step's user.
    pub user: Option<String>,
    /// Instead of the step's directory.
    pub workdir: Option<String>,
    /// Whether the process gets a terminal.
    pub tty: bool,
    /// Where emulators of other platforms are looked for.
    pub emulators: EmulatorSearch,
}

/// Which shell is started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepShell {
    /// bash or sh of the image; where it has none that starts, the built-in one. A command needs none.
    #[default]
    Image,
    /// This program's own, also for a command: docs/failed-steps.md says what it can do.
    BuiltIn,
}

/// What happens before the process starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entering {
    /// A cache mount is held in a way that this one must wait for.
    Waiting {
        /// The cache's id.
        cache: String,
        /// By whom.
        holder: String,
    },
    /// It is about to start.
    Ready {
        /// The mounts of the step.
        mounts: Vec<StepMount>,
    },
    /// The image has no shell that starts.
    NoShell {
        /// Why not.
        reason: String,
    },
}

impl Engine {
    /// Runs a process where a step's was: with its files, mounts, environment, user and directory, and with this process's
    /// standard streams. What it changes is thrown away; but cache mounts are the step's own.
    ///
    /// # Errors
    /// A mount cannot be had, or the process cannot be started.
    pub fn enter_step(
        &self,
        step: &HeldStep,
        request: &EnterRequest,
        tell: &mut dyn FnMut(Entering),
        cancel: &Cancel,
    ) -> Result<ExitStatus, Error> {
        let process = step.candidate.process.clone().unwrap_or_else(Process::none);
        let mut world = World::make(self, &step.summary().title, &process, request, tell, cancel)?;
        let spec = &mut world.spec;
        for (name, value) in &request.env {
            spec.env.retain(|(known, _)| known != name);
            spec.env.push((name.clone(), value.clone()));
        }
        if request.tty && !spec.env.iter().any(|(name, _)| name == "TERM") {
            spec.env.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        spec.user = request.user.clone().unwrap_or_else(|| std::mem::take(&mut spec.user));
        spec.cwd = request.workdir.clone().unwrap_or_else(|| std::mem::take(&mut spec.cwd));
        (spec.tty, spec.stdin) = (request.tty, true);
        // Without one, the image's programs do not start, but ours does.
        let way = kiln_runtime::find(&self.entered, &process.op.platform.architecture, &request.emulators);
        spec.emulator = way.ok().and_then(|way| way.emulator);
        // Without the build's limits: a shell waits for who types.
        let Sandbox { network, resolver, .. } = &process.sandbox;
        spec.network = network::choose(&self.entered, process.op.network, *network, &spec.env).mode;
        spec.resolver = resolver.clone();
        tell(Entering::Ready { mounts: world.mounts.clone() });
        let files = &step.files(request.side);
        let result = match (request.shell, &request.command[..]) {
            (StepShell::BuiltIn, command) => self.start_built_in(&world.spec, files, command, cancel),
            (StepShell::Image, []) => self.start_shell(&world.spec, files, tell, cancel),
            (StepShell::Image, command) => {
                let spec = RunSpec { args: command.to_vec(), ..world.spec.clone() };
                self.start_in(spec, files, cancel)
            }
        };
        world.end()?;
        result
    }

    /// Starts the first of the image's shells that can be started, or our own.
    fn start_shell(
        &self,
        spec: &RunSpec,
        files: &Snapshot,
        tell: &mut dyn FnMut(Entering),
        cancel: &Cancel,
    ) -> Result<ExitStatus, Error> {
        let mut reason = String::new();
        for shell in SHELLS {
            let spec = RunSpec { args: vec![shell.to_owned()], ..spec.clone() };
            match self.start_in(spec, files, cancel) {
                Err(Error::Run(RunError::Program { program, message, .. })) => {
                    reason = format!("{program}: {message}");
                }
                other => return other,
            }
        }
        tell(Entering::NoShell { reason });
        self.start_built_in(spec, files, &[], cancel)
    }

    /// Starts our own shell, for one command if there is one.
    fn start_built_in(
        &self,
        spec: &RunSpec,
        files: &Snapshot,
        command: &[String],
        cancel: &Cancel,
    ) -> Result<ExitStatus, Error> {
        let place = kiln_shell::NAME;
        let args = [&[place.to_owned()], command].concat();
        let mut spec = RunSpec { args, ..spec.clone() };
        // In a chroot it is a copy: this program must stay where it is. It lives as long as the shell does.
        let mut scratch = Scratch::new(&self.trees, &self.entered);
        let kind = scratch.in_place(own_program()?, false, cancel)?;
        spec.mounts.push(MountSpec { target: place.to_owned(), kind });
        self.start_in(spec, files, cancel)
    }

    /// Runs a process over files, in an upper directory that goes afterwards.
    fn start_in(&self, mut spec: RunSpec, files: &Snapshot, cancel: &Cancel) -> Result<ExitStatus, Error> {
        let layer = self.store.begin_layer(files)?;
        spec.link_owners.extend(self.store.link_owners(files)?.0);
        let root = self.trees.root(&self.entered, &layer, cancel)?;
        spec.rootfs = root.rootfs(&self.trees, &layer);
        let result = kiln_runtime::run_interactive(&self.entered, &spec, &Signals::default(), cancel);
        // Before the caches are given back, which in a chroot lie in there.
        root.put_back()?;
        match result {
            Ok(report) => Ok(report.status),
            Err(RunError::Cancelled) => Err(Error::Interrupted),
            Err(error) => Err(error.into()),
        }
    }
}
