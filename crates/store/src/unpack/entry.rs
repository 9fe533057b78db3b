//! Entries of a tar: ustar, PAX and GNU headers become one plain struct.
//!
//! The `tar` crate parses the fields of a header; the walk from header to header is here, because its own reads
//! extension headers of any size into memory, splits PAX records at newlines (a capability may hold one), and knows no
//! fractions of seconds. Format: <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html> and
//! <https://www.gnu.org/software/tar/manual/html_node/Standard.html>.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use kiln_core::IoError;

use super::pipe::Pipe;
use crate::error::{ArchiveError, EntryProblem};

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Directory,
    Fifo,
}

/// One entry, all extensions applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As written.
    pub(crate) name: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Permission bits only.
    pub(crate) mode: u32,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    /// Bytes that follow; 0 but for files.
    pub(crate) size: u64,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Go's limit for extension headers; ours too.
const MAX_EXTENSION: u64 = 1 << 20;
/// PATH_MAX without the final NUL.
const MAX_PATH: usize = 4095;
/// Bytes of a header.
pub(crate) const BLOCK: usize = 512;
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Reads a tar from the pipe.
pub(crate) struct Entries {
    pipe: Pipe,
    /// Name of the entry at hand, for messages.
    name: Vec<u8>,
    /// Bytes of it still to come, and of its padding.
    rest: u64,
    padding: u64,
    count: u64,
    limit: u64,
    global: Extensions,
}

type Extensions = BTreeMap<Vec<u8>, Vec<u8>>;

impl Entries {
    pub(crate) fn new(pipe: Pipe, limit: u64) -> Self {
        let (name, global) = (Vec::new(), Extensions::new());
        Self { pipe, name, rest: 0, padding: 0, count: 0, limit, global }
    }

