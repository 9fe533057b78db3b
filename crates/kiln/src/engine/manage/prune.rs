//! Making room.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, SystemTime};

use kiln_core::Digest;
use kiln_store::{PruneOptions, ThingKind};
use serde::{Deserialize, Serialize};

use super::caches::{CacheFilter, CachePruneRequest, CacheSummary};
use crate::Error;
use crate::engine::{Engine, ids};

/// What to prune.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneRequest {
    /// Also what no image needs but builds would still hit.
    pub all: bool,
    /// Also cache mounts.
    pub cache_mounts: bool,
    /// Only what was not used for so many seconds.
    pub unused_for: Option<u64>,
    /// Only what has an id that begins with one of these, and what needs that.
    #[serde(default)]
    pub ids: Vec<String>,
    /// Only until the whole store has no more than so many bytes, least recently used first. Says `all`.
    #[serde(default)]
    pub keep_bytes: Option<u64>,
    /// Only until the file system has so many bytes free. Says `all`.
    #[serde(default)]
    pub free_bytes: Option<u64>,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What was pruned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneReport {
    /// Each thing, in the order of going.
    pub removed: Vec<PrunedThing>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Cache mounts that would have gone if nobody held them, and no running build had used them.
    #[serde(default)]
    pub held: Vec<CacheSummary>,
}

/// One thing that was pruned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedThing {
    /// What it was.
    pub kind: PrunedKind,
    /// Its path in the store, or the cache mount's name.
    pub name: String,
    /// Bytes on disk that became free with it.
    pub bytes: u64,
}

/// What a pruned thing was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrunedKind {
    /// The files of a base layer or a step.
    Layer,
    /// What a failed step left.
    FailedStep,
    /// A blob of an image.
    Blob,
    /// What was known of a step or a layer.
    Record,
    /// What was fetched from a URL.
    Source,
    /// A cache mount.
    CacheMount,
}

impl From<ThingKind> for PrunedKind {
    fn from(kind: ThingKind) -> Self {
        match kind {
            ThingKind::Record => Self::Record,
            ThingKind::Layer => Self::Layer,
            ThingKind::Failed => Self::FailedStep,
            ThingKind::Blob => Self::Blob,
            ThingKind::Source => Self::Source,
        }
    }
}

impl Engine {
    /// Removes what no image needs, beside running builds; and cache mounts, if asked to.
    ///
    /// # Errors
    /// Something cannot be looked at or removed. What went before is gone.
    pub fn prune(&self, request: &PruneRequest) -> Result<PruneReport, Error> {
        let mut report = PruneReport::default();
        // Before the rest: what they free need not be freed elsewhere.
        if request.cache_mounts {
            let filter = CacheFilter { unused_for: request.unused_for, ..CacheFilter::default() };
            let asked = CachePruneRequest { filter, keep_bytes: None, dry_run: request.dry_run };
            let caches = self.prune_caches(&asked)?;
            (report.bytes, report.held) = (caches.bytes, caches.held);
            for cache in caches.removed {
                let name = format!("{} ({})", cache.id, cache.scope);
                report.removed.push(PrunedThing { kind: PrunedKind::CacheMount, name, bytes: cache.size });
            }
        }
        let cache_bytes = self.cache_bytes()?.saturating_sub(if request.dry_run { report.bytes } else { 0 });
        let options = PruneOptions {
            all: request.all,
            until: request.unused_for.map(Duration::from_secs),
            keep_bytes: self.target(request, cache_bytes)?,
            dry_run: request.dry_run,
            ids: request.ids.clone(),
            unnamed: self.unnamed(request.unused_for)?,
            cache_bytes: Some(cache_bytes),
            only: None,
        };
        let things = self.store.prune(&options)?;
        report.bytes += things.freed;
        for thing in things.removed {
            let name = thing.path.display().to_string();
            report.removed.push(PrunedThing { kind: thing.kind.into(), name, bytes: thing.bytes });
        }
        Ok(report)
    }

    /// How many bytes the store may keep, of what was asked for the least.
    fn target(&self, request: &PruneRequest, cache_bytes: u64) -> Result<Option<u64>, Error> {
        let Some(wanted) = request.free_bytes else { return Ok(request.keep_bytes) };
        let missing = wanted.saturating_sub(self.store.room()?);
        let now = self.store.usage_without_caches()?.total() + cache_bytes;
        let keep = if missing == 0 { u64::MAX } else { now.saturating_sub(missing) };
        Ok(Some(request.keep_bytes.map_or(keep, |asked| asked.min(keep))))
    }

    /// The images that nobody has named, by configuration: as docker has it, they are nobody's. What a build made a moment ago is
    /// kept by its pin.
    fn unnamed(&self, unused_for: Option<u64>) -> Result<BTreeSet<String>, Error> {
        let oldest = unused_for.and_then(|age| SystemTime::now().checked_sub(Duration::from_secs(age)));
        let untagged = self.untagged()?.into_iter();
        let gone: HashSet<Digest> = untagged
            .filter(|(_, used)| oldest.is_none_or(|oldest| *used < oldest))
            .map(|(root, _)| root)
            .collect();
        let known = ids::known(&self.store)?.into_iter();
        Ok(known.filter(|(_, root)| gone.contains(root)).map(|(config, _)| config).collect())
    }

    /// Bytes of cache mounts in the store, as they were last counted.
    pub(in crate::engine) fn cache_bytes(&self) -> Result<u64, Error> {
        Ok(self.caches()?.iter().filter(|cache| !cache.placed).map(|cache| cache.size).sum())
    }
}
