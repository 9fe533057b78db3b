//! `index.json`: which images a layout has, under which names.

use std::collections::HashMap;

use oci_spec::image::{Descriptor, ImageIndex};

use super::{IMAGE_NAME, REF_NAME, Root};
use crate::{OciError, media};

pub(super) fn parse(bytes: &[u8]) -> Result<ImageIndex, OciError> {
    serde_json::from_slice(bytes)
        .map_err(|error| OciError::Malformed { what: "index.json".to_owned(), reason: error.to_string() })
}

pub(super) fn empty() -> ImageIndex {
    let mut index = ImageIndex::default();
    index.set_schema_version(2);
    index.set_media_type(Some(media::OCI_INDEX.into()));
    index
}

/// Adds images. A name moves to the new image; what had no other name stays, unnamed, as skopeo leaves it. An
/// unnamed image that is there already is not added again.
pub(super) fn add(index: &mut ImageIndex, root: &Root<'_>) {
    let mut descriptor = root.document.info().descriptor();
    descriptor.set_platform(root.platform.map(crate::platform::to_spec));
    // So that nobody takes what is about an image for one.
    descriptor.set_artifact_type(crate::read::artifact_type(root.document).map(|kind| kind.as_str().into()));
    let said: HashMap<String, String> = root.annotations.cloned().unwrap_or_default().into_iter().collect();
    descriptor.set_annotations(Some(said.clone()).filter(|said| !said.is_empty()));
    let mut entries = index.manifests().clone();
    if let Some(tag) = root.tag {
        for entry in &mut entries {
            if annotation(entry, REF_NAME) == Some(tag) {
                unname(entry, annotation(entry, IMAGE_NAME).unwrap_or_default().to_owned().as_str(), tag);
            }
        }
        entries
            .retain(|entry| entry.digest() != descriptor.digest() || annotation(entry, REF_NAME).is_some());
        let mut named = descriptor.clone();
        let mut said = said.clone();
        said.insert(REF_NAME.to_owned(), tag.to_owned());
        named.set_annotations(Some(said));
        entries.push(named);
    } else if root.names.is_empty() && !entries.iter().any(|entry| entry.digest() == descriptor.digest()) {
        entries.push(descriptor.clone());
    }
    for name in root.names {
        let full = name.to_string();
        let tag = name.tag.clone().unwrap_or_else(|| "latest".to_owned());
        for entry in &mut entries {
            unname(entry, &full, &tag);
        }
        // A nameless entry of this very image says nothing that the named one does not.
        entries
            .retain(|entry| entry.digest() != descriptor.digest() || annotation(entry, REF_NAME).is_some());
        let mut named = descriptor.clone();
        let mut said = said.clone();
        said.extend([(IMAGE_NAME.to_owned(), full), (REF_NAME.to_owned(), tag)]);
        named.set_annotations(Some(said));
        entries.push(named);
    }
    index.set_manifests(entries);
}

/// Takes a name from an entry: the same whole name, or the same tag where the entry has no whole name.
fn unname(entry: &mut Descriptor, full: &str, tag: &str) {
    let same = match annotation(entry, IMAGE_NAME) {
        Some(name) => name == full,
        None => annotation(entry, REF_NAME) == Some(tag),
    };
    if same {
        let mut annotations = entry.annotations().clone().unwrap_or_default();
        annotations.remove(IMAGE_NAME);
        annotations.remove(REF_NAME);
        entry.set_annotations((!annotations.is_empty()).then_some(annotations));
    }
}

fn annotation<'a>(entry: &'a Descriptor, name: &str) -> Option<&'a str> {
    entry.annotations().as_ref()?.get(name).map(String::as_str)
}
