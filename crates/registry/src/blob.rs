//! Streaming a blob: fetched on the client's thread, verified on the reader's.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use kiln_core::{Cancel, CancelGuard, DigestHasher, ImageRef};
use kiln_oci::BlobInfo;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::endpoint::Endpoint;
use crate::engine::{Engine, stopped};
use crate::session::{Ask, Session, Wanted};
use crate::trickle::Window;
use crate::{RegistryError, response, retry};

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
                Err(RegistryError::DigestMismatch { host: self.host.clone(), wanted, actual })
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

/// The sending half, on the client's thread.
struct Transfer {
    session: Arc<Session>,
    image: ImageRef,
    info: BlobInfo,
    offset: u64,
    sender: mpsc::Sender<Message>,
}

/// Nobody reads any more.
struct Gone;

/// How one connection ended.
enum End {
    Complete,
    Broken(RegistryError),
    Wrong(RegistryError),
    Gone,
}

impl Transfer {
    async fn run(self) {
        let Self { session, image, info, offset, sender } = self;
        let offset = tokio::sync::Mutex::new(offset);
        let (session, info, offset, sending) = (&session, &info, &offset, &sender);
        let result = session
            .first(&image, Wanted::Blob(info.digest), |endpoint| async move {
                // Never contended: servers are asked one after the other, each going on where the last one stopped.
                let mut offset = offset.lock().await;
                from_one(session, &endpoint, info, &mut offset, sending).await
            })
            .await;
        if let Err(error) = result {
            // If it cannot be sent nobody wants to know.
            let _ = sender.send(Message::Failed(error)).await;
        }
    }
}

/// Gets all that is missing from one server, over as many connections as are worth it.
async fn from_one(
    session: &Session,
    endpoint: &Endpoint,
    info: &BlobInfo,
    offset: &mut u64,
    sender: &mpsc::Sender<Message>,
) -> Result<(), RegistryError> {
    let mut failed = 0;
    // The last byte may have come before the connection broke, or before the program ended the last time.
    while *offset < info.size {
        let ask = Ask { offset: *offset, ..Ask::get("blobs", info.digest) };
        let answer = session.send(endpoint, &ask).await?;
        let from = Message::From { host: endpoint.host.clone(), mirror: endpoint.mirror };
        if sender.send(from).await.is_err() {
            return Ok(());
        }
        let start = *offset;
        let stall = session.config.timeouts.stall;
        let error = match receive(&endpoint.host, stall, answer, info, offset, sender).await {
            End::Complete | End::Gone => return Ok(()),
            End::Wrong(error) => return Err(error),
            End::Broken(error) => error,
        };
        failed = if *offset - start >= retry::PROGRESS { 1 } else { failed + retry::cost(&error) };
        if failed >= retry::TRIES {
            return Err(error);
        }
        // The first time at once: a connection that breaks is mostly a server's or proxy's limit.
        tokio::time::sleep(retry::wait(failed - 1)).await;
    }
    Ok(())
}

/// Passes one answer's bytes on.
async fn receive(
    host: &str,
    stall: Duration,
    mut answer: Response,
    info: &BlobInfo,
    offset: &mut u64,
    sender: &mpsc::Sender<Message>,
) -> End {
    // Who ignores the range starts from the beginning.
    let mut skip = match start_of(host, &answer, *offset) {
        Ok(start) => *offset - start,
        Err(error) => return End::Wrong(error),
    };
    let too_much = |actual: u64| {
        let (digest, wanted) = (info.digest, info.size);
        End::Wrong(RegistryError::SizeMismatch { host: host.to_owned(), digest, wanted, actual })
    };
    let announced = answer.content_length().map(|length| *offset - skip + length);
    if let Some(announced) = announced.filter(|announced| *announced != info.size) {
        return too_much(announced);
    }
    let mut window = Window::default();
    loop {
        let asked = Instant::now();
        let mut piece = match response::chunk(host, stall, &mut answer).await {
            Ok(Some(piece)) => piece,
            Ok(None) if *offset == info.size => return End::Complete,
            Ok(None) => {
                return End::Broken(interrupted(host, info, *offset, "the connection was closed early"));
            }
            Err(RegistryError::Unreachable { cause, .. }) => {
                return End::Broken(interrupted(host, info, *offset, &cause));
            }
            Err(error) => return End::Broken(error),
        };
        if window.is_trickle(asked.elapsed(), piece.len(), stall) {
            return End::Broken(RegistryError::Stalled { host: host.to_owned(), seconds: stall.as_secs() });
        }
        let skipped = skip.min(piece.len() as u64);
        skip -= skipped;
        piece.advance(skipped as usize);
        if *offset + piece.len() as u64 > info.size {
            return too_much(*offset + piece.len() as u64);
        }
        if piece.is_empty() {
            continue;
        }
        *offset += piece.len() as u64;
        if pass(sender, piece).await.is_err() {
            return End::Gone;
        }
    }
}

async fn pass(sender: &mpsc::Sender<Message>, piece: Bytes) -> Result<(), Gone> {
    sender.send(Message::Piece(piece)).await.map_err(|_| Gone)
}

/// Returns which byte an answer starts with.
fn start_of(host: &str, answer: &Response, offset: u64) -> Result<u64, RegistryError> {
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        return Ok(0);
    }
    let range = answer.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok());
    match start {
        Some(start) if start <= offset => Ok(start),
        _ => Err(RegistryError::Protocol {
            host: host.to_owned(),
            reason: format!("it sends another range than the one from byte {offset}"),
        }),
    }
}

fn interrupted(host: &str, info: &BlobInfo, received: u64, cause: &str) -> RegistryError {
    let BlobInfo { digest, size, .. } = *info;
    RegistryError::Interrupted { host: host.to_owned(), digest, received, size, cause: cause.to_owned() }
}
