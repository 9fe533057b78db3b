//! Looking after a store: images, caches, room.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use kiln_core::{CacheScope, Digest, ImageRef, IoResultExt as _, Layer, LayerId, Platform};
use kiln_oci::{Children, Document, LoadedImage};
use kiln_registry::RegistryConfig;
use kiln_store::cache_mount::CacheInfo;
use kiln_store::{Problem, PruneOptions, RecordKind, Usage};
use serde::{Deserialize, Serialize};

use super::Engine;
use crate::Error;
use crate::request::RegistryOptions;

/// One name of the local image store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSummary {
    /// The name.
    pub name: ImageRef,
    /// What it points to: a manifest or an index.
    pub digest: Digest,
    /// What it is for.
    pub platforms: Vec<Platform>,
    /// Bytes of its compressed layers, each counted once.
    pub size: u64,
    /// When the name was given, seconds since 1970.
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
    /// Paths in the store, and cache mounts by name.
    pub removed: Vec<String>,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Turns a request's registry options into the client's.
pub(super) fn registry_config(options: &RegistryOptions) -> RegistryConfig {
    RegistryConfig {
        mirrors: options.mirrors.clone(),
        insecure: options.insecure.clone(),
        ..RegistryConfig::default()
    }
}

impl Engine {
    /// Lists the local image store, newest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn images(&self) -> Result<Vec<ImageSummary>, Error> {
        let mut images = Vec::new();
        for tagged in self.store.images()? {
            let mut summary = ImageSummary {
                name: tagged.name,
                digest: tagged.digest,
                platforms: Vec::new(),
                size: 0,
                tagged: seconds(tagged.tagged),
            };
            for image in self.all_platforms(&tagged.digest)? {
                summary.size += image.layers.iter().map(|layer| layer.size).sum::<u64>();
                summary.platforms.push(image.image.platform());
            }
            images.push(summary);
        }
        images.sort_by(|a, b| (b.tagged, &a.name).cmp(&(a.tagged, &b.name)));
        Ok(images)
    }

    /// Takes a name away. What only it reached goes with the next prune.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`].
    pub fn remove_image(&self, name: &ImageRef) -> Result<(), Error> {
        if self.store.untag(name)? { Ok(()) } else { Err(Error::NoSuchImage { name: name.clone() }) }
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
        let mut report = PruneReport::default();
        let things = self.store.prune(&options)?;
        report.bytes = things.freed;
        report.removed.extend(things.removed.iter().map(|thing| thing.path.display().to_string()));
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
                report.removed.push(format!("cache mount {} ({})", cache.id, cache.scope));
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
