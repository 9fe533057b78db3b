//! Gzip on several threads whose bytes do not depend on how many there are.
//!
//! The input is cut into blocks of 1 MiB. Each goes through a compressor of its own, primed with the last 32 KiB of the
//! block before, and ends in a sync flush; together they are one gzip member, as pigz writes it
//! (<https://zlib.net/pigz/pigz.pdf>). A compressor that was used and reset gives other bytes, and so do writes
//! of other sizes: hence fresh ones, one call a block. docs/decisions has the measurements.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use kiln_core::{Digest, DigestHasher};

use crate::blob::BlobWriter;
use crate::error::StoreError;

/// Bytes of a block of input. Part of what decides the output.
const BLOCK: usize = 1 << 20;
/// Bytes of the block before that a compressor is primed with: deflate's window.
const WINDOW: usize = 32 << 10;
/// Deflate, no name, no time, unknown system, as Go's compress/gzip writes it.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// More would need more memory than they save time.
const MAX_THREADS: usize = 8;

/// Takes a stream of bytes and passes them on in blocks.
pub(crate) struct Packer<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    /// None: not compressed.
    level: Option<u32>,
    threads: usize,
    block: Block,
    /// None while it moves to, and is with, the crew's writer.
    output: Option<Output>,
    crew: Option<Crew<'scope>>,
    sent: usize,
    made: usize,
}

/// One block on its way round: filled, compressed, written, and filled again.
#[derive(Default)]
struct Block {
    number: usize,
    /// The end of the block before.
    window: Vec<u8>,
    raw: Vec<u8>,
    packed: Vec<u8>,
    crc: Crc,
    last: bool,
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
}

/// A finished stream.
pub(crate) struct Packed {
    pub(crate) blob: BlobWriter,
    pub(crate) diff_id: Digest,
}

impl<'scope, 'env> Packer<'scope, 'env> {
    /// Starts. Threads are made in `scope` once there is more than one block.
    pub(crate) fn new(
        scope: &'scope Scope<'scope, 'env>,
        mut blob: BlobWriter,
        level: Option<u32>,
        threads: usize,
    ) -> Result<Self, StoreError> {
        if level.is_some() {
            blob.append(&HEADER)?;
        }
        let output = Output { blob, diff: DigestHasher::new(), crc: Crc::new() };
        let threads = threads.clamp(1, MAX_THREADS);
        let block = Block::default();
        Ok(Self { scope, level, threads, block, output: Some(output), crew: None, sent: 0, made: 1 })
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
        if self.sent == BLOCK {
            self.pass(false)?;
        }
        self.block.raw.resize(BLOCK, 0);
        Ok(&mut self.block.raw[self.sent..])
    }

    /// Says how much of the [`space`](Self::space) was filled.
    pub(crate) fn filled(&mut self, length: usize) {
        self.sent += length;
    }

    /// Ends the stream.
    pub(crate) fn finish(mut self) -> Result<Packed, StoreError> {
        self.block.raw.truncate(self.sent);
        self.pass(true)?;
        let mut output = match self.crew.take() {
            Some(crew) => join(crew)?,
            None => self.output.take().expect("nobody else has it without a crew"),
        };
        if self.level.is_some() {
            // RFC 1952: the checksum, and the length modulo 2^32.
            let trailer = [output.crc.sum().to_le_bytes(), output.crc.amount().to_le_bytes()].concat();
            output.blob.append(&trailer)?;
        }
        Ok(Packed { blob: output.blob, diff_id: output.diff.finish() })
    }

    /// Sends the block on its way and takes another one.
    fn pass(&mut self, last: bool) -> Result<(), StoreError> {
        let mut block = std::mem::take(&mut self.block);
        block.last = last;
        let window = block.raw[block.raw.len().saturating_sub(WINDOW)..].to_vec();
        let number = block.number + 1;
        let alone = self.level.is_none() || (last && self.crew.is_none());
        let mut next = if alone {
            pack(&mut block, self.level);
            let output = self.output.as_mut().expect("nobody else has it without a crew");
            output.take(&block, self.level)?;
            block
        } else {
            self.hand_over(block)?
        };
        next.number = number;
        next.window = window;
        self.block = next;
        self.sent = 0;
        Ok(())
    }

    fn hand_over(&mut self, block: Block) -> Result<Block, StoreError> {
        if self.crew.is_none() {
            let output = self.output.take().expect("nobody else has it without a crew");
            self.crew = Some(Crew::start(self.scope, output, self.level, self.threads));
        }
        let crew = self.crew.as_ref().expect("made just above");
        let sent = crew.jobs.send(block);
        // Two more than the compressors: one is filled, one is written.
        if sent.is_ok() && self.made < self.threads + 2 {
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
        level: Option<u32>,
        threads: usize,
    ) -> Self {
        let (jobs, queue) = channel::<Block>();
        let (done, finished) = channel::<Block>();
        let (give_back, free) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let (queue, done) = (Arc::clone(&queue), done.clone());
            scope.spawn(move || {
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(mut block) = job else { return };
                    pack(&mut block, level);
                    if done.send(block).is_err() {
                        return;
                    }
                }
            });
        }
        let writer = scope.spawn(move || {
            let (mut next, mut early) = (0, BTreeMap::new());
            while let Ok(block) = finished.recv() {
                early.insert(block.number, block);
                while let Some(block) = early.remove(&next) {
                    output.take(&block, level)?;
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
    fn take(&mut self, block: &Block, level: Option<u32>) -> Result<(), StoreError> {
        self.diff.update(&block.raw);
        self.crc.combine(&block.crc);
        self.blob.append(if level.is_some() { &block.packed } else { &block.raw })
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

/// Compresses one block.
fn pack(block: &mut Block, level: Option<u32>) {
    let Some(level) = level else { return };
    block.crc = Crc::new();
    block.crc.update(&block.raw);
    block.packed.clear();
    // Static trees spend nine bits on a byte at worst.
    block.packed.reserve(block.raw.len() + block.raw.len() / 8 + 4096);
    let mut compress = Compress::new(Compression::new(level), false);
    if !block.window.is_empty() {
        compress.set_dictionary(&block.window).expect("a fresh raw deflate stream takes a dictionary");
    }
    let flush = if block.last { FlushCompress::Finish } else { FlushCompress::Sync };
    let status = compress.compress_vec(&block.raw, &mut block.packed, flush).expect("deflate cannot fail");
    assert_eq!(compress.total_in(), block.raw.len() as u64, "there was room for all");
    assert_eq!(status, if block.last { Status::StreamEnd } else { Status::Ok }, "there was room for all");
}

#[cfg(test)]
mod tests;
