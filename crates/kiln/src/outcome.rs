//! What a build made.

use std::collections::BTreeMap;

use crate::engine::CarryReport;
use kiln_core::{Digest, ImageRef, Platform, StepUsage, StepWhy};
use serde::{Deserialize, Serialize};

/// A finished build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildOutcome {
    /// Digest of what the tags point to: the manifest, or the index of several platforms. None where only files
    /// were asked for (`type=local`).
    pub digest: Option<Digest>,
    /// The images, in the order of the platforms.
    pub images: Vec<BuiltImage>,
    /// Names they were given.
    pub tags: Vec<ImageRef>,
    /// What each output became, in the order asked for. `digest` and `images` are those of the first that holds an image.
    pub exports: Vec<Export>,
    /// The predicate of provenance of each platform, if it was asked for: <https://slsa.dev/spec/v1.1/provenance>.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub provenance: BTreeMap<String, serde_json::Value>,
    /// What was restored and saved of cache mounts.
    #[serde(default)]
    pub cache_mounts: CarryReport,
    /// Each step that took part.
    pub steps: Vec<StepReport>,
    /// Why those ran that did, in the order in which they began.
    #[serde(default)]
    pub why: Vec<StepWhy>,
    /// Wall time of the whole, microseconds.
    pub duration_us: u64,
}

/// What one output became.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// Which output: `type=oci,dest=image.tar`.
    pub output: String,
    /// What its names point to: a manifest or an index. None where only files were asked for, as in what follows.
    pub digest: Option<Digest>,
    /// Its media type.
    pub media_type: Option<String>,
    /// Its bytes.
    pub size: Option<u64>,
    /// What is said of it where its digest is written: those of `manifest-descriptor`, or of `index-descriptor`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Names it was given.
    pub names: Vec<ImageRef>,
}

/// One platform's image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltImage {
    /// For which platform.
    pub platform: Platform,
    /// Its manifest.
    pub manifest: Digest,
    /// Its configuration: docker's image id.
    pub config: Digest,
    /// Bytes of its compressed layers.
    pub size: u64,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// As in the events.
    pub step: u32,
    /// `[build 2/4] RUN make`.
    pub title: String,
    /// Whether it ran.
    pub verdict: CacheVerdict,
    /// Wall time, microseconds; 0 for a hit.
    pub duration_us: u64,
    /// What its process used, if it had one.
    pub usage: Option<StepUsage>,
}

/// Whether a step ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheVerdict {
    /// Its result was there.
    Hit,
    /// It ran.
    Ran,
    /// Nothing needed it.
    Unneeded,
}
