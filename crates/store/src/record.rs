//! Records: small JSON files by key, for what is known about steps, layers and builds.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_core::{Digest, IoError, IoResultExt as _, LayerId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::durable::children;
use crate::error::StoreError;
use crate::layout::{Ids, Layout, RECORDS};
use crate::removals::{self, RemovalReason};
use crate::store::Store;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordKind {
    /// By a step's definition or content key: the snapshot it left behind.
    Step,
    /// By a step's key: the parts of the key, so that a miss can be explained.
    KeyParts,
    /// By a step's definition key: its content key.
    Alias,
    /// By a layer's diff id: the layer that a step made and that was packed under it, so that a build or run from the
    /// packed image need not unpack it again.
    Base,
    /// By a copy's operation: the layer it made last, whose unchanged files the next one shares.
    LastCopy,
    /// By layer and options: the blob made of it. Written by the store itself.
    LayerBlob,
    /// By an image reference: what it meant when it was last resolved.
    Reference,
    /// What the last build did.
    Build,
    /// By a configuration's digest (docker's image id): the manifest or index it belongs to.
    Image,
    /// By a blob's digest: the repositories of registries that have it.
    Origin,
    /// By the hash of a URL, which may hold what nobody must see: what was fetched from there.
    Source,
    /// By a registry's host: how fast it delivered.
    Rate,
    /// By a step's key: a result that was found elsewhere, and where its layers are.
    Taken,
}

/// A record, as [`Store::list_records`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordInfo {
    /// The key it was put under.
    pub key: String,
    /// When it was last put or got, to the minute.
    pub used: SystemTime,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    key: String,
    value: T,
}

impl RecordKind {
    pub(crate) const ALL: [Self; 13] = [
        Self::Step,
        Self::KeyParts,
        Self::Alias,
        Self::Base,
        Self::LastCopy,
        Self::LayerBlob,
        Self::Reference,
        Self::Build,
        Self::Image,
        Self::Origin,
        Self::Source,
        Self::Rate,
        Self::Taken,
    ];

    const fn dir(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::KeyParts => "key-parts",
            Self::Alias => "alias",
            Self::Base => "base",
            Self::LastCopy => "last-copy",
            Self::LayerBlob => "layer-blob",
            Self::Reference => "reference",
            Self::Build => "build",
            Self::Image => "image",
            Self::Origin => "origin",
            Self::Source => "source",
            Self::Rate => "rate",
            Self::Taken => "taken",
        }
    }

    /// Whether it names layers, which depend on the ids.
    pub(crate) const fn is_owned(self) -> bool {
        matches!(self, Self::Step | Self::Base | Self::LastCopy | Self::LayerBlob | Self::Build)
    }

    pub(crate) fn path(self, layout: &Layout) -> PathBuf {
        let above = if self.is_owned() { layout.owned() } else { layout.root.clone() };
        above.join(RECORDS).join(self.dir())
    }
}

