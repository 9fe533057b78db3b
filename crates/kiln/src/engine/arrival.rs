//! A blob on its way: read once, and kept, counted and reported while it is.

use std::io::Read;

use kiln_core::{Cancel, Digest, ImageRef};
use kiln_oci::OciError;
use kiln_registry::{RegistryClient, RegistryError, Resume};
use kiln_store::{Store, StoreError};

use super::reporter::Task;
use crate::Error;

/// Is told how far a layer is.
pub(crate) trait LayerProgress: Sync {
    /// So many of so many bytes of an item are here.
    fn progress(&self, item: &str, current: u64, total: u64);

    /// Another process does the same; or not any more.
    fn waiting(&self, holder: Option<&str>) {
        let _ = holder;
    }
}

/// Of what nobody is shown.
pub(crate) struct Unseen;

impl LayerProgress for Unseen {
    fn progress(&self, _item: &str, _current: u64, _total: u64) {}
}

impl LayerProgress for Task<'_> {
    fn progress(&self, item: &str, current: u64, total: u64) {
        Task::progress(self, item, current, Some(total));
    }

    fn waiting(&self, holder: Option<&str>) {
        Task::waiting(self, holder);
    }
}

/// A blob on its way: what is read is kept, counted and reported.
pub(super) struct BlobReader<'a> {
    source: Box<dyn Read + Send + 'a>,
    into: Option<kiln_store::BlobWriter>,
    read: u64,
    item: String,
    total: u64,
    task: &'a dyn LayerProgress,
    cancel: &'a Cancel,
    /// Why reading failed, as the type it was: on its way through a decompressor only a text is left.
    pub(super) failed: Option<Error>,
    /// Bytes yet to be read that an earlier try left in the store.
    left: u64,
    /// Whether it went on with what an earlier try left.
    resumed: bool,
}

/// What a reader of a blob wants of that of which the start is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// Everything.
    All,
    /// What is not here yet.
    Missing,
}

/// Makes the store have a registry's blob.
pub(super) fn download(
    store: &Store,
    registry: &RegistryClient,
    name: &ImageRef,
    info: &kiln_oci::BlobInfo,
    task: &dyn LayerProgress,
    cancel: &Cancel,
) -> Result<(), Error> {
    let mut reader = BlobReader::download(store, registry, name, info, Start::Missing, (task, cancel))?;
    match reader.drain(&info.digest, &mut vec![0; 256 << 10]) {
        Ok(()) => reader.finish(info),
        // Once: now there is nothing left of it.
        Err(_) if reader.is_spoiled() => download(store, registry, name, info, task, cancel),
        Err(error) => Err(error),
    }
}

impl Read for BlobReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        /// Often enough for a smooth display, seldom enough to cost nothing.
        const REPORT: u64 = 4 << 20;
        if self.cancel.is_cancelled() {
            self.failed = Some(Error::Interrupted);
            return Err(std::io::Error::other("interrupted"));
        }
        let count = match self.source.read(buffer) {
            Ok(count) => count,
            Err(error) => {
                self.failed = of_source(&error);
                // The next try must not go on with it.
                if matches!(&self.failed, Some(Error::Registry(error)) if is_wrong(error))
                    && let Some(into) = self.into.take()
                {
                    into.discard();
                }
                return Err(error);
            }
        };
        if self.left > 0 {
            self.left = self.left.saturating_sub(count as u64);
        } else if let Some(into) = &mut self.into
            && let Err(error) = into.append(&buffer[..count])
        {
            self.failed = Some(error.into());
            return Err(std::io::Error::other("the store cannot keep it"));
        }
        let before = self.read;
        self.read += count as u64;
        if before / REPORT != self.read / REPORT || self.read == self.total && count > 0 {
            self.task.progress(&self.item, self.read, self.total);
        }
        Ok(count)
    }
}

impl<'a> BlobReader<'a> {
    pub(super) fn new(
        source: Box<dyn Read + Send + 'a>,
        into: Option<kiln_store::BlobWriter>,
        info: &kiln_oci::BlobInfo,
        task: &'a dyn LayerProgress,
        cancel: &'a Cancel,
    ) -> Self {
        let (item, total) = (info.digest.short(), info.size);
        Self { source, into, read: 0, item, total, task, cancel, failed: None, left: 0, resumed: false }
    }

    /// Reads a registry's blob, and writes it to the store on the way. What an earlier try left there is not fetched again:
    /// the registry is asked for the rest, and the whole is what its digest says or is thrown away.
    pub(super) fn download(
        store: &Store,
        registry: &RegistryClient,
        name: &ImageRef,
        info: &kiln_oci::BlobInfo,
        start: Start,
        (task, cancel): (&'a dyn LayerProgress, &'a Cancel),
    ) -> Result<Self, Error> {
        let into = store.blob_writer_for(&info.digest, info.size)?;
        let there = into.size();
        let resume = (there > 0).then(|| Resume { offset: there, hasher: into.hasher() });
        let rest = registry.blob(name, info, resume)?;
        // A chain ends each read where its first part ends.
        let (source, read, left): (Box<dyn Read + Send>, _, _) = match start {
            Start::All if there > 0 => (Box::new(into.written()?.chain(rest)), 0, there),
            _ => (Box::new(rest), there, 0),
        };
        let reader = Self::new(source, Some(into), info, task, cancel);
        Ok(Self { read, left, resumed: there > 0, ..reader })
    }

    /// Whether it went on with what an earlier try left, and that was no part of it. It is thrown away: the next try begins
    /// anew.
    pub(super) fn is_spoiled(&self) -> bool {
        self.resumed && self.into.is_none()
    }

    /// Reads what is left: all of it, or what a decompressor did not want. `what` is for the message.
    pub(super) fn drain(&mut self, what: &Digest, buffer: &mut [u8]) -> Result<(), Error> {
        loop {
            match self.read(buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => {
                    let message = error.to_string();
                    let unknown = || StoreError::LayerRead { layer: *what, message }.into();
                    return Err(self.failed.take().unwrap_or_else(unknown));
                }
            }
        }
    }

    /// Makes the blob the store's if it is what was promised.
    pub(super) fn finish(self, info: &kiln_oci::BlobInfo) -> Result<(), Error> {
        if let Some(into) = self.into {
            into.finish(Some((info.digest, info.size)))?;
        }
        Ok(())
    }
}

/// Whether what came is not what was asked for.
fn is_wrong(error: &RegistryError) -> bool {
    matches!(error.root(), RegistryError::DigestMismatch { .. } | RegistryError::SizeMismatch { .. })
}

/// A registry's or a layout's failure, which travels inside an I/O error.
pub(super) fn of_source(error: &std::io::Error) -> Option<Error> {
    let inner = error.get_ref()?;
    let registry = inner.downcast_ref::<RegistryError>().cloned().map(Error::Registry);
    registry.or_else(|| inner.downcast_ref::<OciError>().cloned().map(Error::Oci))
}
