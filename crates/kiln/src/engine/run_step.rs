//! One RUN: its mounts become plain data, its process runs, what it changed becomes a layer.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::PoisonError;

use kiln_core::{
    Bind, CacheMount, CacheMountState, Cancel, Event, ExitStatus, InlineFile, IoError, IoResultExt as _,
    MountKind, MountSpec, MountSpecKind, Network, NetworkMode, Op, Resolver, Resources, Rootfs, RunOp,
    RunSpec, Secret, SecretMount, Security, Selection, Snapshot, SshMount, Step, StepId,
};
use kiln_runtime::{IdMode, RunError};
use kiln_solver::{Inputs, Place};
use kiln_store::cache_mount::{CacheName, CacheRequest, Held, HeldCache};
use kiln_store::owner::LinkOwners;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::agent::AgentProxy;
use super::output::StepOutput;
use super::step_files::Scratch;
use super::worker::{StepWorker, extend};
use crate::Error;

/// BuildKit's name for the machine that a step sees.
const HOSTNAME: &str = "buildkitsandbox";

impl StepWorker<'_> {
    /// Runs a step's process over a fresh layer.
    pub(crate) fn run(
        &self,
        id: StepId,
        step: &Step,
        op: &RunOp,
        inputs: &Inputs,
        place: &Place<'_>,
        cancel: &Cancel,
    ) -> Result<Snapshot, Error> {
        let number = self.number(id, step);
        let mut scratch = Scratch::new(self.trees, self.entered);
        let held = self.take_caches(number, step, op, inputs, place, cancel)?;
        place.resume(cancel);
        let mut layer = self.store.begin_layer(&inputs.root)?;
        self.announce()?;
        let mut root = self.trees.root(self.entered, &layer, cancel)?;
        let rootfs = root.rootfs(self.trees, &layer);
        let caches = held.as_ref().map_or(&[][..], Held::caches);
        let spec = self.spec(step, op, inputs, rootfs, caches, &mut scratch, cancel)?;
        let mut output = StepOutput::new(&self.redactor);
        let result = kiln_runtime::run(
            self.entered,
            &spec,
            &mut |stream, bytes| {
                if let Some(text) = output.push(stream, bytes) {
                    self.reporter.emit(Event::StepLog { step: number, stream, text });
                }
            },
            cancel,
        );
        for (stream, text) in output.finish() {
            self.reporter.emit(Event::StepLog { step: number, stream, text });
        }
        root.put_back()?;
        let ended_well = matches!(&result, Ok(report) if report.status.success());
        if let Some(held) = held {
            held.release(ended_well)?;
        }
        let report = match result {
            Ok(report) => report,
            Err(RunError::Cancelled) => return Err(Error::Interrupted),
            Err(error) => {
                self.keep_failed((id, step, op), inputs, (layer, root), &error.to_string(), cancel);
                return Err(error.into());
            }
        };
        self.usages.lock().unwrap_or_else(PoisonError::into_inner).insert(id, report.usage);
        match report.status {
            ExitStatus::Code(0) => {
                layer.record_links(&LinkOwners(report.link_owners))?;
                root.collect(&mut layer, cancel)?;
                layer.record_copied_links()?;
                self.leaks.check(layer.upper(), cancel)?;
                let snapshot = extend(&inputs.root, layer.commit()?);
                root.became(&snapshot);
                Ok(snapshot)
            }
            status => {
                layer.record_links(&LinkOwners(report.link_owners))?;
                let exceeded = report.exceeded;
                let failed =
                    exceeded.map_or_else(|| status.to_string(), |exceeded| format!("{status}: {exceeded}"));
                self.keep_failed((id, step, op), inputs, (layer, root), &failed, cancel);
                Err(Error::Exited { status, exceeded, tail: output.into_tail() })
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all that a step's process depends on, once")]
    fn spec(
        &self,
        step: &Step,
        op: &RunOp,
        inputs: &Inputs,
        rootfs: Rootfs,
        held: &[HeldCache],
        scratch: &mut Scratch<'_>,
        cancel: &Cancel,
    ) -> Result<RunSpec, Error> {
        let mut mounts = Vec::new();
        let mut secret_env = Vec::new();
        let mut caches = held.iter();
        for mount in &op.mounts {
            let kind = match &mount.kind {
                MountKind::Cache(cache) => {
                    let held = caches.next().ok_or(Error::NoSuchCache { id: cache.id.clone() })?;
                    scratch.cache(&held.path, cache.read_only, cancel)?
                }
                MountKind::Bind(bind) => self.bind(bind, inputs, scratch, cancel)?,
                MountKind::Tmpfs(tmpfs) => MountSpecKind::Tmpfs { size: tmpfs.size },
                MountKind::Secret(secret) => {
                    let Some(content) = self.secret(secret)? else { continue };
                    if let Some(name) = &secret.env {
                        secret_env.push((name.clone(), content.clone()));
                    }
                    if mount.target.is_empty() {
                        continue;
                    }
                    self.note_owner("secret", &mount.target, (secret.uid, secret.gid), step);
                    let (mode, uid, gid) = (secret.mode, secret.uid, secret.gid);
                    MountSpecKind::Secret { content: content.clone(), mode, uid, gid }
                }
                MountKind::Ssh(ssh) => {
                    let Some(source) = self.agent(ssh, scratch)? else { continue };
                    self.note_owner("ssh", &mount.target, (ssh.uid, ssh.gid), step);
                    MountSpecKind::Bind { source, read_only: false }
                }
            };
            mounts.push(MountSpec { target: mount.target.clone(), kind });
        }
        mounts.extend(op.files.iter().map(script));
        let mut env = op.env.to_vec();
        for (name, value) in self.run_env {
            if !env.iter().any(|(known, _)| known == name) {
                env.push((name.clone(), value.clone()));
            }
        }
        // The first socket, given or not, as BuildKit has it.
        let socket = op.mounts.iter().find(|mount| matches!(mount.kind, MountKind::Ssh(_)));
        if let Some(socket) = socket
            && !env.iter().any(|(name, _)| name == "SSH_AUTH_SOCK")
        {
            env.push(("SSH_AUTH_SOCK".to_owned(), socket.target.clone()));
        }
        let emulator = self.ways.emulator(&op.platform)?;
        let network = super::network::choose(self.entered, op.network, self.sandbox.network, &env);
        if let Some(note) = network.note {
            self.network_told.call_once(|| self.reporter.warn(note, None));
        }
        if self.sandbox.resources.wants_group()
            && let Some(reason) = self.entered.limits_are_watched()
        {
            let note = format!(
                "limits are kept by watching processes, as there are no control groups: {reason} (`kiln doctor` says what helps)"
            );
            self.limits_told.call_once(|| self.reporter.warn(note, None));
        }
        let (network, resolver) = (network.mode, self.sandbox.resolver.clone());
        let link_owners = self.link_owners(op, inputs)?;
        let resources = self.sandbox.resources.clone();
        let own = RunSpec { mounts, env, secret_env, emulator, ..process_spec(op, rootfs) };
        let (hostname, directory_order) = match &self.sandbox.variation {
            Some(variation) => (variation.hostname.clone(), variation.directory_order),
            None => (own.hostname.clone(), None),
        };
        if directory_order.is_some() && own.security == Security::Insecure {
            let note = "the order of directories is not varied: a step with --security=insecure has no system call filter";
            self.reporter.warn(note.to_owned(), step.info.lines);
        }
        Ok(RunSpec { network, resolver, resources, link_owners, hostname, directory_order, ..own })
    }

    /// Returns whose the links of the step's root are, where they cannot say it; and an agent's socket, which cannot either.
    fn link_owners(&self, op: &RunOp, inputs: &Inputs) -> Result<BTreeMap<PathBuf, (u32, u32)>, Error> {
        let mut owners = self.store.link_owners(&inputs.root)?.0;
        if self.entered.answers() {
            owners.extend(op.mounts.iter().filter_map(|mount| match &mount.kind {
                MountKind::Ssh(ssh) => {
                    Some((mount.target.trim_start_matches('/').into(), (ssh.uid, ssh.gid)))
                }
                _ => None,
            }));
        }
        Ok(owners)
    }

    /// Returns what was given for a secret mount; none if the step can do without.
    fn secret(&self, mount: &SecretMount) -> Result<Option<&Secret>, Error> {
        match self.secrets.get(&mount.id) {
            None if mount.required => Err(Error::NoSecret { id: mount.id.clone() }),
            Some(secret) if secret.bytes().contains(&0) && mount.env.is_some() => {
                let name = mount.env.clone().unwrap_or_default();
                Err(Error::SecretIsNoText { id: mount.id.clone(), name })
            }
            found => Ok(found),
        }
    }

    /// Returns a socket to the agent that was given for an ssh mount; none if the step can do without.
    fn agent(&self, mount: &SshMount, scratch: &mut Scratch<'_>) -> Result<Option<PathBuf>, Error> {
        let Some(agent) = self.agents.get(&mount.id) else {
            return if mount.required { Err(Error::NoAgent { id: mount.id.clone() }) } else { Ok(None) };
        };
        let (dir, _) = scratch.fresh()?;
        rustix::fs::chmod(&dir, Mode::from_raw_mode(0o700)).at("close", &dir)?;
        let owner = if *self.entered.ids() == IdMode::Single { (0, 0) } else { (mount.uid, mount.gid) };
        let proxy = AgentProxy::start(&dir, agent, mount.mode, owner)?;
        let path = proxy.path().to_owned();
        scratch.agents.push(proxy);
        Ok(Some(path))
    }

    /// Says that a mount cannot have the owner it asks for.
    fn note_owner(&self, kind: &str, target: &str, owner: (u32, u32), step: &Step) {
        if *self.entered.ids() == IdMode::Single && !self.entered.answers() && owner != (0, 0) {
            let (uid, gid) = owner;
            let message = format!(
                "the {kind} mount {target} is root's in the step: with a single id nobody else can own it (asked for \
                 {uid}:{gid})"
            );
            self.reporter.warn(message, step.info.lines);
        }
    }

    /// A bind mount shows files where they are; only what .dockerignore hides, and permission bits that count as git's and
    /// are others, make a copy necessary.
    fn bind(
        &self,
        bind: &Bind,
        inputs: &Inputs,
        scratch: &mut Scratch<'_>,
        cancel: &Cancel,
    ) -> Result<MountSpecKind, Error> {
        let (op, snapshot) = self.source(bind.from, inputs)?;
        let snapshot = match (op, snapshot) {
            (Op::Context(op), _) => {
                let context = self.contexts.get(&op.name)?;
                let selection = Selection::literal(bind.path.trim_start_matches('/'));
                let selected =
                    context.tree.select(&selection).map_err(|error| context.explain(error.into()))?;
                let (path, _) =
                    selected.single().ok_or_else(|| Error::NoSuchContext { name: op.name.clone() })?;
                if selected.is_as_it_is() {
                    return scratch.in_place(context.path.join(path), bind.writable, cancel);
                }
                // Put under its own path, so that what is mounted is found there again.
                let copied = scratch.copied(&selected, path, &self.rules(None, None), cancel)?;
                return scratch.own(copied, &bind.path, bind.writable);
            }
            (op, _) if op.is_remote() => {
                let remote = self.remotes.get(op, cancel)?;
                let selected = remote.tree.select(&Selection::literal(bind.path.trim_start_matches('/')))?;
                let (path, _) = selected.single().ok_or(Error::NoSuchStep { step: bind.from })?;
                return scratch.in_place(remote.path.join(path), bind.writable, cancel);
            }
            (_, snapshot) => snapshot.cloned().unwrap_or_default(),
        };
        scratch.snapshot(&snapshot, &bind.path, bind.writable, cancel)
    }

    /// Takes all caches of a step at once: the store orders them, so that no two steps wait for each other.
    fn take_caches(
        &self,
        number: u32,
        step: &Step,
        op: &RunOp,
        inputs: &Inputs,
        place: &Place<'_>,
        cancel: &Cancel,
    ) -> Result<Option<Held>, Error> {
        let mounts: Vec<(&str, &CacheMount)> = op
            .mounts
            .iter()
            .filter_map(|mount| match &mount.kind {
                MountKind::Cache(cache) => Some((mount.target.as_str(), cache)),
                MountKind::Bind(_) | MountKind::Tmpfs(_) | MountKind::Secret(_) | MountKind::Ssh(_) => None,
            })
            .collect();
        if mounts.is_empty() {
            return Ok(None);
        }
        let requests: Vec<CacheRequest> =
            mounts.iter().map(|(target, cache)| CacheRequest::new(target, cache)).collect();
        for (target, cache) in &mounts {
            self.note_owner("cache", target, (cache.uid, cache.gid), step);
        }
        let seeds: HashMap<&str, &(StepId, String)> =
            mounts.iter().filter_map(|(target, cache)| Some((*target, cache.seed.as_ref()?))).collect();
        // What another process shows while it waits for us.
        let holder = format!("process {}, step {:?} of {}", std::process::id(), step.info.title, self.build);
        for request in &requests {
            let name = CacheName { id: request.id.clone(), scope: request.scope.clone() };
            let mut on_wait = |holder: &str| {
                place.leave();
                self.cache_event(number, request, CacheMountState::Waiting { holder: holder.to_owned() });
            };
            self.restores.wait(&name, &mut on_wait, cancel)?;
        }
        let held = self.caches.acquire(
            &requests,
            &holder,
            &mut |request, holder| {
                place.leave();
                self.cache_event(number, request, CacheMountState::Waiting { holder: holder.to_owned() });
            },
            &|request| match seeds.get(request.target.as_str()) {
                Some((from, path)) => self.seed(*from, path, inputs, cancel).map(Some),
                None => Ok(None),
            },
            cancel,
        )?;
        for (request, cache) in requests.iter().zip(held.caches()) {
            let waited_us = u64::try_from(cache.waited.as_micros()).unwrap_or(u64::MAX);
            self.cache_event(number, request, CacheMountState::Acquired { new: cache.new, waited_us });
            self.note_other_owner(request, cache, step);
        }
        Ok(Some(held))
    }

    /// Says that a cache belongs to others than its mount asks for, which counts only when it is made: not silently another, empty
    /// cache (buildkit#3041).
    fn note_other_owner(&self, request: &CacheRequest, cache: &HeldCache, step: &Step) {
        let asked = (request.uid, request.gid);
        if cache.new || asked == (0, 0) {
            return;
        }
        let Ok(stat) = rustix::fs::lstat(&cache.path) else { return };
        let Ok(owner) = kiln_store::owner::of_path(&cache.path, &stat) else { return };
        if (owner.uid, owner.gid) != asked {
            let (uid, gid) = asked;
            let message = format!(
                "cache {:?} belongs to {}:{} since it was made, and the mount asks for {uid}:{gid}: `kiln cache rm` makes it anew{}",
                request.id,
                owner.uid,
                owner.gid,
                if *self.entered.ids() == IdMode::Single {
                    String::new()
                } else {
                    format!(", `kiln cache shell {} -- chown -R {uid}:{gid} .` gives it away", request.id)
                }
            );
            self.reporter.warn(message, step.info.lines);
        }
    }

    /// Opens the directory that a new cache starts with, inside its source.
    fn seed(&self, from: StepId, path: &str, inputs: &Inputs, cancel: &Cancel) -> Result<OwnedFd, IoError> {
        let snapshot = inputs.snapshots.get(&from);
        let root = match (self.graph.get(from).map(|step| &step.op), snapshot) {
            (Some(Op::Context(op)), _) => {
                let context = self.contexts.get(&op.name);
                let context = context.map_err(std::io::Error::other).at("seed a cache from", path)?;
                context.tree.root().try_clone_to_owned().at("open", &context.path)?
            }
            (Some(op), _) if op.is_remote() => {
                // Fetched before the step began.
                let remote = self.remotes.get(op, &Cancel::new());
                let remote = remote.map_err(std::io::Error::other).at("seed a cache from", path)?;
                remote.tree.root().try_clone_to_owned().at("open", &remote.path)?
            }
            _ => {
                let view = self.view(snapshot.unwrap_or(&Snapshot::default()), cancel);
                view.map_err(std::io::Error::other).at("seed a cache from", path)?.files.root()?
            }
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).at("seed a cache from", path)
    }

    fn cache_event(&self, step: u32, request: &CacheRequest, state: CacheMountState) {
        let (id, target) = (request.id.clone(), request.target.clone());
        self.reporter.emit(Event::CacheMount { step, id, target, state });
    }
}

/// What an operation says by itself: without mounts, and for this machine's own architecture.
pub(crate) fn process_spec(op: &RunOp, rootfs: Rootfs) -> RunSpec {
    RunSpec {
        rootfs,
        link_owners: BTreeMap::new(),
        mounts: Vec::new(),
        args: op.args.clone(),
        env: op.env.to_vec(),
        secret_env: Vec::new(),
        cwd: op.cwd.clone(),
        user: op.user.clone(),
        hostname: op.hostname.clone().unwrap_or_else(|| HOSTNAME.to_owned()),
        directory_order: None,
        machine: (*op.machine).clone(),
        security: op.security,
        emulator: None,
        network: match op.network {
            Network::None => NetworkMode::None,
            Network::Default | Network::Host => NetworkMode::Host,
        },
        resources: Resources::default(),
        resolver: Resolver::default(),
        tty: false,
        stdin: false,
        read_only: false,
    }
}

/// The script of a heredoc.
pub(crate) fn script(file: &InlineFile) -> MountSpec {
    let kind = MountSpecKind::File { content: file.content.clone(), mode: file.mode };
    MountSpec { target: format!("/dev/pipes/{}", file.name), kind }
}
