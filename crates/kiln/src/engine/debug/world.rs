//! The mounts of a step that is entered: those it had, as far as they can be had again.

use std::path::{Path, PathBuf};

use kiln_core::{
    Cancel, IoResultExt as _, MountKind, MountSpec, MountSpecKind, Rootfs, RunOp, RunSpec, Secret,
};
use kiln_runtime::IdMode;
use kiln_store::cache_mount::{CacheRequest, Held};
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};

use super::process::BindSource;
use super::{EnterRequest, Entering, Process};
use crate::Error;
use crate::engine::Engine;
use crate::engine::agent::{AgentProxy, Backend};
use crate::engine::run_step::{process_spec, script};
use crate::engine::step_files::Scratch;

/// One of its mounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepMount {
    /// Where; empty for a secret that is in a variable only.
    pub target: String,
    /// `cache "/root/.cache"`, `secret "token"`.
    pub what: String,
    /// Why it is not there.
    pub missing: Option<String>,
}

/// What a process is started with, and what must live as long as it does.
pub(super) struct World<'a> {
    /// Without a root file system.
    pub(super) spec: RunSpec,
    pub(super) mounts: Vec<StepMount>,
    scratch: Scratch<'a>,
    caches: Option<Held>,
}

impl<'a> World<'a> {
    /// Takes the step's caches, as the step would, and finds its other mounts.
    pub(super) fn make(
        engine: &'a Engine,
        title: &str,
        process: &Process,
        request: &EnterRequest,
        tell: &mut dyn FnMut(Entering),
        cancel: &Cancel,
    ) -> Result<Self, Error> {
        let Process { op, binds, .. } = process;
        let caches = caches(engine, title, op, tell, cancel)?;
        // Each attempt to start something gets one of its own.
        let rootfs = Rootfs::Tree { path: PathBuf::new() };
        let mut world = Self {
            spec: process_spec(op, rootfs),
            mounts: Vec::new(),
            scratch: Scratch::new(&engine.trees, &engine.entered),
            caches,
        };
        let mut directories: Vec<PathBuf> = match &world.caches {
            Some(held) => held.caches().iter().map(|cache| cache.path.clone()).collect(),
            None => Vec::new(),
        };
        directories.reverse();
        let mut binds = binds.iter();
        for mount in &op.mounts {
            let (what, kind) = match &mount.kind {
                MountKind::Cache(cache) => {
                    let source = directories.pop().unwrap_or_default();
                    let kind = world.scratch.cache(&source, cache.read_only, cancel)?;
                    (format!("cache {:?}", cache.id), Ok(kind))
                }
                MountKind::Bind(bind) => {
                    let kind = match binds.next() {
                        Some(source) => world.bind(engine, source, &bind.path, bind.writable, cancel)?,
                        None => Err("it is not known where it was from".to_owned()),
                    };
                    ("bind".to_owned(), kind)
                }
                MountKind::Tmpfs(tmpfs) => {
                    ("tmpfs".to_owned(), Ok(MountSpecKind::Tmpfs { size: tmpfs.size }))
                }
                MountKind::Secret(secret) => {
                    let given: Option<&Secret> = request.secrets.get(&secret.id);
                    if let (Some(content), Some(name)) = (given, &secret.env) {
                        world.spec.secret_env.push((name.clone(), content.clone()));
                    }
                    let (mode, uid, gid) = (secret.mode, secret.uid, secret.gid);
                    let missing = || format!("give it again with --secret id={}", secret.id);
                    let kind =
                        given.cloned().map(|content| MountSpecKind::Secret { content, mode, uid, gid });
                    (format!("secret {:?}", secret.id), kind.ok_or_else(missing))
                }
                MountKind::Ssh(ssh) => {
                    let what = format!("ssh agent {:?}", ssh.id);
                    match request.ssh.get(&ssh.id) {
                        None => (what, Err(format!("give it again with --ssh {}", ssh.id))),
                        Some(agent) => {
                            let (dir, _) = world.scratch.fresh()?;
                            rustix::fs::chmod(&dir, Mode::from_raw_mode(0o700)).at("close", &dir)?;
                            let single = *engine.entered.ids() == IdMode::Single;
                            let owner = if single { (0, 0) } else { (ssh.uid, ssh.gid) };
                            let proxy =
                                AgentProxy::start(&dir, &Backend::new(&ssh.id, agent)?, ssh.mode, owner)?;
                            let source = proxy.path().to_owned();
                            world.scratch.agents.push(proxy);
                            if !world.spec.env.iter().any(|(name, _)| name == "SSH_AUTH_SOCK") {
                                world.spec.env.push(("SSH_AUTH_SOCK".to_owned(), mount.target.clone()));
                            }
                            (what, Ok(MountSpecKind::Bind { source, read_only: false }))
                        }
                    }
                }
            };
            let missing = kind.as_ref().err().cloned();
            world.mounts.push(StepMount { target: mount.target.clone(), what, missing });
            if let Ok(kind) = kind
                && !mount.target.is_empty()
            {
                world.spec.mounts.push(MountSpec { target: mount.target.clone(), kind });
            }
        }
        world.spec.mounts.extend(op.files.iter().map(script));
        Ok(world)
    }

    /// Gives the caches back; copies that the step would publish are not: nothing here ends well.
    pub(super) fn end(self) -> Result<(), Error> {
        Ok(self.caches.map_or(Ok(()), |held| held.release(false))?)
    }

    fn bind(
        &mut self,
        engine: &Engine,
        source: &BindSource,
        path: &str,
        writable: bool,
        cancel: &Cancel,
    ) -> Result<Result<MountSpecKind, String>, Error> {
        Ok(match source {
            BindSource::Missing(why) => Err(why.clone()),
            BindSource::Place(source) if !source.exists() => Err(format!("{} is gone", source.display())),
            BindSource::Place(source) => Ok(self.scratch.in_place(source.clone(), writable, cancel)?),
            BindSource::Snapshot(snapshot) => {
                if !snapshot.layers.iter().all(|layer| engine.store.has_layer(layer)) {
                    return Ok(Err("its files are not in the store any more".to_owned()));
                }
                Ok(self.scratch.snapshot(snapshot, path, writable, cancel)?)
            }
        })
    }
}

fn caches(
    engine: &Engine,
    title: &str,
    op: &RunOp,
    tell: &mut dyn FnMut(Entering),
    cancel: &Cancel,
) -> Result<Option<Held>, Error> {
    let mounts = op.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Cache(cache) => Some(CacheRequest::new(&mount.target, cache)),
        MountKind::Bind(_) | MountKind::Tmpfs(_) | MountKind::Secret(_) | MountKind::Ssh(_) => None,
    });
    let requests: Vec<CacheRequest> = mounts.collect();
    if requests.is_empty() {
        return Ok(None);
    }
    engine.own_places(&engine.caches, &requests)?;
    let holder = format!("process {}, a look at step {title:?}", std::process::id());
    let mut on_wait = |request: &CacheRequest, holder: &str| {
        tell(Entering::Waiting { cache: request.id.clone(), holder: holder.to_owned() });
    };
    // One that was removed since the step failed begins empty.
    Ok(Some(engine.caches.acquire(&requests, &holder, &mut on_wait, &|_| Ok(None), cancel)?))
}

/// This program, which holds the built-in shell.
pub(super) fn own_program() -> Result<PathBuf, Error> {
    let link = Path::new("/proc/self/exe");
    Ok(std::fs::read_link(link).at("read", link)?)
}
