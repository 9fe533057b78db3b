//! Cache mounts: what there is, what it was worth, and taking it away.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use kiln_core::{Cancel, Pattern, Platform};
use kiln_runtime::Isolation;
use kiln_store::cache_mount::{
    CacheFigures, CacheHold, CacheInfo, CacheMounts, CacheName, CachePart, CachePlace, HoldAs,
};
use serde::{Deserialize, Serialize};

use super::seconds;
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
    /// Whether that is a directory of the user's, which `--cache-mount` or the configuration named.
    pub placed: bool,
    /// Whether the directory is not there: somebody has deleted it, or the store is from another machine.
    pub missing: bool,
    /// Bytes on disk, when it was last counted.
    pub size: u64,
    /// Files, when it was last counted.
    pub files: u64,
    /// Whether no step has used it since.
    pub counted: bool,
    /// Seconds since 1970: when it was counted; 0 if never.
    pub counted_at: u64,
    /// Seconds since 1970.
    pub created: u64,
    /// Seconds since 1970.
    pub last_used: u64,
    /// Which process, step and build that was.
    pub last_user: String,
    /// Where steps saw it.
    pub targets: Vec<String>,
    /// What it was worth.
    pub figures: CacheFigures,
    /// Who holds it now.
    pub held_by: Option<String>,
}

/// Which cache mounts are meant: those that all of this is true of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheFilter {
    /// One of these patterns matches the id, all of it: `*`, `?` and `[...]` match any character, `/` too.
    pub ids: Vec<String>,
    /// One of these patterns matches the scope.
    pub scopes: Vec<String>,
    /// No step used it for so many seconds.
    pub unused_for: Option<u64>,
    /// It is in a directory of the user's, or it is not.
    pub placed: Option<bool>,
    /// Somebody holds it now, or nobody.
    pub held: Option<bool>,
}

/// Which cache mounts go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CachePruneRequest {
    /// Of these.
    pub filter: CacheFilter,
    /// Only until all caches in the store together take no more bytes than that, least recently used first.
    pub keep_bytes: Option<u64>,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachePruneReport {
    /// The caches, in the order of going.
    pub removed: Vec<CacheSummary>,
    /// Those that would have gone if nobody held them, and no running build had used them.
    pub held: Vec<CacheSummary>,
    /// Bytes on disk that became free.
    pub bytes: u64,
}

impl Engine {
    /// Keeps these cache mounts in directories of the user's: for runs, looks at steps, and what is asked about caches. A
    /// build says it in its request.
    ///
    /// # Errors
    /// [`CacheError::Place`](kiln_store::cache_mount::CacheError): a directory cannot be a cache.
    pub fn cache_places(mut self, places: &[CachePlace]) -> Result<Self, Error> {
        if self.entered.isolation() == Isolation::Chroot {
            // Refused where one of them is wanted, not before: a configuration file is there for all commands.
            self.out_of_reach = places.to_vec();
        } else {
            self.caches = self.placing(places)?;
        }
        Ok(self)
    }

    /// Waits so many seconds for who holds a cache, or fetches the same, and then gives up; as long as it takes if none. A build
    /// says it in its request.
    #[must_use]
    pub fn lock_timeout(mut self, seconds: Option<u64>) -> Self {
        self.caches = self.caches.patient(seconds.map(Duration::from_secs));
        self
    }

    pub(in crate::engine) fn placing(&self, places: &[CachePlace]) -> Result<CacheMounts, Error> {
        if places.is_empty() {
            return Ok(self.caches.clone());
        }
        Ok(self.caches.clone().placed(places, &Platform::host().to_string())?)
    }

