//! The sending half, on the client's thread.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::{Buf as _, Bytes};
use kiln_core::ImageRef;
use kiln_oci::BlobInfo;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode, Url};
use tokio::sync::mpsc;

use super::{Message, ranges};
use crate::endpoint::Endpoint;
use crate::session::{Ask, Session, Wanted};
use crate::trickle::Window;
use crate::{RegistryError, response, retry};

pub(super) struct Transfer {
    pub(super) session: Arc<Session>,
    pub(super) image: ImageRef,
    pub(super) info: BlobInfo,
    pub(super) offset: u64,
    pub(super) sender: mpsc::Sender<Message>,
}

impl Transfer {
    pub(super) async fn run(self) {
        let Self { session, image, info, offset, sender } = self;
        let offset = tokio::sync::Mutex::new(offset);
        let (sessions, info, offset, sending) = (&session, &info, &offset, &sender);
        let result = session
            .first(&image, Wanted::Blob(info.digest), &info.digest, |endpoint| async move {
                // Never contended: servers are asked one after the other, each going on where the last one stopped.
                let mut offset = offset.lock().await;
                let source = Source::new(sessions.clone(), endpoint, info.clone());
                ranges::fetch(&Arc::new(source), &mut offset, sending).await
            })
            .await;
        if let Err(error) = result {
            // If it cannot be sent nobody wants to know.
            let _ = sender.send(Message::Failed(error)).await;
        }
    }
}

/// A blob on one server.
pub(super) struct Source {
    pub(super) session: Arc<Session>,
    pub(super) endpoint: Endpoint,
    pub(super) info: BlobInfo,
    /// Where it was last sent from, if that is another host: parts are asked for there, until it refuses.
    direct: Mutex<Option<Url>>,
}

/// How one connection ended.
enum End {
    Complete,
    Broken(RegistryError),
    Wrong(RegistryError),
    Gone,
}

impl Source {
    fn new(session: Arc<Session>, endpoint: Endpoint, info: BlobInfo) -> Self {
        Self { session, endpoint, info, direct: Mutex::default() }
    }

    /// Asks for the bytes from `offset` up to `end`.
    pub(super) async fn ask(&self, offset: u64, end: u64) -> Result<Response, RegistryError> {
        let end = (end < self.info.size).then_some(end);
        let ask = Ask { offset, end, ..Ask::get("blobs", self.info.digest) };
        let direct = || self.direct.lock().unwrap_or_else(PoisonError::into_inner);
        let url = direct().clone();
        if url.is_some() {
            match self.session.send(&self.endpoint, &Ask { url, ..ask.clone() }).await {
                Ok(answer) => return Ok(answer),
                // Such addresses are signed, and not for long.
                Err(_) => *direct() = None,
            }
        }
        let answer = self.session.send(&self.endpoint, &ask).await?;
        if answer.url().origin() != self.endpoint.base.origin() {
            *direct() = Some(answer.url().clone());
        }
        Ok(answer)
    }

    /// Gets the bytes up to `end`, over as many connections as are worth it, the first of which has answered already if
    /// there is an answer.
    pub(super) async fn stream(
        &self,
        mut first: Option<Response>,
        offset: &mut u64,
        end: u64,
        sender: &mpsc::Sender<Message>,
    ) -> Result<(), RegistryError> {
        let mut failed = 0;
        // The last byte may have come before the connection broke, or before the program ended the last time.
        while *offset < end {
            let answer = match first.take() {
                Some(answer) => answer,
                None => self.ask(*offset, end).await?,
            };
            let from = Message::From { host: self.endpoint.host.clone(), mirror: self.endpoint.mirror };
            if sender.send(from).await.is_err() {
                return Ok(());
            }
            let start = *offset;
            let error = match self.receive(answer, offset, end, sender).await {
                End::Complete | End::Gone => return Ok(()),
                End::Wrong(error) => return Err(error),
                End::Broken(error) => error,
            };
            failed = if *offset - start >= retry::PROGRESS { 1 } else { failed + retry::cost(&error) };
            if failed >= retry::TRIES {
                return Err(error);
            }
            // The first time at once: a connection that breaks is mostly a server's or proxy's limit.
            tokio::time::sleep(retry::wait(self.session.config.timeouts.again, failed - 1)).await;
        }
        Ok(())
    }

