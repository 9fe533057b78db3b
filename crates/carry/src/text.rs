//! The index as bytes: JSON, a line for each pack, cache and entry, in one zstd stream. A person reads it with zstdcat.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use kiln_core::Digest;
use serde::{Deserialize, Serialize};

use crate::{CarryError, Chunk, Entry, Frame, Index, Kind, Pack, Tree, sound};

const FORMAT: &str = "kiln cache index";
const VERSION: u32 = 1;
/// More is taken for a bomb, bytes: some four million files.
const MAX_TEXT: u64 = 1 << 30;
/// No line is longer, bytes: a path and a link have 4 KiB each, a file of 1 TiB has a million chunks.
const MAX_LINE: u64 = 64 << 20;
const MAX_ENTRIES: usize = 4_000_000;
/// RFC 8878, 3.1.1: what a zstd frame begins with.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Head { format: String, version: u32 },
    Pack { pack: Digest, size: u64, frames: Vec<FrameLine> },
    Cache { cache: String, scope: String, saved: i64, targets: Vec<String> },
    Entry(Box<EntryLine>),
}

#[derive(Serialize, Deserialize)]
struct FrameLine {
    size: u32,
    chunks: Vec<(Digest, u32)>,
}

/// Short names: there may be millions.
#[derive(Serialize, Deserialize)]
struct EntryLine {
    /// Path, escaped.
    p: String,
    /// `d`, `f`, `l`, `h` or `p`.
    t: char,
    m: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    u: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    g: u32,
    /// Modified.
    s: (i64, u32),
    /// Last read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    a: Option<i64>,
    /// Size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    z: Option<u64>,
    /// Numbers of chunks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    c: Vec<u32>,
    /// Target, of either link, escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    l: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    x: BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Writes an index, compressed.
///
/// # Errors
/// It is not sound: a chunk that no pack has.
pub fn write(index: &Index) -> Result<Vec<u8>, CarryError> {
    let failed = |error: std::io::Error| CarryError::damaged(format!("the index cannot be written: {error}"));
    let mut to = zstd::Encoder::new(Vec::new(), 3).map_err(failed)?;
    let mut numbers: HashMap<Digest, u32> = HashMap::new();
    let mut put = |line: &Line| -> Result<(), CarryError> {
        serde_json::to_writer(&mut to, line).map_err(|error| failed(error.into()))?;
        to.write_all(b"\n").map_err(failed)
    };
    put(&Line::Head { format: FORMAT.to_owned(), version: VERSION })?;
    let mut count = 0;
    for pack in &index.packs {
        let mut frames = Vec::with_capacity(pack.frames.len());
        for frame in &pack.frames {
            for chunk in &frame.chunks {
                numbers.entry(chunk.id).or_insert(count);
                count += 1;
            }
            let chunks = frame.chunks.iter().map(|chunk| (chunk.id, chunk.length)).collect();
            frames.push(FrameLine { size: frame.size, chunks });
        }
        put(&Line::Pack { pack: pack.digest, size: pack.size, frames })?;
    }
    for tree in &index.trees {
        put(&Line::Cache {
            cache: tree.id.clone(),
            scope: tree.scope.clone(),
            saved: tree.saved,
            targets: tree.targets.clone(),
        })?;
        for (path, entry) in &tree.entries {
            put(&Line::Entry(Box::new(entry_line(path, entry, &numbers)?)))?;
        }
    }
    to.finish().map_err(failed)
}

fn entry_line(path: &Path, entry: &Entry, numbers: &HashMap<Digest, u32>) -> Result<EntryLine, CarryError> {
    let mut line = EntryLine {
        p: escaped(path.as_os_str().as_bytes()),
        t: 'd',
        m: entry.mode,
        u: entry.uid,
        g: entry.gid,
        s: entry.mtime,
        a: entry.used,
        z: None,
        c: Vec::new(),
        l: None,
        x: entry.xattrs.iter().map(|(name, value)| (escaped(name), escaped(value))).collect(),
    };
    match &entry.kind {
        Kind::Directory => {}
        Kind::File { size, chunks } => {
            (line.t, line.z) = ('f', Some(*size));
            let missing = || CarryError::damaged(format!("no pack has a chunk of {:?}", line.p));
            line.c = chunks
                .iter()
                .map(|id| numbers.get(id).copied())
                .collect::<Option<_>>()
                .ok_or_else(missing)?;
        }
        Kind::Link { target } => (line.t, line.l) = ('l', Some(escaped(target.as_os_str().as_bytes()))),
        Kind::Hard { to } => (line.t, line.l) = ('h', Some(escaped(to.as_os_str().as_bytes()))),
        Kind::Fifo => line.t = 'p',
    }
    Ok(line)
}

/// Reads an index, and refuses one that is not sound or that could harm: see [`CarryError`].
///
/// # Errors
/// What is wrong with it, and in which line.
pub fn read(compressed: &[u8]) -> Result<Index, CarryError> {
    if !compressed.starts_with(&MAGIC) {
        return Err(CarryError::Foreign { reason: "its index is not zstd".to_owned() });
    }
    let mut decoder = zstd::Decoder::new(compressed)
        .map_err(|error| CarryError::damaged(format!("its index does not decompress: {error}")))?;
    // 8 MiB, which is what level 19 uses: a frame that asks for 2 GiB of memory is refused.
    let _ = decoder.window_log_max(23);
    let mut lines = BufReader::with_capacity(1 << 16, decoder.take(MAX_TEXT));
    let mut reading = Reading::default();
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        let read =
            read.map_err(|error| CarryError::damaged(format!("its index does not decompress: {error}")))?;
        if read == 0 {
            break;
        }
        if line.pop() != Some(b'\n') {
            return Err(CarryError::damaged(format!("its index ends in line {number}, or is too long")));
        }
        let parsed = serde_json::from_slice(&line);
        let at = |reason: String| match number {
            1 => CarryError::Foreign { reason: format!("its index does not begin like one: {reason}") },
            _ => CarryError::damaged(format!("line {number} of its index: {reason}")),
        };
        reading.take(parsed.map_err(|error| at(error.to_string()))?, number, &at)?;
    }
    if !reading.begun {
        return Err(CarryError::Foreign { reason: "its index is empty".to_owned() });
    }
    sound::check(&reading.index)?;
    Ok(reading.index)
}

