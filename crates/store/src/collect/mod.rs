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
use crate::record::{self, RecordKind};
use crate::removals::{self, RemovalReason};
use crate::store::Store;
use crate::{pin, scratch};
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
    /// Of all that may go, only what has a name that begins with one of these, and what needs that: layers, blobs and sources by
    /// id, records by key.
    pub ids: Vec<String>,
    /// Images by the digests of their configurations that count as forgotten: their records go as what nothing needs.
    pub unnamed: BTreeSet<String>,
    /// Bytes of cache mounts, if they are known: else `keep_bytes` makes that they are counted.
    pub cache_bytes: Option<u64>,
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
        let unnamed = options.unnamed.iter().map(|key| self.record_path(RecordKind::Image, key)).collect();
        let builds = self.builds_so_far()?;
        let mut graph = Graph::read(&self.0.layout, &unnamed)?;
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
        if !options.ids.is_empty() {
            let named = graph.named(&options.ids);
            candidates.retain(|index| named.contains(index));
        }
        let mut total = match (options.keep_bytes, options.cache_bytes) {
            (Some(_), Some(caches)) => self.usage_without_caches()?.total() + caches,
            (Some(_), None) => self.usage()?.total(),
            (None, _) => u64::MAX,
        };
        let sizes = candidates.iter().map(|&index| size(&graph.nodes[index]));
        let sizes = sizes.collect::<Result<Vec<_>, IoError>>()?;
        let mut owners = Owners::of(&graph, &candidates, &sizes)?;
        let mut gone = Gone { store: self, keys: Vec::new(), why: options.why() };
        let mut report = PruneReport::default();
        self.prune_partials(options, latest, &mut total, &mut report)?;
        let mut taking = Taking { builds, lock: None, records: 0, cutoff: None };
        for (&index, size) in candidates.iter().zip(&sizes) {
            if options.keep_bytes.is_some_and(|keep| total <= keep) {
                break;
            }
            if graph.is_protected(index) {
                continue;
            }
            if !options.dry_run && !taking.take(self, &graph.nodes[index])? {
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

    /// Notes which builds there were so far, so that it can be told whether another one began.
    fn builds_so_far(&self) -> Result<Builds, StoreError> {
        // Marks of the dead would go later, and look like a build that ended.
        self.cutoff()?;
        loop {
            let (pins, at) = (self.pins_changed()?, SystemTime::now());
            let age = at.duration_since(pins).unwrap_or_default();
            // File systems date by a clock that ticks some hundred times a second: a change in the same tick would not be seen.
            if age >= TICK {
                return Ok(Builds { pins, at });
            }
            std::thread::sleep(TICK.saturating_sub(age));
        }
    }

    /// When a build last began or ended.
    fn pins_changed(&self) -> Result<SystemTime, StoreError> {
        let pins = self.0.layout.at(layout::PINS);
        Ok(std::fs::metadata(&pins).and_then(|found| found.modified()).at("stat", pins)?)
    }

    /// What was used since then may be in use; none if no build runs.
    ///
    /// # Errors
    /// The marks of running builds cannot be read.
    pub fn cutoff(&self) -> Result<Option<SystemTime>, StoreError> {
        let began = pin::oldest(&self.0.layout.at(layout::PINS))?;
        // A use is not written down if the last one was less than a grain before.
        Ok(began.and_then(|began| began.checked_sub(GRAIN + Duration::from_secs(1))))
    }
}

/// Longer than a tick of the clock that file systems date by.
const TICK: Duration = Duration::from_millis(20);

/// Which builds there were at a time.
struct Builds {
    /// When one last began or ended.
    pins: SystemTime,
    at: SystemTime,
}

/// Takes things away, one after the other.
struct Taking {
    /// As they were before anything was read.
    builds: Builds,
    /// Kept for a few records: they are many, and gone in a moment.
    lock: Option<FileLock>,
    records: usize,
    /// What was used since then may be in use. No build begins while the lock is held.
    cutoff: Option<SystemTime>,
}

impl Taking {
    /// Who wants to note a use waits for so many records at most: about a millisecond.
    const RECORDS: usize = 32;

    /// Removes one thing, unless it was used since the graph was read. Returns whether it is gone.
    fn take(&mut self, store: &Store, node: &Node) -> Result<bool, StoreError> {
        let layout = &store.0.layout;
        if node.kind != ThingKind::Record || self.records >= Self::RECORDS {
            (self.lock, self.records) = (None, 0);
        }
        let _alone = match node.kind {
            // Who is in it holds it.
            ThingKind::Failed => match FileLock::try_exclusive_dir(&node.path)? {
                None => return Ok(!node.path.exists()),
                alone => alone,
            },
            _ => None,
        };
        if self.lock.is_none() {
            self.lock = Some(FileLock::wait(&layout.at(layout::LOCK_FILE), Hold::Exclusive)?);
            self.cutoff = store.cutoff()?;
            if store.pins_changed()? != self.builds.pins {
                // A build began meanwhile, and may have ended. What it found and had been used a moment before bears no trace of it.
                let early = self.builds.at.checked_sub(GRAIN + Duration::from_secs(1));
                self.cutoff = self.cutoff.map_or(early, |cutoff| early.map(|early| early.min(cutoff)));
            }
        }
        let used = match std::fs::symlink_metadata(&node.path).and_then(|metadata| metadata.modified()) {
            Ok(used) => used,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error).at("stat", &node.path)?,
        };
        if used > node.own_use || self.cutoff.is_some_and(|cutoff| used >= cutoff) {
            return Ok(false);
        }
        if node.kind == ThingKind::Record {
            self.records += 1;
            std::fs::remove_file(&node.path).at("remove", &node.path)?;
            return Ok(true);
        }
        // What is large is only moved under the lock. Making room must not need any: on a full disk there is no directory to move
        // it to.
        let away = match store.scratch_path() {
            Err(error) if error.is_full() => None,
            path => Some(path?),
        };
        if node.kind == ThingKind::Blob {
            let gone = away.as_ref().unwrap_or(&node.path);
            if let Some(away) = &away {
                std::fs::rename(&node.path, away).at("remove", &node.path)?;
                self.lock = None;
            }
            std::fs::remove_file(gone).at("remove", gone)?;
        } else {
            let away = away.unwrap_or_else(|| store.0.scratch.way_out());
            std::fs::rename(&node.path, &away).at("remove", &node.path)?;
            self.lock = None;
            kept_size::drop_list(&node.path);
            scratch::remove_tree(&away);
        }
        Ok(true)
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
