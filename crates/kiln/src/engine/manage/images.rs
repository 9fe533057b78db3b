//! What is in the local image store: names and what they stand for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::SystemTime;

use kiln_core::{Digest, ImageRef, Pattern, Platform};
use kiln_store::{RecordKind, Room};
use serde::{Deserialize, Serialize};

use super::seconds;
use super::stored::Stored;
use crate::Error;
use crate::engine::{Engine, ids};

/// Which images are listed, and what is said of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImagesRequest {
    /// Also images without a name.
    pub all: bool,
    /// Whether rooms are counted: that looks at every file of the images' layers.
    pub rooms: bool,
    /// Which of them.
    pub filter: ImageFilter,
}

/// What images must be to be meant. Each kind of condition has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageFilter {
    /// `dangling=`: only images without a name, or only those with one.
    pub dangling: Option<bool>,
    /// `reference=`: one of these patterns matches the name, with or without its tag. As in Go's `path.Match`.
    pub references: Vec<String>,
    /// `label=NAME` or `label=NAME=VALUE`: all of these.
    pub labels: Vec<(String, Option<String>)>,
    /// `before=`: made before this image.
    pub before: Option<ImageRef>,
    /// `since=`: made after this image.
    pub since: Option<ImageRef>,
}

/// One name of the local image store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSummary {
    /// The name; none if it was built without one, or another image has it now.
    pub name: Option<ImageRef>,
    /// What it points to: a manifest or an index.
    pub digest: Digest,
    /// Digest of the configuration: docker's image id. This machine's, of several platforms.
    pub config: Option<Digest>,
    /// What it is for, as far as it is here.
    pub platforms: Vec<Platform>,
    /// Platforms of the index that are not here.
    #[serde(default)]
    pub absent: Vec<Platform>,
    /// Room on disk, if that was asked for.
    pub room: Option<Room>,
    /// Bytes of its compressed layers, each counted once: what is sent.
    pub compressed: u64,
    /// When it was made, RFC 3339; this machine's, of several platforms.
    pub created: Option<String>,
    /// When the name was given, seconds since 1970; for an image without name, when it was made or last used.
    pub tagged: u64,
}

/// An image with what filters ask for.
struct Listed {
    summary: ImageSummary,
    labels: BTreeMap<String, String>,
}

impl Engine {
    /// Lists the local image store, newest first.
    ///
    /// # Errors
    /// The store cannot be read, a pattern is none, or an image that the filter names is not there.
    pub fn images(&self, request: &ImagesRequest) -> Result<Vec<ImageSummary>, Error> {
        let ImagesRequest { all, rooms, filter } = request;
        let patterns = filter.references.iter().map(|text| Pattern::new(text));
        let patterns = patterns.collect::<Result<Vec<_>, _>>().map_err(Error::Pattern)?;
        let before = filter.before.as_ref().map(|name| self.created(name)).transpose()?;
        let since = filter.since.as_ref().map(|name| self.created(name)).transpose()?;
        let mut listed = self.listed(*rooms)?;
        listed.retain(|Listed { summary, labels }| {
            let wanted = match filter.dangling {
                Some(dangling) => dangling == summary.name.is_none(),
                None => *all || summary.name.is_some(),
            };
            let matches = |(name, value): &(String, Option<String>)| {
                labels.get(name).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
            };
            wanted
                && (patterns.is_empty() || summary.name.as_ref().is_some_and(|name| any(&patterns, name)))
                && filter.labels.iter().all(matches)
                && before.as_ref().is_none_or(|time| summary.time() < *time)
                && since.as_ref().is_none_or(|time| summary.time() > *time)
        });
        let mut images: Vec<ImageSummary> = listed.into_iter().map(|listed| listed.summary).collect();
        images.sort_by(|a, b| (b.tagged, &a.name).cmp(&(a.tagged, &b.name)));
        Ok(images)
    }

