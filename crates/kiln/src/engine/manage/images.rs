//! The local image store: names and what they stand for.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use kiln_core::{Digest, ImageRef, IoResultExt as _, Platform};
use kiln_oci::{Children, Document, LoadedImage};
use kiln_store::RecordKind;
use serde::{Deserialize, Serialize};

use super::seconds;
use crate::Error;
use crate::engine::{Engine, ids};

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
        let digest = ids::digest_of(&self.store, name)?.ok_or_else(no_such)?;
        let mut removed = Vec::new();
        for tagged in self.store.images()?.into_iter().filter(|tagged| tagged.digest == digest) {
            self.store.untag(&tagged.name)?;
            removed.push(tagged.name);
        }
        let forgotten = self.forget(|root| root == digest)?;
        if removed.is_empty() && forgotten == 0 { Err(no_such()) } else { Ok(removed) }
    }

    /// Returns the images that no name means, with the time of their last use.
    pub(super) fn untagged(&self) -> Result<Vec<(Digest, SystemTime)>, Error> {
        let named: HashSet<Digest> = self.store.images()?.into_iter().map(|tagged| tagged.digest).collect();
        let mut used: HashMap<String, SystemTime> = HashMap::new();
        for info in self.store.list_records(RecordKind::Image)? {
            used.insert(info.key, info.used);
        }
        let mut found: HashMap<Digest, SystemTime> = HashMap::new();
        for (config, root) in ids::known(&self.store)? {
            if !named.contains(&root) {
                found.insert(root, used.get(&config).copied().unwrap_or(SystemTime::UNIX_EPOCH));
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Forgets images by id; returns how many ids went.
    pub(super) fn forget(&self, which: impl Fn(Digest) -> bool) -> Result<usize, Error> {
        let mut count = 0;
        for (config, root) in ids::known(&self.store)? {
            if which(root) && self.store.delete_record(RecordKind::Image, &config)? {
                count += 1;
            }
        }
        Ok(count)
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
