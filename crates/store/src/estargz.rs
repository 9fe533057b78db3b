//! estargz: gzip layers whose files can be had one by one, from a list of contents at their end.
//! <https://github.com/containerd/stargz-snapshotter/blob/main/docs/estargz.md>
//!
//! The content of each file begins a gzip member of its own, and so does every 4 MiB of it; what lies between contents
//! (padding, headers) goes with the member before. The last entry of the tar is a JSON file, the TOC, that says of every
//! file what it is and at which byte of the blob its members begin; an empty member behind it says where the TOC is. All
//! of it together is gzip, and a tar, to those who know nothing of this.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::GzBuilder;
use kiln_core::{Digest, DigestHasher, IoResultExt as _};
use serde::Serialize;

use crate::blob::BlobWriter;
use crate::error::StoreError;
use crate::layer::archive::END;
use crate::layer::header::{self, BLOCK, Item};

/// Most bytes of a file's content in one member: what other writers take, and readers fetch at once.
pub(crate) const CHUNK: usize = 4 << 20;

/// Annotation of a layer: the digest of its TOC, without which readers do not trust it.
pub const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// Annotation of a layer: the bytes of its tar, in decimal. Podman's store asks for it.
pub const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";

const TOC: &str = "stargz.index.json";
/// Says that no file is wanted before the others; it is the tar's first entry.
const LANDMARK: &str = ".no.prefetch.landmark";
const PREFETCH_LANDMARK: &str = ".prefetch.landmark";
/// As the specification has it.
const LANDMARK_CONTENT: [u8; 1] = [0xf];

/// Returns whether a file in the layer's root is one that the format brings itself. What is there of a layer that was one
/// before is left out, as all writers do.
pub(crate) fn is_own(path: &[u8]) -> bool {
    [TOC, LANDMARK, PREFETCH_LANDMARK].iter().any(|name| name.as_bytes() == path)
}

/// The landmark's entry, and what follows it: content and padding.
pub(crate) fn landmark() -> (Item<'static>, [u8; BLOCK]) {
    let item = Item { name: LANDMARK.as_bytes(), flag: b'0', mode: 0o644, size: 1, ..Item::default() };
    let mut content = [0; BLOCK];
    content[..1].copy_from_slice(&LANDMARK_CONTENT);
    (item, content)
}

/// A line of the TOC: an entry of the tar, or a further chunk of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    modtime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dev_major: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dev_minor: Option<u32>,
    /// Values in base64, as Go writes bytes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    /// Zero where the chunk goes to the file's end.
    #[serde(skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_digest: Option<Digest>,
}

impl Entry {
    /// Describes an entry of the tar.
    ///
    /// # Errors
    /// A name in it is no UTF-8, which JSON cannot hold.
    pub(crate) fn of(item: &Item<'_>) -> Result<Self, StoreError> {
        let path = || String::from_utf8_lossy(item.name).into_owned();
        let text = |bytes: &[u8], what: &str| {
            let unfit = |_| StoreError::Estargz { path: path(), what: what.to_owned() };
            String::from_utf8(bytes.to_vec()).map_err(unfit)
        };
        let kind = match item.flag {
            b'1' => "hardlink",
            b'2' => "symlink",
            b'3' => "char",
            b'4' => "block",
            b'5' => "dir",
            b'6' => "fifo",
            _ => "reg",
        };
        let device = matches!(item.flag, b'3' | b'4').then_some(item.device);
        let link = matches!(item.flag, b'1' | b'2').then(|| text(item.link, "what it links to"));
        let xattrs = item.xattrs.iter().map(|(name, value)| {
            Ok((text(name, "the name of an extended attribute")?, BASE64_STANDARD.encode(value)))
        });
        Ok(Self {
            name: text(item.name, "its name")?,
            kind,
            size: item.size,
            modtime: (item.mtime != 0).then(|| rfc3339(item.mtime)),
            link_name: link.transpose()?,
            mode: Some(item.mode),
            uid: Some(item.uid),
            gid: Some(item.gid),
            dev_major: device.map(|(major, _)| major),
            dev_minor: device.map(|(_, minor)| minor),
            xattrs: xattrs.collect::<Result<_, StoreError>>()?,
            ..Self::default()
        })
    }