    /// Returns the next entry; what was not read of the one before is skipped.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        self.skip(self.rest + self.padding)?;
        (self.rest, self.padding) = (0, 0);
        let mut local = Extensions::new();
        loop {
            let Some(block) = self.header()? else { return Ok(None) };
            self.count += 1;
            if self.count > self.limit {
                return Err(ArchiveError::TooLarge { limit: self.limit, unit: "entries".to_owned() });
            }
            let header = tar::Header::from_byte_slice(&block);
            self.name = header.path_bytes().into_owned();
            check_sum(header, &block).map_err(|problem| self.bad(problem))?;
            let size = header.entry_size().map_err(|_| self.damaged("size"))?;
            match block[156] {
                b'x' | b'X' => {
                    let data = self.extension(size)?;
                    parse_pax(&data, &mut local).ok_or_else(|| self.damaged("extended header"))?;
                }
                b'g' => {
                    let data = self.extension(size)?;
                    let mut global = std::mem::take(&mut self.global);
                    parse_pax(&data, &mut global).ok_or_else(|| self.damaged("extended header"))?;
                    self.global = global;
                }
                // GNU's long names end in a NUL.
                b'L' => drop(local.insert(b"path".to_vec(), until_nul(self.extension(size)?))),
                b'K' => drop(local.insert(b"linkpath".to_vec(), until_nul(self.extension(size)?))),
                _ => {
                    let mut all = self.global.clone();
                    all.append(&mut local);
                    let entry = self.entry(header, block[156], size, all)?;
                    self.rest = entry.size;
                    self.padding = padding(entry.size);
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Reads what follows the last entry, to the end of the pipe.
    pub(crate) fn drain(&mut self) -> Result<(), ArchiveError> {
        loop {
            let length = self.fill()?.len();
            if length == 0 {
                return Ok(());
            }
            self.pipe.consume(length);
        }
    }

    /// Returns some of the entry's content; nothing at its end.
    pub(crate) fn content(&mut self) -> Result<&[u8], ArchiveError> {
        if self.rest == 0 {
            return Ok(&[]);
        }
        let rest = usize::try_from(self.rest).unwrap_or(usize::MAX);
        if self.fill()?.is_empty() {
            return Err(self.bad(EntryProblem::Truncated));
        }
        let all = self.fill()?;
        Ok(&all[..all.len().min(rest)])
    }

    /// Says how much of [`content`](Self::content) was used.
    pub(crate) fn used(&mut self, length: usize) {
        self.pipe.consume(length);
        self.rest -= length as u64;
    }

    /// Describes what is wrong with the entry at hand.
    pub(crate) fn bad(&self, problem: EntryProblem) -> ArchiveError {
        let mut entry = String::from_utf8_lossy(&self.name).into_owned();
        if entry.len() > 200 {
            entry = entry.chars().take(200).chain(['…']).collect();
        }
        ArchiveError::Entry { entry, problem }
    }

    fn damaged(&self, what: &str) -> ArchiveError {
        self.bad(EntryProblem::Header { what: what.to_owned() })
    }

    fn fill(&mut self) -> Result<&[u8], ArchiveError> {
        // The decompressor failed; it says why itself, and its word counts.
        self.pipe.fill_buf().map_err(|error| ArchiveError::Decompress { reason: error.to_string() })
    }

    /// Returns the next header; none at the end, which is two blocks of zeros, or one, or nothing at all.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, ArchiveError> {
        let mut block = [0; BLOCK];
        let length = self.read(&mut block)?;
        match length {
            0 => Ok(None),
            BLOCK if block.iter().all(|&byte| byte == 0) => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => {
                self.name.clear();
                Err(self.bad(EntryProblem::Truncated))
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let mut filled = 0;
        while filled < buffer.len() {
            let length = {
                let some = self.fill()?;
                let length = some.len().min(buffer.len() - filled);
                buffer[filled..filled + length].copy_from_slice(&some[..length]);
                length
            };
            if length == 0 {
                break;
            }
            self.pipe.consume(length);
            filled += length;
        }
        Ok(filled)
    }

    fn skip(&mut self, mut length: u64) -> Result<(), ArchiveError> {
        while length > 0 {
            let some = self.fill()?.len();
            if some == 0 {
                return Err(self.bad(EntryProblem::Truncated));
            }
            let step = length.min(some as u64);
            self.pipe.consume(step as usize);
            length -= step;
        }
        Ok(())
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > MAX_EXTENSION {
            let what = "extended header".to_owned();
            return Err(self.bad(EntryProblem::TooLong { what, limit: MAX_EXTENSION }));
        }
        let mut data = vec![0; size as usize];
        if self.read(&mut data)? < data.len() {
            return Err(self.bad(EntryProblem::Truncated));
        }
        self.skip(padding(size))?;
        Ok(data)
    }

    fn entry(
        &mut self,
        header: &tar::Header,
        flag: u8,
        size: u64,
        mut pax: Extensions,
    ) -> Result<Entry, ArchiveError> {
        let name = pax.remove(&b"path"[..]).unwrap_or_else(|| header.path_bytes().into_owned());
        self.name.clone_from(&name);
        if pax.keys().any(|key| key.starts_with(b"GNU.sparse.")) {
            return Err(self.bad(EntryProblem::Sparse));
        }
        let link = pax
            .remove(&b"linkpath"[..])
            .unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
        for (what, text) in [("name", &name), ("link target", &link)] {
            if text.len() > MAX_PATH {
                let limit = MAX_PATH as u64;
                return Err(self.bad(EntryProblem::TooLong { what: what.to_owned(), limit }));
            }
        }
        let device = || -> Result<_, ArchiveError> {
            let part = |field: &[u8], part: io::Result<Option<u32>>| match part {
                Err(_) if is_empty(field) => Ok(0),
                part => part.map(Option::unwrap_or_default).map_err(|_| self.damaged("device number")),
            };
            let bytes = header.as_bytes();
            Ok((
                part(&bytes[329..337], header.device_major())?,
                part(&bytes[337..345], header.device_minor())?,
            ))
        };
        let kind = match flag {
            // Before POSIX, a slash at the end was how a directory was told.
            0 if name.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Symlink(link),
            b'3' => device().map(|(major, minor)| Kind::Char(major, minor))?,
            b'4' => device().map(|(major, minor)| Kind::Block(major, minor))?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err(self.bad(EntryProblem::Sparse)),
            other => return Err(self.bad(EntryProblem::Kind { kind: char::from(other) })),
        };
        let number = |key: &[u8], own: io::Result<u64>, what: &str| match pax.get(key) {
            Some(text) => parse_number(text).ok_or_else(|| self.damaged(what)),
            None => own.map_err(|_| self.damaged(what)),
        };
        let id = |value: u64, what| u32::try_from(value).map_err(|_| self.damaged(what));
        let own = |field: &[u8], value| if is_empty(field) { Ok(0) } else { value };
        let old = header.as_old();
        let uid = id(number(b"uid", own(&old.uid, header.uid()), "owner")?, "owner")?;
        let gid = id(number(b"gid", own(&old.gid, header.gid()), "group")?, "group")?;
        // Only files are followed by content, whatever the field says: so reads Go, and with it docker.
        let size = if kind == Kind::File { number(b"size", Ok(size), "size")? } else { 0 };
        let mtime = match pax.get(&b"mtime"[..]) {
            Some(text) => parse_time(text).ok_or_else(|| self.damaged("time"))?,
            None => (header.mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0), 0),
        };
        let mode = header.mode().map_err(|_| self.damaged("mode"))? & 0o7777;
        let xattrs = pax
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?.to_vec(), value.clone())))
            .collect();
        Ok(Entry { name, kind, uid, gid, mode, mtime, size, xattrs })
    }
}

