//! What takes how much room, counted as du(1) does: blocks, each file once.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use kiln_core::IoResultExt as _;
use serde::{Deserialize, Serialize};

use super::kept_size;
use crate::disk::{self, Taken};
use crate::durable::children;
use crate::error::StoreError;
use crate::layer::kept::is_kept;
use crate::layout::{self, Ids};
use crate::store::Store;

/// Bytes on disk, by kind. A file with several names counts where it is met first, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Compressed layers, configurations, manifests.
    pub blobs: u64,
    /// Files of base layers and steps.
    pub layers: u64,
    /// What failed steps left.
    #[serde(default)]
    pub failed: u64,
    /// What was fetched from URLs.
    #[serde(default)]
    pub sources: u64,
    /// Records and names of images.
    pub records: u64,
    /// Cache mounts.
    pub caches: u64,
    /// Everything else: stat indexes, what is half-made.
    pub other: u64,
    /// Directories in cache mounts that may not be read, with what is in them: not counted, by du(1) neither.
    #[serde(default, skip_serializing_if = "is_none")]
    pub unread: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_none(number: &u64) -> bool {
    *number == 0
}

impl Usage {
    /// Returns the sum: what `du -s` says.
    pub const fn total(&self) -> u64 {
        self.blobs + self.failed + self.layers + self.sources + self.records + self.caches + self.other
    }
}

impl Store {
    /// Counts the whole store. Layers and fetched sources were mostly counted before: what they take is kept.
    ///
    /// # Errors
    /// A directory cannot be read. What disappears in the meantime is no error.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let layout = &self.0.layout;
        let mut usage = self.count_all_but_caches()?;
        let caches = [Ids::Full, Ids::Single].map(|ids| layout.at(ids.dir()).join(layout::CACHES));
        let counted = disk::count_all(&caches.each_ref().map(PathBuf::as_path));
        let mut sum = Taken::default();
        // A file may have names in several caches.
        counted.at("count", &caches[0])?.into_iter().flatten().for_each(|taken| sum.add(taken));
        (usage.caches, usage.unread) = (sum.total(), sum.unread);
        Ok(usage)
    }

    /// Returns what [`usage`](Self::usage) does but for cache mounts, which keep their own sizes. If no blob, layer or source came or
    /// went since the last count, that is what it returns: a few system calls.
    ///
    /// # Errors
    /// As there.
    pub fn usage_without_caches(&self) -> Result<Usage, StoreError> {
        let path = self.0.layout.at(layout::ACCOUNT);
        // Looked at before the things themselves: who adds one meanwhile makes this count look old, not new.
        let stamps = self.stamps();
        let kept = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Account>(&text).ok());
        if let Some(kept) = kept.filter(|kept| kept.stamps == stamps) {
            return Ok(kept.usage);
        }
        let usage = self.count_all_but_caches()?;
        if let Ok(text) = serde_json::to_vec(&Account { stamps, usage }) {
            // On a full disk there is no account, and the next one counts again.
            let _ = self.put_file(&path, &text);
        }
        Ok(usage)
    }

    /// Says that something went which no directory of blobs, layers or sources tells of.
    pub(crate) fn close_account(&self) {
        let _ = std::fs::remove_file(self.0.layout.at(layout::ACCOUNT));
    }

    /// The change times of the directories whose entries make up the store, nanoseconds.
    fn stamps(&self) -> Vec<Option<i128>> {
        let layers = [Ids::Full, Ids::Single].map(|ids| self.0.layout.at(ids.dir()).join(layout::LAYERS));
        let dirs =
            layers.into_iter().chain([layout::BLOBS, layout::SOURCES].map(|dir| self.0.layout.at(dir)));
        // These grow where they are.
        let parts = children(&self.0.layout.at(layout::PARTIAL)).unwrap_or_default();
        let dirs = dirs.chain([self.0.layout.at(layout::PARTIAL)]).chain(parts);
        let stamp = |dir: PathBuf| {
            let metadata = std::fs::metadata(dir).ok()?;
            Some(i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()))
        };
        dirs.map(stamp).collect()
    }

    fn count_all_but_caches(&self) -> Result<Usage, StoreError> {
        let layout = &self.0.layout;
        let mut usage = Usage { blobs: whole(&layout.at(layout::BLOBS))?, ..Usage::default() };
        let mut seen = HashSet::new();
        let mut kept = |dirs: &[PathBuf], of: &Path| {
            let mut sum = 0;
            for size in kept_size::of_all(dirs).at("count what is in", of)? {
                let shared = size.shared.iter().filter(|(inode, _)| seen.insert(*inode));
                sum += size.alone + shared.map(|(_, bytes)| bytes).sum::<u64>();
            }
            Ok::<u64, StoreError>(sum)
        };
        let mut counted = vec![layout.at(layout::BLOBS)];
        for ids in [Ids::Full, Ids::Single] {
            let owned = layout.at(ids.dir());
            let layers = owned.join(layout::LAYERS);
            let (failed, made): (Vec<_>, Vec<_>) =
                children(&layers)?.into_iter().partition(|path| is_kept(path));
            usage.failed += kept(&failed, &layers)?;
            usage.layers += kept(&made, &layers)?;
            usage.layers += alone(&layers)?;
            usage.records += whole(&owned.join(layout::RECORDS))?;
            usage.other += alone(&owned)?;
            counted.extend([layout::LAYERS, layout::RECORDS, layout::CACHES].map(|dir| owned.join(dir)));
        }
        let sources = layout.at(layout::SOURCES);
        usage.sources += kept(&children(&sources)?, &sources)? + alone(&sources)?;
        usage.records += whole(&layout.at(layout::RECORDS))? + whole(&layout.at(layout::IMAGES))?;
        usage.other += alone(self.root())?;
        for below in [self.root().to_owned(), layout.at("blobs"), layout.at("full"), layout.at("single")] {
            for path in children(&below)? {
                let known = ["blobs", "full", "single", layout::SOURCES, layout::RECORDS, layout::IMAGES]
                    .iter()
                    .any(|name| path == layout.at(name));
                if !known && !counted.contains(&path) {
                    // What is half-made may have files of layers under further names.
                    usage.other += kept_size::count(&path).at("count", &path)?.alone;
                }
            }
        }
        usage.other += alone(&layout.at("blobs"))?;
        Ok(usage)
    }
}

/// What the store held, without cache mounts, and how its directories looked then.
#[derive(Serialize, Deserialize)]
struct Account {
    stamps: Vec<Option<i128>>,
    usage: Usage,
}

/// Counts a tree that no other shares files with.
fn whole(path: &Path) -> Result<u64, StoreError> {
    let size = kept_size::count(path).at("count", path)?;
    Ok(size.alone + size.shared.iter().map(|(_, bytes)| bytes).sum::<u64>())
}

/// Counts a directory without what is in it; none takes nothing.
fn alone(path: &Path) -> Result<u64, StoreError> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.blocks() * 512),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error).at("count", path)?,
    }
}
