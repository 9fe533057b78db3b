//! The body of an upload: pieces as they are read, and how far they went.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::mpsc;

/// What a body tells whoever waits for the answer.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Bytes that the connection took.
    taken: AtomicU64,
    /// It would take more, but there is none yet.
    starved: AtomicBool,
}

impl Pulse {
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn starved(&self) -> bool {
        self.starved.load(Ordering::Relaxed)
    }
}

/// So many bytes, from a channel.
pub(super) struct Body {
    receiver: mpsc::Receiver<Bytes>,
    left: u64,
    pulse: Arc<Pulse>,
}

impl Body {
    pub(super) fn new(receiver: mpsc::Receiver<Bytes>, length: u64, pulse: Arc<Pulse>) -> Self {
        Self { receiver, left: length, pulse }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = self.receiver.poll_recv(context);
        self.pulse.starved.store(piece.is_pending(), Ordering::Relaxed);
        match piece {
            Poll::Ready(Some(piece)) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                self.pulse.taken.fetch_add(piece.len() as u64, Ordering::Relaxed);
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            // Whoever reads has failed, and says so to the caller: the task ends before this is looked at.
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
