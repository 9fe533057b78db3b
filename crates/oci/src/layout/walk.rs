//! Everything that hangs on some images.

use std::collections::BTreeMap;
use std::io::Read as _;

use kiln_core::{Digest, IoError};

use super::Root;
use crate::{BlobInfo, BlobSource, Children, Document, MAX_DOCUMENT, OciError, children};

/// Returns every blob below the roots, themselves included, each once, by digest.
pub(super) fn collect(
    roots: &[Root<'_>],
    blobs: &dyn BlobSource,
) -> Result<BTreeMap<Digest, BlobInfo>, OciError> {
    let mut found = BTreeMap::new();
    let mut todo: Vec<Document> = roots.iter().map(|root| root.document.clone()).collect();
    while let Some(document) = todo.pop() {
        // Digests cannot form a cycle, but many entries may name one manifest.
        if found.insert(document.digest, document.info()).is_some() {
            continue;
        }
        match children(&document)? {
            Children::Manifest { config, layers } => {
                for info in layers.into_iter().chain([config]) {
                    found.insert(info.digest, info);
                }
            }
            Children::Index(entries) => {
                for (info, _) in entries {
                    todo.push(fetch(&info, blobs)?);
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
