//! From what a name points to, to the image for one platform.

use kiln_core::{Digest, ImageConfig, Layer, Platform};
use serde::{Deserialize, Serialize};

use crate::read::{Parsed, parse};
use crate::{BlobInfo, Document, OciError, media, platform};

/// The most bytes that a manifest, index or configuration may have: registries take 4 MiB.
pub const MAX_DOCUMENT: u64 = 8 << 20;

/// Deeper than anything seen; an index within an index is rare already.
const MAX_NESTING: usize = 4;

/// An image that exists: all of it but its layers' bytes, verified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadedImage {
    /// What the name points to: the index if there is one, else the manifest.
    pub root: Document,
    /// The manifest for the platform.
    pub manifest: Document,
    /// Its configuration.
    pub config: Document,
    /// The configuration, read. Its platform may be another than was asked for, where there was no index to choose
    /// from: docker takes such an image and warns.
    pub image: ImageConfig,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
}

impl LoadedImage {
    /// Returns the manifest's digest: what the image is pinned by.
    pub fn digest(&self) -> Digest {
        self.manifest.digest
    }
}

/// Follows `root` down to the manifest for `platform` and its configuration. The root's media type may be empty if it is
/// not known; in the result it is what the document is. `fetch` gets what is still to be had, from
/// wherever it is; what it brings is verified here.
///
/// # Errors
/// What `fetch` fails with; no manifest for the platform; a document that is malformed, too large or not of the
/// promised bytes; a layer that kiln cannot read.
pub fn load<E: From<OciError>>(
    mut root: Document,
    platform: &Platform,
    fetch: &mut dyn FnMut(&BlobInfo) -> Result<Vec<u8>, E>,
) -> Result<LoadedImage, E> {
    let mut get = |info: &BlobInfo| -> Result<Document, E> {
        if info.size > MAX_DOCUMENT {
            let BlobInfo { digest, size, .. } = *info;
            return Err(OciError::TooLarge { digest, size, limit: MAX_DOCUMENT }.into());
        }
        Ok(Document::verified(info, fetch(info)?)?)
    };
    root.media_type = parse(&root.bytes, &root.media_type)?.media_type();
    let mut document = root.clone();
    let mut depth = 0;
    let manifest = loop {
        match parse(&document.bytes, &document.media_type)? {
            Parsed::Manifest(manifest) => break manifest,
            Parsed::Index(_) if depth == MAX_NESTING => {
                return Err(OciError::Nesting { limit: MAX_NESTING }.into());
            }
            Parsed::Index(index) => {
                document = get(&BlobInfo::of(platform::select(&index, platform)?)?)?;
                depth += 1;
            }
        }
    };
    let config_info = BlobInfo::of(manifest.config())?;
    if !is_config(&config_info.media_type) {
        let what = "the configuration".to_owned();
        return Err(OciError::MediaType { what, media_type: config_info.media_type }.into());
    }
    let config = get(&config_info)?;
    let image: ImageConfig = serde_json::from_slice(&config.bytes).map_err(|error| OciError::Malformed {
        what: format!("configuration {}", config.digest),
        reason: error.to_string(),
    })?;
    let diff_ids = &image.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers().len() {
        let (layers, diff_ids) = (manifest.layers().len(), diff_ids.len());
        return Err(OciError::LayerCount { layers, diff_ids }.into());
    }
    let layers = manifest
        .layers()
        .iter()
        .zip(diff_ids)
        .map(|(descriptor, diff_id)| layer(descriptor, *diff_id))
        .collect::<Result<_, _>>()?;
    Ok(LoadedImage { root, manifest: document, config, image, layers })
}

fn layer(descriptor: &oci_spec::image::Descriptor, diff_id: Digest) -> Result<Layer, OciError> {
    let BlobInfo { media_type, digest, size } = BlobInfo::of(descriptor)?;
    if media::layer_compression(&media_type).is_none() {
        return Err(OciError::MediaType { what: format!("layer {digest}"), media_type });
    }
    let annotations = descriptor.annotations().iter().flatten();
    let annotations = annotations.map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok(Layer { media_type, digest, size, diff_id, annotations })
}

/// `application/octet-stream` is what very old pushes called it.
fn is_config(media_type: &str) -> bool {
    matches!(media_type, media::OCI_CONFIG | media::DOCKER_CONFIG | "application/octet-stream")
}
