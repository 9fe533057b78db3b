//! Compression on several threads whose bytes do not depend on how many there are.
//!
//! The input is cut into blocks, each of which goes through a fresh compressor in one call: a compressor that was used
//! and reset gives other bytes, and so do writes of other sizes.
//!
//! For gzip a block is up to 1 MiB; its compressor is primed with the last 32 KiB of the block before and ends in a sync flush;
//! together they are one gzip member, as pigz writes it (<https://zlib.net/pigz/pigz.pdf>). For zstd a block is a frame of
//! up to 4 MiB; frames one after the other are one stream (<https://www.rfc-editor.org/rfc/rfc8878#section-3>). For estargz a block
//! is a gzip member, and where one begins follows from the files ([`estargz`](crate::estargz)). Where the others end says
//! [`cut`]; a block that an earlier blob has is copied from there ([`blocks`]). docs/decisions has the measurements.

mod alone;
pub(crate) mod blocks;
mod cut;
mod dense;
mod kind;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use flate2::{Compress, Crc, FlushCompress, Status};
use kiln_core::{Digest, DigestHasher};
use zstd::zstd_safe::CParameter;

pub use self::alone::deflate_alone;
use self::blocks::{BlockPlace, Earlier, FileId, Known};
pub use self::kind::Compression;
use self::kind::LARGE_TABLES;
use crate::blob::BlobWriter;
use crate::error::StoreError;
use crate::estargz::{self, Toc};
use crate::layer::header::{self, Item};

/// Bytes of the block before that a gzip compressor is primed with: deflate's window.
const WINDOW: usize = 32 << 10;
/// Deflate, no name, no time, unknown system, as Go's compress/gzip writes it.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// What is done with each block.
#[derive(Clone)]
struct Work {
    compression: Compression,
    /// Whether to note what each became.
    listed: bool,
    earlier: Option<Arc<Earlier>>,
}

impl Work {
    /// Makes of a block what it is packed.
    fn do_it(&self, block: &mut Block) -> std::io::Result<()> {
        block.place = None;
        if !self.listed {
            return self.compression.pack(block);
        }
        let key = blocks::key(&block.window, block.bytes(), &block.known, block.last);
        let known = self.earlier.as_ref().and_then(|earlier| Some((earlier, earlier.get(&key)?)));
        // Else deflate does it.
        if known.is_some() || !matches!(self.compression, Compression::Gzip { .. }) {
            block.crc = blocks::crc(block.bytes());
        }
        let raw = block.crc.sum();
        let copied = known.is_some_and(|(earlier, place)| earlier.take(place, raw, &mut block.packed));
        if !copied {
            self.compression.pack(block)?;
        }
        let (raw, packed) = (block.crc.sum(), blocks::crc(&block.packed).sum());
        block.place = Some(Fate { key, raw, packed, copied });
        Ok(())
    }
}

impl Compression {
    /// Compresses one block.
    fn pack(self, block: &mut Block) -> std::io::Result<()> {
        match self {
            Self::Gzip { level } => gzip(block, level.min(9)),
            Self::Estargz { level } => member(block, level.min(9)),
            Self::Zstd { level } => {
                let level = i32::try_from(level.min(22)).unwrap_or_default();
                block.packed.clear();
                block.packed.reserve(zstd::zstd_safe::compress_bound(block.length));
                zstd(level)?.compress_to_buffer(&block.raw[..block.length], &mut block.packed)?;
            }
            Self::None => {}
        }
        Ok(())
    }
}

/// Takes a stream of bytes and passes them on in blocks.
pub(crate) struct Packer<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    work: Work,
    threads: usize,
    block: Block,
    /// None while it moves to, and is with, the crew's writer.
    output: Option<Output>,
    crew: Option<Crew<'scope>>,
    made: usize,
    file: File,
    /// The file whose content comes, where it is known by more than its bytes: how much was put, and how much is to come.
    known: Option<(FileId, u64, u64)>,
}

/// For estargz: the file whose content comes.
#[derive(Default)]
struct File {
    name: String,
    /// Where the block's content begins in it.
    at: u64,
    /// Bytes that are still to come.
    left: u64,
}

/// One block on its way round: filled, compressed, written, and filled again.
#[derive(Default)]
struct Block {
    number: usize,
    /// The end of the block before.
    window: Vec<u8>,
    /// Of full length once it was used.
    raw: Vec<u8>,
    /// Bytes of it that count.
    length: usize,
    packed: Vec<u8>,
    crc: Crc,
    last: bool,
    /// For estargz: what begins in it, the bytes of a file's content at its start, and their digest.
    entries: Vec<estargz::Entry>,
    content: usize,
    digest: Option<Digest>,
    /// For a list of blocks: which of its bytes are known, and what became of it.
    known: Vec<Known>,
    place: Option<Fate>,
}