    /// Passes one answer's bytes on.
    async fn receive(
        &self,
        mut answer: Response,
        offset: &mut u64,
        end: u64,
        sender: &mpsc::Sender<Message>,
    ) -> End {
        let (host, info, stall) = (&self.endpoint.host, &self.info, self.session.config.timeouts.stall);
        let part = answer.status() == StatusCode::PARTIAL_CONTENT;
        // Who ignores the range starts from the beginning, and goes on to the end.
        let mut skip = match self.start_of(&answer, *offset) {
            Ok(start) => *offset - start,
            Err(error) => return End::Wrong(error),
        };
        let limit = if part { end } else { info.size };
        let too_much = |actual: u64| {
            let host = host.clone();
            End::Wrong(if limit == info.size {
                RegistryError::SizeMismatch { host, digest: info.digest, wanted: info.size, actual }
            } else {
                RegistryError::Protocol {
                    host,
                    reason: format!("it sends {actual} bytes up to byte {limit}"),
                }
            })
        };
        let announced = answer.content_length().map(|length| *offset - skip + length);
        if let Some(announced) = announced.filter(|announced| *announced != limit) {
            return too_much(announced);
        }
        let mut window = Window::default();
        loop {
            let asked = Instant::now();
            let mut piece = match response::chunk(host, stall, &mut answer).await {
                Ok(Some(piece)) => piece,
                Ok(None) if *offset == end => return End::Complete,
                Ok(None) => return End::Broken(self.interrupted(*offset, "the connection was closed early")),
                Err(RegistryError::Unreachable { cause, .. }) => {
                    return End::Broken(self.interrupted(*offset, &cause));
                }
                Err(error) => return End::Broken(error),
            };
            if window.is_trickle(asked.elapsed(), piece.len(), stall) {
                let host = host.clone();
                return End::Broken(RegistryError::Stalled { host, seconds: stall.as_secs() });
            }
            let skipped = skip.min(piece.len() as u64);
            skip -= skipped;
            piece.advance(skipped as usize);
            if *offset + piece.len() as u64 > limit {
                return too_much(*offset + piece.len() as u64);
            }
            piece.truncate(usize::try_from(end - *offset).unwrap_or(usize::MAX));
            if piece.is_empty() {
                continue;
            }
            *offset += piece.len() as u64;
            if pass(sender, piece).await.is_err() {
                return End::Gone;
            }
            if *offset == end && end < limit {
                return End::Complete;
            }
        }
    }

    /// Returns which byte an answer starts with.
    pub(super) fn start_of(&self, answer: &Response, offset: u64) -> Result<u64, RegistryError> {
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            return Ok(0);
        }
        let range = answer.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let range = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('/'));
        let host = || self.endpoint.host.clone();
        let parsed = range.and_then(|(span, size)| {
            Some((span.split_once('-')?.0.trim().parse().ok()?, size.trim().parse::<u64>().ok()))
        });
        match parsed {
            Some((_, Some(actual))) if actual != self.info.size => {
                let (digest, wanted) = (self.info.digest, self.info.size);
                Err(RegistryError::SizeMismatch { host: host(), digest, wanted, actual })
            }
            Some((start, _)) if start <= offset => Ok(start),
            _ => {
                let reason = format!("it sends another range than the one from byte {offset}");
                Err(RegistryError::Protocol { host: host(), reason })
            }
        }
    }

    pub(super) fn interrupted(&self, received: u64, cause: &str) -> RegistryError {
        let BlobInfo { digest, size, .. } = self.info;
        let (host, cause) = (self.endpoint.host.clone(), cause.to_owned());
        RegistryError::Interrupted { host, digest, received, size, cause }
    }
}

/// Nobody reads any more.
pub(super) struct Gone;

pub(super) async fn pass(sender: &mpsc::Sender<Message>, piece: Bytes) -> Result<(), Gone> {
    sender.send(Message::Piece(piece)).await.map_err(|_| Gone)
}
