//! Blobs on demand: what the store has not is fetched when somebody reads it, and kept.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_core::{Cancel, Digest, ImageRef, IoError, IoResultExt as _};
use kiln_oci::{BlobInfo, BlobSource, Document, Layout};
use kiln_registry::RegistryClient;
use kiln_store::{Store, StoreError};

use super::origin;
use super::tree::Tree;
use crate::Error;
use crate::engine::arrival::{BlobReader, LayerProgress, download};
use crate::engine::layers::each;

/// Where blobs come from that the store has not.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// They are blobs of the store, or were when the image was made.
    Store,
    /// An OCI layout.
    Layout(Arc<Layout>),
    /// A registry.
    Registry(ImageRef),
}

/// The blobs of some images.
pub(crate) struct Blobs<'a> {
    pub(crate) store: &'a Store,
    pub(crate) registry: &'a RegistryClient,
    pub(crate) task: &'a dyn LayerProgress,
    pub(crate) cancel: &'a Cancel,
    known: HashMap<Digest, (BlobInfo, Origin)>,
    documents: HashMap<Digest, Document>,
    /// Why a blob could not be had, as the type it was: a reader can only pass on a text.
    failed: Mutex<Option<Error>>,
}

impl<'a> Blobs<'a> {
    pub(crate) fn new(
        store: &'a Store,
        registry: &'a RegistryClient,
        task: &'a dyn LayerProgress,
        cancel: &'a Cancel,
    ) -> Self {
        let (known, documents) = (HashMap::new(), HashMap::new());
        Self { store, registry, task, cancel, known, documents, failed: Mutex::default() }
    }

    /// Takes the blobs of a tree in, and where they are.
    pub(crate) fn add(&mut self, tree: &Tree, origin: &Origin) {
        for document in &tree.documents {
            self.documents.insert(document.digest, document.clone());
        }
        for blob in &tree.blobs {
            self.add_blob(blob, origin);
        }
    }

    /// Takes a blob in; where it was known from before stays.
    pub(crate) fn add_blob(&mut self, blob: &BlobInfo, origin: &Origin) {
        self.known.entry(blob.digest).or_insert_with(|| (blob.clone(), origin.clone()));
    }

    /// Where a blob comes from.
    pub(super) fn origin(&self, digest: &Digest) -> Option<&Origin> {
        self.known.get(digest).map(|(_, origin)| origin)
    }

    /// Makes the store have these blobs, a few at once.
    pub(crate) fn bring(&self, blobs: &[BlobInfo]) -> Result<(), Error> {
        each(blobs, self.cancel, |blob| {
            if self.documents.contains_key(&blob.digest) {
                return Ok(());
            }
            self.bring_one(&blob.digest)
        })
    }

    /// The same for what is far away only: what a local file has is read from there.
    pub(crate) fn bring_remote(&self, blobs: &[BlobInfo]) -> Result<(), Error> {
        let far = |blob: &&BlobInfo| !matches!(self.known.get(&blob.digest), Some((_, Origin::Layout(_))));
        let far: Vec<BlobInfo> = blobs.iter().filter(far).cloned().collect();
        self.bring(&far)
    }

    /// Returns why the last reader failed, if that is known better than the reader could say it.
    pub(crate) fn failure(&self) -> Option<Error> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn bring_one(&self, digest: &Digest) -> Result<(), Error> {
        if self.store.has_blob(digest) {
            return Ok(());
        }
        let missing = || Error::from(StoreError::NoBlob { digest: *digest });
        let (info, origin) = self.known.get(digest).ok_or_else(missing)?;
        match origin {
            Origin::Layout(layout) => {
                let kept = layout.blob(info).map_err(Error::from);
                let kept = kept.and_then(|blob| self.keep(info, Box::new(blob)));
                kept.map_err(|error| of_archive(error, layout.location()))?;
                origin::note_file(self.store, &info.digest, layout.location())
            }
            Origin::Registry(name) => self.download(info, name),
            Origin::Store => {
                // The image was kept without it, or it went since: whoever had it may have it still.
                let mut failure = missing();
                for name in origin::of(self.store, digest)? {
                    match self.download(info, &name) {
                        Ok(()) => return Ok(()),
                        Err(error) => failure = error,
                    }
                }
                Err(failure)
            }
        }
    }

    fn download(&self, info: &BlobInfo, name: &ImageRef) -> Result<(), Error> {
        download(self.store, self.registry, name, info, self.task, self.cancel)?;
        origin::note(self.store, &info.digest, name)
    }

    fn keep(&self, info: &BlobInfo, source: Box<dyn Read + Send + '_>) -> Result<(), Error> {
        let mut reader =
            BlobReader::new(source, Some(self.store.blob_writer()?), info, self.task, self.cancel);
        reader.drain(&info.digest, &mut vec![0; 256 << 10])?;
        reader.finish(info)
    }
}

/// Says which archive or layout it is that is damaged, where that is not said yet.
pub(super) fn of_archive(error: Error, path: &Path) -> Error {
    match error {
        Error::Oci(error) if !error.names_path() => {
            Error::Archive { place: path.display().to_string(), error }
        }
        other => other,
    }
}

impl BlobSource for Blobs<'_> {
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + '_>, IoError> {
        if let Some(document) = self.documents.get(digest) {
            return Ok(Box::new(document.bytes.as_slice()));
        }
        if !self.store.has_blob(digest) {
            if let Some((info, Origin::Layout(layout))) = self.known.get(digest) {
                let blob = layout.blob(info).map_err(|error| of_archive(error.into(), layout.location()));
                return Ok(Box::new(blob.map_err(|error| self.note(digest, error))?));
            }
            self.bring_one(digest).map_err(|error| self.note(digest, error))?;
        }
        let path = self.store.blob_path(digest);
        Ok(Box::new(File::open(&path).at("open", path)?))
    }

    fn path(&self, digest: &Digest) -> Option<PathBuf> {
        if self.documents.contains_key(digest) {
            return None;
        }
        Some(self.store.blob_path(digest)).filter(|path| path.exists())
    }
}

impl Blobs<'_> {
    fn note(&self, digest: &Digest, error: Error) -> IoError {
        let text = std::io::Error::other(error.to_string());
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        IoError::new("get", digest.to_string(), &text)
    }
}