impl Store {
    /// Writes a record, over the one that is there.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put_record<T: Serialize>(&self, kind: RecordKind, key: &str, value: &T) -> Result<(), StoreError> {
        let envelope = Envelope { key: key.to_owned(), value };
        let text = serde_json::to_vec(&envelope)
            .map_err(|error| StoreError::Encode { key: key.to_owned(), reason: error.to_string() })?;
        self.put_file(&self.record_path(kind, key), &text)
    }

    /// Reads a record and notes the use. One that cannot be understood counts as missing and is removed.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn get_record<T: DeserializeOwned>(
        &self,
        kind: RecordKind,
        key: &str,
    ) -> Result<Option<T>, StoreError> {
        let path = self.record_path(kind, key);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).at("read", path)?,
        };
        match serde_json::from_slice::<Envelope<T>>(&text) {
            Ok(envelope) if envelope.key == key => {
                Ok(if self.note_use(&path)? { Some(envelope.value) } else { None })
            }
            _ => {
                remove_file(&path)?;
                Ok(None)
            }
        }
    }

    /// Reads a record as [`get_record`](Self::get_record) does, but that counts as no use: for listings.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn peek_record<T: DeserializeOwned>(
        &self,
        kind: RecordKind,
        key: &str,
    ) -> Result<Option<T>, StoreError> {
        let path = self.record_path(kind, key);
        match std::fs::read(&path) {
            Ok(text) => {
                let envelope = serde_json::from_slice::<Envelope<T>>(&text).ok();
                Ok(envelope.filter(|envelope| envelope.key == key).map(|envelope| envelope.value))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("read", path)?,
        }
    }

    /// Whether there may be any record of a kind.
    pub fn has_records(&self, kind: RecordKind) -> bool {
        std::fs::read_dir(kind.path(&self.0.layout)).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Removes a record; returns whether it was there.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn delete_record(&self, kind: RecordKind, key: &str) -> Result<bool, StoreError> {
        Ok(remove_file(&self.record_path(kind, key))?)
    }

    /// Lists the records of one kind, in no particular order. Reads them all.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list_records(&self, kind: RecordKind) -> Result<Vec<RecordInfo>, StoreError> {
        let mut found = Vec::new();
        for path in files(&self.0.layout, kind)? {
            // Gone or damaged since: no record.
            let (Ok(text), Ok(metadata)) = (std::fs::read(&path), std::fs::metadata(&path)) else { continue };
            if let Ok(envelope) = serde_json::from_slice::<Envelope<serde::de::IgnoredAny>>(&text) {
                found.push(RecordInfo { key: envelope.key, used: metadata.modified().at("stat", path)? });
            }
        }
        Ok(found)
    }

    /// Writes a small file so that it appears whole, making its directory if needed.
    pub(crate) fn put_file(&self, to: &Path, text: &[u8]) -> Result<(), StoreError> {
        let from = self.scratch_path()?;
        let written =
            std::fs::write(&from, text).at("write", &from).and_then(|()| match std::fs::rename(&from, to) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let dir = to.parent().unwrap_or(to);
                    std::fs::create_dir_all(dir).at("create", dir)?;
                    std::fs::rename(&from, to).at("rename to", to)
                }
                other => other.at("rename to", to),
            });
        if written.is_err() {
            let _ = std::fs::remove_file(&from);
        }
        Ok(written?)
    }

    pub(crate) fn record_path(&self, kind: RecordKind, key: &str) -> PathBuf {
        let name = match format!("sha256:{key}").parse::<Digest>() {
            Ok(digest) => digest,
            Err(_) => Digest::of(key.as_bytes()),
        }
        .hex();
        kind.path(&self.0.layout).join(&name[..2]).join(format!("{name}.json"))
    }
}

/// Returns the key of a step's result, by the file of its record.
pub(crate) fn step_key(path: &Path) -> Option<String> {
    let kind = path.parent()?.parent()?.file_name()?;
    let is_result = [RecordKind::Step, RecordKind::Taken].iter().any(|result| kind == result.dir());
    is_result.then(|| path.file_stem()?.to_str().map(str::to_owned))?
}

/// The files of all records of one kind.
pub(crate) fn files(layout: &Layout, kind: RecordKind) -> Result<Vec<PathBuf>, IoError> {
    let mut found = Vec::new();
    for dir in children(&kind.path(layout))? {
        found.extend(children(&dir)?);
    }
    Ok(found)
}

/// Removes the records, of both kinds of ids, that name one of these layers.
pub(crate) fn forget(layout: &Layout, gone: &BTreeSet<LayerId>) -> Result<(), StoreError> {
    if gone.is_empty() {
        return Ok(());
    }
    let mut lost = Vec::new();
    for ids in [Ids::Full, Ids::Single] {
        let layout = Layout { root: layout.root.clone(), ids };
        for kind in RecordKind::ALL.into_iter().filter(|kind| kind.is_owned()) {
            for path in files(&layout, kind)? {
                let text = std::fs::read(&path).at("read", &path)?;
                let mut names = false;
                mentions(&text, &mut |word| names |= gone.contains(&LayerId(word.to_owned())));
                if names {
                    remove_file(&path)?;
                    lost.extend(step_key(&path));
                }
            }
        }
    }
    removals::note(layout, &lost, RemovalReason::Lost);
    Ok(())
}

/// Calls `visit` with every string in a JSON text. What a record depends on is found this way: whatever in it is
/// the name of a layer or the digest of a blob that is there.
pub(crate) fn mentions(text: &[u8], visit: &mut dyn FnMut(&str)) {
    fn walk(value: &serde_json::Value, visit: &mut dyn FnMut(&str)) {
        match value {
            serde_json::Value::String(text) => visit(text),
            serde_json::Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
            serde_json::Value::Object(fields) => fields.iter().for_each(|(key, item)| {
                visit(key);
                walk(item, visit);
            }),
            _ => {}
        }
    }
    if let Ok(value) = serde_json::from_slice(text) {
        walk(&value, visit);
    }
}

/// Returns whether it was there.
pub(crate) fn remove_file(path: &Path) -> Result<bool, IoError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).at("remove", path),
    }
}
