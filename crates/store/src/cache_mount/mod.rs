//! Cache mounts: directories that outlive builds, with names a person can read, shared between processes.
//!
//! docs/cache-mounts.md is the users' page. Identity is id and scope. Steps that share a cache, or want it alone,
//! work in its `data/`; a private step works on a copy of the last finished generation, which becomes the cache
//! when it ends well. Locks are the kernel's, so a dead step holds none.

mod acquire;
mod count;
mod counting;
mod error;
mod hold;
mod home;
mod list;
mod lock;
mod meta;
mod name;
mod place;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_core::{CacheMount, CacheScope, Sharing};

pub use acquire::{Held, HeldCache, Seeds};
pub use error::{CacheError, PlaceProblem};
pub use hold::{CacheHold, HoldAs, STAGED_INSIDE, Stage};
pub use list::{CacheInfo, CachePart};
pub use meta::CacheFigures;
pub use name::CacheName;
pub use place::CachePlace;

use crate::layout::Ids;
use counting::Counting;
use home::Home;

/// The caches of one store.
#[derive(Debug, Clone)]
pub struct CacheMounts {
    dir: PathBuf,
    ids: Ids,
    /// Where dead processes may have left a cache that they had moved there.
    scratch: Option<PathBuf>,
    moves: bool,
    /// Which caches are where the user wants them.
    places: Vec<CachePlace>,
    counting: Arc<Counting>,
    /// How long it waits for who holds a cache.
    patience: Option<Duration>,
}

/// What a step wants of one cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRequest {
    /// Its name.
    pub id: String,
    /// Who shares the name.
    pub scope: CacheScope,
    /// How the step wants it.
    pub sharing: Sharing,
    /// Permission bits, if it is new.
    pub mode: u32,
    /// Owner, if it is new.
    pub uid: u32,
    /// Group, if it is new.
    pub gid: u32,
    /// Whether the step only reads it.
    pub read_only: bool,
    /// Where the step sees it.
    pub target: String,
}

impl CacheRequest {
    /// Returns what a mount wants.
    pub fn new(target: &str, mount: &CacheMount) -> Self {
        Self {
            id: mount.id.clone(),
            scope: mount.scope.clone(),
            sharing: mount.sharing,
            mode: mount.mode,
            uid: mount.uid,
            gid: mount.gid,
            read_only: mount.read_only,
            target: target.to_owned(),
        }
    }

    /// Whether nothing but the defaults of the Dockerfile reference is asked for the directory itself.
    fn has_default_owner(&self) -> bool {
        (self.mode, self.uid, self.gid) == (0o755, 0, 0)
    }
}

impl CacheMounts {
    /// Opens the caches in a directory, which is made with the first cache.
    pub fn new(dir: impl Into<PathBuf>, ids: Ids) -> Self {
        Self {
            dir: dir.into(),
            ids,
            scratch: None,
            moves: false,
            places: Vec::new(),
            counting: Arc::default(),
            patience: None,
        }
    }

    /// Tells where the store's processes have their half-made things.
    pub(crate) fn with_scratch(mut self, scratch: PathBuf) -> Self {
        self.scratch = Some(scratch);
        self
    }

    /// For steps in a chroot, which have not a mount of a cache but the directory itself: only one at a time can.
    pub fn moving(mut self) -> Self {
        self.moves = true;
        self
    }

    /// Waits so long for who holds a cache, and then gives up; as long as it takes if none.
    #[must_use]
    pub fn patient(mut self, patience: Option<Duration>) -> Self {
        self.patience = patience;
        self
    }

    /// Returns how long it waits.
    pub const fn patience(&self) -> Option<Duration> {
        self.patience
    }

    fn over(&self, id: &str, home: &Home) -> CacheError {
        let seconds = self.patience.unwrap_or_default().as_secs();
        CacheError::TimedOut { id: id.to_owned(), holder: home.users(), seconds }
    }

    /// Waits for the threads that count what steps have given back, so long and no longer. What is not counted then stays marked so.
    pub fn settle(&self, limit: Duration) {
        self.counting.settle(limit);
    }

    /// Returns where they are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn home(&self, id: &str, scope: &CacheScope) -> Home {
        let scope_dir = self.dir.join(name::of_scope(scope));
        let place = place::of(&self.places, id, scope).map(|place| place.path.clone());
        let dir =
            scope_dir.join(place.as_ref().map_or_else(|| name::of_id(id), |path| place::name(id, path)));
        Home { dir, scratch: self.scratch.clone(), place }
    }
}
