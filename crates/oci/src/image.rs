//! From a configuration and layers to an image, from images to an index.

use std::collections::{BTreeMap, HashMap};

use kiln_core::{History, ImageConfig, Layer, Platform};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifestBuilder};
use serde::{Deserialize, Serialize};

use crate::{Attestation, BlobInfo, Document, OciError, json, media};

/// A finished image: plain data. Its layers' blobs are elsewhere, by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What its configuration says it is for.
    pub platform: Platform,
    /// The configuration; its digest is docker's image id.
    pub config: Document,
    /// The manifest.
    pub manifest: Document,
    /// The layers, lowest first, their media types as in the manifest.
    pub layers: Vec<Layer>,
    /// What is said of it where its digest is written: in an index, or in a layout.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub descriptor_annotations: BTreeMap<String, String>,
}

/// Whose names the parts get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaTypes {
    /// OCI's.
    #[default]
    Oci,
    /// Docker's, for readers older than OCI. Has no zstd layers.
    Docker,
}

/// How an image is put together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssembleOptions {
    /// Media types of manifest, configuration and layers.
    pub media_types: MediaTypes,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Annotations beside the manifest's digest.
    pub descriptor_annotations: BTreeMap<String, String>,
}

/// Puts an image together. The configuration's diff ids are replaced by the layers', and its history is brought in
/// line with their number: layers that a base image's history does not mention get an empty line at its start, and
/// lines beyond the layers count as empty.
///
/// Equal arguments give equal bytes.
///
/// # Errors
/// [`OciError::MediaType`] for a layer of a type that the chosen family does not have.
pub fn assemble(
    mut config: ImageConfig,
    layers: &[Layer],
    options: &AssembleOptions,
) -> Result<Image, OciError> {
    let docker = options.media_types == MediaTypes::Docker;
    let layers = layers
        .iter()
        .map(|layer| {
            let media_type =
                media::layer_in(docker, &layer.media_type).ok_or_else(|| OciError::MediaType {
                    what: format!("layer {}", layer.digest),
                    media_type: layer.media_type.clone(),
                })?;
            Ok(Layer { media_type: media_type.to_owned(), ..layer.clone() })
        })
        .collect::<Result<Vec<Layer>, OciError>>()?;
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    align_history(&mut config.history, layers.len());

    let platform = config.platform();
    let (manifest_type, config_type) = match options.media_types {
        MediaTypes::Oci => (media::OCI_MANIFEST, media::OCI_CONFIG),
        MediaTypes::Docker => (media::DOCKER_MANIFEST, media::DOCKER_CONFIG),
    };
    let config = Document::new(config_type, json::config(&config));
    let mut manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(manifest_type)
        .config(config.info().descriptor())
        .layers(layers.iter().map(|layer| descriptor(layer, docker)).collect::<Vec<_>>())
        .build()
        .expect("all that is required is set");
    manifest.set_annotations(annotations(&options.annotations));
    let manifest = Document::new(manifest_type, json::manifest(&manifest));
    let descriptor_annotations = options.descriptor_annotations.clone();
    Ok(Image { platform, config, manifest, layers, descriptor_annotations })
}

/// Makes the index of several platforms' images, in the order given. It is docker's manifest list if the first
/// image's manifest is docker's.
pub fn index(images: &[&Image], annotations: &BTreeMap<String, String>) -> Document {
    attested_index(images, &[], annotations)
}

/// The same with what is said of the images, behind them all.
pub fn attested_index(
    images: &[&Image],
    attestations: &[Attestation],
    annotations: &BTreeMap<String, String>,
) -> Document {
    let docker = images.first().is_some_and(|image| image.manifest.media_type == media::DOCKER_MANIFEST);
    let media_type = if docker { media::DOCKER_LIST } else { media::OCI_INDEX };
    let mut index = ImageIndex::default();
    index.set_schema_version(2);
    index.set_media_type(Some(media_type.into()));
    index.set_manifests(
        images
            .iter()
            .map(|image| {
                let mut descriptor = image.manifest.info().descriptor();
                descriptor.set_platform(Some(crate::platform::to_spec(&image.platform)));
                descriptor.set_annotations(self::annotations(&image.descriptor_annotations));
                descriptor
            })
            .chain(attestations.iter().map(Attestation::descriptor))
            .collect(),
    );
    index.set_annotations(self::annotations(annotations));
    Document::new(media_type, json::index(&index))
}

/// Docker refuses an image whose history has more or fewer lines with layers than there are layers; images without
/// any history, or with half of one, are common among those not made by docker.
fn align_history(history: &mut Vec<History>, layers: usize) {
    let mut with_layer = history.iter().filter(|line| !line.empty_layer).count();
    for line in history.iter_mut().rev().filter(|line| !line.empty_layer) {
        if with_layer <= layers {
            break;
        }
        line.empty_layer = true;
        with_layer -= 1;
    }
    if with_layer > 0 || !history.is_empty() {
        let missing = layers - with_layer;
        history.splice(0..0, std::iter::repeat_with(History::default).take(missing));
    }
}

fn info(layer: &Layer) -> BlobInfo {
    BlobInfo { media_type: layer.media_type.clone(), digest: layer.digest, size: layer.size }
}

/// Docker's descriptors have no annotations.
fn descriptor(layer: &Layer, docker: bool) -> Descriptor {
    let mut descriptor = info(layer).descriptor();
    descriptor.set_annotations(annotations(&layer.annotations).filter(|_| !docker));
    descriptor
}

fn annotations(annotations: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!annotations.is_empty()).then(|| annotations.clone().into_iter().collect())
}