    /// Lists cache mounts, by scope and id. Sizes are as they were last counted: nothing is walked.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn caches(&self) -> Result<Vec<CacheSummary>, Error> {
        Ok(self.caches.list()?.into_iter().map(summary).collect())
    }

    /// Lists those that a filter lets through.
    ///
    /// # Errors
    /// As above; a pattern is none.
    pub fn caches_like(&self, filter: &CacheFilter) -> Result<Vec<CacheSummary>, Error> {
        let matcher = Matcher::new(filter)?;
        Ok(self.caches()?.into_iter().filter(|cache| matcher.matches(cache)).collect())
    }

    /// Counts all caches that steps have used since they were counted, on all processors.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn count_caches(&self) -> Result<(), Error> {
        Ok(self.caches.refresh_sizes()?)
    }

    /// Finds a cache mount: the one of this id, in this scope if it is in several. Of one that is placed by the configuration
    /// and is also in the store, the one that builds use now.
    ///
    /// # Errors
    /// [`Error::NoSuchCache`], [`Error::SeveralCaches`].
    pub fn cache(&self, id: &str, scope: Option<&str>) -> Result<CacheSummary, Error> {
        let fits = |cache: &CacheInfo| {
            cache.id == id && scope.is_none_or(|scope| cache.name().scope_text() == scope)
        };
        let found: Vec<CacheInfo> = self.caches.list()?.into_iter().filter(fits).collect();
        let mut names: Vec<CacheName> = found.iter().map(CacheInfo::name).collect();
        names.dedup();
        match &names[..] {
            [] => Err(Error::NoSuchCache { id: id.to_owned() }),
            [name] => {
                let now = self.caches.find(name)?;
                let cache = now.or_else(|| found.into_iter().next());
                cache.map(summary).ok_or_else(|| Error::NoSuchCache { id: id.to_owned() })
            }
            several => {
                let scopes = several.iter().map(|name| name.scope_text().to_owned()).collect();
                Err(Error::SeveralCaches { id: id.to_owned(), scopes })
            }
        }
    }

    /// Says what is in a cache, by what lies in its directory, largest first. It is walked.
    ///
    /// # Errors
    /// Its directory cannot be read.
    pub fn cache_parts(&self, cache: &CacheSummary) -> Result<Vec<CachePart>, Error> {
        Ok(CacheMounts::parts(&cache.path)?)
    }

    /// Holds a cache, so that no step uses it until the returned value is dropped. `who` is what they see who wait; `on_wait` is
    /// told for whom this waits.
    ///
    /// # Errors
    /// It is gone; the wait was interrupted.
    pub fn hold_cache(
        &self,
        cache: &CacheSummary,
        who: &str,
        on_wait: &mut dyn FnMut(&str),
        cancel: &Cancel,
    ) -> Result<CacheHold, Error> {
        let name = CacheName { id: cache.id.clone(), scope: CacheName::scope_from(&cache.scope) };
        Ok(self.caches.hold(&name, HoldAs::Read, who, on_wait, cancel)?)
    }

    /// Removes cache mounts with what they hold: those of these ids (all, if none are given), in this scope (in each, if
    /// none is given). Of those in directories of the user's goes what kiln knows of them; the files stay. Returns what was
    /// removed.
    ///
    /// # Errors
    /// [`Error::NoSuchCache`]; or a step uses one of them.
    pub fn remove_caches(
        &self,
        ids: Option<&[String]>,
        scope: Option<&str>,
    ) -> Result<Vec<CacheSummary>, Error> {
        let all = self.caches.list()?;
        let wanted = |cache: &CacheInfo| {
            ids.is_none_or(|ids| ids.contains(&cache.id))
                && scope.is_none_or(|scope| cache.name().scope_text() == scope)
        };
        for id in ids.unwrap_or_default() {
            if !all.iter().any(|cache| cache.id == *id && wanted(cache)) {
                return Err(Error::NoSuchCache { id: id.clone() });
            }
        }
        let gone: Vec<CacheInfo> = all.into_iter().filter(wanted).collect();
        for cache in &gone {
            self.caches.remove_found(cache)?;
        }
        Ok(gone.into_iter().map(summary).collect())
    }

    /// Removes cache mounts that nobody holds and that no running build has used, least recently used first. Those in directories of the user's are left alone,
    /// unless the filter asks for them: then kiln forgets them, and the files stay.
    ///
    /// # Errors
    /// A pattern is none, or something cannot be removed. What went before is gone.
    pub fn prune_caches(&self, request: &CachePruneRequest) -> Result<CachePruneReport, Error> {
        let matcher = Matcher::new(&request.filter)?;
        if request.keep_bytes.is_some() {
            self.caches.refresh_sizes()?;
        }
        // Between two steps a running build holds none of its caches.
        let in_use = self.store.cutoff()?.map(seconds);
        let mut all = self.caches.list()?;
        all.sort_by_key(|cache| cache.last_used);
        let mut total: u64 = all.iter().filter(|cache| !cache.placed).map(|cache| cache.size).sum();
        let mut report = CachePruneReport::default();
        for cache in all {
            if request.keep_bytes.is_some_and(|keep| total <= keep) {
                break;
            }
            let shown = summary(cache.clone());
            if !matcher.matches(&shown) || (cache.placed && request.filter.placed != Some(true)) {
                continue;
            }
            if shown.held_by.is_some() || in_use.is_some_and(|since| shown.last_used >= since) {
                report.held.push(shown);
                continue;
            }
            if !request.dry_run {
                match self.caches.remove_found(&cache) {
                    // Somebody took it, or removed it, just now.
                    Err(kiln_store::cache_mount::CacheError::Held { .. }) => {
                        report.held.push(shown);
                        continue;
                    }
                    Ok(false) => continue,
                    removed => drop(removed?),
                }
            }
            if !cache.placed {
                total -= cache.size;
                report.bytes += cache.size;
            }
            report.removed.push(shown);
        }
        Ok(report)
    }
}

