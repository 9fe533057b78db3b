//! The bytes of documents: one way to write each, whatever made them.
//!
//! Key order and white space are BuildKit's: manifests and indexes in the order of Go's structures, indented by two
//! blanks; a configuration compact, its first level sorted, its second in Go's order. oci-spec's own serialisation
//! cannot be used, because it keeps annotations in hash maps, whose order changes from run to run.

use std::collections::{BTreeMap, HashMap};

use kiln_core::ImageConfig;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::Serialize;
use serde_json::Value;

pub(crate) fn manifest(manifest: &ImageManifest) -> Vec<u8> {
    pretty(&ManifestView {
        schema_version: manifest.schema_version(),
        media_type: manifest.media_type().as_ref().map(AsRef::as_ref),
        artifact_type: manifest.artifact_type().as_ref().map(AsRef::as_ref),
        config: view(manifest.config()),
        layers: manifest.layers().iter().map(view).collect(),
        subject: manifest.subject().as_ref().map(view),
        annotations: sorted(manifest.annotations().as_ref()),
    })
}

pub(crate) fn index(index: &ImageIndex) -> Vec<u8> {
    pretty(&IndexView {
        schema_version: index.schema_version(),
        media_type: index.media_type().as_ref().map(AsRef::as_ref),
        artifact_type: index.artifact_type().as_ref().map(AsRef::as_ref),
        manifests: index.manifests().iter().map(view).collect(),
        subject: index.subject().as_ref().map(view),
        annotations: sorted(index.annotations().as_ref()),
    })
}

pub(crate) fn config(config: &ImageConfig) -> Vec<u8> {
    // Through text and not through `Value`: only the first level is to be sorted.
    let mut fields: BTreeMap<&str, String> = BTreeMap::new();
    let mut put = |name, json| fields.insert(name, json);
    if let Some(created) = &config.created {
        put("created", compact(created));
    }
    if let Some(author) = &config.author {
        put("author", compact(author));
    }
    if let Some(variant) = &config.variant {
        put("variant", compact(variant));
    }
    put("architecture", compact(&config.architecture));
    put("os", compact(&config.os));
    put("config", compact(&config.config));
    put("rootfs", compact(&config.rootfs));
    if !config.history.is_empty() {
        put("history", compact(&config.history));
    }
    for (name, value) in &config.extra {
        put(name, compact(value));
    }
    let fields: Vec<String> =
        fields.into_iter().map(|(name, json)| format!("{}:{json}", Value::from(name))).collect();
    format!("{{{}}}", fields.join(",")).into_bytes()
}

/// Compact JSON, each value one line.
pub(crate) fn compact<T: Serialize>(value: &T) -> String {
    // Only maps with keys that are no strings and failing `Serialize` impls fail; there are none here.
    serde_json::to_string(value).expect("plain data is JSON")
}

fn pretty<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec_pretty(value).expect("plain data is JSON")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ManifestView<'a> {
    schema_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    config: DescriptorView<'a>,
    layers: Vec<DescriptorView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<DescriptorView<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexView<'a> {
    schema_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    manifests: Vec<DescriptorView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<DescriptorView<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DescriptorView<'a> {
    media_type: &'a str,
    digest: &'a str,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    urls: Option<&'a Vec<String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<PlatformView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
}

#[derive(Serialize)]
struct PlatformView<'a> {
    architecture: String,
    os: String,
    #[serde(rename = "os.version", skip_serializing_if = "Option::is_none")]
    os_version: Option<&'a str>,
    #[serde(rename = "os.features", skip_serializing_if = "Option::is_none")]
    os_features: Option<&'a Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
}

fn view(descriptor: &Descriptor) -> DescriptorView<'_> {
    DescriptorView {
        media_type: descriptor.media_type().as_ref(),
        digest: descriptor.digest().as_ref(),
        size: descriptor.size(),
        urls: descriptor.urls().as_ref(),
        annotations: sorted(descriptor.annotations().as_ref()),
        data: descriptor.data().as_deref(),
        platform: descriptor.platform().as_ref().map(|platform| PlatformView {
            architecture: platform.architecture().to_string(),
            os: platform.os().to_string(),
            os_version: platform.os_version().as_deref(),
            os_features: platform.os_features().as_ref(),
            variant: platform.variant().as_deref(),
        }),
        artifact_type: descriptor.artifact_type().as_ref().map(AsRef::as_ref),
    }
}

fn sorted(annotations: Option<&HashMap<String, String>>) -> BTreeMap<&str, &str> {
    annotations.into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}
