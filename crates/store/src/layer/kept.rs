//! What a failed step left, kept to be looked at.
//!
//! It is a layer like any other, so that it can be entered and compared like any other; but no record names it, and a
//! file in its directory says what it is. So it appears by one rename, with all that is known of it, and goes by one.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::time::SystemTime;

use kiln_core::{IoError, IoResultExt as _, LayerId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::active::ActiveLayer;
use crate::collect::kept_size;
use crate::durable::children;
use crate::error::StoreError;
use crate::layout::{self, Ids, Layout};
use crate::lock::{FileLock, Hold};
use crate::record;
use crate::scratch::{random_name, remove_tree};
use crate::store::Store;

/// How the names of such layers begin.
pub(crate) const PREFIX: &str = "failed-";
/// Says what it is, in its directory. Written once: its time is that of the failure.
pub(crate) const KEPT_FILE: &str = "failed.json";

/// A kept layer that is in use: it is not taken away as long as this lives.
#[derive(Debug)]
pub struct KeptHold {
    _lock: FileLock,
}

impl ActiveLayer {
    /// Keeps it as what a failed step left, with `about` for [`Store::read_kept`]: also if it is empty. Nothing may be
    /// mounted over it or written to it any more.
    ///
    /// # Errors
    /// It cannot be read, written or moved. Nothing of it stays.
    pub fn keep(mut self, about: &impl Serialize) -> Result<LayerId, StoreError> {
        self.finish()?;
        let id = LayerId(format!("{PREFIX}{}", random_name()));
        let text = serde_json::to_vec(about)
            .map_err(|error| StoreError::Encode { key: id.to_string(), reason: error.to_string() })?;
        let path = self.dir.join(KEPT_FILE);
        let mut file = File::create_new(&path).at("create", &path)?;
        file.write_all(&text).at("write", &path)?;
        // File systems date by a clock that ticks some hundred times a second: two would look alike.
        file.set_modified(SystemTime::now()).at("set times of", path)?;
        self.publish(&id)?;
        Ok(id)
    }
}

impl Store {
    /// Lists what failed steps left, the newest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn kept(&self) -> Result<Vec<LayerId>, StoreError> {
        let mut found: Vec<(SystemTime, LayerId)> = Vec::new();
        for path in children(&self.0.layout.owned().join(layout::LAYERS))? {
            if !is_kept(&path) {
                continue;
            }
            match std::fs::metadata(path.join(KEPT_FILE)).and_then(|metadata| metadata.modified()) {
                Ok(time) => found.push((time, LayerId(name(&path)))),
                // Taken away meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).at("stat", path)?,
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found.into_iter().map(|(_, layer)| layer).collect())
    }

    /// Reads what is known of one; none if it is gone or cannot be understood.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read_kept<T: DeserializeOwned>(&self, layer: &LayerId) -> Result<Option<T>, StoreError> {
        let path = self.0.layout.layer(layer).join(KEPT_FILE);
        match std::fs::read(&path) {
            Ok(text) => Ok(serde_json::from_slice(&text).ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("read", path)?,
        }
    }

    /// Holds one, beside others who do; none if it is gone.
    ///
    /// # Errors
    /// It cannot be locked.
    pub fn hold_kept(&self, layer: &LayerId) -> Result<Option<KeptHold>, StoreError> {
        let lock = FileLock::dir(&self.0.layout.layer(layer), Hold::Shared)?;
        Ok(lock.map(|lock| KeptHold { _lock: lock }))
    }

    /// Takes one away, unless somebody holds it. Returns whether it is gone.
    ///
    /// # Errors
    /// It cannot be moved.
    pub fn drop_kept(&self, layer: &LayerId) -> Result<bool, StoreError> {
        let path = self.0.layout.layer(layer);
        let Some(_alone) = FileLock::dir(&path, Hold::Exclusive)? else { return Ok(!path.exists()) };
        let away = self.scratch_path()?;
        std::fs::rename(&path, &away).at("remove", &path)?;
        kept_size::drop_list(&path);
        remove_tree(&away);
        Ok(true)
    }
}

/// Whether a layer's directory is of this kind.
pub(crate) fn is_kept(path: &Path) -> bool {
    name(path).starts_with(PREFIX)
}

/// Removes those that were made over one of these layers.
pub(crate) fn forget(layout: &Layout, gone: &BTreeSet<LayerId>) -> Result<(), IoError> {
    for ids in [Ids::Full, Ids::Single] {
        for path in children(&layout.at(ids.dir()).join(layout::LAYERS))? {
            if !is_kept(&path) {
                continue;
            }
            let mut names = false;
            if let Ok(text) = std::fs::read(path.join(KEPT_FILE)) {
                record::mentions(&text, &mut |word| names |= gone.contains(&LayerId(word.to_owned())));
            }
            if names {
                remove_tree(&path);
            }
        }
    }
    Ok(())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
