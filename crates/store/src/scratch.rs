//! Half-made things: each process has a directory of its own, locked while it lives, removed by whoever comes next.

use std::hash::BuildHasher as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_core::{IoError, IoResultExt as _};

use crate::lock::FileLock;
use crate::moved::put_all_back;
pub(crate) use crate::remove::remove_tree;

/// Begins the names of directories that are on their way out.
const GONE: &str = "gone-";

/// The scratch directory of one open store, made when first needed.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// `tmp` of the store.
    area: PathBuf,
    own: OnceLock<Own>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Own {
    path: PathBuf,
    _lock: FileLock,
}

impl Scratch {
    pub(crate) fn new(area: PathBuf) -> Self {
        Self { area, own: OnceLock::new(), next: AtomicU64::new(0) }
    }

    /// Returns a path in this process's directory that nothing has yet.
    pub(crate) fn path(&self) -> Result<PathBuf, IoError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(self.dir()?.join(number.to_string()))
    }

    /// Returns a path for a whole directory that is on its way out, where nothing can be made because the disk is full. Who finds it
    /// takes it for a dead process's, and removes it, too.
    pub(crate) fn way_out(&self) -> PathBuf {
        self.area.join(format!("{GONE}{}", random_name()))
    }

    fn dir(&self) -> Result<&Path, IoError> {
        if let Some(own) = self.own.get() {
            return Ok(&own.path);
        }
        let own = self.make()?;
        let mut fresh = Some(own);
        let kept = self.own.get_or_init(|| fresh.take().expect("set just above"));
        // Another thread was faster: its directory is used, this one goes.
        if let Some(surplus) = fresh {
            let _ = std::fs::remove_dir(&surplus.path);
        }
        Ok(&kept.path)
    }

    fn make(&self) -> Result<Own, IoError> {
        loop {
            let path = self.area.join(format!("{}-{}", std::process::id(), random_name()));
            std::fs::create_dir(&path).at("create", &path)?;
            // Between the two calls a sweep may have taken it for a dead one's.
            match FileLock::try_exclusive_dir(&path)? {
                Some(lock) => return Ok(Own { path, _lock: lock }),
                None => continue,
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(own) = self.own.get()
            && put_all_back(&own.path).is_ok()
        {
            remove_tree(&own.path);
        }
    }
}

/// Removes the directories in `area` that belong to dead processes.
pub(crate) fn sweep(area: &Path) -> Result<(), IoError> {
    let entries = match std::fs::read_dir(area) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).at("read", area),
    };
    for entry in entries {
        let path = entry.at("read", area)?.path();
        if let Some(lock) = FileLock::try_exclusive_dir(&path)? {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            // What cannot be moved back keeps the directory, and is not this process's failure. In what is on its way out any file
            // is an image's.
            if name.starts_with(GONE.as_bytes()) || put_all_back(&path).is_ok() {
                remove_tree(&path);
            }
            drop(lock);
        }
    }
    Ok(())
}

/// Sixteen hexadecimal digits that no one else draws.
pub(crate) fn random_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // RandomState takes its keys from the system's random source.
    format!("{:016x}", std::hash::RandomState::new().hash_one((std::process::id(), count)))
}