#[derive(Default)]
struct Reading {
    begun: bool,
    index: Index,
    chunks: Vec<Digest>,
    entries: usize,
}

impl Reading {
    fn take(&mut self, line: Line, number: u64, at: &dyn Fn(String) -> CarryError) -> Result<(), CarryError> {
        match line {
            Line::Head { format, version } if number == 1 && format == FORMAT => {
                if version > VERSION {
                    return Err(CarryError::Newer { found: version, known: VERSION });
                }
                self.begun = true;
            }
            _ if !self.begun => return Err(at("there is no header".to_owned())),
            Line::Head { .. } => return Err(at("a second header".to_owned())),
            Line::Pack { pack, size, frames } => {
                let frames = frames.into_iter().map(|frame| {
                    let chunks: Vec<Chunk> =
                        frame.chunks.into_iter().map(|(id, length)| Chunk { id, length }).collect();
                    Frame { size: frame.size, chunks }
                });
                let frames: Vec<Frame> = frames.collect();
                self.chunks.extend(frames.iter().flat_map(|frame| &frame.chunks).map(|chunk| chunk.id));
                self.index.packs.push(Pack { digest: pack, size, frames });
            }
            Line::Cache { cache, scope, saved, targets } => {
                self.index.trees.push(Tree { id: cache, scope, saved, targets, entries: BTreeMap::new() });
            }
            Line::Entry(line) => {
                self.entries += 1;
                if self.entries > MAX_ENTRIES {
                    return Err(at(format!("more than {MAX_ENTRIES} entries")));
                }
                let (path, entry) = self.entry(*line, at)?;
                let tree =
                    self.index.trees.last_mut().ok_or_else(|| at("an entry of no cache".to_owned()))?;
                if tree.entries.insert(path, entry).is_some() {
                    return Err(at("a path that was there before".to_owned()));
                }
            }
        }
        Ok(())
    }

    fn entry(
        &self,
        line: EntryLine,
        at: &dyn Fn(String) -> CarryError,
    ) -> Result<(PathBuf, Entry), CarryError> {
        let path = |text: &str| {
            let bytes = unescaped(text).ok_or_else(|| at(format!("{text:?} is wrongly escaped")))?;
            Ok(PathBuf::from(OsString::from_vec(bytes)))
        };
        let target = || path(line.l.as_deref().ok_or_else(|| at("a link without a target".to_owned()))?);
        let kind = match line.t {
            'd' => Kind::Directory,
            'f' => {
                let chunk = |number: &u32| self.chunks.get(*number as usize).copied();
                let chunks = line.c.iter().map(chunk).collect::<Option<Vec<_>>>();
                let chunks = chunks.ok_or_else(|| at("a chunk that no pack has".to_owned()))?;
                Kind::File { size: line.z.unwrap_or(0), chunks }
            }
            'l' => Kind::Link { target: target()? },
            'h' => Kind::Hard { to: target()? },
            'p' => Kind::Fifo,
            other => return Err(at(format!("an entry of type {other:?}"))),
        };
        let mut xattrs = BTreeMap::new();
        for (name, value) in &line.x {
            let bytes =
                |text: &String| unescaped(text).ok_or_else(|| at(format!("{text:?} is wrongly escaped")));
            xattrs.insert(bytes(name)?, bytes(value)?);
        }
        let (mode, uid, gid, mtime, used) = (line.m, line.u, line.g, line.s, line.a);
        Ok((path(&line.p)?, Entry { kind, mode, uid, gid, mtime, used, xattrs }))
    }
}

/// Text as it is; `%` and what is no UTF-8 as `%` and two hexadecimal digits.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            if c == '%' { text.push_str("%25") } else { text.push(c) }
        }
        for byte in part.invalid() {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(bytes)
}
