//! A snapshot as one real directory, for where overlay cannot be mounted.
//!
//! A [`MergedTree`] lies in the process's own directory in `tmp/` and vanishes with it; what lasts are layers, in the same
//! form as everywhere. It is brought from one snapshot to the next by applying the layers that are new, and what a step
//! did in it becomes a layer by comparing: what the tree looked like before is known by inode and change time, which no
//! process can set back.

mod apply;
mod changes;
mod file;
mod queue;
mod seen;
mod write;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_core::{Cancel, IoResultExt as _, Snapshot};
use rustix::fs::{CWD, Mode, openat};

use crate::copy::Mover;
use crate::error::StoreError;
use crate::layer::DIRECTORY;
use crate::layer::active::ActiveLayer;
use crate::layer::stack::Stack;
use crate::layout::TREE;
use crate::moved::put_back;
use crate::scratch::remove_tree;
use crate::store::Store;
use seen::Seen;

/// How a tree has the files of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// By hard links: cheap, and only to be read.
    Linked,
    /// As its own, by reflink where the file system can, else by copying: to be written to.
    Copied,
}

/// All layers of a snapshot in one directory. Dropped, it vanishes.
#[derive(Debug)]
pub struct MergedTree {
    store: Store,
    snapshot: Snapshot,
    share: Share,
    dir: PathBuf,
    root: PathBuf,
    /// Files that a layer has a link to since the last step: copied before the next one may write to them.
    lent: Vec<PathBuf>,
    /// What it looked like when a step began.
    seen: Option<Seen>,
}

impl Store {
    /// Makes a tree of nothing. [`MergedTree::advance`] fills it.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn empty_tree(&self, share: Share) -> Result<MergedTree, StoreError> {
        let dir = self.scratch_path()?;
        let root = dir.join(TREE);
        // From here on, an error drops it.
        let tree = MergedTree {
            store: self.clone(),
            snapshot: Snapshot::default(),
            share,
            dir,
            root,
            lent: Vec::new(),
            seen: None,
        };
        for path in [&tree.dir, &tree.root] {
            std::fs::create_dir(path).at("create", path)?;
        }
        tree.own_root()?;
        Ok(tree)
    }
}

impl MergedTree {
    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Returns what it holds.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Returns how it has the files of layers.
    pub fn share(&self) -> Share {
        self.share
    }

    /// Opens the directory.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(&self) -> Result<OwnedFd, StoreError> {
        Ok(openat(CWD, &self.root, DIRECTORY, Mode::empty()).at("open", &self.root)?)
    }

    /// Brings it to a snapshot that is the one it holds, with more layers. After an error it holds neither.
    ///
    /// # Errors
    /// A layer is not there, the tree cannot be written, or `cancel` was raised.
    pub fn advance(&mut self, to: &Snapshot, cancel: &Cancel) -> Result<(), StoreError> {
        debug_assert!(to.layers.starts_with(&self.snapshot.layers));
        let more = &to.layers[self.snapshot.layers.len()..];
        if more.is_empty() {
            return Ok(());
        }
        let root = self.open()?;
        for layer in more {
            apply::apply(&root, &self.root, &self.store.layer_dir(layer), self.share, cancel)?;
            self.snapshot.layers.push(layer.clone());
        }
        self.own_root()
    }

    /// Makes it ready for a step to write to: nothing in it is shared any more, and what it looks like is noted.
    ///
    /// # Errors
    /// A file cannot be copied, or the tree not be read.
    pub fn begin(&mut self, cancel: &Cancel) -> Result<(), StoreError> {
        debug_assert_eq!(self.share, Share::Copied);
        self.own_root()?;
        file::take_back(&self.open()?, &self.root, &std::mem::take(&mut self.lent), cancel)?;
        self.seen = Some(Seen::take(&self.open()?, &self.root, &self.dir.join("now"), cancel)?);
        Ok(())
    }

    /// Moves back what a step in a chroot had in it by renaming. Before that nothing in there is anybody's to use.
    ///
    /// # Errors
    /// Something cannot be moved; the tree stays where it is, for whoever opens the store next.
    pub fn put_back(&self) -> Result<(), StoreError> {
        Ok(put_back(&self.dir)?)
    }

    /// Writes what a step did since [`begin`](Self::begin) into a layer that was begun over the same snapshot. The tree may
    /// not be written to after that; [`became`](Self::became) tells it what the layer is.
    ///
    /// # Errors
    /// The tree cannot be read, or the layer not be written.
    pub fn write_changes(&mut self, layer: &ActiveLayer, cancel: &Cancel) -> Result<(), StoreError> {
        let seen = self.seen.take().unwrap_or_default();
        let below = Stack::open(&layer.below_dirs())?;
        let root = self.open()?;
        let changes = changes::find(&root, &self.root, &seen, below, &layer.other_owners()?, cancel)?;
        self.lent = write::write(&root, &self.root, layer.upper(), &changes, cancel)?;
        Ok(())
    }

    /// Gives the root directory what the layers say of it, as an upper directory over them would have it.
    fn own_root(&self) -> Result<(), StoreError> {
        self.store.inherit_root(&self.snapshot, &self.root).map(drop)
    }

    /// Notes that it holds `snapshot` now: the one it held and the layer that its changes became.
    pub fn became(&mut self, snapshot: &Snapshot) {
        self.snapshot = snapshot.clone();
    }
}

impl Drop for MergedTree {
    fn drop(&mut self) {
        if put_back(&self.dir).is_ok() {
            remove_tree(&self.dir);
        }
    }
}

/// What threads need to move the bytes of files.
struct Bytes {
    mover: Mover,
    buffer: Vec<u8>,
}

impl Bytes {
    fn new() -> Self {
        Self { mover: Mover::default(), buffer: vec![0; 128 << 10] }
    }
}

fn interrupted(cancel: &Cancel) -> Result<(), StoreError> {
    if cancel.is_cancelled() { Err(StoreError::Interrupted) } else { Ok(()) }
}

/// A name as messages show it.
fn under(path: &Path, name: &std::ffi::CStr) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    path.join(std::ffi::OsStr::from_bytes(name.to_bytes()))
}

/// The file of a descriptor, for the calls of the standard library.
fn as_file(fd: OwnedFd) -> File {
    fd.into()
}
