//! Directories that a step's mounts need besides the step's own root, for as long as it runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_core::{Bind, Cancel, IoResultExt as _, MountSpecKind, Snapshot, Unpack};
use kiln_store::copy::{CopyInput, CopyRequest, clone_tree};
use kiln_store::tree::Selected;
use kiln_store::{ActiveLayer, MergedTree};
use rustix::fs::{CWD, Mode, OFlags};

use super::agent::AgentProxy;
use super::trees::{Snapshotter, View};
use super::worker::StepWorker;
use crate::Error;

/// What goes when the step has ended.
pub(super) struct Scratch<'a, 'w> {
    worker: &'w StepWorker<'a>,
    /// Before the directories that they listen in.
    pub(super) agents: Vec<AgentProxy>,
    layers: Vec<ActiveLayer>,
    views: Vec<View<'a>>,
    copies: Vec<MergedTree>,
}

impl<'a, 'w> Scratch<'a, 'w> {
    pub(super) fn new(worker: &'w StepWorker<'a>) -> Self {
        Self { worker, agents: Vec::new(), layers: Vec::new(), views: Vec::new(), copies: Vec::new() }
    }

    /// Returns a fresh upper and work directory.
    pub(super) fn fresh(&mut self) -> Result<(PathBuf, PathBuf), Error> {
        let layer = self.worker.store.begin_layer(&Snapshot::default())?;
        let dirs = (layer.upper().to_owned(), layer.work().to_owned());
        self.layers.push(layer);
        Ok(dirs)
    }

    /// Copies selected files, and only them, to their own path in a fresh directory.
    pub(super) fn copied(
        &mut self,
        selected: &Arc<Selected>,
        path: &Path,
        cancel: &Cancel,
    ) -> Result<PathBuf, Error> {
        let layer = self.worker.store.begin_layer(&Snapshot::default())?;
        let dest = Path::new("/").join(path);
        let request = CopyRequest {
            layer: layer.upper(),
            parent: None,
            inputs: &[CopyInput::Files(Arc::clone(selected))],
            dest: &dest.to_string_lossy(),
            dest_is_dir: false,
            unpack: Unpack::Never,
            rules: &self.worker.rules(None, None),
            reuse: None,
            cancel,
        };
        kiln_store::copy::copy(&request)?;
        let upper = layer.upper().to_owned();
        self.layers.push(layer);
        Ok(upper)
    }

    /// Mounts a directory of the step's own.
    pub(super) fn own(&mut self, dir: PathBuf, bind: &Bind) -> Result<MountSpecKind, Error> {
        Ok(match (bind.writable, self.copies()?) {
            (false, _) => layers(vec![dir], bind, None),
            (true, false) => layers(vec![dir], bind, Some(self.fresh()?)),
            (true, true) => whole(dir, bind),
        })
    }

    /// Mounts files of a snapshot.
    pub(super) fn snapshot(
        &mut self,
        snapshot: &Snapshot,
        bind: &Bind,
        cancel: &Cancel,
    ) -> Result<MountSpecKind, Error> {
        let StepWorker { trees, entered, .. } = self.worker;
        if !self.copies()? {
            let scratch = if bind.writable { Some(self.fresh()?) } else { None };
            return Ok(layers(trees.layer_dirs(snapshot), bind, scratch));
        }
        if bind.writable {
            let copy = trees.copied(snapshot, cancel)?;
            let kind = whole(copy.path().to_owned(), bind);
            self.copies.push(copy);
            return Ok(kind);
        }
        let view = trees.view(entered, snapshot, cancel)?;
        let dirs = view.path().map(Path::to_owned).into_iter().collect();
        self.views.push(view);
        Ok(layers(dirs, bind, None))
    }

    /// Mounts files where they are: to be read, or so that what is written is thrown away.
    pub(super) fn in_place(
        &mut self,
        source: PathBuf,
        bind: &Bind,
        cancel: &Cancel,
    ) -> Result<MountSpecKind, Error> {
        if !bind.writable {
            return Ok(MountSpecKind::Bind { source, read_only: true });
        }
        let scratch = self.fresh()?;
        if !self.copies()? {
            return Ok(MountSpecKind::Scratch { source, scratch });
        }
        let (upper, _) = scratch;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let from = rustix::fs::openat(CWD, &source, flags, Mode::empty()).at("open", &source)?;
        clone_tree(from, &source, &upper, cancel)?;
        Ok(MountSpecKind::Bind { source: upper, read_only: false })
    }

    /// Whether what is written to needs a copy, for want of overlay.
    fn copies(&self) -> Result<bool, Error> {
        Ok(self.worker.trees.snapshotter(self.worker.entered)? == Snapshotter::Copy)
    }
}

fn layers(lower: Vec<PathBuf>, bind: &Bind, scratch: Option<(PathBuf, PathBuf)>) -> MountSpecKind {
    MountSpecKind::Layers { lower, path: bind.path.clone(), scratch }
}

/// A path in a directory that may be written to: an upper directory without layers below it.
fn whole(dir: PathBuf, bind: &Bind) -> MountSpecKind {
    layers(Vec::new(), bind, Some((dir.clone(), dir)))
}
