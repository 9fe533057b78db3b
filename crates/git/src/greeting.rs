//! What a server says first: what it can do, and, if it is an old one, its refs.

use std::io::Read;

use gix_hash::ObjectId;
use kiln_core::Cancel;

use crate::GitError;
use crate::error::plain;
use crate::location::Location;
use crate::pkt::{self, Packet};
use crate::refs::Ref;
use crate::transport::broken;

/// Version of the protocol; 1 is 0 with a line before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Zero,
    Two,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) version: Version,
    /// One each, `name` or `name=value`.
    pub(crate) capabilities: Vec<String>,
    /// All refs; in version 2 there are none here, one asks for those one wants.
    pub(crate) refs: Vec<Ref>,
}

/// More than ten million refs have, and less than what memory has.
const MOST: usize = 256 << 20;

impl Greeting {
    pub(crate) fn read(
        reader: &mut dyn Read,
        location: &Location,
        cancel: &Cancel,
    ) -> Result<Self, GitError> {
        let mut lines = Lines { reader, location, cancel, read: 0 };
        let mut greeting = Self { version: Version::Zero, capabilities: Vec::new(), refs: Vec::new() };
        let mut first = lines.next()?;
        if first.as_deref().is_some_and(|line| line.starts_with(b"# service=")) {
            // HTTP puts this before, with a flush behind.
            lines.next()?;
            first = lines.next()?;
        }
        if first.as_deref() == Some(b"version 1") {
            first = lines.next()?;
        }
        if first.as_deref() == Some(b"version 2") {
            greeting.version = Version::Two;
            while let Some(line) = lines.next()? {
                greeting.capabilities.push(text(&line));
            }
        } else {
            while let Some(line) = first {
                let (line, capabilities) = match line.iter().position(|byte| *byte == 0) {
                    Some(at) => (&line[..at], text(&line[at + 1..])),
                    None => (&line[..], String::new()),
                };
                if !capabilities.is_empty() {
                    greeting.capabilities = capabilities.split_whitespace().map(str::to_owned).collect();
                }
                greeting.add(line).ok_or_else(|| lines.wrong("a ref that is none"))?;
                first = lines.next()?;
            }
        }
        if greeting.value("object-format").is_some_and(|format| format != "sha1") {
            let reason = "its objects are named by SHA-256, which kiln does not read".to_owned();
            return Err(GitError::Unsupported { remote: location.name.clone(), reason });
        }
        greeting.point_head();
        Ok(greeting)
    }

    /// Whether the server has a capability.
    pub(crate) fn has(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|given| given.split('=').next() == Some(capability))
    }

    /// The value of one.
    pub(crate) fn value(&self, capability: &str) -> Option<&str> {
        self.capabilities.iter().find_map(|given| given.strip_prefix(capability)?.strip_prefix('='))
    }

    /// Adds a line of an old server's list: `ID NAME`, where `NAME^{}` is what a tag points to.
    fn add(&mut self, line: &[u8]) -> Option<()> {
        let line = std::str::from_utf8(line).ok()?;
        let (id, name) = line.split_once(' ')?;
        if id == "shallow" {
            return Some(());
        }
        let id = ObjectId::from_hex(id.as_bytes()).ok()?;
        match name.strip_suffix("^{}") {
            Some("capabilities") => {}
            Some(tag) => self.refs.last_mut().filter(|last| last.name == tag)?.peeled = Some(id),
            None => self.refs.push(Ref { name: name.to_owned(), id, peeled: None, target: None }),
        }
        Some(())
    }

    /// `symref=HEAD:refs/heads/main`
    fn point_head(&mut self) {
        let targets = self.capabilities.iter().filter_map(|given| given.strip_prefix("symref=HEAD:"));
        let target = targets.map(str::to_owned).next();
        if let Some(head) = self.refs.iter_mut().find(|found| found.name == "HEAD") {
            head.target = target;
        }
    }
}

/// Lines up to the next flush.
pub(crate) struct Lines<'a> {
    pub(crate) reader: &'a mut dyn Read,
    pub(crate) location: &'a Location,
    pub(crate) cancel: &'a Cancel,
    pub(crate) read: usize,
}

impl Lines<'_> {
    /// The next packet. That the server refuses is an error.
    pub(crate) fn packet(&mut self) -> Result<Packet, GitError> {
        let packet = pkt::read(self.reader).map_err(|error| broken(self.location, self.cancel, &error))?;
        let remote = || self.location.name.clone();
        let Some(packet) = packet else {
            let cause = "the connection ended without an answer".to_owned();
            let ended = GitError::Unreachable { remote: remote(), cause };
            return Err(if self.cancel.is_cancelled() { GitError::Cancelled } else { ended });
        };
        if let Some(line) = packet.line() {
            if let Some(message) = line.strip_prefix(b"ERR ") {
                return Err(GitError::Refused { remote: remote(), message: plain(&text(message)) });
            }
            self.read += line.len();
        }
        if self.read > MOST {
            let what = format!("its refs have more than {} MiB", MOST >> 20);
            return Err(GitError::TooLarge { remote: remote(), what });
        }
        Ok(packet)
    }

    /// The next line; none at a flush.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, GitError> {
        let packet = self.packet()?;
        match packet.line() {
            Some(line) => Ok(Some(line.to_owned())),
            None if packet == Packet::Flush => Ok(None),
            None => Err(self.wrong("a packet out of place")),
        }
    }

    pub(crate) fn wrong(&self, reason: &str) -> GitError {
        GitError::Protocol { remote: self.location.name.clone(), reason: reason.to_owned() }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
