//! Keeping the store within its bound.

use kiln_core::LayerId;
use kiln_store::{PruneOptions, RecordKind, Usage};
use serde::{Deserialize, Serialize};

use super::caches::{CacheFilter, CachePruneRequest};
use super::prune::PrunedKind;
use super::seconds;
use crate::engine::Engine;
use crate::engine::reporter::Reporter;
use crate::{BuildRequest, Error};

/// How large a store may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreBound {
    /// `--max-store`: bytes of all that is in it.
    pub store: Option<u64>,
    /// `--max-cache-mounts`: bytes of cache mounts; half of the store's if none.
    pub cache_mounts: Option<u64>,
}

/// What keeping a bound took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundReport {
    /// Bytes on disk that became free.
    pub freed: u64,
    /// Bytes that the store takes now, if it has a bound.
    pub left: u64,
    /// Whether that is more than it may take, as nothing more may go.
    pub exceeded: bool,
}

/// What would go next if room were needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextToGo {
    /// What it is.
    pub kind: PrunedKind,
    /// Its path in the store, or the cache mount's name.
    pub name: String,
    /// Bytes on disk that become free with it.
    pub bytes: u64,
    /// When it, or what needs it, was last used, seconds since 1970.
    pub used: u64,
    /// Why it is of no more use than that: one sentence without its end.
    pub why: String,
}

/// Takes cache mounts until they have no more than their share.
fn over(share: u64, dry_run: bool) -> CachePruneRequest {
    CachePruneRequest { filter: CacheFilter::default(), keep_bytes: Some(share), dry_run }
}

impl StoreBound {
    /// Bytes of cache mounts.
    pub fn caches(&self) -> Option<u64> {
        self.cache_mounts.or(self.store.map(|store| store / 2))
    }
}

impl Engine {
    /// Takes away what is too much: of cache mounts first, as far as they have more than their share, then of all else, least
    /// recently used first. Images with names stay, and what running builds use, in any process. As long as nothing came and
    /// went, that is a few system calls.
    ///
    /// # Errors
    /// Something cannot be looked at or removed. What went before is gone.
    pub fn keep_bound(&self, bound: &StoreBound) -> Result<BoundReport, Error> {
        let mut report = BoundReport::default();
        if bound.store.is_none() && bound.cache_mounts.is_none() {
            return Ok(report);
        }
        let share = bound.caches().unwrap_or(u64::MAX);
        // A cache that was used since it was counted may have grown.
        if self.caches()?.iter().any(|cache| !cache.placed && !cache.counted && cache.held_by.is_none()) {
            self.count_caches()?;
        }
        if self.cache_bytes()? > share {
            report.freed += self.prune_caches(&over(share, false))?.bytes;
        }
        let caches = self.cache_bytes()?;
        report.left = self.store.usage_without_caches()?.total() + caches;
        report.exceeded = caches > share;
        let Some(most) = bound.store else { return Ok(report) };
        if report.left > most {
            // A little more, so that not each build after this one has to.
            let options = PruneOptions {
                keep_bytes: Some(most - most / 20),
                cache_bytes: Some(caches),
                ..PruneOptions::default()
            };
            report.freed += self.store.prune(&options)?.freed;
            report.left = self.store.usage_without_caches()?.total() + caches;
        }
        report.exceeded |= report.left > most;
        Ok(report)
    }

    /// Keeps the store within its bound. A build does not fail of it: what cannot be taken away is told.
    pub(in crate::engine) fn make_room(&self, request: &BuildRequest, reporter: &Reporter<'_>) {
        match self.keep_bound(&request.bound) {
            Ok(report) if report.exceeded => {
                let message = format!(
                    "the store takes {} MB, which is more than it may (--max-store, --max-cache-mounts), and nothing more can go: \
                     images with names and what running builds use stay (`kiln du`, `kiln rmi`)",
                    report.left / 1_000_000
                );
                reporter.warn(message, None);
            }
            Ok(_) => {}
            Err(error) => reporter.warn(format!("no room could be made in the store: {error}"), None),
        }
    }

    /// Says what would go next, in the order of going: at most so many things. Of cache mounts what they have more than the bound
    /// gives them, then of all else the least recently used.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn next_to_go(&self, bound: &StoreBound, most: usize) -> Result<Vec<NextToGo>, Error> {
        let mut next = Vec::new();
        if let Some(share) = bound.caches() {
            let caches = self.prune_caches(&over(share, true))?.removed;
            next.extend(caches.into_iter().map(|cache| NextToGo {
                kind: PrunedKind::CacheMount,
                name: format!("{} ({})", cache.id, cache.scope),
                bytes: cache.size,
                used: cache.last_used,
                why: "cache mounts take more than their share".to_owned(),
            }));
        }
        let options = PruneOptions { all: true, dry_run: true, ..PruneOptions::default() };
        let things = self.store.prune(&options)?.removed;
        next.extend(things.into_iter().take(most.saturating_sub(next.len())).map(|thing| {
            let (kind, name) = (PrunedKind::from(thing.kind), thing.path.display().to_string());
            let why = self.why(kind, &thing.path);
            NextToGo { kind, name, bytes: thing.bytes, used: seconds(thing.used), why }
        }));
        next.truncate(most);
        Ok(next)
    }

    fn why(&self, kind: PrunedKind, path: &std::path::Path) -> String {
        #[derive(Deserialize)]
        struct Step {
            title: String,
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let layer = LayerId(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        match kind {
            PrunedKind::Record => {
                let step: Option<Step> = self.store.peek_record(RecordKind::Step, &stem).ok().flatten();
                match step {
                    Some(step) => format!("result of {}, which no named image is", step.title),
                    None => "a note that no named image needs".to_owned(),
                }
            }
            PrunedKind::Layer if layer.0.starts_with('s') => "files that only results above need".to_owned(),
            PrunedKind::Layer => "files of a base, which can be unpacked or fetched again".to_owned(),
            PrunedKind::FailedStep => "what a failed step left, to be looked at".to_owned(),
            PrunedKind::Blob => "part of no named image".to_owned(),
            PrunedKind::Source => "fetched, and can be fetched again".to_owned(),
            PrunedKind::CacheMount => "a cache mount".to_owned(),
        }
    }

    /// Returns what the store holds; cache mounts as they were last counted, if they were.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn usage(&self) -> Result<Usage, Error> {
        Ok(self.store.usage()?)
    }
}
