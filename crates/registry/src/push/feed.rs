//! The reading half of an upload, on the thread that pushes.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};

use bytes::Bytes;
use kiln_oci::{BlobInfo, BlobSource};
use tokio::sync::mpsc;

use crate::RegistryError;

/// What is read and sent at once.
const PIECE: u64 = 256 << 10;

/// A part of a blob that is to be sent.
pub(super) struct Wanted {
    pub(super) from: u64,
    /// The first byte behind it.
    pub(super) to: u64,
    pub(super) sender: mpsc::Sender<Bytes>,
}

/// Reads a blob, from where it is wanted.
pub(super) struct Feeder<'a> {
    source: &'a dyn BlobSource,
    blob: &'a BlobInfo,
    progress: &'a dyn Fn(u64),
    /// The last reader and where it is: parts mostly follow each other.
    open: Option<(u64, Box<dyn Read + 'a>)>,
}

impl<'a> Feeder<'a> {
    pub(super) fn new(source: &'a dyn BlobSource, blob: &'a BlobInfo, progress: &'a dyn Fn(u64)) -> Self {
        Self { source, blob, progress, open: None }
    }

    /// Hands a part over. Nobody may want it any more before its end, which is no failure here.
    pub(super) fn feed(&mut self, wanted: &Wanted) -> Result<(), RegistryError> {
        let mut reader = self.reader(wanted.from)?;
        let mut at = wanted.from;
        while at < wanted.to {
            let mut piece = vec![0; PIECE.min(wanted.to - at) as usize];
            reader.read_exact(&mut piece).map_err(|error| self.failed(&error))?;
            at += piece.len() as u64;
            // Before the last byte goes out: whoever verifies at the end must have said so by then.
            if at == self.blob.size && reader.read(&mut [0]).map_err(|error| self.failed(&error))? != 0 {
                return Err(self.wrong(format!("it has more than {at} bytes here")));
            }
            if wanted.sender.blocking_send(piece.into()).is_err() {
                return Ok(());
            }
            (self.progress)(at);
        }
        self.open = Some((at, reader));
        Ok(())
    }

    fn reader(&mut self, from: u64) -> Result<Box<dyn Read + 'a>, RegistryError> {
        let (at, mut reader) = match self.open.take() {
            Some((at, reader)) if at <= from => (at, reader),
            _ => self.open_at(from)?,
        };
        let skipped = io::copy(&mut reader.by_ref().take(from - at), &mut io::sink());
        match skipped {
            Ok(skipped) if skipped == from - at => Ok(reader),
            Ok(skipped) => Err(self.wrong(format!("it has only {} bytes here", at + skipped))),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// A reader and where it is: at `from`, where that can be had without reading.
    fn open_at(&self, from: u64) -> Result<(u64, Box<dyn Read + 'a>), RegistryError> {
        let digest = &self.blob.digest;
        let Some(path) = self.source.path(digest) else {
            let reader = self.source.open(digest).map_err(|error| self.wrong(error.to_string()))?;
            return Ok((0, reader));
        };
        let file = File::open(path).and_then(|mut file| {
            file.seek(SeekFrom::Start(from))?;
            Ok(file)
        });
        Ok((from, Box::new(file.map_err(|error| self.failed(&error))?)))
    }

    /// A registry's own failure if that is where the blob comes from.
    fn failed(&self, error: &io::Error) -> RegistryError {
        match RegistryError::of(error) {
            Some(error) => error.clone(),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.wrong(format!("it has less than {} bytes here", self.blob.size))
            }
            None => self.wrong(error.to_string()),
        }
    }

    fn wrong(&self, reason: String) -> RegistryError {
        RegistryError::Source { digest: self.blob.digest, reason }
    }
}
