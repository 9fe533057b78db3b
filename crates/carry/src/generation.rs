//! Generations and pointers as OCI documents, and the tags they have.
//!
//! Nobody overwrites anybody: a generation has a tag that no other one has (`main.20261122T170102Z-1f3a9c`), and stands in
//! the pointer, an OCI index under the name itself (`main`). Registries do not know "write only if unchanged"; who
//! has written the pointer looks whether all generations with a tag of this name are in it, and writes it again if not.

use std::collections::BTreeSet;

use kiln_core::Digest;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::CarryError;

/// What a generation is.
pub const ARTIFACT_TYPE: &str = "application/vnd.kiln.cache.v1+json";
/// The layer with the index.
pub const INDEX_TYPE: &str = "application/vnd.kiln.cache.index.v1.jsonl+zstd";
/// A layer that is a pack.
pub const PACK_TYPE: &str = "application/vnd.kiln.cache.pack.v1+zstd";
/// An OCI manifest, which a generation is.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI index, which a pointer is.
pub const POINTER_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const TIME: &str = "dev.kiln.cache.time";
const PARENTS: &str = "dev.kiln.cache.parents";
const TAG: &str = "dev.kiln.cache.tag";

/// One finished export, as a pointer lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Of its manifest.
    pub digest: Digest,
    /// Bytes of its manifest.
    pub size: u64,
    /// When it was made, seconds since 1970; later than all its parents.
    pub time: i64,
    /// The tag that only it has.
    pub tag: String,
    /// Generations whose content it takes the place of.
    pub parents: BTreeSet<Digest>,
}

/// The generations of one name, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pointer {
    /// They.
    pub generations: Vec<Generation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    annotations: Annotations,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(rename = "dev.kiln.cache.time", default)]
    time: String,
    #[serde(rename = "dev.kiln.cache.parents", default)]
    parents: String,
    #[serde(rename = "dev.kiln.cache.tag", default)]
    tag: String,
}

impl Annotations {
    fn generation(&self, digest: Digest, size: u64) -> Generation {
        Generation {
            digest,
            size,
            time: self.time.parse().unwrap_or(0),
            tag: self.tag.clone(),
            parents: self.parents.split(',').filter_map(|parent| parent.parse().ok()).collect(),
        }
    }
}

impl Generation {
    fn annotations(&self) -> serde_json::Value {
        let parents: Vec<String> = self.parents.iter().map(Digest::to_string).collect();
        json!({ TIME: self.time.to_string(), PARENTS: parents.join(","), TAG: self.tag })
    }

    /// Makes the manifest of a generation of an index and packs, each with its size. The digest and the size of `self` do
    /// not count. Returns it with what it has for a configuration.
    pub fn manifest(&self, index: (Digest, u64), packs: &[(Digest, u64)]) -> (Vec<u8>, &'static [u8]) {
        let layer = |kind: &str, (digest, size): (Digest, u64)| json!({ "mediaType": kind, "digest": digest.to_string(), "size": size });
        let mut layers = vec![layer(INDEX_TYPE, index)];
        layers.extend(packs.iter().map(|pack| layer(PACK_TYPE, *pack)));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": layer(EMPTY_TYPE, (Digest::of(EMPTY), EMPTY.len() as u64)),
            "layers": layers,
            "annotations": self.annotations(),
        });
        (manifest.to_string().into_bytes(), EMPTY)
    }

    /// Reads a manifest; returns the generation with digest and size of its index.
    ///
    /// # Errors
    /// [`CarryError::Foreign`].
    pub fn read(manifest: &[u8]) -> Result<(Self, (Digest, u64)), CarryError> {
        let document = parse(manifest)?;
        if document.manifests.is_some() || document.artifact_type.as_deref() != Some(ARTIFACT_TYPE) {
            let kind = document.artifact_type.unwrap_or_else(|| "not said".to_owned());
            return Err(CarryError::Foreign { reason: format!("its artifact type is {kind}") });
        }
        let index = document.layers.iter().find(|layer| layer.media_type == INDEX_TYPE);
        let index = index.ok_or_else(|| CarryError::damaged("it has no index"))?;
        let generation = document.annotations.generation(Digest::of(manifest), manifest.len() as u64);
        Ok((generation, (index.digest, index.size)))
    }
}

