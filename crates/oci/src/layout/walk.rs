//! Everything that hangs on some images.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read as _;

use kiln_core::{Digest, IoError};

use super::Root;
use crate::{BlobInfo, BlobSource, Children, Document, MAX_DOCUMENT, OciError, children};

/// What hangs on images.
#[derive(Default)]
pub(super) struct Found {
    /// Every blob, the images themselves included, each once.
    pub(super) blobs: BTreeMap<Digest, BlobInfo>,
    /// Those that are layers, from the lowest up. One may be there twice.
    pub(super) layers: Vec<Digest>,
}

/// Returns what hangs on the roots.
pub(super) fn collect(roots: &[Root<'_>], blobs: &dyn BlobSource) -> Result<Found, OciError> {
    let mut found = Found::default();
    let mut todo: VecDeque<Document> = roots.iter().map(|root| root.document.clone()).collect();
    while let Some(document) = todo.pop_front() {
        // Digests cannot form a cycle, but many entries may name one manifest.
        if found.blobs.insert(document.digest, document.info()).is_some() {
            continue;
        }
        match children(&document)? {
            Children::Manifest { config, layers } => {
                found.layers.extend(layers.iter().map(|layer| layer.digest));
                for info in layers.into_iter().chain([config]) {
                    found.blobs.insert(info.digest, info);
                }
            }
            Children::Index(entries) => {
                for (info, _) in entries {
                    todo.push_back(fetch(&info, blobs)?);
                }
            }
        }
    }
    Ok(found)
}

fn fetch(info: &BlobInfo, blobs: &dyn BlobSource) -> Result<Document, OciError> {
    let BlobInfo { digest, size, .. } = *info;
    if size > MAX_DOCUMENT {
        return Err(OciError::TooLarge { digest, size, limit: MAX_DOCUMENT });
    }
    let mut bytes = Vec::new();
    let read = blobs.open(&digest)?.take(size + 1).read_to_end(&mut bytes);
    read.map_err(|error| IoError::new("read", digest.to_string(), &error))?;
    Document::verified(info, bytes)
}
