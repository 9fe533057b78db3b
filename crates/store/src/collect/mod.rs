//! Taking things away: least recently used first, never what is in use, and nothing before what needs it.

mod graph;
pub(crate) mod room;
pub(crate) mod usage;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use kiln_core::{Digest, IoError, IoResultExt as _};
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::last_use::GRAIN;
use crate::layout;
use crate::lock::{FileLock, Hold};
use crate::store::Store;
use crate::{pin, scratch};
pub(crate) use graph::records;
use graph::{Graph, Node};
use usage::Tally;

/// What may go. With none of it, only what nothing refers to: blobs, layers and fetched sources that no record and no
/// image names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Everything that no image name reaches and no running build uses.
    pub all: bool,
    /// Only what was not used for this long.
    pub until: Option<Duration>,
    /// Least recently used first, only until the whole store has no more than this many bytes. Says `all`.
    pub keep_bytes: Option<u64>,
    /// Nothing: only say what would go.
    pub dry_run: bool,
    /// Of all that may go, only these blobs.
    pub only: Option<BTreeSet<Digest>>,
}

/// What went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneReport {
    /// In the order of going.
    pub removed: Vec<Removed>,
    /// Bytes on disk that became free.
    pub freed: u64,
}

/// One thing that went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// What it was.
    pub kind: ThingKind,
    /// Its path in the store.
    pub path: PathBuf,
    /// Bytes on disk that became free with it.
    pub bytes: u64,
    /// When it, or what needed it, was last used, to the minute.
    pub used: SystemTime,
}

/// A kind of thing in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ThingKind {
    /// What is known about a step, a layer, a build.
    Record,
    /// The files of a base layer or a step.
    Layer,
    /// What a failed step left.
    Failed,
    /// Bytes by digest.
    Blob,
    /// What was fetched from a URL.
    Source,
}

impl Store {
    /// Takes away what may go, beside running builds of any process.
    ///
    /// # Errors
    /// Something cannot be looked at or removed. What went before is gone.
    pub fn prune(&self, options: &PruneOptions) -> Result<PruneReport, StoreError> {
        let mut graph = Graph::read(&self.0.layout)?;
        graph.protect_images();
        if let Some(cutoff) = self.cutoff()? {
            graph.protect_used_since(cutoff);
        }
        let everything = options.all || options.keep_bytes.is_some();
        let latest = options.until.and_then(|age| SystemTime::now().checked_sub(age));
        let mut candidates = graph.candidates(everything, latest);
        if let Some(only) = &options.only {
            let paths: BTreeSet<PathBuf> = only.iter().map(|digest| self.blob_path(digest)).collect();
            candidates.retain(|&index| paths.contains(&graph.nodes[index].path));
        }
        let mut tally = Tally::default();
        let mut total = match options.keep_bytes {
            Some(_) => self.usage()?.total(),
            None => u64::MAX,
        };
        let mut sizes = Vec::new();
        for &index in &candidates {
            let path = &graph.nodes[index].path;
            sizes.push(tally.add(path).at("count", path)?);
        }
        let mut report = PruneReport::default();
        for (&index, size) in candidates.iter().zip(&sizes) {
            if options.keep_bytes.is_some_and(|keep| total <= keep) {
                break;
            }
            if graph.is_protected(index) {
                continue;
            }
            if !options.dry_run && !self.take(&graph.nodes[index])? {
                // Used just now: what it needs stays too.
                graph.protect(index);
                continue;
            }
            let bytes = tally.free(size);
            total = total.saturating_sub(bytes);
            report.freed += bytes;
            let Node { kind, path, used, .. } = &graph.nodes[index];
            let path = path.strip_prefix(self.root()).unwrap_or(path).to_owned();
            report.removed.push(Removed { kind: *kind, path, bytes, used: *used });
        }
        Ok(report)
    }

    /// Removes one thing, unless it was used since the graph was read. Returns whether it is gone.
    fn take(&self, node: &Node) -> Result<bool, StoreError> {
        let away = self.scratch_path()?;
        let _alone = match node.kind {
            // Who is in it holds it.
            ThingKind::Failed => match FileLock::try_exclusive_dir(&node.path)? {
                None => return Ok(!node.path.exists()),
                alone => alone,
            },
            _ => None,
        };
        {
            let _taking = FileLock::wait(&self.0.layout.at(layout::LOCK_FILE), Hold::Exclusive)?;
            let used = match std::fs::symlink_metadata(&node.path).and_then(|metadata| metadata.modified()) {
                Ok(used) => used,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
                Err(error) => return Err(error).at("stat", &node.path)?,
            };
            if used > node.own_use || self.cutoff()?.is_some_and(|cutoff| used >= cutoff) {
                return Ok(false);
            }
            std::fs::rename(&node.path, &away).at("remove", &node.path)?;
        }
        match node.kind {
            ThingKind::Layer | ThingKind::Failed | ThingKind::Source => scratch::remove_tree(&away),
            ThingKind::Record | ThingKind::Blob => std::fs::remove_file(&away).at("remove", away)?,
        }
        Ok(true)
    }

    /// What was used since then may be in use; none if no build runs.
    fn cutoff(&self) -> Result<Option<SystemTime>, IoError> {
        let began = pin::oldest(&self.0.layout.at(layout::PINS))?;
        // A use is not written down if the last one was less than a grain before.
        Ok(began.and_then(|began| began.checked_sub(GRAIN + Duration::from_secs(1))))
    }
}
