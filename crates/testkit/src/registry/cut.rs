//! Connections that break at a byte.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use super::Shared;

/// Seen from the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What comes: requests.
    In,
    /// What goes: answers.
    Out,
}

/// Bytes counted, and at which one it breaks.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    came: u64,
    went: u64,
    cut: Option<(Direction, u64)>,
    times: usize,
    /// Since the last cut.
    since: u64,
}

impl Traffic {
    pub(super) fn until(direction: Direction, byte: u64, times: usize) -> Self {
        Self { cut: Some((direction, byte)), times, ..Self::default() }
    }

    pub(super) fn counted(&self) -> (u64, u64) {
        (self.came, self.went)
    }

    /// Returns how many of so many bytes may pass.
    fn room(&self, direction: Direction, wanted: usize) -> usize {
        match self.cut {
            Some((cut, byte)) if cut == direction && self.times > 0 => {
                wanted.min(usize::try_from(byte.saturating_sub(self.since)).unwrap_or(usize::MAX))
            }
            _ => wanted,
        }
    }

    fn count(&mut self, direction: Direction, bytes: usize) {
        match direction {
            Direction::In => self.came += bytes as u64,
            Direction::Out => self.went += bytes as u64,
        }
        if self.cut.is_some_and(|(cut, _)| cut == direction) {
            self.since += bytes as u64;
        }
    }

    fn cut(&mut self) {
        self.times -= 1;
        self.since = 0;
    }
}

/// One side of a connection.
pub(super) struct Line<'a> {
    pub(super) stream: TcpStream,
    pub(super) shared: &'a Shared,
}

impl Line<'_> {
    fn cut(&self) {
        self.shared.state().traffic.cut();
        // Whoever is on the other side may have gone.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Read for Line<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = self.shared.state().traffic.room(Direction::In, buffer.len());
        if room == 0 && !buffer.is_empty() {
            self.cut();
            return Ok(0);
        }
        let count = self.stream.read(&mut buffer[..room])?;
        self.shared.state().traffic.count(Direction::In, count);
        Ok(count)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let room = self.shared.state().traffic.room(Direction::Out, buffer.len());
        if room == 0 && !buffer.is_empty() {
            self.cut();
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = self.stream.write(&buffer[..room])?;
        self.shared.state().traffic.count(Direction::Out, count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
