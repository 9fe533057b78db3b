//! Cache mounts: what there is, and taking it away.

use std::path::PathBuf;

use kiln_core::CacheScope;
use kiln_store::cache_mount::CacheInfo;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::engine::Engine;

/// One cache mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheSummary {
    /// Its id.
    pub id: String,
    /// `global`, or the platform whose steps share it.
    pub scope: String,
    /// Its directory.
    pub path: PathBuf,
    /// Bytes on disk.
    pub size: u64,
    /// Files.
    pub files: u64,
    /// Seconds since 1970.
    pub last_used: u64,
    /// Where steps saw it.
    pub targets: Vec<String>,
    /// Who holds it now.
    pub held_by: Option<String>,
}

impl Engine {
    /// Lists cache mounts.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn caches(&self) -> Result<Vec<CacheSummary>, Error> {
        // Only what was used since the last count is walked.
        self.caches.refresh_sizes()?;
        let summary = |cache: CacheInfo| CacheSummary {
            id: cache.id,
            scope: scope_name(&cache.scope),
            path: cache.path,
            size: cache.size,
            files: cache.files,
            last_used: u64::try_from(cache.last_used).unwrap_or(0),
            targets: cache.targets,
            held_by: (!cache.held_by.is_empty()).then(|| cache.held_by.join(", ")),
        };
        Ok(self.caches.list()?.into_iter().map(summary).collect())
    }

    /// Removes cache mounts with what they hold: those of these ids (all, if none are given), in this scope (in each, if
    /// none is given). Returns what was removed.
    ///
    /// # Errors
    /// [`Error::NoSuchCache`]; or a step uses one of them.
    pub fn remove_caches(
        &self,
        ids: Option<&[String]>,
        scope: Option<&str>,
    ) -> Result<Vec<CacheSummary>, Error> {
        let all = self.caches()?;
        let wanted = |cache: &CacheSummary| {
            ids.is_none_or(|ids| ids.contains(&cache.id)) && scope.is_none_or(|scope| cache.scope == scope)
        };
        for id in ids.unwrap_or_default() {
            if !all.iter().any(|cache| cache.id == *id && wanted(cache)) {
                return Err(Error::NoSuchCache { id: id.clone() });
            }
        }
        let gone: Vec<CacheSummary> = all.into_iter().filter(wanted).collect();
        for cache in &gone {
            self.caches.remove(&cache.id, Some(&scope_of(&cache.scope)))?;
        }
        Ok(gone)
    }
}

fn scope_name(scope: &CacheScope) -> String {
    match scope {
        CacheScope::Global => "global".to_owned(),
        CacheScope::Platform(platform) => platform.clone(),
    }
}

pub(super) fn scope_of(name: &str) -> CacheScope {
    if name == "global" { CacheScope::Global } else { CacheScope::Platform(name.to_owned()) }
}
