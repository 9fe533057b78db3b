//! What was removed lately, and why: so that a build that misses something can be told what became of it.
//!
//! One file, a JSON line per step record, the oldest first. It is short and it is a hint: what is lost from it explains
//! nothing, and harms nothing.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::time::SystemTime;

use kiln_core::{IoError, IoResultExt as _};
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::layout::{self, Layout};
use crate::lock::{FileLock, Hold};
use crate::store::Store;

/// Beyond this the older half goes: room for some four thousand records.
const MAX_BYTES: u64 = 512 << 10;

/// A step's record that went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The step's key: 64 hexadecimal digits.
    pub key: String,
    /// When it went, seconds since 1970.
    pub time: u64,
    /// Why.
    pub why: RemovalReason,
}

/// Why something went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemovalReason {
    /// Somebody asked for it: `kiln prune`.
    Pruned,
    /// The store had grown beyond its bound.
    Room,
    /// It was not on disk yet when the machine went down.
    Lost,
}

impl Store {
    /// Lists the step records that were removed lately, the oldest first. Lines that cannot be understood are left out.
    ///
    /// # Errors
    /// The list is there and cannot be read.
    pub fn removals(&self) -> Result<Vec<Removal>, StoreError> {
        let path = self.0.layout.at(layout::REMOVED);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error).at("read", path)?,
        }
    }
}

/// Notes that step records went, now. A list that cannot be written, on a full disk, is no reason not to make room.
pub(crate) fn note(layout: &Layout, keys: &[String], why: RemovalReason) {
    if !keys.is_empty() {
        let _ = append(layout, keys, why);
    }
}

fn append(layout: &Layout, keys: &[String], why: RemovalReason) -> Result<(), IoError> {
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut text = String::new();
    for key in keys {
        let removal = Removal { key: key.clone(), time, why };
        text.push_str(&serde_json::to_string(&removal).unwrap_or_default());
        text.push('\n');
    }
    let path = layout.at(layout::REMOVED);
    // Not while another process cuts it short.
    let _alone = FileLock::wait(&layout.at(layout::LOCKS).join("removed"), Hold::Exclusive)?;
    let mut file = OpenOptions::new().append(true).create(true).open(&path).at("open", &path)?;
    file.write_all(text.as_bytes()).at("write", &path)?;
    if file.metadata().at("stat", &path)?.len() > MAX_BYTES { cut(&path) } else { Ok(()) }
}

/// Leaves the younger half. Who reads it meanwhile sees one or the other, as it changes by rename.
fn cut(path: &Path) -> Result<(), IoError> {
    let text = std::fs::read(path).at("read", path)?;
    let half = text.len().saturating_sub(usize::try_from(MAX_BYTES / 2).unwrap_or(0));
    let start = text[half..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| half + at + 1);
    let new = path.with_extension("new");
    std::fs::write(&new, &text[start..]).at("write", &new)?;
    std::fs::rename(&new, path).at("rename to", path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Ids;

    #[test]
    fn the_list_stays_short_and_keeps_the_youngest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Ids::Full).unwrap();
        assert_eq!(store.removals().unwrap(), []);
        let key = |number: usize| format!("{number:064x}");
        for round in 0..12 {
            let keys: Vec<String> = (0..1000).map(|number| key(round * 1000 + number)).collect();
            note(&store.0.layout, &keys, RemovalReason::Room);
        }
        let path = store.0.layout.at(layout::REMOVED);
        assert!(std::fs::metadata(&path).unwrap().len() <= MAX_BYTES);
        let found = store.removals().unwrap();
        assert!(found.len() > 1000, "{}", found.len());
        assert_eq!(found.last().unwrap().key, key(11_999));
        let keys: Vec<&String> = found.iter().map(|removal| &removal.key).collect();
        assert!(keys.is_sorted(), "they are in the order of going");
        std::fs::write(&path, "{\"key\":\n").unwrap();
        assert_eq!(store.removals().unwrap(), []);
    }
}