/// What became of a block.
struct Fate {
    /// Of what went in.
    key: Digest,
    /// Checksums of what went in and what came out.
    raw: u32,
    packed: u32,
    copied: bool,
}

struct Crew<'scope> {
    jobs: Sender<Block>,
    free: Receiver<Block>,
    writer: ScopedJoinHandle<'scope, Result<Output, StoreError>>,
}

/// Where blocks end up, in order.
struct Output {
    blob: BlobWriter,
    diff: DigestHasher,
    crc: Crc,
    toc: Option<Toc>,
    /// Bytes of the tar.
    raw: u64,
    places: Vec<BlockPlace>,
    /// Blocks that were copied.
    copied: usize,
}

/// A finished stream.
pub(crate) struct Packed {
    pub(crate) blob: BlobWriter,
    pub(crate) diff_id: Digest,
    /// What a manifest has to say of the blob.
    pub(crate) annotations: BTreeMap<String, String>,
    /// What its blocks became, if that was to be noted and there is more than one.
    pub(crate) places: Vec<BlockPlace>,
    /// How many of them were copied.
    pub(crate) copied: usize,
}

impl<'scope, 'env> Packer<'scope, 'env> {
    /// Starts. Threads are made in `scope` once there is more than one block.
    pub(crate) fn new(
        scope: &'scope Scope<'scope, 'env>,
        mut blob: BlobWriter,
        compression: Compression,
        threads: usize,
    ) -> Result<Self, StoreError> {
        if matches!(compression, Compression::Gzip { .. }) {
            blob.append(&HEADER)?;
        }
        let toc = match compression {
            Compression::Estargz { .. } => Some(Toc::new(blob.sibling()?)),
            _ => None,
        };
        let (diff, crc) = (DigestHasher::new(), Crc::new());
        let output = Some(Output { blob, diff, crc, toc, raw: 0, places: Vec::new(), copied: 0 });
        let (threads, block, file) =
            (threads.clamp(1, compression.most_threads()), Block::default(), File::default());
        let work = Work { compression, listed: false, earlier: None };
        Ok(Self { scope, work, threads, block, output, crew: None, made: 1, file, known: None })
    }

    /// Notes what the blocks become, and copies what an earlier blob has. To be said before anything is put.
    pub(crate) fn list_blocks(&mut self, earlier: Option<Earlier>) {
        self.work.listed =
            matches!(self.work.compression, Compression::Gzip { .. } | Compression::Zstd { .. });
        self.work.earlier = earlier.map(Arc::new);
    }

    /// Whether what is packed is to be a list of contents as well: then a tar's entries are told by
    /// [`header`](Self::header), and its end is not written.
    pub(crate) fn has_toc(&self) -> bool {
        matches!(self.work.compression, Compression::Estargz { .. })
    }

    /// Adds the headers of a tar's entry. If it is a file, all of its content has to follow.
    pub(crate) fn header(&mut self, item: &Item<'_>) -> Result<(), StoreError> {
        self.headers(&header::encode(item), item.size)?;
        if self.has_toc() {
            let entry = estargz::Entry::of(item)?;
            if item.flag == b'0' && item.size > 0 {
                self.pass(false)?;
                self.file = File { name: entry.name().to_owned(), at: 0, left: item.size };
            }
            self.block.entries.push(entry);
        }
        Ok(())
    }

    /// Adds the headers of a tar's entry, as bytes. The same entries make the same blocks, wherever they come from.
    pub(crate) fn headers(&mut self, headers: &[u8], content: u64) -> Result<(), StoreError> {
        let bytes = (headers.len() as u64).saturating_add(content);
        if cut::before(self.work.compression, self.block.length, headers, bytes) {
            self.pass(false)?;
        }
        self.put(headers)
    }

    /// Says which file it is whose content comes next: then its bytes need not be hashed to know a block again.
    pub(crate) fn content_of(&mut self, id: FileId, size: u64) {
        self.known = (self.work.listed && size > 0).then_some((id, 0, size));
    }

