//! What earlier builds took from elsewhere: the records, and where their layers are. The next build counts on them without being told
//! of the source again. docs/decisions/0034.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kiln_core::Digest;
use kiln_oci::{Document, Layout, media};
use kiln_store::{RecordKind, Store};
use serde::{Deserialize, Serialize};

use super::place::{self, Place};
use super::record::Entry;
use super::source::Asking;
use crate::Error;
use crate::engine::transfer::Origin;

/// Records of this store about results that are not in it.
pub(super) struct Kept {
    store: Store,
    /// Whether this build may know of them.
    is_on: bool,
    any: OnceLock<bool>,
    /// Directories that were opened; none of one that is not there.
    layouts: Mutex<HashMap<PathBuf, Option<Arc<Layout>>>>,
    told: Mutex<HashSet<PathBuf>>,
}

/// One of them, as it is written.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    /// The source, as it was given.
    label: String,
    place: Whereabouts,
    /// What times of files in the layers were clamped to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    /// Whether the record stood in an image's configuration, and was no document of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    inline: bool,
    /// Of the layers. Collection keeps those that are here for it.
    blobs: Vec<Digest>,
    manifest: String,
}

/// A [`Place`], as it is written.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Whereabouts {
    Registry(String),
    Directory(PathBuf),
}

impl Kept {
    pub(super) fn new(store: &Store, is_on: bool) -> Self {
        let (any, layouts, told) = Default::default();
        Self { store: store.clone(), is_on, any, layouts, told }
    }

    /// Whether there may be some.
    pub(super) fn any(&self) -> bool {
        self.is_on && *self.any.get_or_init(|| self.store.has_records(RecordKind::Taken))
    }

    /// Returns the record of a content key, where its blobs are, and what its source was called. One that cannot be used is none.
    pub(super) fn find(&self, key: &Digest, asking: &Asking<'_>) -> Option<(Arc<Entry>, Origin, String)> {
        if !self.any() {
            return None;
        }
        let found: Remembered = self.store.get_record(RecordKind::Taken, &key.hex()).ok().flatten()?;
        if found.epoch.is_some() && found.epoch != asking.epoch {
            return None;
        }
        let document = Document::new(media::OCI_MANIFEST, found.manifest.into_bytes());
        let mut entry = Entry::read(document).ok().filter(|entry| entry.facts.key == *key)?;
        entry.epoch = found.epoch;
        if found.inline {
            entry.manifest = None;
        }
        let origin = match found.place {
            Whereabouts::Registry(name) => Origin::Registry(name.parse().ok()?),
            Whereabouts::Directory(dir) => match self.layout(&dir) {
                Some(layout) => Origin::Layout(layout),
                None if found.blobs.iter().all(|blob| self.store.has_blob(blob)) => Origin::Store,
                None => {
                    if self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(dir) {
                        let label = &found.label;
                        let message = format!(
                            "results that an earlier build took from {label} cannot be had any more, so their steps run: \
                             the directory is not there"
                        );
                        asking.reporter.warn(message, None);
                    }
                    return None;
                }
            },
        };
        Some((Arc::new(entry), origin, found.label))
    }

    /// Keeps a record that was taken from a source, under all its names.
    ///
    /// # Errors
    /// The store cannot be written.
    pub(super) fn keep(&self, entry: &Entry, place: &Place, label: &str) -> Result<(), Error> {
        let place = match place {
            Place::Registry(name) => Whereabouts::Registry(name.to_string()),
            Place::Directory(dir) => match std::fs::canonicalize(dir) {
                Ok(dir) => Whereabouts::Directory(dir),
                Err(_) => return Ok(()),
            },
        };
        let made;
        let (manifest, inline) = match &entry.manifest {
            Some(manifest) => (manifest, false),
            None => {
                made = Entry::new(entry.facts.clone(), entry.layers.clone());
                let Some(manifest) = &made.manifest else { return Ok(()) };
                (manifest, true)
            }
        };
        let remembered = Remembered {
            label: label.to_owned(),
            place,
            epoch: entry.epoch,
            inline,
            blobs: entry.layers.iter().map(|layer| layer.layer.digest).collect(),
            manifest: String::from_utf8_lossy(&manifest.bytes).into_owned(),
        };
        let key = &entry.facts.key;
        // What is there was used when it was looked up; else it is written for the first time, or is newer.
        let known: Option<Remembered> = self.store.get_record(RecordKind::Taken, &key.hex())?;
        if known.as_ref() != Some(&remembered) {
            self.store.put_record(RecordKind::Taken, &key.hex(), &remembered)?;
        }
        for definition in &entry.facts.definitions {
            let known: Option<Digest> = self.store.get_record(RecordKind::Alias, &definition.hex())?;
            if known.as_ref() != Some(key) {
                self.store.put_record(RecordKind::Alias, &definition.hex(), key)?;
            }
        }
        Ok(())
    }

    fn layout(&self, dir: &Path) -> Option<Arc<Layout>> {
        let mut layouts = self.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = layouts.entry(dir.to_path_buf());
        known.or_insert_with(|| place::open(dir).ok().map(Arc::new)).clone()
    }
}
