//! The body of what is sent: pieces as they are read, and how far they went.

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
pub(crate) struct Pulse {
    /// Bytes that the connection took.
    taken: AtomicU64,
    /// It would take more, but there is none yet.
    starved: AtomicBool,
}

impl Pulse {
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    pub(crate) fn starved(&self) -> bool {
        self.starved.load(Ordering::Relaxed)
    }
}

/// Bytes from a channel: so many, or up to an empty piece. A channel that only closes is no end, for whoever fills it has
/// failed then: the task that sends is ended by that.
pub(crate) struct Body {
    receiver: mpsc::Receiver<Bytes>,
    left: Option<u64>,
    pulse: Arc<Pulse>,
}

impl Body {
    pub(crate) fn new(receiver: mpsc::Receiver<Bytes>, length: u64, pulse: Arc<Pulse>) -> Self {
        Self { receiver, left: Some(length), pulse }
    }

    /// Up to an empty piece.
    pub(crate) fn endless(receiver: mpsc::Receiver<Bytes>) -> Self {
        Self { receiver, left: None, pulse: Arc::default() }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == Some(0) {
            return Poll::Ready(None);
        }
        let piece = self.receiver.poll_recv(context);
        self.pulse.starved.store(piece.is_pending(), Ordering::Relaxed);
        match piece {
            Poll::Ready(Some(piece)) if piece.is_empty() => {
                self.left = Some(0);
                Poll::Ready(None)
            }
            Poll::Ready(Some(piece)) => {
                self.left = self.left.map(|left| left.saturating_sub(piece.len() as u64));
                self.pulse.taken.fetch_add(piece.len() as u64, Ordering::Relaxed);
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
