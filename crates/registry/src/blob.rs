//! Streaming a blob: fetched on the client's thread, verified on the reader's.

mod ranges;
mod transfer;

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use kiln_core::{Cancel, CancelGuard, DigestHasher, ImageRef};
use kiln_oci::BlobInfo;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::RegistryError;
use crate::engine::{Engine, stopped};
use crate::session::Session;
pub(crate) use ranges::AHEAD as AHEAD_OF_TURN;
use transfer::Transfer;

/// Pieces between the two threads. hyper's grow to some 400 KiB, so this is the memory of a stream: 3 MiB.
const AHEAD: usize = 8;

/// Where to go on with a blob of which the start is there.
#[derive(Debug, Clone)]
pub struct Resume {
    /// Bytes that are there.
    pub offset: u64,
    /// Has seen exactly those.
    pub hasher: DigestHasher,
}

/// A blob on its way. [`Read`] returns 0 only when all of it came and is what its digest says; a failure is an
/// [`io::Error`] around a [`RegistryError`] ([`RegistryError::of`]). Bytes read before the end are unverified.
///
/// [`BufRead`] gives the network's pieces without a copy. Dropping it ends the transfer.
#[derive(Debug)]
pub struct BlobReader {
    wanted: BlobInfo,
    /// Registry and repository, for messages.
    name: String,
    receiver: mpsc::Receiver<Message>,
    piece: Bytes,
    host: String,
    mirror: bool,
    received: u64,
    /// None when the end was reached.
    hasher: Option<DigestHasher>,
    failed: Option<RegistryError>,
    session: Arc<Session>,
    cancel: Cancel,
    abort: AbortHandle,
    /// The client may go before its readers.
    _engine: Arc<Engine>,
    _guard: CancelGuard,
}

#[derive(Debug)]
enum Message {
    /// From here on from this server.
    From {
        host: String,
        mirror: bool,
    },
    Piece(Bytes),
    Failed(RegistryError),
}

pub(crate) fn open(
    engine: &Arc<Engine>,
    session: &Arc<Session>,
    cancel: &Cancel,
    image: &ImageRef,
    info: &BlobInfo,
    resume: Option<Resume>,
) -> Result<BlobReader, RegistryError> {
    if cancel.is_cancelled() {
        return Err(RegistryError::Cancelled);
    }
    let (sender, receiver) = mpsc::channel(AHEAD);
    let Resume { offset, hasher } =
        resume.unwrap_or_else(|| Resume { offset: 0, hasher: DigestHasher::new() });
    let transfer =
        Transfer { session: session.clone(), image: image.clone(), info: info.clone(), offset, sender };
    let abort = engine.spawn(transfer.run());
    let on_cancel = abort.clone();
    let mut reader = BlobReader {
        wanted: info.clone(),
        name: image.name(),
        receiver,
        piece: Bytes::new(),
        host: String::new(),
        mirror: false,
        received: offset,
        hasher: Some(hasher),
        failed: None,
        session: session.clone(),
        cancel: cancel.clone(),
        abort,
        _engine: engine.clone(),
        _guard: cancel.on_cancel(move || on_cancel.abort()),
    };
    reader.advance()?;
    Ok(reader)
}

impl BlobReader {
    /// Reads and drops what is left, so that all is verified: for readers that know the end before it comes, as tar and
    /// gzip do.
    ///
    /// # Errors
    /// As reading.
    pub fn finish(mut self) -> Result<(), RegistryError> {
        while self.hasher.is_some() {
            self.piece = Bytes::new();
            self.advance()?;
        }
        Ok(())
    }

    /// Waits for the next piece, or checks the end.
    fn advance(&mut self) -> Result<(), RegistryError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.next();
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    fn next(&mut self) -> Result<(), RegistryError> {
        let Some(hasher) = &mut self.hasher else { return Ok(()) };
        match self.receiver.blocking_recv() {
            Some(Message::Piece(piece)) => {
                hasher.update(&piece);
                self.received += piece.len() as u64;
                self.piece = piece;
                Ok(())
            }
            Some(Message::From { host, mirror }) => {
                (self.host, self.mirror) = (host, mirror);
                Ok(())
            }
            Some(Message::Failed(error)) => Err(error),
            None if self.cancel.is_cancelled() || self.received != self.wanted.size => {
                Err(stopped(&self.cancel))
            }
            None => self.verify(),
        }
    }

    fn verify(&mut self) -> Result<(), RegistryError> {
        let wanted = self.wanted.digest;
        match self.hasher.take().map(DigestHasher::finish) {
            Some(actual) if actual != wanted => {
                if self.mirror {
                    self.session.distrust(self.host.clone(), wanted);
                }
                let error = RegistryError::DigestMismatch { host: self.host.clone(), wanted, actual };
                Err(error.of_what(&self.name, &wanted))
            }
            _ => Ok(()),
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

impl BufRead for BlobReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() && (self.hasher.is_some() || self.failed.is_some()) {
            self.advance().map_err(io::Error::other)?;
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, amount: usize) {
        self.piece.advance(amount);
    }
}

impl Drop for BlobReader {
    fn drop(&mut self) {
        self.abort.abort();
    }
}