/// The empty configuration that OCI gives artifacts.
const EMPTY: &[u8] = b"{}";

impl Pointer {
    /// Writes it as an OCI index.
    pub fn write(&self) -> Vec<u8> {
        let manifests = self.generations.iter().map(|generation| {
            json!({
                "mediaType": MANIFEST_TYPE,
                "digest": generation.digest.to_string(),
                "size": generation.size,
                "artifactType": ARTIFACT_TYPE,
                "annotations": generation.annotations(),
            })
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": POINTER_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "manifests": manifests.collect::<Vec<_>>(),
        });
        index.to_string().into_bytes()
    }

    /// Reads what a name stands for: a pointer, or a generation by itself.
    ///
    /// # Errors
    /// [`CarryError::Foreign`]: an image, say.
    pub fn read(document: &[u8]) -> Result<Self, CarryError> {
        let parsed = parse(document)?;
        let Some(manifests) = parsed.manifests else {
            return Ok(Self { generations: vec![Generation::read(document)?.0] });
        };
        let ours = |entry: &Descriptor| entry.artifact_type.as_deref() == Some(ARTIFACT_TYPE);
        if manifests.iter().any(|entry| !ours(entry))
            || parsed.artifact_type.as_deref() != Some(ARTIFACT_TYPE)
        {
            return Err(CarryError::Foreign { reason: "it is an index of something else".to_owned() });
        }
        let generations =
            manifests.iter().map(|entry| entry.annotations.generation(entry.digest, entry.size));
        let mut pointer = Self { generations: generations.collect() };
        pointer.sort();
        Ok(pointer)
    }

    /// Takes generations in that are not there yet.
    pub fn add(&mut self, others: impl IntoIterator<Item = Generation>) {
        for other in others {
            if !self.generations.iter().any(|known| known.digest == other.digest) {
                self.generations.push(other);
            }
        }
        self.sort();
    }

    /// Leaves `keep` generations and returns the others: first go those that a later one takes the place of, the oldest first.
    /// What nothing takes the place of (somebody wrote it at the same time) stays until there are `keep` newer.
    pub fn trim(&mut self, keep: usize) -> Vec<Generation> {
        let replaced: BTreeSet<Digest> =
            self.generations.iter().flat_map(|generation| generation.parents.clone()).collect();
        let mut gone = Vec::new();
        while self.generations.len() > keep.max(1) {
            let old = self.generations.iter().rposition(|generation| replaced.contains(&generation.digest));
            gone.push(self.generations.remove(old.unwrap_or(self.generations.len() - 1)));
        }
        gone
    }

    fn sort(&mut self) {
        self.generations.sort_by_key(|generation| std::cmp::Reverse((generation.time, generation.digest)));
    }
}

fn parse(document: &[u8]) -> Result<Document, CarryError> {
    serde_json::from_slice(document)
        .map_err(|error| CarryError::Foreign { reason: format!("it is no OCI document: {error}") })
}

/// Returns the tag of a generation of a name: `stamp` is its time as `20261122T170102Z`, `random` some letters.
pub fn generation_tag(name: &str, stamp: &str, random: &str) -> String {
    // A tag has 128 characters at most.
    let end = (0..=name.len().min(90)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    format!("{}.{stamp}-{random}", &name[..end])
}

/// Whether a tag is that of a generation of this name.
pub fn is_generation_of(tag: &str, name: &str) -> bool {
    let end = (0..=name.len().min(90)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    let rest = tag.strip_prefix(&name[..end]).and_then(|rest| rest.strip_prefix('.'));
    let Some((stamp, random)) = rest.and_then(|rest| rest.split_once('-')) else { return false };
    stamp.len() == 16
        && stamp.char_indices().all(|(at, c)| match at {
            8 => c == 'T',
            15 => c == 'Z',
            _ => c.is_ascii_digit(),
        })
        && !random.is_empty()
        && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
