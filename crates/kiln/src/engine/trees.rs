//! Snapshots as file trees. Here alone it is known whether overlay merges their layers, or copies do.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use kiln_core::{Cancel, IoError, IoResultExt as _, Rootfs, Snapshot};
use kiln_runtime::{Entered, Isolation};
use kiln_store::{ActiveLayer, MergedTree, Share, Store};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Trees that are kept for steps to come: about one for each chain of steps that goes on beside others.
const IDLE: usize = 3;

/// How a snapshot becomes a file tree. Layers are the same with both, so one store serves either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Snapshotter {
    /// The kernel's overlay merges layers.
    Overlay,
    /// Layers are copied, or linked where nobody writes, into one directory.
    Copy,
}

/// The file trees of one engine.
#[derive(Debug)]
pub(crate) struct Trees {
    store: Store,
    chosen: OnceLock<Snapshotter>,
    /// Why it is not overlay.
    refused: OnceLock<IoError>,
    idle: Mutex<Vec<MergedTree>>,
}

impl Trees {
    pub(super) fn new(store: Store) -> Self {
        Self { store, chosen: OnceLock::new(), refused: OnceLock::new(), idle: Mutex::default() }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Leaves no choice.
    pub(super) fn choose(&mut self, snapshotter: Snapshotter) {
        self.chosen = OnceLock::from(snapshotter);
    }

    /// Returns what snapshots are made with. Tries overlay out when it is first asked.
    pub(crate) fn snapshotter(&self, entered: &Entered) -> Result<Snapshotter, Error> {
        if entered.isolation() == Isolation::Chroot {
            return Ok(Snapshotter::Copy);
        }
        if let Some(chosen) = self.chosen.get() {
            return Ok(*chosen);
        }
        let tried = {
            let place = self.store.begin_layer(&Snapshot::default())?;
            kiln_runtime::try_overlay(entered, place.upper())
        };
        let found = match tried {
            Ok(()) => Snapshotter::Overlay,
            // That a disk is full says nothing about overlay.
            Err(error) if error.is_full() => return Err(error.into()),
            Err(error) => {
                self.refused.get_or_init(|| error);
                Snapshotter::Copy
            }
        };
        Ok(*self.chosen.get_or_init(|| found))
    }

    /// Returns why overlay is not used although nobody said so.
    pub(crate) fn refused(&self) -> Option<&IoError> {
        self.refused.get()
    }

    /// Returns the merged files of a snapshot, to be read.
    pub(crate) fn view(
        &self,
        entered: &Entered,
        snapshot: &Snapshot,
        cancel: &Cancel,
    ) -> Result<View<'_>, Error> {
        let dirs = self.layer_dirs(snapshot);
        // One layer is its own directory in either way.
        if dirs.len() == 1 || self.snapshotter(entered)? == Snapshotter::Overlay {
            let root = kiln_runtime::view(entered, &dirs)?;
            return Ok(View {
                root,
                path: dirs.into_iter().next().filter(|_| snapshot.layers.len() == 1),
                _lease: None,
            });
        }
        let lease = self.lease(snapshot, Share::Linked, cancel)?;
        let path = lease.tree().path().to_owned();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, flags, Mode::empty()).at("open", &path)?;
        Ok(View { root, path: Some(path), _lease: Some(lease) })
    }

    /// Returns a root file system for a process to change, over `layer`, which was begun for that.
    pub(crate) fn root(
        &self,
        entered: &Entered,
        layer: &ActiveLayer,
        cancel: &Cancel,
    ) -> Result<Root<'_>, Error> {
        if self.snapshotter(entered)? == Snapshotter::Overlay {
            return Ok(Root(None));
        }
        let mut lease = self.lease(layer.below(), Share::Copied, cancel)?;
        lease.worth_keeping = false;
        lease.tree_mut().begin(cancel)?;
        Ok(Root(Some(lease)))
    }

    /// Returns a copy of a snapshot's files that anything may be done to: it is thrown away.
    pub(crate) fn copied(&self, snapshot: &Snapshot, cancel: &Cancel) -> Result<MergedTree, Error> {
        let mut tree = self.store.empty_tree(Share::Copied)?;
        tree.advance(snapshot, cancel)?;
        Ok(tree)
    }

    /// Returns the directories of a snapshot's layers, lowest first.
    pub(crate) fn layer_dirs(&self, snapshot: &Snapshot) -> Vec<PathBuf> {
        snapshot.layers.iter().map(|layer| self.store.layer_dir(layer)).collect()
    }

    /// Lets go of what was kept for steps to come.
    pub(crate) fn clear(&self) {
        let idle = std::mem::take(&mut *self.idle());
        drop(idle);
    }

    /// Returns a tree of a snapshot, which nobody else has meanwhile: the idle one that lacks the fewest layers, or else a new
    /// one. So a step after a step finds the tree that it left, and needs no copy.
    fn lease(&self, snapshot: &Snapshot, share: Share, cancel: &Cancel) -> Result<Lease<'_>, Error> {
        let fits = |tree: &MergedTree| {
            (share == Share::Linked || tree.share() == Share::Copied)
                && snapshot.layers.starts_with(&tree.snapshot().layers)
        };
        let found = {
            let mut idle = self.idle();
            let best = (0..idle.len())
                .filter(|at| fits(&idle[*at]))
                .max_by_key(|at| idle[*at].snapshot().layers.len());
            best.map(|at| idle.remove(at))
        };
        let mut tree = match found {
            Some(tree) => tree,
            None => self.store.empty_tree(share)?,
        };
        // After an error it is neither one thing nor the other, and goes.
        tree.advance(snapshot, cancel)?;
        Ok(Lease { trees: self, tree: Some(tree), worth_keeping: true })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<MergedTree>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The merged files of a snapshot.
