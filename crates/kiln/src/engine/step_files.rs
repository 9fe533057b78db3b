//! Directories that a step's mounts need besides the step's own root, for as long as it runs.

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_core::{Cancel, IoResultExt as _, MountSpecKind, Snapshot, Unpack};
use kiln_runtime::{Entered, Isolation};
use kiln_store::copy::{CopyInput, CopyRequest, CopyRules, clone_tree};
use kiln_store::tree::Selected;
use kiln_store::{ActiveLayer, MergedTree};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::agent::AgentProxy;
use super::trees::{Snapshotter, Trees, View};
use crate::Error;

/// What goes when the step has ended.
pub(crate) struct Scratch<'a> {
    trees: &'a Trees,
    entered: &'a Entered,
    /// Before the directories that they listen in.
    pub(crate) agents: Vec<AgentProxy>,
    layers: Vec<ActiveLayer>,
    views: Vec<View<'a>>,
    copies: Vec<MergedTree>,
}

impl<'a> Scratch<'a> {
    pub(crate) fn new(trees: &'a Trees, entered: &'a Entered) -> Self {
        let (layers, views, copies) = (Vec::new(), Vec::new(), Vec::new());
        Self { trees, entered, agents: Vec::new(), layers, views, copies }
    }

    /// Returns a fresh upper and work directory.
    pub(crate) fn fresh(&mut self) -> Result<(PathBuf, PathBuf), Error> {
        let layer = self.trees.store().begin_layer(&Snapshot::default())?;
        let dirs = (layer.upper().to_owned(), layer.work().to_owned());
        self.layers.push(layer);
        Ok(dirs)
    }

    /// Copies selected files, and only them, to their own path in a fresh directory.
    pub(crate) fn copied(
        &mut self,
        selected: &Arc<Selected>,
        path: &Path,
        rules: &CopyRules,
        cancel: &Cancel,
    ) -> Result<PathBuf, Error> {
        let layer = self.trees.store().begin_layer(&Snapshot::default())?;
        let dest = Path::new("/").join(path);
        let request = CopyRequest {
            layer: layer.upper(),
            parent: None,
            inputs: &[CopyInput::Files(Arc::clone(selected))],
            dest: &dest.to_string_lossy(),
            dest_is_dir: false,
            unpack: Unpack::Never,
            rules,
            reuse: None,
            cancel,
        };
        kiln_store::copy::copy(&request)?;
        let upper = layer.upper().to_owned();
        self.layers.push(layer);
        Ok(upper)
    }

    /// Mounts a cache. In a chroot a step has the cache itself, and nothing would keep it from writing to it: one that is
    /// only read is copied there.
    pub(crate) fn cache(
        &mut self,
        path: &Path,
        read_only: bool,
        cancel: &Cancel,
    ) -> Result<MountSpecKind, Error> {
        if read_only && self.is_bare() {
            return self.in_place(path.to_owned(), false, cancel);
        }
        Ok(MountSpecKind::Bind { source: path.to_owned(), read_only })
    }

    /// Mounts a path in a directory of the step's own.
    pub(crate) fn own(&mut self, dir: PathBuf, path: &str, writable: bool) -> Result<MountSpecKind, Error> {
        if self.is_bare() {
            return Ok(MountSpecKind::Bind { source: inside(&dir, path)?, read_only: !writable });
        }
        Ok(match (writable, self.copies()?) {
            (false, _) => layers(vec![dir], path, None),
            (true, false) => layers(vec![dir], path, Some(self.fresh()?)),
            // An upper directory without layers below it.
            (true, true) => layers(Vec::new(), path, Some((dir.clone(), dir))),
        })
    }

    /// Mounts files of a snapshot.
    pub(crate) fn snapshot(
        &mut self,
        snapshot: &Snapshot,
        path: &str,
        writable: bool,
        cancel: &Cancel,
    ) -> Result<MountSpecKind, Error> {
        if !self.copies()? {
            let scratch = if writable { Some(self.fresh()?) } else { None };
            return Ok(layers(self.trees.layer_dirs(snapshot), path, scratch));
        }
        if writable || self.is_bare() {
            let copy = self.trees.copied(snapshot, cancel)?;
            let dir = copy.path().to_owned();
            self.copies.push(copy);
            return self.own(dir, path, writable);
        }
        let view = self.trees.view(self.entered, snapshot, cancel)?;
        let dirs = view.path().map(Path::to_owned).into_iter().collect();
        self.views.push(view);
        Ok(layers(dirs, path, None))
    }

    /// Mounts files where they are: to be read, or so that what is written is thrown away.
    pub(crate) fn in_place(
        &mut self,
        source: PathBuf,
        writable: bool,
        cancel: &Cancel,
    ) -> Result<MountSpecKind, Error> {
        if !writable && !self.is_bare() {
            return Ok(MountSpecKind::Bind { source, read_only: true });
        }
        let scratch = self.fresh()?;
        if !self.copies()? {
            return Ok(MountSpecKind::Scratch { source, scratch });
        }
        let (mut copy, _) = scratch;
        if source.is_dir() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let from = rustix::fs::openat(CWD, &source, flags, Mode::empty()).at("open", &source)?;
            clone_tree(from, &source, &copy, cancel)?;
        } else {
            copy.push("file");
            std::fs::copy(&source, &copy).at("copy", &source)?;
        }
        Ok(MountSpecKind::Bind { source: copy, read_only: !writable })
    }

    /// Whether what is written to needs a copy, for want of overlay.
    fn copies(&self) -> Result<bool, Error> {
        Ok(self.trees.snapshotter(self.entered)? == Snapshotter::Copy)
    }

    /// Whether nothing can be mounted: what a step sees is put into its tree, and must be its own.
    fn is_bare(&self) -> bool {
        self.entered.isolation() == Isolation::Chroot
    }
}

fn layers(lower: Vec<PathBuf>, path: &str, scratch: Option<(PathBuf, PathBuf)>) -> MountSpecKind {
    MountSpecKind::Layers { lower, path: path.to_owned(), scratch }
}

/// Where a path in a directory is, links followed inside it.
fn inside(dir: &Path, path: &str) -> Result<PathBuf, Error> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let root = rustix::fs::openat(CWD, dir, flags, Mode::empty()).at("open", dir)?;
    let found = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).at("open", path)?;
    Ok(std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).at("find", path)?)
}
