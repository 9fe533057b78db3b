//! What `kiln run` mounts: what was asked for, and the image's volumes.

use std::path::{Path, PathBuf};

use kiln_core::{
    CacheMount, CacheScope, Cancel, ContainerConfig, IoResultExt as _, MountSpec, MountSpecKind, Platform,
    Sharing, Snapshot, resolve_path,
};
use kiln_runtime::{Isolation, RunError};
use kiln_store::cache_mount::{CacheRequest, Held};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use super::Engine;
use super::step_files::Scratch;
use crate::Error;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunMount {
    /// Where; absolute.
    pub target: String,
    /// What.
    pub kind: RunMountKind,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunMountKind {
    /// A file or a directory of this machine, with what is mounted in it.
    Bind {
        /// Absolute.
        source: PathBuf,
        /// Whether writing is refused.
        read_only: bool,
        /// Whether a directory is made where nothing is, as `docker run -v` does.
        make: bool,
    },
    /// Memory.
    Tmpfs {
        /// Bytes; the kernel's default if none.
        size: Option<u64>,
    },
    /// A cache mount, the same that RUN steps have.
    Cache {
        /// Its id; the target if none, for this platform only, as in a RUN step.
        id: Option<String>,
        /// How it is used beside others.
        sharing: Sharing,
        /// Whether writing is refused.
        read_only: bool,
    },
    /// A fresh directory, with what the image has there, that goes with the process: a volume without a name.
    Fresh,
}

/// Mounts of a run, for as long as it lasts.
pub(super) struct Mounts<'a> {
    pub(super) specs: Vec<MountSpec>,
    held: Option<Held>,
    _scratch: Scratch<'a>,
}

impl Mounts<'_> {
    /// Gives caches back.
    pub(super) fn end(self, ended_well: bool) -> Result<(), Error> {
        Ok(self.held.map_or(Ok(()), |held| held.release(ended_well))?)
    }
}

impl Engine {
    #[allow(clippy::too_many_arguments)]
    /// Makes mounts ready. `read_only`: the root cannot be written to, so that volumes must be mounts of their own.
    pub(super) fn mounts(
        &self,
        mounts: &[RunMount],
        config: &ContainerConfig,
        platform: &Platform,
        snapshot: &Snapshot,
        read_only: bool,
        on_wait: &(dyn Fn(&str) + Sync),
        cancel: &Cancel,
    ) -> Result<Mounts<'_>, Error> {
        let mut all: Vec<(String, RunMountKind)> =
            mounts.iter().map(|mount| (resolve_path("/", &mount.target), mount.kind.clone())).collect();
        for volume in &config.volumes {
            let volume = resolve_path("/", volume);
            if !all.iter().any(|(target, _)| *target == volume) {
                all.push((volume, RunMountKind::Fresh));
            }
        }
        // What is in another one goes on top of it.
        all.sort_by_key(|(target, _)| target.matches('/').count());
        let mut scratch = Scratch::new(&self.trees, &self.entered);
        let held = self.take(&all, platform, on_wait, cancel)?;
        let mut caches = held.as_ref().map_or(&[][..], Held::caches).iter();
        let mut specs = Vec::new();
        for (target, kind) in all {
            let kind = match kind {
                RunMountKind::Bind { source, read_only, make } => {
                    self.bind(&mut scratch, source, read_only, make, cancel)?
                }
                RunMountKind::Tmpfs { size } => MountSpecKind::Tmpfs { size },
                RunMountKind::Cache { read_only, .. } => {
                    let Some(cache) = caches.next() else { continue };
                    scratch.cache(&cache.path, read_only, cancel)?
                }
                RunMountKind::Fresh if self.has(snapshot, &target, cancel)? => {
                    if !read_only {
                        // It can be written to as it is, and nothing of a run is kept.
                        continue;
                    }
                    scratch.snapshot(snapshot, &target, true, cancel)?
                }
                RunMountKind::Fresh => MountSpecKind::Bind { source: scratch.fresh()?.0, read_only: false },
            };
            specs.push(MountSpec { target, kind });
        }
        Ok(Mounts { specs, held, _scratch: scratch })
    }

    fn bind(
        &self,
        scratch: &mut Scratch<'_>,
        source: PathBuf,
        read_only: bool,
        make: bool,
        cancel: &Cancel,
    ) -> Result<MountSpecKind, Error> {
        if make && !source.exists() {
            std::fs::create_dir_all(&source).at("create", &source)?;
        }
        let source = std::fs::canonicalize(&source).at("find", &source)?;
        if self.entered.isolation() == Isolation::Chroot {
            if !read_only {
                // It would have to be moved away from where it is.
                let what = format!("writing to {} of this machine", source.display());
                return Err(RunError::NeedsNamespaces { what }.into());
            }
            return scratch.in_place(source, false, cancel);
        }
        Ok(MountSpecKind::Bind { source, read_only })
    }

    /// Takes all caches at once.
    fn take(
        &self,
        mounts: &[(String, RunMountKind)],
        platform: &Platform,
        on_wait: &(dyn Fn(&str) + Sync),
        cancel: &Cancel,
    ) -> Result<Option<Held>, Error> {
        let requests: Vec<CacheRequest> = mounts
            .iter()
            .filter_map(|(target, kind)| {
                let RunMountKind::Cache { id, sharing, read_only } = kind else { return None };
                let (id, scope) = match id {
                    Some(id) => (id.clone(), CacheScope::Global),
                    None => (target.clone(), CacheScope::Platform(platform.to_string())),
                };
                let (sharing, read_only) = (*sharing, *read_only);
                let mount =
                    CacheMount { id, scope, sharing, mode: 0o755, uid: 0, gid: 0, seed: None, read_only };
                Some(CacheRequest::new(target, &mount))
            })
            .collect();
        if requests.is_empty() {
            return Ok(None);
        }
        self.own_places(&self.caches, &requests)?;
        let holder = format!("process {}, kiln run", std::process::id());
        let mut on_wait = |request: &CacheRequest, holder: &str| {
            on_wait(&format!("cache mount {:?}, which {holder} holds", request.id));
        };
        Ok(Some(self.caches.acquire(&requests, &holder, &mut on_wait, &|_| Ok(None), cancel)?))
    }

    /// Whether an image has something at a path, links followed inside it.
    fn has(&self, snapshot: &Snapshot, path: &str, cancel: &Cancel) -> Result<bool, Error> {
        let root = self.view_of(snapshot, cancel)?.root()?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        match rustix::fs::openat2(root, Path::new(path), flags, Mode::empty(), resolve) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(false),
            Err(error) => Ok(Err(error).at("look at", path)?),
        }
    }
}
