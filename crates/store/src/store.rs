//! One store, opened.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_core::{IoError, IoResultExt as _, LayerId};

use rustix::fs::CWD;
use rustix::io::Errno;

use crate::cache_mount::CacheMounts;
use crate::durable::{self, Unsynced};
use crate::error::StoreError;
use crate::layout::{self, FORMAT, FORMAT_FILE, Ids, Layout};
use crate::scratch::{self, Scratch};
use crate::tree::{FileStat, StatIndex};

/// One directory with everything kiln keeps. Cheap to clone; safe to use from many threads and processes at once.
#[derive(Debug, Clone)]
pub struct Store(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    pub(crate) scratch: Scratch,
    pub(crate) unsynced: Unsynced,
}

impl Store {
    /// Opens the store in `root`, making it if there is none; removes what dead processes left half-made, and what
    /// was not synced when the machine last went down.
    ///
    /// # Errors
    /// The store was written by a newer kiln, the directory holds something else, or a system call failed.
    pub fn open(root: &Path, ids: Ids) -> Result<Self, StoreError> {
        let layout = Layout { root: std::path::absolute(root).at("find", root)?, ids };
        make(&layout).map_err(|error| whose(&layout, error))?;
        durable::recover(&layout)?;
        scratch::sweep(&layout.at(layout::SCRATCH))?;
        let scratch = Scratch::new(layout.at(layout::SCRATCH));
        Ok(Self(Arc::new(Inner { layout, scratch, unsynced: Unsynced::default() })))
    }

    /// Returns the store's directory, absolute.
    pub fn root(&self) -> &Path {
        &self.0.layout.root
    }

    /// Returns which owners its layers can have.
    pub fn ids(&self) -> Ids {
        self.0.layout.ids
    }

    /// Returns the directory of a layer's tree, in overlay form. It need not be there.
    pub fn layer_dir(&self, layer: &LayerId) -> PathBuf {
        self.0.layout.layer(layer).join(layout::TREE)
    }

    /// Returns the cache mounts that go with these ids: whoever owns files in a cache, all steps see them alike.
    pub fn cache_mounts(&self) -> CacheMounts {
        CacheMounts::new(self.0.layout.owned().join(layout::CACHES), self.ids())
            .with_scratch(self.0.layout.at(layout::SCRATCH))
    }

    /// Opens the memory of a build context's content digests.
    ///
    /// # Errors
    /// The directory of indexes cannot be made, or the context not be asked for its identity.
    pub fn stat_index(&self, context: impl AsFd, path: &Path) -> Result<StatIndex, IoError> {
        let dir = self.0.layout.at(layout::INDEX);
        std::fs::create_dir_all(&dir).at("create", &dir)?;
        StatIndex::open(&dir, context, path)
    }

    /// Returns how many bytes its file system has left for whoever runs kiln.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn room(&self) -> Result<u64, IoError> {
        let about = rustix::fs::statvfs(self.root()).at("ask for the room of", self.root())?;
        Ok(about.f_bavail.saturating_mul(about.f_frsize))
    }

    /// Makes a file on the store's file system that has no name, and goes with its descriptor.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn nameless_file(&self) -> Result<File, IoError> {
        let path = self.scratch_path()?;
        let file = File::options().read(true).write(true).create_new(true).open(&path).at("create", &path)?;
        std::fs::remove_file(&path).at("remove", &path)?;
        Ok(file)
    }

    /// Returns a fresh path on the store's file system for something half-made; it is removed when the process has ended.
    pub(crate) fn scratch_path(&self) -> Result<PathBuf, IoError> {
        self.0.scratch.path()
    }
}

fn make(layout: &Layout) -> Result<(), StoreError> {
    let format = layout.at(FORMAT_FILE);
    match std::fs::read_to_string(&format) {
        Ok(text) => {
            // An empty or odd file is that of a store: the machine went down while it was made.
            let digits = text.trim_start().split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            let found = digits.parse().unwrap_or(if digits.is_empty() { FORMAT } else { u32::MAX });
            if found > FORMAT {
                return Err(StoreError::NewerFormat { root: layout.root.clone(), found, known: FORMAT });
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if is_foreign(&layout.root)? {
                return Err(StoreError::NotAStore { root: layout.root.clone() });
            }
        }
        Err(error) => return Err(error).at("read", format)?,
    }
    let owned = layout.ids.dir();
    let layers = format!("{owned}/{}", layout::LAYERS);
    let records = format!("{owned}/{}", layout::RECORDS);
    let dirs = [
        layout::BLOBS,
        layout::RECORDS,
        layout::IMAGES,
        layout::LOCKS,
        layout::PINS,
        layout::SCRATCH,
        &layers,
        &records,
    ];
    // The newest directory of all stands for the rest: one call where everything is there.
    if !layout.at(&records).is_dir() || !format.exists() {
        for dir in dirs {
            let path = layout.at(dir);
            std::fs::create_dir_all(&path).at("create", path)?;
        }
        std::fs::write(&format, format!("{FORMAT}\n")).at("write", format)?;
    }
    for dir in [owned, layout::SCRATCH] {
        close_to_others(&layout.at(dir))?;
    }
    Ok(())
}

/// A store of somebody else's cannot be opened, whatever it fails at.
fn whose(layout: &Layout, error: StoreError) -> StoreError {
    let StoreError::Io(IoError { errno: Some(errno), .. }) = &error else { return error };
    let denied = [Errno::ACCESS, Errno::PERM].map(Errno::raw_os_error).contains(errno);
    let others =
        FileStat::at(CWD, &layout.root).is_ok_and(|found| found.uid != rustix::process::geteuid().as_raw());
    if denied && others { StoreError::NotYours { root: layout.root.clone() } } else { error }
}

/// Lets nobody else in. Below there are programs with set-user-ID bits, of images and of steps: whoever can reach one is
/// the user who runs kiln, or root.
fn close_to_others(dir: &Path) -> Result<(), IoError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(dir).at("stat", dir)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).at("close to others", dir)
}

/// Whether the directory holds files that no store has: then it is a mistake to fill it.
fn is_foreign(root: &Path) -> Result<bool, IoError> {
    const OWN: [&str; 16] = [
        // Not there a moment ago: another process has made the store since.
        FORMAT_FILE,
        "blobs",
        "index",
        "records",
        "sources",
        "images",
        "locks",
        "pins",
        "tmp",
        "partial",
        "pending",
        "removed",
        "account",
        "boot",
        "lock",
        "lost+found",
    ];
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).at("read", root),
    };
    for entry in entries {
        let name = entry.at("read", root)?.file_name();
        let own = |own: &str| name.as_os_str() == own;
        if !OWN.into_iter().any(own) && !own(Ids::Full.dir()) && !own(Ids::Single.dir()) {
            return Ok(true);
        }
    }
    Ok(false)
}
