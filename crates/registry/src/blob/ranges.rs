//! A large blob over several connections at once, passed on in order.
//!
//! What comes ahead of its turn is held in memory, not in a file: a reader gets a stream whatever is below it, and the
//! store's file holds the start of the blob and nothing else at any time. So parts are small, and all blobs of a client
//! share a number of them.

use std::collections::VecDeque;
use std::sync::Arc;

use reqwest::{Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::AbortHandle;

use super::Message;
use super::transfer::{Source, pass};
use crate::RegistryError;

/// Smaller blobs take one connection: most layers are, and several of them come at once anyway.
const LARGE: u64 = 16 << 20;
/// One part. What is asked for in one request should take longer than asking.
const PART: u64 = 4 << 20;
/// Parts of one blob under way.
const LANES: usize = 4;
/// Parts ahead of their turn, of all blobs of a client together: 20 MiB.
pub(crate) const AHEAD: usize = 5;
/// Pieces of a part. They come at 8 KiB and more, so this is no limit of its own.
const PIECES: usize = 1024;

/// Gets all that is missing from one server.
pub(super) async fn fetch(
    source: &Arc<Source>,
    offset: &mut u64,
    sender: &mpsc::Sender<Message>,
) -> Result<(), RegistryError> {
    let size = source.info.size;
    if size.saturating_sub(*offset) <= LARGE {
        return source.stream(None, offset, size, sender).await;
    }
    match source.ask(*offset, *offset + PART).await {
        Ok(answer) if answer.status() == StatusCode::PARTIAL_CONTENT => {
            // Before more is asked for: a blob of another size has no such parts.
            source.start_of(&answer, *offset)?;
            parts(source, answer, offset, sender).await
        }
        // It knows no ranges, and sends everything.
        Ok(answer) => source.stream(Some(answer), offset, size, sender).await,
        // It knows none, and says so.
        Err(RegistryError::Status { status: 400 | 416 | 501, .. }) => {
            source.stream(None, offset, size, sender).await
        }
        Err(error) => Err(error),
    }
}

async fn parts(
    source: &Arc<Source>,
    first: Response,
    offset: &mut u64,
    sender: &mpsc::Sender<Message>,
) -> Result<(), RegistryError> {
    let size = source.info.size;
    let mut first = Some(first);
    let mut under_way: VecDeque<Part> = VecDeque::new();
    let mut next = *offset;
    loop {
        while under_way.len() < LANES && next < size {
            // The part whose turn it is needs no leave, so each blob goes on.
            let leave = match under_way.is_empty() {
                true => None,
                false => match source.session.ahead.clone().try_acquire_owned() {
                    Ok(leave) => Some(leave),
                    Err(_) => break,
                },
            };
            let end = size.min(next + PART);
            under_way.push_back(Part::begin(source, first.take(), next, end, leave));
            next = end;
        }
        let Some(mut part) = under_way.pop_front() else { return Ok(()) };
        while let Some(message) = part.receiver.recv().await {
            let sent = match message {
                Message::Failed(error) => return Err(error),
                Message::Piece(piece) => {
                    *offset += piece.len() as u64;
                    pass(sender, piece).await.is_ok()
                }
                from @ Message::From { .. } => sender.send(from).await.is_ok(),
            };
            if !sent {
                return Ok(());
            }
        }
        if *offset != part.end {
            return Err(source.interrupted(*offset, "a part ended early"));
        }
    }
}

/// A part on its way; dropping it ends that.
struct Part {
    receiver: mpsc::Receiver<Message>,
    /// The first byte behind it.
    end: u64,
    abort: AbortHandle,
    _leave: Option<OwnedSemaphorePermit>,
}

impl Part {
    fn begin(
        source: &Arc<Source>,
        first: Option<Response>,
        mut offset: u64,
        end: u64,
        leave: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(PIECES);
        let source = source.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = source.stream(first, &mut offset, end, &sender).await {
                // If it cannot be sent nobody wants to know.
                let _ = sender.send(Message::Failed(error)).await;
            }
        });
        Self { receiver, end, abort: task.abort_handle(), _leave: leave }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.abort.abort();
    }
}
