//! `kiln run`: a process in an image, to look into it. Nothing it changes is kept.

use std::collections::BTreeMap;

use kiln_core::{Cancel, ExitStatus, ImageRef, Machine, Network, Platform, RunSpec, Sandbox, Security};
use kiln_registry::RegistryClient;
use kiln_runtime::{EmulatorSearch, RunError, Signals};
use serde::{Deserialize, Serialize};

use super::Engine;
use super::arrival::LayerProgress;
use super::bases::Bases;
use super::patience::Patience;
use super::run_mounts::RunMount;
use crate::Error;
use crate::request::RegistryOptions;

/// The PATH of a container whose image names none, as docker sets it.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRequest {
    /// The image: of the local image store, else of its registry.
    pub image: ImageRef,
    /// Command and arguments; the image's own if empty.
    pub command: Vec<String>,
    /// `--platform`; this machine's if none.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// Where emulators of other platforms are looked for.
    #[serde(default)]
    pub emulators: EmulatorSearch,
    /// Replaces the image's entrypoint; empty for none.
    pub entrypoint: Option<String>,
    /// Added to the image's environment.
    pub env: BTreeMap<String, String>,
    /// Replaces the image's working directory.
    pub workdir: Option<String>,
    /// Replaces the image's user.
    pub user: Option<String>,
    /// Whether the process gets a terminal.
    pub tty: bool,
    /// Whether standard input is passed on.
    pub stdin: bool,
    /// What is mounted, besides the image's volumes.
    #[serde(default)]
    pub mounts: Vec<RunMount>,
    /// Whether the root file system cannot be written to.
    #[serde(default)]
    pub read_only: bool,
    /// Its host name.
    #[serde(default)]
    pub hostname: Option<String>,
    /// The machine it sees.
    #[serde(default)]
    pub machine: Machine,
    /// Which network it gets, with `sandbox`.
    #[serde(default)]
    pub network: Network,
    /// How it runs.
    #[serde(default)]
    pub sandbox: Sandbox,
    /// How registries are reached.
    pub registry: RegistryOptions,
}

impl Engine {
    /// Runs a process in an image, with this process's standard streams. Nothing it changes is kept, but what it writes to
    /// mounts of this machine and to caches. `signals` are passed on to it. `on_wait` is told for whom it waits before that.
    ///
    /// # Errors
    /// The image cannot be had, or the process cannot be started.
    pub fn run(
        &self,
        request: &RunRequest,
        signals: &Signals,
        on_wait: &(dyn Fn(&str) + Sync),
        cancel: &Cancel,
    ) -> Result<ExitStatus, Error> {
        let _pin = self.store.pin()?;
        let registry = RegistryClient::new(self.registry_config(&request.registry), cancel.clone())?;
        let patience = Patience::new("kiln run", self.caches.patience());
        let bases = Bases::new(&self.store, &registry).patient(patience);
        let platform = request.platform.clone().unwrap_or_else(Platform::host);
        let base = bases.by_name(&request.image, &platform)?.base;
        let snapshot = bases.unpack(&base, &OnlyWaits(on_wait), cancel)?;
        let config = &base.image.image.config;

        let entrypoint = match &request.entrypoint {
            Some(entrypoint) if entrypoint.is_empty() => Vec::new(),
            Some(entrypoint) => vec![entrypoint.clone()],
            None => config.entrypoint.clone().unwrap_or_default(),
        };
        // As docker: a new entrypoint drops the image's command.
        let command = match (&request.command[..], &request.entrypoint) {
            ([], None) => config.cmd.clone().unwrap_or_default(),
            (command, _) => command.to_vec(),
        };
        let args = [entrypoint, command].concat();
        if args.is_empty() {
            return Err(Error::NoCommand { image: request.image.clone() });
        }
        // An image may be for one platform only, which need not be the one asked for.
        let architecture = base.image.image.platform().architecture;
        let emulator = kiln_runtime::find(&self.entered, &architecture, &request.emulators)?.emulator;
        let layer = self.store.begin_layer(&snapshot)?;
        let env = environment(&config.env, request);
        // There is no display that could tell why: `kiln doctor` does.
        let network =
            super::network::choose(&self.entered, request.network, request.sandbox.network, &env).mode;
        let platform = base.image.image.platform();
        let mounts =
            self.mounts(&request.mounts, config, &platform, &snapshot, request.read_only, on_wait, cancel)?;
        let root = self.trees.root(&self.entered, &layer, cancel)?;
        let spec = RunSpec {
            rootfs: root.rootfs(&self.trees, &layer),
            link_owners: self.store.link_owners(&snapshot)?.0,
            mounts: mounts.specs.clone(),
            args,
            env,
            secret_env: Vec::new(),
            cwd: request.workdir.clone().unwrap_or_else(|| match config.working_dir.as_str() {
                "" => "/".to_owned(),
                dir => dir.to_owned(),
            }),
            user: request.user.clone().unwrap_or_else(|| config.user.clone()),
            hostname: request.hostname.clone().unwrap_or_else(|| "kiln".to_owned()),
            directory_order: None,
            machine: request.machine.clone(),
            security: Security::Sandbox,
            emulator,
            network,
            resources: request.sandbox.resources.clone(),
            resolver: request.sandbox.resolver.clone(),
            tty: request.tty,
            stdin: request.stdin,
            read_only: request.read_only,
        };
        let result = kiln_runtime::run_interactive(&self.entered, &spec, signals, cancel);
        // Before the caches are given back, which in a chroot lie in there.
        root.put_back()?;
        mounts.end(matches!(&result, Ok(report) if report.status.success()))?;
        match result {
            Ok(report) => Ok(report.status),
            Err(RunError::Cancelled) => Err(Error::Interrupted),
            Err(error) => Err(error.into()),
        }
    }
}

fn environment(image: &[String], request: &RunRequest) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = image
        .iter()
        .map(|line| line.split_once('=').unwrap_or((line, "")))
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .collect();
    let mut set = |name: &str, value: &str, replace: bool| match env.iter_mut().find(|(n, _)| n == name) {
        Some((_, old)) if replace => value.clone_into(old),
        Some(_) => {}
        None => env.push((name.to_owned(), value.to_owned())),
    };
    set("PATH", PATH, false);
    if request.tty {
        set("TERM", "xterm", false);
    }
    for (name, value) in &request.env {
        set(name, value, true);
    }
    env
}

/// A look into an image has no display of its own.
pub(super) struct Silent;

impl LayerProgress for Silent {
    fn progress(&self, _item: &str, _current: u64, _total: u64) {}
}

/// But one that waits says so.
struct OnlyWaits<'a>(&'a (dyn Fn(&str) + Sync));

impl LayerProgress for OnlyWaits<'_> {
    fn progress(&self, _item: &str, _current: u64, _total: u64) {}

    fn waiting(&self, holder: Option<&str>) {
        if let Some(holder) = holder {
            (self.0)(holder);
        }
    }
}
