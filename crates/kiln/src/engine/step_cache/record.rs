//! What a record of a step looks like on its way: an OCI manifest whose layers are the step's, and what kiln knows of it in an
//! annotation. docs/remote-cache.md describes it.

use std::collections::BTreeMap;

use kiln_core::{Digest, Layer};
use kiln_oci::{BlobInfo, Document, media};
use kiln_solver::KeyParts;
use serde::{Deserialize, Serialize};

use crate::engine::explain::SharedLine;

/// What a record is, as an artifact.
pub(super) const STEP: &str = "application/vnd.kiln.step.v1+json";
/// The annotation with [`Facts`].
const FACTS: &str = "vnd.kiln.step";
/// Layers that overlay can take, and so the most that a record can mean.
const MOST_LAYERS: usize = 1000;
/// OCI's configuration of an artifact that has none: <https://github.com/opencontainers/image-spec/blob/main/manifest.md>.
pub(super) const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
pub(super) const EMPTY: &[u8] = b"{}";

/// What is known of one execution of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// 1. A reader passes over others.
    pub(super) version: u32,
    /// The step's content key.
    pub(super) key: Digest,
    /// Definition keys that stood for it, over layers named by diff id.
    #[serde(default)]
    pub(super) definitions: Vec<Digest>,
    /// For people who look into a repository. Never shown by kiln.
    pub(super) title: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    /// How long it ran, microseconds.
    pub(super) duration_us: u64,
    /// Of each layer above the base: its diff id, and how it was packed.
    pub(super) layers: Vec<Packing>,
    /// What the key was made of; values of variables by their digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parts: Option<KeyParts>,
    /// What the Dockerfile says there. Only to explain why another step is not this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<SharedLine>,
}

/// As much of [`Facts`] as stays the same.
#[derive(Deserialize)]
struct Version {
    version: u64,
}

/// Says of what another kiln wrote that it cannot be read.
pub(super) fn newer(version: u64) -> String {
    format!("it is of version {version}, which a newer kiln writes; this one reads version 1")
}

/// A layer's tar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Packing {
    /// Its digest.
    pub(super) diff_id: Digest,
    /// All that decides the bytes of the blob besides the tar.
    pub(super) packing: String,
}

/// A layer that a record names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StepLayer {
    pub(super) layer: Layer,
    pub(super) packing: String,
}

/// A record, read or to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) facts: Facts,
    /// Those above the base, lowest first.
    pub(super) layers: Vec<StepLayer>,
    /// Its bytes; none of one that stands in an image's configuration.
    pub(super) manifest: Option<Document>,
    /// What times of files in the layers were clamped to.
    pub(super) epoch: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) schema_version: u32,
    pub(super) media_type: String,
    pub(super) artifact_type: String,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// The bytes themselves, as the specification of descriptors allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<String>,
    /// What an image says of such a layer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

impl Entry {
    /// Makes the document. Equal arguments give equal bytes.
    pub(super) fn new(facts: Facts, layers: Vec<StepLayer>) -> Self {
        let descriptor = |layer: &StepLayer| {
            let Layer { media_type, digest, size, annotations, .. } = &layer.layer;
            let annotations = annotations.clone();
            Descriptor { annotations, ..Descriptor::plain(media_type, *digest, *size) }
        };
        let mut blobs: Vec<Descriptor> = layers.iter().map(descriptor).collect();
        if blobs.is_empty() {
            // A manifest has at least one.
            blobs.push(Descriptor::plain(EMPTY_TYPE, Digest::of(EMPTY), EMPTY.len() as u64));
        }
        let text = serde_json::to_string(&facts).unwrap_or_default();
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::OCI_MANIFEST.to_owned(),
            artifact_type: STEP.to_owned(),
            config: Descriptor::plain(EMPTY_TYPE, Digest::of(EMPTY), EMPTY.len() as u64),
            layers: blobs,
            annotations: [(FACTS.to_owned(), text)].into(),
        };
        let bytes = serde_json::to_vec(&manifest).unwrap_or_default();
        Self { facts, layers, manifest: Some(Document::new(media::OCI_MANIFEST, bytes)), epoch: None }
    }

    /// Reads a document that came from elsewhere.
    ///
    /// # Errors
    /// It is no record, or one that cannot be right: why.
    pub(super) fn read(document: Document) -> Result<Self, String> {
        let manifest: Manifest =
            serde_json::from_slice(&document.bytes).map_err(|error| format!("it is no record: {error}"))?;
        if manifest.artifact_type != STEP {
            return Err(format!("it is no record, but {:?}", manifest.artifact_type));
        }
        let facts = manifest.annotations.get(FACTS).ok_or("it says nothing of a step")?;
        // Before the rest, which a newer one may say in other words.
        let Version { version } =
            serde_json::from_str(facts).map_err(|error| format!("what it says of a step: {error}"))?;
        if version != 1 {
            return Err(newer(version));
        }
        let facts: Facts =
            serde_json::from_str(facts).map_err(|error| format!("what it says of a step: {error}"))?;
        let blobs: Vec<&Descriptor> =
            manifest.layers.iter().filter(|blob| blob.media_type != EMPTY_TYPE).collect();
        if blobs.len() != facts.layers.len() || blobs.len() > MOST_LAYERS {
            return Err(format!("it has {} layers, and speaks of {}", blobs.len(), facts.layers.len()));
        }
        let mut layers = Vec::new();
        for (blob, Packing { diff_id, packing }) in blobs.into_iter().zip(&facts.layers) {
            if media::layer_compression(&blob.media_type).is_none() {
                return Err(format!("a layer is {:?}", blob.media_type));
            }
            let (media_type, annotations) = (blob.media_type.clone(), blob.annotations.clone());
            let (digest, size, diff_id) = (blob.digest, blob.size, *diff_id);
            let layer = Layer { media_type, digest, size, diff_id, annotations };
            layers.push(StepLayer { layer, packing: packing.clone() });
        }
        Ok(Self { facts, layers, manifest: Some(document), epoch: None })
    }

    /// Whether it is the record of this content key, or stands for this definition key.
    pub(super) fn answers(&self, name: &Digest) -> bool {
        self.facts.key == *name || self.facts.definitions.contains(name)
    }

    /// All names it is found under.
    pub(super) fn names(&self) -> impl Iterator<Item = &Digest> {
        std::iter::once(&self.facts.key).chain(&self.facts.definitions)
    }

    /// The blobs that it consists of.
    pub(super) fn blobs(&self) -> Vec<BlobInfo> {
        let info = |layer: &StepLayer| {
            let Layer { media_type, digest, size, .. } = &layer.layer;
            BlobInfo { media_type: media_type.clone(), digest: *digest, size: *size }
        };
        let empty = Document::new(EMPTY_TYPE, EMPTY.to_vec()).info();
        self.layers.iter().map(info).chain([empty]).collect()
    }
}

impl Descriptor {
    pub(super) fn plain(media_type: &str, digest: Digest, size: u64) -> Self {
        let (media_type, annotations) = (media_type.to_owned(), BTreeMap::new());
        Self { media_type, artifact_type: None, digest, size, data: None, annotations }
    }
}

/// Values of variables may be what nobody outside shall read: only whether they are the same is kept.
pub(super) fn without_values(mut parts: KeyParts) -> KeyParts {
    for part in parts.0.iter_mut().filter(|part| part.name.starts_with("env ") && part.name != "env order") {
        part.value = Digest::of(part.value.as_bytes()).to_string();
    }
    parts
}

#[cfg(test)]
mod tests;
