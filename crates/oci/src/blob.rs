//! Where the bytes of an image come from when it is written out.

use std::io::Read;
use std::path::PathBuf;

use kiln_core::{Digest, IoError};

use crate::Document;

/// Blobs by digest. What it gives is taken as verified: a store checks when it takes in.
pub trait BlobSource: Sync {
    /// Opens a blob.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + '_>, IoError>;

    /// The file that holds exactly this blob, if there is one. Writers then clone, link or copy it in the kernel.
    fn path(&self, _digest: &Digest) -> Option<PathBuf> {
        None
    }
}

/// Documents held in memory in front of another source: a fresh manifest over a store's layers.
pub struct Documents<'a> {
    documents: Vec<&'a Document>,
    below: &'a dyn BlobSource,
}

impl<'a> Documents<'a> {
    /// Serves `documents` themselves and all else from `below`.
    pub fn over(documents: impl IntoIterator<Item = &'a Document>, below: &'a dyn BlobSource) -> Self {
        Self { documents: documents.into_iter().collect(), below }
    }

    fn find(&self, digest: &Digest) -> Option<&'a Document> {
        self.documents.iter().copied().find(|document| document.digest == *digest)
    }
}

impl BlobSource for Documents<'_> {
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + '_>, IoError> {
        match self.find(digest) {
            Some(document) => Ok(Box::new(document.bytes.as_slice())),
            None => self.below.open(digest),
        }
    }

    fn path(&self, digest: &Digest) -> Option<PathBuf> {
        match self.find(digest) {
            Some(_) => None,
            None => self.below.path(digest),
        }
    }
}
