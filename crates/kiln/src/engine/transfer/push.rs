//! Writing to a registry: blobs a few at once, then manifests, each after what it names, tags last.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_core::{Cancel, Digest, ImageRef};
use kiln_oci::{BlobInfo, BlobSource, Document};
use kiln_registry::{Pushed, RegistryClient};
use kiln_store::Store;

use super::{Blobs, CopyOutcome, Found, Origin, Transfer, Tree, origin};
use crate::Error;
use crate::engine::arrival::LayerProgress;
use crate::engine::layers::each;

/// What is pushed, and what pushing needs.
pub(crate) struct Push<'a> {
    pub(crate) store: &'a Store,
    pub(crate) registry: &'a RegistryClient,
    pub(crate) task: &'a dyn LayerProgress,
    pub(crate) cancel: &'a Cancel,
    /// Manifests and indexes, each after what it names; the last is the root.
    pub(crate) documents: &'a [&'a Document],
    /// All that they name, each once.
    pub(crate) blobs: &'a [BlobInfo],
    /// Where the bytes of blobs come from.
    pub(crate) source: &'a dyn BlobSource,
    /// A repository that blobs come from: one on the same registry can be mounted from.
    pub(crate) from: &'a (dyn Fn(&Digest) -> Option<ImageRef> + Sync),
    /// Whether this very command sent a blob to a repository before: then nobody is asked.
    pub(crate) sent: &'a (dyn Fn(&ImageRef, &Digest) -> bool + Sync),
}

impl Push<'_> {
    /// Writes to the repositories of all names, and gives the root these tags; of names without tags, its digest. Returns
    /// the bytes that were sent. A name that stands for the root already costs one request: what the root names is there.
    pub(crate) fn to(&self, names: &[ImageRef]) -> Result<u64, Error> {
        let sent = AtomicU64::new(0);
        let (root, below) = match self.documents.split_last() {
            Some((root, below)) => (*root, below),
            None => return Ok(0),
        };
        let mut missing: Vec<&ImageRef> = Vec::new();
        for name in names {
            if !self.registry.has_manifest(name, root)? {
                missing.push(name);
                continue;
            }
            for blob in self.blobs {
                origin::note(self.store, &blob.digest, name)?;
            }
        }
        let mut done: HashSet<String> = HashSet::new();
        let mut first: Vec<ImageRef> = Vec::new();
        for name in missing.iter().copied() {
            if done.insert(name.name()) {
                self.blobs_to(name, &first, &sent)?;
                first.push(name.clone());
            }
        }
        for name in &first {
            for document in below {
                // What the root names has no tag.
                self.document_to(&ImageRef { tag: None, digest: None, ..name.clone() }, document, &sent)?;
            }
        }
        for name in missing {
            self.document_to(name, root, &sent)?;
        }
        Ok(sent.into_inner())
    }

    /// Writes the blobs alone to a repository: those that it has not. Returns the bytes that were sent.
    pub(crate) fn blobs(&self, name: &ImageRef) -> Result<u64, Error> {
        let sent = AtomicU64::new(0);
        self.blobs_to(name, &[], &sent)?;
        Ok(sent.into_inner())
    }

    fn document_to(&self, image: &ImageRef, document: &Document, sent: &AtomicU64) -> Result<(), Error> {
        if let Pushed::Uploaded { bytes } = self.registry.push_manifest(image, document)? {
            sent.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    fn blobs_to(&self, name: &ImageRef, first: &[ImageRef], sent: &AtomicU64) -> Result<(), Error> {
        each(self.blobs, self.cancel, |blob| {
            if (self.sent)(name, &blob.digest) {
                return Ok(());
            }
            let mut mounts: Vec<ImageRef> = first.to_vec();
            mounts.extend((self.from)(&blob.digest));
            mounts.extend(origin::of(self.store, &blob.digest)?);
            mounts.retain(|other| other.registry == name.registry && other.repository != name.repository);
            let mut seen = HashSet::new();
            mounts.retain(|other| seen.insert(other.name()));
            let item = blob.digest.short();
            let progress = |bytes: u64| self.task.progress(&item, bytes, blob.size);
            match self.registry.push_blob(name, blob, self.source, &mounts, &progress)? {
                Pushed::Uploaded { bytes } => {
                    sent.fetch_add(bytes, Ordering::Relaxed);
                }
                Pushed::There | Pushed::Mounted { .. } => self.task.progress(&item, blob.size, blob.size),
            }
            origin::note(self.store, &blob.digest, name)
        })
    }
}

impl Transfer<'_> {
    /// Writes an image to a registry.
    pub(super) fn push(&self, found: &Found, name: &ImageRef) -> Result<CopyOutcome, Error> {
        self.push_tree(&found.tree, std::slice::from_ref(found), name)
    }

    /// The same for an index whose images are elsewhere.
    pub(super) fn push_tree(
        &self,
        tree: &Tree,
        parts: &[Found],
        name: &ImageRef,
    ) -> Result<CopyOutcome, Error> {
        let task = self.reporter.task(&format!("pushing {name}"));
        let mut blobs = Blobs::new(&self.engine.store, self.registry, &task, self.cancel);
        for part in parts {
            blobs.add(&part.tree, &part.origin);
        }
        let documents: Vec<&Document> = tree.documents.iter().collect();
        let push = Push {
            store: &self.engine.store,
            registry: self.registry,
            task: &task,
            cancel: self.cancel,
            documents: &documents,
            blobs: &tree.blobs,
            source: &blobs,
            from: &|digest| blobs.repository(digest),
            sent: &|_, _| false,
        };
        let sent = push.to(std::slice::from_ref(name));
        // The client knows only that reading failed.
        let sent = sent.map_err(|error| blobs.failure().unwrap_or(error));
        task.end_with(&sent);
        Ok(self.written(&format!("docker://{name}"), tree, vec![name.clone()], sent?))
    }
}

impl Blobs<'_> {
    /// The repository that a blob comes from, if it does from one.
    pub(crate) fn repository(&self, digest: &Digest) -> Option<ImageRef> {
        match self.origin(digest)? {
            Origin::Registry(name) => Some(name.clone()),
            Origin::Store | Origin::Layout(_) => None,
        }
    }
}
