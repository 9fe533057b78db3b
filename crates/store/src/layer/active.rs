//! A layer in the making: overlay's upper directory.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use kiln_core::{IoResultExt as _, LayerId, Snapshot};
use rustix::fs::{Mode, Timespec, Timestamps, UTIME_OMIT, fchmod, fstat, futimens};

use super::{LayerInfo, opaque, unchanged};
use crate::error::StoreError;
use crate::layout::TREE;
use crate::moved::put_back;
use crate::owner::{self, LinkOwners, Owner};
use crate::scratch::{random_name, remove_tree};
use crate::store::Store;

/// What a step changes, until it is [committed](Self::commit); dropped, it vanishes.
#[derive(Debug)]
pub struct ActiveLayer {
    pub(super) store: Store,
    pub(super) below: Snapshot,
    pub(super) dir: PathBuf,
    pub(super) upper: PathBuf,
    work: PathBuf,
    root: Owner,
    /// Whether it holds no opaque marks that say nothing.
    normal: bool,
    committed: bool,
}

impl Store {
    /// Starts a layer over `below`. Its upper directory is empty but has owner and mode of the root directory
    /// below: overlay takes those from the topmost layer.
    ///
    /// # Errors
    /// A layer below is not there, or the directory cannot be made.
    pub fn begin_layer(&self, below: &Snapshot) -> Result<ActiveLayer, StoreError> {
        let dir = self.scratch_path()?;
        let (upper, work) = (dir.join(TREE), dir.join("work"));
        let root = Owner { uid: 0, gid: 0, mode: 0o040_755, device: (0, 0) };
        // From here on, an error drops it.
        let mut layer = ActiveLayer {
            store: self.clone(),
            below: below.clone(),
            dir,
            upper,
            work,
            root,
            normal: false,
            committed: false,
        };
        for path in [&layer.dir, &layer.upper, &layer.work] {
            std::fs::create_dir(path).at("create", path)?;
        }
        layer.root = self.inherit_root(below, &layer.upper)?;
        Ok(layer)
    }

    /// Gives `upper` what `below` says about the root directory.
    pub(crate) fn inherit_root(&self, below: &Snapshot, upper: &Path) -> Result<Owner, StoreError> {
        let mut from = None;
        for layer in below.layers.iter().rev() {
            if self.layer_info(layer)?.root {
                from = Some(self.layer_dir(layer));
                break;
            }
        }
        let to = File::open(upper).at("open", upper)?;
        let fresh = fstat(&to).at("stat", upper)?;
        let (mut wanted, mut modified) =
            (Owner { uid: 0, gid: 0, mode: 0o040_755, device: (0, 0) }, Timespec { tv_sec: 0, tv_nsec: 0 });
        if let Some(path) = from {
            let source = File::open(&path).at("open", &path)?;
            let stat = fstat(&source).at("stat", &path)?;
            wanted = owner::of(&source, &stat).at("read owner of", &path)?;
            modified = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
        }
        owner::set(self.ids(), &to, &fresh, wanted.uid, wanted.gid).at("set owner of", upper)?;
        fchmod(&to, Mode::from_raw_mode(wanted.mode & 0o7777)).at("set mode of", upper)?;
        let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        futimens(&to, &Timestamps { last_access: omit, last_modification: modified })
            .at("set times of", upper)?;
        Ok(wanted)
    }
}

impl ActiveLayer {
    /// Returns overlay's upper directory.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// Returns overlay's work directory.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Moves back what a step in a chroot had in its root file system by renaming. Before that nothing in there is anybody's
    /// to use, nor what was moved.
    ///
    /// # Errors
    /// Something cannot be moved; the layer stays where it is, for whoever opens the store next.
    pub fn put_back(&self) -> Result<(), StoreError> {
        Ok(put_back(&self.dir)?)
    }

    /// Returns what lies below.
    pub fn below(&self) -> &Snapshot {
        &self.below
    }

    /// Adds owners of symbolic links that the upper directory cannot hold, by path in the layer.
    ///
    /// # Errors
    /// The list cannot be written.
    pub fn record_links(&self, links: &LinkOwners) -> Result<(), StoreError> {
        let mut all = LinkOwners::read(&self.dir)?;
        all.0.extend(links.0.iter().map(|(path, ids)| (path.clone(), *ids)));
        Ok(all.write(&self.dir)?)
    }

    /// Takes out what is the same below, for what a step's process left: a layer says how the tree differs, not what
    /// was touched. Nothing may be mounted over it any more.
    ///
    /// # Errors
    /// It cannot be read or changed.
    pub fn take_out_unchanged(&mut self) -> Result<(), StoreError> {
        unchanged::take_out(&self.upper, &self.below_dirs(), &self.other_owners()?)?;
        // It has put whiteouts in the place of all marks.
        self.normal = true;
        Ok(())
    }

    /// Returns what belongs to somebody else than below, where only lists say so: links, fifos, devices.
    pub(crate) fn other_owners(&self) -> Result<BTreeSet<PathBuf>, StoreError> {
        let own = LinkOwners::read(&self.dir)?;
        if own.0.is_empty() {
            return Ok(BTreeSet::new());
        }
        let below = self.store.link_owners(&self.below)?;
        let other = own.0.into_iter().filter(|(path, ids)| below.0.get(path) != Some(ids));
        Ok(other.map(|(path, _)| path).collect())
    }

    /// Returns the directories of the layers below, lowest first.
    pub(crate) fn below_dirs(&self) -> Vec<PathBuf> {
        self.below.layers.iter().map(|layer| self.store.layer_dir(layer)).collect()
    }

    /// Makes it a layer; none if nothing was changed. Nothing may be mounted over it or written to it any more.
    ///
    /// # Errors
    /// It cannot be read or moved.
    pub fn commit(mut self) -> Result<Option<LayerId>, StoreError> {
        if !self.finish()? {
            return Ok(None);
        }
        let id = LayerId(format!("s{}{}", random_name(), random_name()));
        self.publish(&id)?;
        Ok(Some(id))
    }

    /// Makes the directory what a layer's is. Returns whether anything was changed.
    pub(super) fn finish(&mut self) -> Result<bool, StoreError> {
        remove_tree(&self.work);
        let info = LayerInfo { root: self.root_changed()? };
        let empty = std::fs::read_dir(&self.upper).at("read", &self.upper)?.next().is_none();
        if !empty && !self.normal {
            opaque::normalise(&self.upper, &self.below_dirs())?;
        }
        info.write(&self.dir)?;
        Ok(!empty || info.root)
    }

    /// Moves it to its place.
    pub(super) fn publish(&mut self, id: &LayerId) -> Result<(), StoreError> {
        self.store.publish(&self.dir, &self.store.0.layout.layer(id))?;
        self.committed = true;
        Ok(())
    }

    fn root_changed(&self) -> Result<bool, StoreError> {
        let upper = File::open(&self.upper).at("open", &self.upper)?;
        let stat = fstat(&upper).at("stat", &self.upper)?;
        Ok(owner::of(&upper, &stat).at("read owner of", &self.upper)? != self.root)
    }
}

impl Drop for ActiveLayer {
    fn drop(&mut self) {
        if !self.committed && put_back(&self.dir).is_ok() {
            remove_tree(&self.dir);
        }
    }
}
