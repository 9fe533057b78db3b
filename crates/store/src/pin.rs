//! Running builds, as collection sees them.

use std::fs::File;
use std::path::Path;
use std::time::SystemTime;

use kiln_core::{IoError, IoResultExt as _};

use crate::durable::children;
use crate::error::StoreError;
use crate::layout;
use crate::lock::{FileLock, Hold};
use crate::scratch::random_name;
use crate::store::Store;

/// While it is held, nothing that was found or made since is collected. It dies with its process.
#[derive(Debug)]
pub struct Pin {
    lock: Option<FileLock>,
}

impl Store {
    /// Marks the beginning of a build. What the build is going to use must be found (a record got, a layer or a blob
    /// asked for) after this.
    ///
    /// # Errors
    /// The mark cannot be made.
    pub fn pin(&self) -> Result<Pin, StoreError> {
        // Not while something is being taken away: it would not know of this build.
        let _noting = FileLock::wait(&self.0.layout.at(layout::LOCK_FILE), Hold::Shared)?;
        loop {
            let path =
                self.0.layout.at(layout::PINS).join(format!("{}-{}", std::process::id(), random_name()));
            File::create_new(&path).at("create", &path)?;
            // In between, a collection may have taken it for a dead one's and removed it.
            if let Some(lock) = FileLock::try_existing(&path)? {
                return Ok(Pin { lock: Some(lock) });
            }
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take() {
            lock.remove();
        }
    }
}

/// Returns when the oldest of the running builds began; removes the marks of dead ones.
pub(crate) fn oldest(pins: &Path) -> Result<Option<SystemTime>, IoError> {
    let mut oldest: Option<SystemTime> = None;
    for path in children(pins)? {
        if let Some(dead) = FileLock::try_existing(&path)? {
            dead.remove();
            continue;
        }
        let Ok(began) = std::fs::metadata(&path).and_then(|metadata| metadata.modified()) else { continue };
        oldest = Some(oldest.map_or(began, |time| time.min(began)));
    }
    Ok(oldest)
}
