//! Blobs: files named by their digest.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::PathBuf;

use kiln_core::{Digest, DigestHasher, IoError, IoResultExt as _};

use crate::early::Early;
use crate::error::StoreError;
use crate::lock::FileLock;
use crate::partial;
use crate::store::Store;
use crate::twin::{Twin, TwinWriter};

impl Store {
    /// Returns whether a blob is there, and notes the use.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.note_use(&self.blob_path(digest)).unwrap_or(false)
    }

    /// Returns where a blob is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.0.layout.blob(digest)
    }

    /// Opens a blob.
    ///
    /// # Errors
    /// It is not there, or cannot be opened.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.blob_path(digest);
        if !self.note_use(&path)? {
            return Err(StoreError::NoBlob { digest: *digest });
        }
        Ok(File::open(&path).at("open", path)?)
    }

    /// Returns the bytes of a blob.
    ///
    /// # Errors
    /// It is not there, or cannot be looked at.
    pub fn blob_size(&self, digest: &Digest) -> Result<u64, StoreError> {
        let path = self.blob_path(digest);
        match std::fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StoreError::NoBlob { digest: *digest })
            }
            Err(error) => Err(error).at("stat", path)?,
        }
    }

    /// Starts a blob.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn blob_writer(&self) -> Result<BlobWriter, StoreError> {
        let path = self.scratch_path()?;
        let file = File::create_new(&path).at("create", &path)?;
        let early = Early::default();
        Ok(BlobWriter {
            store: self.clone(),
            file,
            path: Some(path),
            hasher: DigestHasher::new(),
            size: 0,
            early,
            twin: None,
            partial: None,
        })
    }

    /// Stores bytes that are at hand.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if self.has_blob(&digest) {
            return Ok(digest);
        }
        let mut writer = self.blob_writer()?;
        writer.append(bytes)?;
        writer.finish(None)
    }
}

/// A blob that is being written; dropped, it vanishes.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    file: File,
    path: Option<PathBuf>,
    hasher: DigestHasher,
    size: u64,
    early: Early,
    /// Gets the same bytes.
    twin: Option<TwinWriter>,
    /// Of one that stays for the next try if it is not finished ([`partial`]).
    partial: Option<FileLock>,
}

impl BlobWriter {
    /// Goes on with a file that has so many bytes, which the hasher has seen.
    pub(crate) fn go_on(
        store: &Store,
        file: File,
        path: PathBuf,
        lock: FileLock,
        size: u64,
        hasher: DigestHasher,
    ) -> Self {
        let (store, early) = (store.clone(), Early::default());
        Self { store, file, path: Some(path), hasher, size, early, twin: None, partial: Some(lock) }
    }

    /// Writes what comes to a second place, too. To be said before there is anything.
    pub(crate) fn with_twin(mut self, twin: Option<Twin>) -> Self {
        self.twin = twin.map(TwinWriter::new);
        self
    }

    /// Returns what has seen the bytes so far.
    pub fn hasher(&self) -> DigestHasher {
        self.hasher.clone()
    }

    /// Opens what is written so far, from its start.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn written(&self) -> Result<io::Take<File>, StoreError> {
        let path = self.path.as_deref().unwrap_or(self.store.root());
        Ok(File::open(path).at("open", path)?.take(self.size))
    }

    /// Throws it away, whatever a next try could do with it.
    pub fn discard(mut self) {
        self.remove();
    }

    fn remove(&mut self) {
        // The lock is held meanwhile: nobody goes on with what goes.
        if let Some(path) = self.path.take() {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Adds bytes. The same as [`Write::write_all`], with the store's error.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if let Err(error) = self.file.write_all(bytes) {
            let error = self.error("write", &error);
            // On a full disk what came in part is only in the way.
            self.remove();
            return Err(error);
        }
        self.count(bytes);
        Ok(())
    }

    /// Starts another one in the same store.
    pub(crate) fn sibling(&self) -> Result<Self, StoreError> {
        self.store.blob_writer()
    }

    /// Returns the bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the digest of the bytes so far.
    pub(crate) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Moves the blob to its place, if it is what was expected.
    ///
    /// # Errors
    /// It has another size or digest, or cannot be moved.
    pub fn finish(mut self, expected: Option<(Digest, u64)>) -> Result<Digest, StoreError> {
        let actual = std::mem::take(&mut self.hasher).finish();
        if let Some((digest, size)) = expected {
            if size != self.size || digest != actual {
                self.remove();
            }
            if size != self.size {
                return Err(StoreError::SizeMismatch { digest, expected: size, actual: self.size });
            }
            if digest != actual {
                return Err(StoreError::DigestMismatch { expected: digest, actual });
            }
        }
        let to = self.store.blob_path(&actual);
        // Already there: the same bytes, perhaps synced; keep those.
        if !self.store.note_use(&to)?
            && let Some(from) = &self.path
        {
            self.store.publish(from, &to)?;
            self.path = None;
        }
        self.remove();
        Ok(actual)
    }

    /// Gives what was written back to be read, instead of keeping it: the file has no name any more.
    pub(crate) fn into_reader(self) -> Result<File, StoreError> {
        let path = self.path.as_deref().unwrap_or(self.store.root());
        Ok(File::open(path).at("open", path)?)
    }

    /// One on a device that is always full.
    #[cfg(test)]
    pub(crate) fn full(store: &Store) -> Self {
        let file = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (hasher, early) = (DigestHasher::new(), Early::default());
        Self { store: store.clone(), file, path: None, hasher, size: 0, early, twin: None, partial: None }
    }

    fn count(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.early.written(&self.file, self.size);
        if self.twin.as_mut().is_some_and(|twin| !twin.append(bytes)) {
            self.twin = None;
        }
    }

    pub(crate) fn error(&self, op: &str, error: &io::Error) -> StoreError {
        IoError::new(op, self.path.as_deref().unwrap_or(self.store.root()), error).into()
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.write(bytes)?;
        self.count(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if self.partial.is_none() || self.size < partial::WORTH {
            self.remove();
        }
    }
}
