//! Where the files of a tar lie, found by its headers alone: the bytes of entries are jumped over.
//!
//! Not by the `tar` crate's iterator: that one takes the whole of a long name into memory, whatever its length, and an
//! archive from a stranger may say that a name has gigabytes.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Positions and sizes of plain files by name, and where links lead.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) files: HashMap<String, (u64, u64)>,
    /// From a link's name to the name of what it links to; what leads out of the archive is left out.
    links: HashMap<String, String>,
}

/// More than any archive of images has.
const MAX_ENTRIES: usize = 1_000_000;
/// The most bytes of a name, and of the attributes before an entry.
const MAX_EXTENSION: u64 = 1 << 20;
/// A link to a link to a link; docker writes one.
const MAX_LINKS: usize = 8;
const BLOCK: u64 = 512;

impl Found {
    pub(crate) fn follow(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = name;
        for _ in 0..=MAX_LINKS {
            if let Some(found) = self.files.get(name) {
                return Some(*found);
            }
            name = self.links.get(name)?;
        }
        None
    }
}

/// Reads all headers.
pub(crate) fn scan(file: &File) -> io::Result<Found> {
    let length = file.metadata()?.len();
    let mut found = Found::default();
    let mut extension = Extension::default();
    let mut position = 0;
    let mut entries = 0;
    while let Some(header) = header(file, position)? {
        entries += 1;
        if entries > MAX_ENTRIES {
            return Err(wrong(format!("it has more than {MAX_ENTRIES} entries")));
        }
        let kind = header.entry_type();
        let size = match extension.size {
            Some(size) if !kind.is_pax_local_extensions() => size,
            _ => header.entry_size()?,
        };
        let data = position + BLOCK;
        let next = size.checked_next_multiple_of(BLOCK).and_then(|size| size.checked_add(data));
        // The padding of the last entry may be missing.
        let (Some(next), true) = (next, size <= length.saturating_sub(data)) else {
            return Err(wrong(format!("an entry at byte {position} is longer than the archive")));
        };
        position = next;
        if kind.is_gnu_longname() || kind.is_gnu_longlink() {
            let bytes = small(file, data, size)?;
            let text = bytes.split(|byte| *byte == 0).next().map(text);
            *(if kind.is_gnu_longname() { &mut extension.name } else { &mut extension.link }) = text;
        } else if kind.is_pax_local_extensions() {
            extension.read(&small(file, data, size)?)?;
        } else if !kind.is_pax_global_extensions() {
            let Extension { name, link, .. } = std::mem::take(&mut extension);
            let name = inside("", &name.unwrap_or_else(|| text(&header.path_bytes())));
            let link = link.or_else(|| header.link_name_bytes().map(|link| text(&link)));
            let Some(name) = name else { continue };
            // The last of equal names is what unpacking would leave.
            if kind.is_file() || kind.is_contiguous() {
                found.links.remove(&name);
                found.files.insert(name, (data, size));
            } else if kind.is_symlink() || kind.is_hard_link() {
                let beside =
                    if kind.is_symlink() { name.rsplit_once('/').map_or("", |(dir, _)| dir) } else { "" };
                found.files.remove(&name);
                if let Some(to) = link.and_then(|link| inside(beside, &link)) {
                    found.links.insert(name, to);
                }
            }
        }
    }
    Ok(found)
}

/// What stands before an entry and is about it.
#[derive(Default)]
struct Extension {
    name: Option<String>,
    link: Option<String>,
    size: Option<u64>,
}

impl Extension {
    fn read(&mut self, bytes: &[u8]) -> io::Result<()> {
        for line in tar::PaxExtensions::new(bytes) {
            let line = line?;
            let value = text(line.value_bytes());
            match line.key_bytes() {
                b"path" => self.name = Some(value),
                b"linkpath" => self.link = Some(value),
                b"size" => {
                    self.size = Some(value.parse().map_err(|_| wrong(format!("{value:?} is no size")))?);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Reads the header at a position; none at the end.
fn header(file: &File, position: u64) -> io::Result<Option<tar::Header>> {
    let mut header = tar::Header::new_old();
    let block = header.as_mut_bytes();
    let mut filled = 0;
    while filled < block.len() {
        match file.read_at(&mut block[filled..], position + filled as u64)? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(wrong("it ends in the middle of a header".to_owned())),
            count => filled += count,
        }
    }
    if block.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    // The checksum's own field counts as blanks: POSIX, ustar interchange format.
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    if header.cksum()? != sum {
        return Err(wrong(format!("the header at byte {position} is damaged")));
    }
    Ok(Some(header))
}

fn small(file: &File, position: u64, size: u64) -> io::Result<Vec<u8>> {
    if size > MAX_EXTENSION {
        return Err(wrong(format!("a name at byte {position} is said to have {size} bytes")));
    }
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, position)?;
    Ok(bytes)
}

/// Returns a name as it is from the archive's root, without `.` and `..`; none if it leads out, or is absolute.
fn inside(directory: &str, name: &str) -> Option<String> {
    if name.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in directory.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn wrong(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
