//! How much room things take that have parts in common, such as images with the same base.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use kiln_core::{Digest, IoResultExt as _, LayerId};
use serde::{Deserialize, Serialize};

use super::kept_size;
use crate::error::StoreError;
use crate::store::Store;

/// What something consists of. What of it is not there takes no room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// Blobs.
    pub blobs: BTreeSet<Digest>,
    /// Directories of layers, in the form that this store's ids give them.
    pub layers: BTreeSet<LayerId>,
}

/// Room on disk, bytes: blocks, each file once, as in [`Usage`](crate::Usage).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// All of it.
    pub size: u64,
    /// What others of those that were asked about have too.
    pub shared: u64,
}

impl Room {
    /// Returns what nothing else has.
    pub const fn unique(&self) -> u64 {
        self.size - self.shared
    }
}

/// One blob or layer on disk.
#[derive(Default)]
struct Part {
    /// Bytes of files with no name elsewhere.
    own: u64,
    /// Bytes of files with some, by inode: layers share unchanged files by hard links.
    linked: HashMap<u64, u64>,
    /// How many of the things have it.
    owners: usize,
}

impl Store {
    /// Counts the room that things take, each in whole and as far as another one of them has it too. Counts as no use.
    ///
    /// # Errors
    /// A directory cannot be read. What disappears in the meantime is no error.
    pub fn room_of(&self, things: &[Parts]) -> Result<Vec<Room>, StoreError> {
        let mut parts: HashMap<PathBuf, Part> = HashMap::new();
        let mut linked: HashMap<u64, usize> = HashMap::new();
        for thing in things {
            for path in self.paths(thing) {
                if !parts.contains_key(&path) {
                    parts.insert(path.clone(), measure(&path).at("count", &path)?);
                }
                parts.entry(path).or_default().owners += 1;
            }
            for inode in links_of(&self.paths(thing), &parts).into_keys() {
                *linked.entry(inode).or_default() += 1;
            }
        }
        Ok(things
            .iter()
            .map(|thing| {
                let paths = self.paths(thing);
                let mut room = Room::default();
                let mut add = |bytes: u64, owners: usize| {
                    room.size += bytes;
                    room.shared += if owners > 1 { bytes } else { 0 };
                };
                paths.iter().filter_map(|path| parts.get(path)).for_each(|part| add(part.own, part.owners));
                for (inode, bytes) in links_of(&paths, &parts) {
                    add(bytes, linked.get(&inode).copied().unwrap_or(0));
                }
                room
            })
            .collect())
    }

    fn paths(&self, thing: &Parts) -> Vec<PathBuf> {
        let layout = &self.0.layout;
        let blobs = thing.blobs.iter().map(|digest| layout.blob(digest));
        blobs.chain(thing.layers.iter().map(|layer| layout.layer(layer))).collect()
    }
}

/// The files with several names that a thing has, each once.
fn links_of(paths: &[PathBuf], parts: &HashMap<PathBuf, Part>) -> HashMap<u64, u64> {
    let parts = paths.iter().filter_map(|path| parts.get(path));
    parts.flat_map(|part| part.linked.iter().map(|(inode, bytes)| (*inode, *bytes))).collect()
}

fn measure(path: &std::path::Path) -> std::io::Result<Part> {
    // A blob is one file; a layer never changes, so it was mostly counted before.
    let size = if path.is_dir() { kept_size::of(path)? } else { kept_size::count(path)? };
    Ok(Part { own: size.alone, linked: size.shared.into_iter().collect(), owners: 0 })
}
