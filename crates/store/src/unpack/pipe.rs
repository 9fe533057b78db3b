//! A bounded pipe of buffers between two threads; buffers go back and are used again.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Bytes of one buffer: large enough that passing one costs nothing beside filling it.
const BUFFER: usize = 256 << 10;
/// Buffers on their way. With one at either end, ten exist at most: 2.5 MiB.
const DEPTH: usize = 8;

/// The end that is filled.
pub(crate) struct Filler {
    full: SyncSender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
}

/// The end that is read. Its end of file means that [`Filler::end`] was called; if the other end was dropped instead,
/// reading fails.
pub(crate) struct Pipe {
    full: Receiver<Vec<u8>>,
    free: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    ended: bool,
}

pub(crate) fn pipe() -> (Filler, Pipe) {
    let (full_in, full_out) = sync_channel(DEPTH);
    let (free_in, free_out) = channel();
    (
        Filler { full: full_in, free: free_out },
        Pipe { full: full_out, free: free_in, current: Vec::new(), at: 0, ended: false },
    )
}

impl Filler {
    /// Returns a buffer to fill, of full length.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        let mut buffer = self.free.try_recv().unwrap_or_default();
        buffer.resize(BUFFER, 0);
        buffer
    }

    /// Passes a buffer on. Returns false if nobody reads any more.
    pub(crate) fn send(&self, buffer: Vec<u8>) -> bool {
        buffer.is_empty() || self.full.send(buffer).is_ok()
    }

    /// Says that this was all.
    pub(crate) fn end(self) {
        let _ = self.full.send(Vec::new());
    }
}

impl BufRead for Pipe {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.current.len() && !self.ended {
            let next = self.full.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.ended = next.is_empty();
            let old = std::mem::replace(&mut self.current, next);
            self.at = 0;
            if !old.is_empty() {
                let _ = self.free.send(old);
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}
