//! Taking images away: by name, by id, all that have no name.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, SystemTime};

use kiln_core::{Digest, ImageRef};
use kiln_store::{PruneOptions, RecordKind};
use serde::{Deserialize, Serialize};

use super::stored::Stored;
use crate::Error;
use crate::engine::{Engine, ids};

/// What became of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedImage {
    /// What it was: a manifest or an index.
    pub digest: Digest,
    /// Names that were taken away.
    pub untagged: Vec<ImageRef>,
    /// Whether no name is left, so that it is gone.
    pub deleted: bool,
}

/// Which images go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImagePruneRequest {
    /// Also those with a name.
    pub all: bool,
    /// Only those that were neither used nor named for so many seconds.
    pub unused_for: Option<u64>,
    /// Only those with all of these labels.
    pub labels: Vec<(String, Option<String>)>,
}

/// What went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagePruneReport {
    /// The images.
    pub removed: Vec<RemovedImage>,
    /// Bytes on disk that became free.
    pub bytes: u64,
}

impl Engine {
    /// Takes a name away; or, given an id, the name of that image, or with `force` all of them. An image without a name
    /// goes, with those of its blobs that nothing else needs; what builds could still use is `kiln prune`'s.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::AmbiguousId`], [`Error::SeveralNames`].
    pub fn remove_image(&self, name: &ImageRef, force: bool) -> Result<RemovedImage, Error> {
        let no_such = || Error::NoSuchImage { name: name.clone() };
        let by_name = match &name.tag {
            Some(_) => self.store.image(name)?,
            None => None,
        };
        let (digest, names) = match by_name {
            Some(tagged) if name.digest.is_none_or(|digest| digest == tagged.digest) => {
                (tagged.digest, vec![tagged.name])
            }
            _ => {
                let digest = ids::digest_of(&self.store, name)?.ok_or_else(no_such)?;
                let here = |found: &ImageRef| {
                    name.digest.is_none()
                        || ids::is_id(name)
                        || (&found.registry, &found.repository) == (&name.registry, &name.repository)
                };
                let all = self.store.images()?.into_iter().filter(|tagged| tagged.digest == digest);
                let names: Vec<ImageRef> = all.map(|tagged| tagged.name).filter(here).collect();
                if names.len() > 1 && !force {
                    return Err(Error::SeveralNames { name: name.clone(), names });
                }
                (digest, names)
            }
        };
        let found = Stored::read(&self.store, &digest)?;
        let known = ids::known(&self.store)?.iter().any(|(_, root)| *root == digest);
        let mut removed = RemovedImage { digest, untagged: Vec::new(), deleted: false };
        for name in names {
            // Who gave it to another image meanwhile keeps it.
            if self.store.untag_if(&name, &digest)? {
                removed.untagged.push(name);
            }
        }
        removed.deleted = !self.is_named(&digest)?;
        if removed.untagged.is_empty() && !(known && removed.deleted) {
            return Err(no_such());
        }
        if removed.deleted {
            self.forget(&HashSet::from([digest]))?;
            self.sweep(found.iter())?;
        }
        Ok(removed)
    }

    /// Removes images that have no name, and what only they need; and with `all`, those with one.
    ///
    /// # Errors
    /// Something cannot be looked at or removed. What went before is gone.
    pub fn prune_images(&self, request: &ImagePruneRequest) -> Result<ImagePruneReport, Error> {
        let mut used: HashMap<Digest, SystemTime> = self.untagged()?.into_iter().collect();
        let mut names: HashMap<Digest, Vec<ImageRef>> = HashMap::new();
        if request.all {
            for tagged in self.store.images()? {
                let latest = used.entry(tagged.digest).or_insert(tagged.tagged);
                *latest = tagged.tagged.max(*latest);
                names.entry(tagged.digest).or_default().push(tagged.name);
            }
        }
        let oldest =
            request.unused_for.and_then(|age| SystemTime::now().checked_sub(Duration::from_secs(age)));
        let mut found = Vec::new();
        for (digest, used) in used {
            let Some(stored) = Stored::read(&self.store, &digest)? else { continue };
            // Its blob's time is that of the last build or run that began with it.
            let blob = std::fs::metadata(self.store.blob_path(&digest)).and_then(|found| found.modified());
            let used = blob.map_or(used, |time| time.max(used));
            let labels = stored.usual().map(|image| image.image.config.labels.clone()).unwrap_or_default();
            let matches = |(name, value): &(String, Option<String>)| {
                labels.get(name).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
            };
            if oldest.is_none_or(|oldest| used < oldest) && request.labels.iter().all(matches) {
                found.push((digest, stored));
            }
        }
        found.sort_by_key(|(digest, _)| *digest);
        let mut report = ImagePruneReport::default();
        for (digest, _) in &found {
            let mut removed = RemovedImage { digest: *digest, untagged: Vec::new(), deleted: true };
            for name in names.remove(digest).unwrap_or_default() {
                if self.store.untag_if(&name, digest)? {
                    removed.untagged.push(name);
                }
            }
            removed.deleted = !self.is_named(digest)?;
            report.removed.push(removed);
        }
        let gone =
            report.removed.iter().filter(|removed| removed.deleted).map(|removed| removed.digest).collect();
        self.forget(&gone)?;
        report.bytes = self.sweep(found.iter().map(|(_, stored)| stored))?;
        Ok(report)
    }

    fn is_named(&self, digest: &Digest) -> Result<bool, Error> {
        Ok(self.store.images()?.iter().any(|tagged| tagged.digest == *digest))
    }

    /// Takes away the blobs of images that nothing needs any more, beside running builds. Returns how many bytes became free.
    fn sweep<'a>(&self, images: impl Iterator<Item = &'a Stored>) -> Result<u64, Error> {
        let blobs: BTreeSet<Digest> = images.flat_map(|stored| stored.blobs.keys().copied()).collect();
        let options = PruneOptions { only: Some(blobs), ..PruneOptions::default() };
        Ok(self.store.prune(&options)?.freed)
    }

    /// Forgets images by id.
    pub(in crate::engine) fn forget(&self, gone: &HashSet<Digest>) -> Result<(), Error> {
        for (config, root) in ids::known(&self.store)? {
            if gone.contains(&root) {
                self.store.delete_record(RecordKind::Image, &config)?;
            }
        }
        Ok(())
    }
}
