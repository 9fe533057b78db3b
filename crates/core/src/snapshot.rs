//! What a step leaves behind.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Digest;

/// Names one layer directory of a store. Opaque: a base layer is named by its diff id, one that a step made by a
/// random name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LayerId(pub String);

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A finished file tree: layers over one another. Plain data; it says nothing about where the layers are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Snapshot {
    /// Lowest first. Empty for scratch.
    pub layers: Vec<LayerId>,
}

impl Snapshot {
    /// Returns this snapshot with one more layer on top.
    #[must_use]
    pub fn with(&self, layer: LayerId) -> Self {
        let mut layers = self.layers.clone();
        layers.push(layer);
        Self { layers }
    }
}

/// A layer as an image carries it: a diff as a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Of the blob as stored and sent.
    pub media_type: String,
    /// Digest of the blob (compressed).
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// Digest of the tar (uncompressed).
    pub diff_id: Digest,
    /// What a manifest says of the blob beside its digest: what those need who read parts of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}
