//! Documents over what exists already: a manifest for a configuration that must stay as it is, an index over images
//! that were made elsewhere.

use std::collections::{BTreeMap, HashMap};

use kiln_core::{Digest, Layer, Platform};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifestBuilder};

use crate::platform::{from_spec, is_image, to_spec};
use crate::read::{Parsed, parse};
use crate::{BlobInfo, Document, OciError, json, media};

/// Returns the manifest of a configuration that came without one, as in docker's archive. The configuration's bytes, and
/// so docker's image id, stay.
pub fn manifest(config: &Document, layers: &[Layer]) -> Document {
    let describe = |layer: &Layer| {
        let (media_type, digest, size) = (layer.media_type.clone(), layer.digest, layer.size);
        BlobInfo { media_type, digest, size }.descriptor()
    };
    let manifest = ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(media::OCI_MANIFEST)
        .config(config.info().descriptor())
        .layers(layers.iter().map(describe).collect::<Vec<_>>())
        .build()
        .expect("all that is required is set");
    Document::new(media::OCI_MANIFEST, json::manifest(&manifest))
}

/// What goes into an index.
#[derive(Debug, Clone)]
pub struct Part<'a> {
    /// A manifest, or an index whose entries are all taken as they are.
    pub document: &'a Document,
    /// A manifest's platform, as its configuration says; none if that is no image's.
    pub platform: Option<Platform>,
}

/// How an index is put together.
#[derive(Debug, Clone, Default)]
pub struct JoinOptions {
    /// Annotations of the index.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of the entries that are new.
    pub entry_annotations: BTreeMap<String, String>,
    /// An image takes the place of another one for its platform; else that is refused.
    pub replace: bool,
}

/// Makes one index of images that exist, those of `base` first. Attestations go with the images that they are about. It is
/// docker's manifest list if all in it are docker's.
///
/// # Errors
/// [`OciError::SamePlatform`], [`OciError::PlatformUnknown`], or a document is none that kiln reads.
pub fn join(
    base: Option<&Document>,
    parts: &[Part<'_>],
    options: &JoinOptions,
) -> Result<Document, OciError> {
    let mut entries = Vec::new();
    let mut annotations: HashMap<String, String> = HashMap::new();
    if let Some(base) = base {
        match parse(&base.bytes, &base.media_type)? {
            Parsed::Index(index) => {
                entries.extend(index.manifests().iter().cloned());
                annotations.extend(index.annotations().clone().unwrap_or_default());
            }
            Parsed::Manifest(_) => {
                let what = "what the images shall be joined to".to_owned();
                return Err(OciError::MediaType { what, media_type: base.media_type.clone() });
            }
        }
    }
    for part in parts {
        for mut entry in part.entries()? {
            if !options.entry_annotations.is_empty() && is_image(&entry) {
                let mut all = entry.annotations().clone().unwrap_or_default();
                all.extend(options.entry_annotations.clone());
                entry.set_annotations(Some(all));
            }
            add(&mut entries, entry, options.replace)?;
        }
    }
    annotations.extend(options.annotations.clone());
    let docker = entries.iter().all(|entry| entry.media_type().as_ref() == media::DOCKER_MANIFEST);
    let media_type = if docker && annotations.is_empty() { media::DOCKER_LIST } else { media::OCI_INDEX };
    let mut index = ImageIndex::default();
    index.set_schema_version(2);
    index.set_media_type(Some(media_type.into()));
    index.set_manifests(entries);
    index.set_annotations((!annotations.is_empty()).then_some(annotations));
    Ok(Document::new(media_type, json::index(&index)))
}

impl Part<'_> {
    fn entries(&self) -> Result<Vec<Descriptor>, OciError> {
        match parse(&self.document.bytes, &self.document.media_type)? {
            Parsed::Index(index) => Ok(index.manifests().clone()),
            Parsed::Manifest(_) => {
                let unknown = || OciError::PlatformUnknown { digest: self.document.digest };
                let platform = self.platform.as_ref().ok_or_else(unknown)?;
                let mut descriptor = self.document.info().descriptor();
                descriptor.set_platform(Some(to_spec(platform)));
                Ok(vec![descriptor])
            }
        }
    }
}

fn add(entries: &mut Vec<Descriptor>, entry: Descriptor, replace: bool) -> Result<(), OciError> {
    if let Some(there) = entries.iter_mut().find(|there| there.digest() == entry.digest()) {
        *there = entry;
        return Ok(());
    }
    let same = |there: &Descriptor| {
        is_image(there)
            && is_image(&entry)
            && platform(there).is_some()
            && platform(there) == platform(&entry)
    };
    if let Some(at) = entries.iter().position(same) {
        if !replace {
            return Err(OciError::SamePlatform {
                platform: platform(&entry).map_or_else(String::new, |platform| platform.to_string()),
                first: BlobInfo::of(&entries[at])?.digest,
                second: BlobInfo::of(&entry)?.digest,
            });
        }
        let gone = BlobInfo::of(&entries[at])?.digest;
        entries[at] = entry;
        // What was said about the image that is gone.
        entries.retain(|other| subject(other) != Some(gone));
        return Ok(());
    }
    entries.push(entry);
    Ok(())
}

/// Of two systems with one architecture the version differs: Windows.
fn platform(entry: &Descriptor) -> Option<String> {
    let spec = entry.platform().as_ref()?;
    let version = spec.os_version().as_deref().unwrap_or_default();
    Some(format!("{} {version}", from_spec(spec)).trim_end().to_owned())
}

/// The image that an attestation of an index is about, as BuildKit notes it.
fn subject(entry: &Descriptor) -> Option<Digest> {
    entry.annotations().as_ref()?.get("vnd.docker.reference.digest")?.parse().ok()
}
