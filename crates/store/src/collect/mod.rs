//! Taking things away: least recently used first, never what is in use, and nothing before what needs it.

mod graph;
pub(crate) mod kept_size;
pub(crate) mod room;
pub(crate) mod usage;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kiln_core::{Digest, IoError, IoResultExt as _};
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::last_use::GRAIN;
use crate::layout;
use crate::lock::{FileLock, Hold};
use crate::removals::{self, RemovalReason};
use crate::store::Store;
use crate::{pin, record, scratch};
pub(crate) use graph::records;
use graph::{Graph, Node};
use kept_size::KeptSize;

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
        let mut total = match options.keep_bytes {
            Some(_) => self.usage()?.total(),
            None => u64::MAX,
        };
        let sizes = candidates.iter().map(|&index| size(&graph.nodes[index]));
        let sizes = sizes.collect::<Result<Vec<_>, IoError>>()?;
        let mut owners = Owners::of(&graph, &candidates, &sizes)?;
        let mut gone = Gone { store: self, keys: Vec::new(), why: options.why() };
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
            let bytes = owners.free(size);
            total = total.saturating_sub(bytes);
            report.freed += bytes;
            let Node { kind, path, used, .. } = &graph.nodes[index];
            if !options.dry_run {
                gone.add(path);
            }
            let path = path.strip_prefix(self.root()).unwrap_or(path).to_owned();
            report.removed.push(Removed { kind: *kind, path, bytes, used: *used });
        }
        if !options.dry_run {
            self.sweep_locks()?;
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
            ThingKind::Layer | ThingKind::Failed | ThingKind::Source => {
                kept_size::drop_list(&node.path);
                scratch::remove_tree(&away);
            }
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

impl PruneOptions {
    fn why(&self) -> RemovalReason {
        if self.keep_bytes.is_some() { RemovalReason::Room } else { RemovalReason::Pruned }
    }
}

/// Step records that went and are not noted yet. They are noted now and then, and when this is dropped: also when
/// something cannot be removed.
struct Gone<'a> {
    store: &'a Store,
    keys: Vec<String>,
    why: RemovalReason,
}

impl Gone<'_> {
    /// Who is killed meanwhile has not said what became of so many.
    const BATCH: usize = 200;

    fn add(&mut self, path: &Path) {
        if let Some(key) = record::step_key(path) {
            self.keys.push(key);
        }
        if self.keys.len() >= Self::BATCH {
            self.note();
        }
    }

    fn note(&mut self) {
        removals::note(&self.store.0.layout, &std::mem::take(&mut self.keys), self.why);
    }
}

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.note();
        // Records have no directory of their own that tells.
        self.store.close_account();
    }
}

/// Returns what a thing takes.
fn size(node: &Node) -> Result<KeptSize, IoError> {
    match node.kind {
        ThingKind::Layer | ThingKind::Failed | ThingKind::Source => {
            kept_size::of(&node.path).at("count", &node.path)
        }
        ThingKind::Record | ThingKind::Blob => Ok(KeptSize { alone: node.bytes, shared: Vec::new() }),
    }
}

/// How many layers have each file that several have.
#[derive(Default)]
struct Owners(HashMap<u64, usize>);

impl Owners {
    /// Looks at all layers, if it matters.
    fn of(graph: &Graph, candidates: &[usize], sizes: &[KeptSize]) -> Result<Self, IoError> {
        let mut owners = Self::default();
        if sizes.iter().all(|size| size.shared.is_empty()) {
            return Ok(owners);
        }
        let mut add = |size: &KeptSize| {
            for (inode, _) in &size.shared {
                *owners.0.entry(*inode).or_default() += 1;
            }
        };
        sizes.iter().for_each(&mut add);
        let candidates: HashSet<usize> = candidates.iter().copied().collect();
        for (index, node) in graph.nodes.iter().enumerate() {
            if matches!(node.kind, ThingKind::Layer | ThingKind::Failed) && !candidates.contains(&index) {
                add(&size(node)?);
            }
        }
        Ok(owners)
    }

    /// Takes a thing away; returns the bytes that become free with it: those of files that no other layer has.
    fn free(&mut self, size: &KeptSize) -> u64 {
        let mut bytes = size.alone;
        for (inode, shared) in &size.shared {
            if let Some(owners) = self.0.get_mut(inode) {
                *owners -= 1;
                bytes += if *owners == 0 { *shared } else { 0 };
            }
        }
        bytes
    }
}
