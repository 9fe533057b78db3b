//! Looking after a store: images, caches, room.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use kiln_core::{CacheScope, Digest, ImageRef, IoResultExt as _, Layer, LayerId, Platform};
use kiln_oci::{Children, Document, LoadedImage};
use kiln_registry::RegistryConfig;
use kiln_store::cache_mount::CacheInfo;
use kiln_store::{Problem, PruneOptions, RecordKind, ThingKind, Usage};
use serde::{Deserialize, Serialize};

use super::Engine;
use crate::Error;
use crate::request::RegistryOptions;

/// One name of the local image store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSummary {
    /// The name; none if it was built without one, or another image has it now.
    pub name: Option<ImageRef>,
    /// What it points to: a manifest or an index.
    pub digest: Digest,
    /// What it is for.
    pub platforms: Vec<Platform>,
    /// Bytes of its compressed layers, each counted once.
    pub size: u64,
    /// When the name was given, seconds since 1970; for an image without name, when it was made or last used.
    pub tagged: u64,
}

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

/// What to prune.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneRequest {
    /// Also what no image needs but builds would still hit.
    pub all: bool,
    /// Also cache mounts.
    pub cache_mounts: bool,
    /// Only what was not used for so many seconds.
    pub unused_for: Option<u64>,
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

/// Turns a request's registry options into the client's.
pub(super) fn registry_config(options: &RegistryOptions) -> RegistryConfig {
    RegistryConfig {
        mirrors: options.mirrors.clone(),
        insecure: options.insecure.clone(),
        auth_file: options.auth_file.clone(),
        user_agent: options.user_agent.clone(),
        ..RegistryConfig::default()
    }
}