    /// Describes what of a file begins at a byte of its content.
    pub(crate) fn chunk(name: &str, chunk_offset: u64) -> Self {
        Self { name: name.to_owned(), kind: "chunk", chunk_offset, ..Self::default() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// The TOC in the making. It grows on disk: a layer may have a million files.
#[derive(Debug)]
pub(crate) struct Toc {
    spool: BlobWriter,
    buffer: Vec<u8>,
    any: bool,
    /// A file of which not all chunks are there.
    open: Option<OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    chunks: Vec<Entry>,
    hasher: DigestHasher,
    left: u64,
}

/// Bytes of the spool that are written and read at once. Part of what decides the blob's bytes.
const PIECE: usize = 64 << 10;

impl Toc {
    /// Starts with nothing in it. What is gathered goes to `spool`.
    pub(crate) fn new(spool: BlobWriter) -> Self {
        Self { spool, buffer: b"{\"version\":1,\"entries\":[".to_vec(), any: false, open: None }
    }

    /// Takes the entries of a member that begins at `offset`, of which `content` is the file content at its start and
    /// `digest` that content's.
    pub(crate) fn take(
        &mut self,
        entries: &mut Vec<Entry>,
        offset: u64,
        content: &[u8],
        digest: Option<Digest>,
    ) -> Result<(), StoreError> {
        for (number, mut entry) in entries.drain(..).enumerate() {
            if number > 0 || content.is_empty() {
                self.write(&entry)?;
                continue;
            }
            (entry.offset, entry.chunk_digest) = (offset, digest);
            let length = content.len() as u64;
            let mut open = match self.open.take() {
                Some(open) => open,
                None if entry.size == length => {
                    entry.digest = digest;
                    self.write(&entry)?;
                    continue;
                }
                None => OpenFile { chunks: Vec::new(), hasher: DigestHasher::new(), left: entry.size },
            };
            open.hasher.update(content);
            open.left -= length;
            entry.chunk_size = if open.left == 0 { 0 } else { length };
            open.chunks.push(entry);
            if open.left > 0 {
                self.open = Some(open);
                continue;
            }
            open.chunks[0].digest = Some(open.hasher.finish());
            for chunk in &open.chunks {
                self.write(chunk)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, entry: &Entry) -> Result<(), StoreError> {
        if std::mem::replace(&mut self.any, true) {
            self.buffer.push(b',');
        }
        serde_json::to_writer(&mut self.buffer, entry).map_err(std::io::Error::from).at("write", TOC)?;
        if self.buffer.len() >= PIECE {
            self.spool.append(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Ends the blob with the TOC and the footer; `tar` is told of the tar's bytes. Returns the TOC's digest.
    pub(crate) fn finish(
        mut self,
        blob: &mut BlobWriter,
        level: u32,
        mut tar: impl FnMut(&[u8]),
    ) -> Result<Digest, StoreError> {
        self.buffer.extend_from_slice(b"]}");
        self.spool.append(&self.buffer)?;
        let (digest, size) = (self.spool.digest(), self.spool.size());
        let mut json = self.spool.into_reader()?;
        let offset = blob.size();
        let item = Item { name: TOC.as_bytes(), flag: b'0', mode: 0o644, size, ..Item::default() };
        let mut member =
            GzBuilder::new().operating_system(255).write(&mut *blob, flate2::Compression::new(level));
        let mut put = |bytes: &[u8]| {
            tar(bytes);
            member.write_all(bytes).at("write", TOC)
        };
        put(&header::encode(&item))?;
        let mut piece = vec![0; PIECE];
        let mut left = size;
        while left > 0 {
            let length = left.min(PIECE as u64) as usize;
            json.read_exact(&mut piece[..length]).at("read", TOC)?;
            put(&piece[..length])?;
            left -= length as u64;
        }
        put(&[0; BLOCK][..size.wrapping_neg() as usize % BLOCK])?;
        put(&[0; END])?;
        member.finish().at("write", TOC)?;
        blob.append(&footer(offset))?;
        Ok(digest)
    }
}

/// An empty gzip member with an extra field that says where the TOC begins.
fn footer(toc: u64) -> [u8; 51] {
    let mut footer = [0; 51];
    // FEXTRA, no time, unknown system.
    footer[..10].copy_from_slice(&[0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff]);
    // Bytes of the extra field; its name; bytes of what follows.
    footer[10..16].copy_from_slice(&[26, 0, b'S', b'G', 22, 0]);
    footer[16..38].copy_from_slice(format!("{toc:016x}STARGZ").as_bytes());
    // One last stored block of nothing; checksum and length are 0.
    footer[38..43].copy_from_slice(&[1, 0, 0, 0xff, 0xff]);
    footer
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Seconds since 1970 as a date and time: days by Howard Hinnant's algorithm, where a year begins in March.
fn rfc3339(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests;