    /// Returns all images, with and without a name; what a room shares is counted over all of them.
    fn listed(&self, rooms: bool) -> Result<Vec<Listed>, Error> {
        let mut found: Vec<(Option<ImageRef>, Digest, u64)> = Vec::new();
        for tagged in self.store.images()? {
            found.push((Some(tagged.name), tagged.digest, seconds(tagged.tagged)));
        }
        for (root, used) in self.untagged()? {
            found.push((None, root, seconds(used)));
        }
        let mut images: HashMap<Digest, Option<Stored>> = HashMap::new();
        for (_, digest, _) in &found {
            if !images.contains_key(digest) {
                images.insert(*digest, Stored::read(&self.store, digest)?);
            }
        }
        let images: HashMap<Digest, Stored> =
            images.into_iter().filter_map(|(digest, stored)| Some((digest, stored?))).collect();
        let rooms = if rooms { self.rooms(&images)? } else { HashMap::new() };
        // What went while we looked is not listed.
        let listed = found.into_iter().filter_map(|(name, digest, tagged)| {
            let stored = images.get(&digest)?;
            let usual = stored.usual();
            let summary = ImageSummary {
                name,
                digest,
                config: usual.map(|image| image.config.digest),
                platforms: stored.images.iter().map(|image| image.image.platform()).collect(),
                absent: stored.absent.clone(),
                room: rooms.get(&digest).copied(),
                compressed: stored.compressed(),
                created: usual.and_then(|image| image.image.created.clone()),
                tagged,
            };
            let labels = usual.map(|image| image.image.config.labels.clone()).unwrap_or_default();
            Some(Listed { summary, labels })
        });
        Ok(listed.collect())
    }

    /// Counts the room of images, each once however many names it has.
    pub(super) fn rooms(&self, images: &HashMap<Digest, Stored>) -> Result<HashMap<Digest, Room>, Error> {
        let order: Vec<&Digest> = images.keys().collect();
        let parts = order.iter().map(|digest| images[*digest].parts(&self.store));
        let parts = parts.collect::<Result<Vec<_>, Error>>()?;
        let rooms = self.store.room_of(&parts)?;
        Ok(order.into_iter().copied().zip(rooms).collect())
    }

    /// Returns when an image was made.
    fn created(&self, name: &ImageRef) -> Result<i64, Error> {
        let (digest, stored) = self.stored(name)?;
        let created = stored.usual().and_then(|image| image.image.created.clone());
        let tagged = self.store.images()?.into_iter().find(|tagged| tagged.digest == digest);
        Ok(time(created.as_deref(), tagged.map_or(0, |tagged| seconds(tagged.tagged))))
    }

    /// Finds an image of the local image store by a name or an id.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::AmbiguousId`].
    pub(super) fn stored(&self, name: &ImageRef) -> Result<(Digest, Stored), Error> {
        let no_such = || Error::NoSuchImage { name: name.clone() };
        let digest = ids::digest_of(&self.store, &ids::full(&self.store, name)?)?.ok_or_else(no_such)?;
        Ok((digest, Stored::read(&self.store, &digest)?.ok_or_else(no_such)?))
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
                let used = used.get(&config).copied().unwrap_or(SystemTime::UNIX_EPOCH);
                let latest = found.entry(root).or_insert(used);
                *latest = used.max(*latest);
            }
        }
        Ok(found.into_iter().collect())
    }
}

impl ImageSummary {
    /// When it was made, seconds since 1970; when it was named, if it does not say.
    fn time(&self) -> i64 {
        time(self.created.as_deref(), self.tagged)
    }
}

fn time(created: Option<&str>, otherwise: u64) -> i64 {
    let created = created.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    created.map_or_else(|| i64::try_from(otherwise).unwrap_or(i64::MAX), jiff::Timestamp::as_second)
}

/// As docker: the pattern is for the name as people write it, with or without the tag, or for the whole one.
fn any(patterns: &[Pattern], name: &ImageRef) -> bool {
    let familiar = name.familiar();
    let without = |text: &str| {
        let end = name.tag.as_ref().map_or(text.len(), |tag| text.len() - tag.len() - 1);
        text[..end].to_owned()
    };
    let full = name.to_string();
    let texts = [without(&familiar), without(&full), familiar, full];
    patterns.iter().any(|pattern| texts.iter().any(|text| pattern.matches(text)))
}