impl Engine {
    /// Lists the local image store, newest first: names, and with `all` also images without one.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn images(&self, all: bool) -> Result<Vec<ImageSummary>, Error> {
        let mut found: Vec<(Option<ImageRef>, Digest, u64)> = Vec::new();
        for tagged in self.store.images()? {
            found.push((Some(tagged.name), tagged.digest, seconds(tagged.tagged)));
        }
        if all {
            for (root, used) in self.untagged()? {
                found.push((None, root, seconds(used)));
            }
        }
        let mut images = Vec::new();
        for (name, digest, tagged) in found {
            let mut summary = ImageSummary { name, digest, platforms: Vec::new(), size: 0, tagged };
            let mut counted = HashSet::new();
            for image in self.all_platforms(&digest)? {
                let new = image.layers.iter().filter(|layer| counted.insert(layer.digest));
                summary.size += new.map(|layer| layer.size).sum::<u64>();
                summary.platforms.push(image.image.platform());
            }
            images.push(summary);
        }
        images.sort_by(|a, b| (b.tagged, &a.name).cmp(&(a.tagged, &b.name)));
        Ok(images)
    }

    /// Takes a name away; or, given an id, all names of that image. What only they reached goes with the next prune.
    /// Returns the names.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`].
    pub fn remove_image(&self, name: &ImageRef) -> Result<Vec<ImageRef>, Error> {
        if name.tag.is_some() && self.store.untag(name)? {
            return Ok(vec![name.clone()]);
        }
        let no_such = || Error::NoSuchImage { name: name.clone() };
        let digest = super::ids::digest_of(&self.store, name)?.ok_or_else(no_such)?;
        let mut removed = Vec::new();
        for tagged in self.store.images()?.into_iter().filter(|tagged| tagged.digest == digest) {
            self.store.untag(&tagged.name)?;
            removed.push(tagged.name);
        }
        let forgotten = self.forget(|root| root == digest)?;
        if removed.is_empty() && forgotten == 0 { Err(no_such()) } else { Ok(removed) }
    }

    /// Returns the images that no name means, with the time of their last use.
    fn untagged(&self) -> Result<Vec<(Digest, SystemTime)>, Error> {
        let named: HashSet<Digest> = self.store.images()?.into_iter().map(|tagged| tagged.digest).collect();
        let mut used: HashMap<String, SystemTime> = HashMap::new();
        for info in self.store.list_records(RecordKind::Image)? {
            used.insert(info.key, info.used);
        }
        let mut found: HashMap<Digest, SystemTime> = HashMap::new();
        for (config, root) in super::ids::known(&self.store)? {
            if !named.contains(&root) {
                found.insert(root, used.get(&config).copied().unwrap_or(SystemTime::UNIX_EPOCH));
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Forgets images by id; returns how many ids went.
    fn forget(&self, which: impl Fn(Digest) -> bool) -> Result<usize, Error> {
        let mut count = 0;
        for (config, root) in super::ids::known(&self.store)? {
            if which(root) && self.store.delete_record(RecordKind::Image, &config)? {
                count += 1;
            }
        }
        Ok(count)
    }

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

    /// Looks at everything in the store; returns what is not as it must be.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn fsck(&self) -> Result<Vec<Problem>, Error> {
        Ok(self.store.fsck()?)
    }

    /// Counts what the store holds.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn usage(&self) -> Result<Usage, Error> {
        Ok(self.store.usage()?)
    }

    /// Removes what no image needs, beside running builds; and cache mounts, if asked to.
    ///
    /// # Errors
    /// Something cannot be looked at or removed. What went before is gone.
    pub fn prune(&self, request: &PruneRequest) -> Result<PruneReport, Error> {
        let options = PruneOptions {
            all: request.all,
            until: request.unused_for.map(Duration::from_secs),
            keep_bytes: None,
            dry_run: request.dry_run,
        };
        if !request.dry_run {
            // As docker has it, an image without a name is nobody's.
            let oldest =
                request.unused_for.and_then(|age| SystemTime::now().checked_sub(Duration::from_secs(age)));
            let gone: HashSet<Digest> = self
                .untagged()?
                .into_iter()
                .filter(|(_, used)| oldest.is_none_or(|oldest| *used < oldest))
                .map(|(root, _)| root)
                .collect();
            self.forget(|root| gone.contains(&root))?;
        }
        let things = self.store.prune(&options)?;
        let mut report = PruneReport { removed: Vec::new(), bytes: things.freed };
        for thing in things.removed {
            let name = thing.path.display().to_string();
            report.removed.push(PrunedThing { kind: thing.kind.into(), name, bytes: thing.bytes });
        }
        if request.cache_mounts {
            let now = seconds(SystemTime::now());
            for cache in self.caches()? {
                let idle = now.saturating_sub(cache.last_used);
                if cache.held_by.is_some() || request.unused_for.is_some_and(|age| idle < age) {
                    continue;
                }
                if !request.dry_run {
                    self.caches.remove(&cache.id, Some(&scope_of(&cache.scope)))?;
                }
                report.bytes += cache.size;
                let name = format!("{} ({})", cache.id, cache.scope);
                report.removed.push(PrunedThing { kind: PrunedKind::CacheMount, name, bytes: cache.size });
            }
        }
        Ok(report)
    }

    /// Notes which directories packed layers were made of, so that a build or run from the packed image finds them.
    pub(super) fn remember_layers(&self, packed: &HashMap<LayerId, Layer>) -> Result<(), Error> {
        for (made, layer) in packed {
            let key = layer.diff_id.hex();
            if self.store.get_record::<LayerId>(RecordKind::Base, &key)?.as_ref() != Some(made) {
                self.store.put_record(RecordKind::Base, &key, made)?;
            }
        }
        Ok(())
    }

    /// Loads the images that a name's digest stands for.
    fn all_platforms(&self, digest: &Digest) -> Result<Vec<LoadedImage>, Error> {
        let read = |digest: &Digest| -> Result<Vec<u8>, Error> {
            let path = self.store.blob_path(digest);
            Ok(std::fs::read(&path).at("read", path)?)
        };
        let root = Document::new("", read(digest)?);
        let platforms: Vec<Platform> = match kiln_oci::children(&root)? {
            Children::Manifest { .. } => vec![Platform::host()],
            Children::Index(entries) => entries.into_iter().filter_map(|(_, platform)| platform).collect(),
        };
        platforms
            .iter()
            .map(|platform| kiln_oci::load(root.clone(), platform, &mut |info| read(&info.digest)))
            .collect()
    }
}

fn scope_name(scope: &CacheScope) -> String {
    match scope {
        CacheScope::Global => "global".to_owned(),
        CacheScope::Platform(platform) => platform.clone(),
    }
}

fn scope_of(name: &str) -> CacheScope {
    if name == "global" { CacheScope::Global } else { CacheScope::Platform(name.to_owned()) }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