    /// Adds bytes.
    pub(crate) fn put(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let space = self.space()?;
            let length = bytes.len().min(space.len());
            space[..length].copy_from_slice(&bytes[..length]);
            self.filled(length);
            bytes = &bytes[length..];
        }
        Ok(())
    }

    /// Returns room for more bytes, at least one.
    pub(crate) fn space(&mut self) -> Result<&mut [u8], StoreError> {
        let size = self.work.compression.block();
        if self.file.left > 0 && self.block.length == estargz::CHUNK {
            self.pass(false)?;
            self.file.at += estargz::CHUNK as u64;
            self.block.entries.push(estargz::Entry::chunk(&self.file.name, self.file.at));
        } else if self.block.length == size {
            self.pass(false)?;
        }
        if self.block.raw.is_empty() {
            self.block.raw.resize(size, 0);
        }
        let end = match usize::try_from(self.file.left).unwrap_or(usize::MAX) {
            0 => size,
            left => estargz::CHUNK.min(self.block.length.saturating_add(left)),
        };
        Ok(&mut self.block.raw[self.block.length..end])
    }

    /// Says how much of the [`space`](Self::space) was filled.
    pub(crate) fn filled(&mut self, length: usize) {
        if let Some((id, at, left)) = self.known.take() {
            let known = usize::try_from(left).map_or(length, |left| left.min(length));
            let begin = self.block.length;
            self.block.known.push(Known { bytes: begin..begin + known, id, at });
            let (at, left) = (at + known as u64, left - known as u64);
            self.known = (left > 0).then_some((id, at, left));
        }
        self.block.length += length;
        if self.file.left > 0 {
            self.file.left -= length as u64;
            self.block.content = self.block.length;
        }
    }

    /// Ends the stream.
    pub(crate) fn finish(mut self) -> Result<Packed, StoreError> {
        self.pass(true)?;
        let mut output = match self.crew.take() {
            Some(crew) => join(crew)?,
            None => self.output.take().expect("nobody else has it without a crew"),
        };
        if matches!(self.work.compression, Compression::Gzip { .. }) {
            // RFC 1952: the checksum, and the length modulo 2^32.
            let trailer = [output.crc.sum().to_le_bytes(), output.crc.amount().to_le_bytes()].concat();
            output.blob.append(&trailer)?;
        }
        let mut annotations = BTreeMap::new();
        if let (Compression::Estargz { level }, Some(toc)) = (self.work.compression, output.toc.take()) {
            let Output { blob, diff, raw, .. } = &mut output;
            let digest = toc.finish(blob, level.min(9), |bytes| {
                diff.update(bytes);
                *raw += bytes.len() as u64;
            })?;
            annotations.insert(estargz::TOC_DIGEST.to_owned(), digest.to_string());
            annotations.insert(estargz::UNCOMPRESSED_SIZE.to_owned(), output.raw.to_string());
        }
        let diff_id = match self.work.compression {
            Compression::None => output.blob.digest(),
            _ => output.diff.finish(),
        };
        let Output { blob, places, copied, .. } = output;
        Ok(Packed { blob, diff_id, annotations, places, copied })
    }

    /// Sends the block on its way and takes another one.
    fn pass(&mut self, last: bool) -> Result<(), StoreError> {
        let mut block = std::mem::take(&mut self.block);
        block.last = last;
        let window = match self.work.compression {
            Compression::Gzip { .. } => block.bytes()[block.length.saturating_sub(WINDOW)..].to_vec(),
            _ => Vec::new(),
        };
        let number = block.number + 1;
        let alone = self.work.compression == Compression::None || (last && self.crew.is_none());
        let mut next = if alone {
            let packed = self.work.compression.pack(&mut block);
            let output = self.output.as_mut().expect("nobody else has it without a crew");
            packed.map_err(|error| output.blob.error("compress", &error))?;
            output.take(&mut block, self.work.compression)?;
            block
        } else {
            self.hand_over(block)?
        };
        next.number = number;
        next.window = window;
        (next.length, next.content) = (0, 0);
        next.known.clear();
        self.block = next;
        Ok(())
    }

    fn hand_over(&mut self, block: Block) -> Result<Block, StoreError> {
        if self.crew.is_none() {
            let output = self.output.take().expect("nobody else has it without a crew");
            self.crew = Some(Crew::start(self.scope, output, &self.work, self.threads));
        }
        let crew = self.crew.as_ref().expect("made just above");
        let sent = crew.jobs.send(block);
        if sent.is_ok() && self.made < self.work.compression.most_blocks(self.threads) {
            self.made += 1;
            return Ok(crew.free.try_recv().unwrap_or_default());
        }
        match crew.free.recv() {
            Ok(block) if sent.is_ok() => Ok(block),
            // The writer stopped, and says why.
            _ => match join(self.crew.take().expect("as above")) {
                Err(error) => Err(error),
                Ok(_) => unreachable!("the writer ends well only after the last block"),
            },
        }
    }
}

