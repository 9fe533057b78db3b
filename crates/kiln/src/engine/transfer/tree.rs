//! All that hangs on an image or an index: the documents, and the blobs that they name.

use std::collections::HashSet;

use kiln_core::{Digest, ImageRef};
use kiln_oci::{BlobInfo, Children, Document, MAX_DOCUMENT, OciError, children, media};

use crate::Error;

/// Deeper than anybody nests indexes; digests alone keep out cycles, not depth.
const MAX_NESTING: usize = 8;

/// An image or index that was found, with everything that belongs to it but the bytes of its blobs.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    /// Manifests and indexes, each after what it names; the last is the root.
    pub(crate) documents: Vec<Document>,
    /// Configurations and layers, each once.
    pub(crate) blobs: Vec<BlobInfo>,
    /// The configurations among them: docker's image ids.
    pub(crate) configs: Vec<Digest>,
    /// Names that it has where it comes from.
    pub(crate) names: Vec<ImageRef>,
}

impl Tree {
    /// Follows `root` down. `get` brings a document that is described.
    pub(crate) fn read(
        root: Document,
        get: &mut dyn FnMut(&BlobInfo) -> Result<Document, Error>,
    ) -> Result<Self, Error> {
        let mut tree =
            Self { documents: Vec::new(), blobs: Vec::new(), configs: Vec::new(), names: Vec::new() };
        tree.add(root, &mut HashSet::new(), 0, get)?;
        Ok(tree)
    }

    /// The manifest or index that a name points to.
    pub(crate) fn root(&self) -> &Document {
        self.documents.last().expect("a tree begins with its root")
    }

    /// Bytes of all its blobs.
    pub(crate) fn size(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.size).sum()
    }

    fn add(
        &mut self,
        document: Document,
        seen: &mut HashSet<Digest>,
        depth: usize,
        get: &mut dyn FnMut(&BlobInfo) -> Result<Document, Error>,
    ) -> Result<(), Error> {
        if depth > MAX_NESTING {
            return Err(OciError::Nesting { limit: MAX_NESTING }.into());
        }
        if !seen.insert(document.digest) {
            return Ok(());
        }
        match children(&document)? {
            Children::Manifest { config, layers } => {
                let BlobInfo { digest, size, .. } = config;
                // What is beside an image may have any blob in its place.
                let image = matches!(config.media_type.as_str(), media::OCI_CONFIG | media::DOCKER_CONFIG);
                if image && size > MAX_DOCUMENT {
                    return Err(OciError::TooLarge { digest, size, limit: MAX_DOCUMENT }.into());
                }
                self.configs.push(config.digest);
                for blob in layers.into_iter().chain([config]) {
                    if seen.insert(blob.digest) {
                        self.blobs.push(blob);
                    }
                }
            }
            Children::Index(entries) => {
                for (info, _) in entries {
                    if !seen.contains(&info.digest) {
                        let BlobInfo { digest, size, .. } = info;
                        if size > MAX_DOCUMENT {
                            return Err(OciError::TooLarge { digest, size, limit: MAX_DOCUMENT }.into());
                        }
                        self.add(get(&info)?, seen, depth + 1, get)?;
                    }
                }
            }
        }
        self.documents.push(document);
        Ok(())
    }
}