/// A filter whose patterns are read.
struct Matcher<'a> {
    filter: &'a CacheFilter,
    ids: Vec<Pattern>,
    scopes: Vec<Pattern>,
    now: u64,
}

impl<'a> Matcher<'a> {
    fn new(filter: &'a CacheFilter) -> Result<Self, Error> {
        let read = |texts: &[String]| {
            let patterns = texts.iter().map(|text| Pattern::new(&flat(text)));
            patterns.collect::<Result<Vec<_>, _>>().map_err(Error::Pattern)
        };
        Ok(Self {
            filter,
            ids: read(&filter.ids)?,
            scopes: read(&filter.scopes)?,
            now: seconds(SystemTime::now()),
        })
    }

    fn matches(&self, cache: &CacheSummary) -> bool {
        let any = |patterns: &[Pattern], text: &str| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(&flat(text)))
        };
        let CacheFilter { unused_for, placed, held, .. } = self.filter;
        any(&self.ids, &cache.id)
            && any(&self.scopes, &cache.scope)
            && unused_for.is_none_or(|age| self.now.saturating_sub(cache.last_used) >= age)
            && placed.is_none_or(|placed| placed == cache.placed)
            && held.is_none_or(|held| held == cache.held_by.is_some())
    }
}

/// An id is no path, though it may look like one: a wildcard shall not stop at `/`.
fn flat(text: &str) -> String {
    text.replace('/', "\u{1}")
}

fn summary(cache: CacheInfo) -> CacheSummary {
    let time = |seconds: i64| u64::try_from(seconds).unwrap_or(0);
    CacheSummary {
        scope: cache.name().scope_text().to_owned(),
        id: cache.id,
        missing: !cache.path.is_dir(),
        path: cache.path,
        placed: cache.placed,
        size: cache.size,
        files: cache.files,
        counted: cache.counted,
        counted_at: time(cache.counted_at),
        created: time(cache.created),
        last_used: time(cache.last_used),
        last_user: cache.last_step,
        targets: cache.targets,
        figures: cache.figures,
        held_by: (!cache.held_by.is_empty()).then(|| cache.held_by.join(", ")),
    }
}