impl<'scope> Crew<'scope> {
    fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        mut output: Output,
        work: &Work,
        threads: usize,
    ) -> Self {
        let (jobs, queue) = channel::<Block>();
        let (done, finished) = channel::<std::io::Result<Block>>();
        let (give_back, free) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let (queue, done, work) = (Arc::clone(&queue), done.clone(), work.clone());
            scope.spawn(move || {
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(mut block) = job else { return };
                    let packed = work.do_it(&mut block).map(|()| block);
                    if done.send(packed).is_err() {
                        return;
                    }
                }
            });
        }
        let compression = work.compression;
        let writer = scope.spawn(move || {
            let (mut next, mut early) = (0, BTreeMap::new());
            while let Ok(block) = finished.recv() {
                let block = block.map_err(|error| output.blob.error("compress", &error))?;
                early.insert(block.number, block);
                while let Some(mut block) = early.remove(&next) {
                    output.take(&mut block, compression)?;
                    next += 1;
                    let _ = give_back.send(block);
                }
            }
            Ok(output)
        });
        Self { jobs, free, writer }
    }
}

impl Output {
    fn take(&mut self, block: &mut Block, compression: Compression) -> Result<(), StoreError> {
        if compression == Compression::None {
            // The blob's digest is the tar's.
            return self.blob.append(block.bytes());
        }
        self.diff.update(block.bytes());
        self.raw += block.length as u64;
        if let Some(toc) = &mut self.toc {
            let content = &block.raw[..block.content];
            toc.take(&mut block.entries, self.blob.size(), content, block.digest)?;
        }
        self.crc.combine(&block.crc);
        if let Some(Fate { key, raw, packed, copied }) = block.place.take() {
            let length = u32::try_from(block.packed.len()).unwrap_or(u32::MAX);
            self.places.push(BlockPlace { key, at: self.blob.size(), length, raw, packed });
            self.copied += usize::from(copied);
        }
        self.blob.append(&block.packed)
    }
}

/// Lets the crew finish what it has, and returns what its writer says.
fn join(crew: Crew<'_>) -> Result<Output, StoreError> {
    let Crew { jobs, free, writer } = crew;
    drop(jobs);
    let result = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    drop(free);
    result
}

impl Block {
    fn bytes(&self) -> &[u8] {
        &self.raw[..self.length]
    }
}

/// A fresh zstd of a level.
fn zstd(level: i32) -> std::io::Result<zstd::bulk::Compressor<'static>> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    if level >= LARGE_TABLES {
        compressor.set_parameter(CParameter::HashLog(21))?;
        compressor.set_parameter(CParameter::ChainLog(22))?;
    }
    Ok(compressor)
}

/// Deflates one block.
fn gzip(block: &mut Block, level: u32) {
    block.packed.clear();
    let flush = if block.last { FlushCompress::Finish } else { FlushCompress::Sync };
    block.crc = deflate(&block.raw[..block.length], &block.window, level, flush, &mut block.packed);
}

/// Makes a block a gzip member by itself.
fn member(block: &mut Block, level: u32) {
    block.packed.clear();
    block.packed.extend_from_slice(&HEADER);
    let raw = &block.raw[..block.length];
    block.crc = deflate(raw, &block.window, level, FlushCompress::Finish, &mut block.packed);
    block.packed.extend_from_slice(&block.crc.sum().to_le_bytes());
    block.packed.extend_from_slice(&block.crc.amount().to_le_bytes());
    block.digest = (block.content > 0).then(|| Digest::of(&block.raw[..block.content]));
}

/// Adds what bytes become in a compressor that is primed with the window before them, and returns their checksum. Bytes that resist
/// are stored as they are ([`dense`]).
fn deflate(raw: &[u8], window: &[u8], level: u32, flush: FlushCompress, packed: &mut Vec<u8>) -> Crc {
    let mut crc = Crc::new();
    crc.update(raw);
    // Static trees spend nine bits on a byte at worst.
    packed.reserve(raw.len() + raw.len() / 8 + 4096);
    let level = if dense::is_dense(raw) { 0 } else { level };
    let mut compress = Compress::new(flate2::Compression::new(level), false);
    if !window.is_empty() {
        compress.set_dictionary(window).expect("a fresh raw deflate stream takes a dictionary");
    }
    let status = compress.compress_vec(raw, packed, flush).expect("deflate cannot fail");
    assert_eq!(compress.total_in(), raw.len() as u64, "there was room for all");
    let ended = if flush == FlushCompress::Finish { Status::StreamEnd } else { Status::Ok };
    assert_eq!(status, ended, "there was room for all");
    crc
}

#[cfg(test)]
mod tests;