#[derive(Debug)]
pub(crate) struct View<'a> {
    root: OwnedFd,
    path: Option<PathBuf>,
    _lease: Option<Lease<'a>>,
}

impl View<'_> {
    /// Returns where they are, if they have a place of their own.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Opens the root directory once more, for as long as this is there.
    pub(crate) fn root(&self) -> Result<OwnedFd, IoError> {
        self.root.try_clone().at("open", "a view")
    }
}

impl AsFd for View<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// The root file system of one process.
#[derive(Debug)]
pub(crate) struct Root<'a>(Option<Lease<'a>>);

impl Root<'_> {
    /// Returns it as the runner wants it.
    pub(crate) fn rootfs(&self, trees: &Trees, layer: &ActiveLayer) -> Rootfs {
        match &self.0 {
            Some(lease) => Rootfs::Tree { path: lease.tree().path().to_owned() },
            None => Rootfs::Overlay {
                lower: trees.layer_dirs(layer.below()),
                upper: layer.upper().to_owned(),
                work: layer.work().to_owned(),
            },
        }
    }

    /// Moves back what was put into it by renaming: only then is it as the process left it, and others have theirs again.
    pub(crate) fn put_back(&self) -> Result<(), Error> {
        Ok(self.0.as_ref().map_or(Ok(()), |lease| lease.tree().put_back())?)
    }

    /// Brings what the process changed into the layer: all of it, and nothing that is as it was.
    pub(crate) fn collect(&mut self, layer: &mut ActiveLayer, cancel: &Cancel) -> Result<(), Error> {
        match &mut self.0 {
            Some(lease) => lease.tree_mut().write_changes(layer, cancel)?,
            None => layer.take_out_unchanged()?,
        }
        Ok(())
    }

    /// Keeps what is needed for the next step: `snapshot` is what this one made.
    pub(crate) fn became(self, snapshot: &Snapshot) {
        if let Some(mut lease) = self.0 {
            lease.tree_mut().became(snapshot);
            lease.worth_keeping = true;
        }
    }
}

/// A tree that is nobody else's for now.
#[derive(Debug)]
struct Lease<'a> {
    trees: &'a Trees,
    tree: Option<MergedTree>,
    /// Whether it holds the snapshot that it says.
    worth_keeping: bool,
}

impl Lease<'_> {
    fn tree(&self) -> &MergedTree {
        self.tree.as_ref().expect("taken away only when dropped")
    }

    fn tree_mut(&mut self) -> &mut MergedTree {
        self.tree.as_mut().expect("taken away only when dropped")
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(tree) = self.tree.take().filter(|_| self.worth_keeping) else { return };
        let mut idle = self.trees.idle();
        idle.push(tree);
        let oldest = (idle.len() > IDLE).then(|| idle.remove(0));
        drop(idle);
        // Removing files takes a while.
        drop(oldest);
    }
}