/// An I/O error at a path of a tree in the making, for use with `?`.
pub(super) fn io(op: &str, name: &[u8], error: rustix::io::Errno) -> ArchiveError {
    use std::os::unix::ffi::OsStrExt as _;
    ArchiveError::Io(IoError::new(op, std::ffi::OsStr::from_bytes(name), &error.into()))
}

/// An empty field is 0: so reads Go, and with it docker.
fn is_empty(field: &[u8]) -> bool {
    field.iter().all(|byte| matches!(byte, 0 | b' '))
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// Returns whether a tar may begin so: with a header whose checksum is right.
pub(crate) fn begins_tar(block: &[u8; BLOCK]) -> bool {
    block.iter().any(|&byte| byte != 0) && check_sum(tar::Header::from_byte_slice(block), block).is_ok()
}

fn check_sum(header: &tar::Header, block: &[u8; BLOCK]) -> Result<(), EntryProblem> {
    // The sum counts its own field as spaces.
    let sum: u32 =
        block[..148].iter().chain(&block[156..]).map(|&byte| u32::from(byte)).sum::<u32>() + 8 * 32;
    match header.cksum() {
        Ok(said) if said == sum => Ok(()),
        _ => Err(EntryProblem::Header { what: "checksum".to_owned() }),
    }
}

fn until_nul(mut data: Vec<u8>) -> Vec<u8> {
    if let Some(end) = data.iter().position(|&byte| byte == 0) {
        data.truncate(end);
    }
    data
}

/// Records are `length key=value\n`, the length counting all of it. An empty value takes a key back.
fn parse_pax(mut data: &[u8], into: &mut Extensions) -> Option<()> {
    while !data.is_empty() {
        let space = data.iter().position(|&byte| byte == b' ')?;
        let length = usize::try_from(parse_number(&data[..space])?).ok()?;
        let record = data.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|&byte| byte == b'=')?;
        let (key, value) = (record[..equals].to_vec(), record[equals + 1..].to_vec());
        // An xattr may be empty and is meant so.
        if value.is_empty() && !key.starts_with(XATTR) {
            into.remove(&key);
        } else {
            into.insert(key, value);
        }
        data = &data[length..];
    }
    Some(())
}

fn parse_number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `-1.5` is half a second after -2: seconds are rounded down.
fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}")[..9].parse().ok()?;
    match (text.starts_with('-'), nanos) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        _ => Some((seconds, nanos)),
    }
}

#[cfg(test)]
mod tests;
