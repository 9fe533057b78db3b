//! A pack out of a multiplexed stream.
//! <https://git-scm.com/docs/protocol-common#_pkt_line_format>, "side-band-64k"

use std::io::{self, Read};

use crate::error::plain;
use crate::location::Location;
use crate::pkt::{self, Packet};
use crate::transport::broken;
use crate::{Access, GitError, Progress};

/// Told of progress this often, bytes.
const STEP: u64 = 256 << 10;

/// Reads the pack; remembers why it ended, if it did before its end.
pub(crate) struct Sideband<'a, 'p> {
    access: &'a Access<'a>,
    location: &'a Location,
    reader: &'a mut dyn Read,
    progress: &'a mut (dyn FnMut(Progress<'_>) + 'p),
    packet: Vec<u8>,
    /// Bytes of the packet that were given out.
    given: usize,
    received: u64,
    told: u64,
    ended: bool,
    failure: Option<GitError>,
}

impl<'a, 'p> Sideband<'a, 'p> {
    pub(crate) fn new(
        access: &'a Access<'_>,
        location: &'a Location,
        reader: &'a mut dyn Read,
        progress: &'a mut (dyn FnMut(Progress<'_>) + 'p),
    ) -> Self {
        let (packet, given, received, told) = (Vec::new(), 0, 0, 0);
        Self {
            access,
            location,
            reader,
            progress,
            packet,
            given,
            received,
            told,
            ended: false,
            failure: None,
        }
    }

    pub(crate) fn failure(self) -> Option<GitError> {
        self.failure
    }

    /// Takes the next packet that brings something; false at the end.
    fn advance(&mut self) -> Result<bool, GitError> {
        loop {
            let packet = pkt::read(self.reader)
                .and_then(|packet| packet.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()))
                .map_err(|error| broken(self.location, &self.access.cancel, &error))?;
            let remote = || self.location.name.clone();
            let data = match packet {
                Packet::Data(data) => data,
                Packet::Flush => return Ok(false),
                Packet::Delimiter | Packet::ResponseEnd => {
                    let reason = "a packet out of place".to_owned();
                    return Err(GitError::Protocol { remote: remote(), reason });
                }
            };
            match data.first() {
                Some(1) if data.len() > 1 => {
                    self.received += data.len() as u64 - 1;
                    if self.received > self.access.limits.pack {
                        let what = format!("its pack has more than {} MiB", self.access.limits.pack >> 20);
                        return Err(GitError::TooLarge { remote: remote(), what });
                    }
                    (self.packet, self.given) = (data, 1);
                    return Ok(true);
                }
                // The end of an empty packet, or words about progress.
                None | Some(1 | 2) => {}
                Some(3) => {
                    let message = plain(&String::from_utf8_lossy(&data[1..]));
                    return Err(GitError::Refused { remote: remote(), message });
                }
                Some(_) => {
                    let reason = "a channel that the protocol does not have".to_owned();
                    return Err(GitError::Protocol { remote: remote(), reason });
                }
            }
        }
    }
}

impl Read for Sideband<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.packet.len() {
            if self.ended {
                return Ok(0);
            }
            match self.advance() {
                Ok(true) => {}
                Ok(false) => {
                    self.ended = true;
                    return Ok(0);
                }
                Err(failure) => {
                    self.ended = true;
                    self.failure = Some(failure);
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
            if self.received >= self.told + STEP {
                self.told = self.received;
                (self.progress)(Progress::Received { bytes: self.received });
            }
        }
        let count = buffer.len().min(self.packet.len() - self.given);
        buffer[..count].copy_from_slice(&self.packet[self.given..self.given + count]);
        self.given += count;
        Ok(count)
    }
}
