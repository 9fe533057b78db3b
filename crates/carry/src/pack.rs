//! Packs: making them, and getting chunks back.

use std::io::Cursor;

use kiln_core::Digest;

use crate::{CarryError, Chunk, Frame, MAX_CHUNK, Pack};

/// A frame is compressed when it has this many bytes: as one frame small files compress about as a tar of them does.
const FRAME: usize = 1 << 20;
/// A pack is finished when it has this many bytes: few enough to be sent again if a connection breaks, many enough to
/// be worth a request.
const PACK: usize = 6 << 20;
/// No frame has more bytes once decompressed.
pub const MAX_FRAME: u64 = (FRAME + MAX_CHUNK) as u64;
/// No pack is larger, bytes: part of the form. Those of today have at most some 10 MiB, for a frame may come to what is nearly one.
pub const MAX_PACK: u64 = 18 << 20;

/// Of a frame of at least this size it is looked first whether it gets smaller at all, bytes.
const LOOKED_AT: usize = 64 << 10;
/// So much of every [`SAMPLE_EVERY`] bytes is looked at.
const SAMPLE: usize = 4 << 10;
const SAMPLE_EVERY: usize = 128 << 10;
/// Wheels, packages and archives are compressed already: zstd goes over them in its largest steps, and finds what there may be of
/// long runs. With the level of the rest it would take as long as hashing them twice.
const DENSE_LEVEL: i32 = -50;

/// Makes packs of chunks. Memory: a frame and a pack.
pub struct PackWriter {
    compressor: zstd::bulk::Compressor<'static>,
    level: i32,
    raw: Vec<u8>,
    sample: Vec<u8>,
    chunks: Vec<Chunk>,
    bytes: Vec<u8>,
    frames: Vec<Frame>,
}

/// What a pack holds, and its bytes.
pub type Finished = (Pack, Vec<u8>);

impl PackWriter {
    /// Begins with a zstd level, 1 to 19.
    ///
    /// # Errors
    /// There is no memory for a compressor.
    pub fn new(level: i32) -> Result<Self, CarryError> {
        let compressor = zstd::bulk::Compressor::new(level).map_err(failed)?;
        let (raw, sample, chunks, bytes, frames) = Default::default();
        Ok(Self { compressor, level, raw, sample, chunks, bytes, frames })
    }

    /// Takes a chunk in; returns a pack if one is full now.
    ///
    /// # Errors
    /// zstd failed, which it does only without memory.
    pub fn add(&mut self, id: Digest, bytes: &[u8]) -> Result<Option<Finished>, CarryError> {
        // A chunk has at most MAX_CHUNK bytes.
        let chunk = Chunk { id, length: u32::try_from(bytes.len()).unwrap_or(u32::MAX) };
        if bytes.len() >= FRAME {
            // A frame of its own, and not copied before.
            self.end_frame()?;
            self.frame(bytes, vec![chunk])?;
        } else {
            self.raw.extend_from_slice(bytes);
            self.chunks.push(chunk);
            if self.raw.len() >= FRAME {
                self.end_frame()?;
            }
        }
        Ok((self.bytes.len() >= PACK).then(|| self.end_pack()))
    }

    /// Returns what is left.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn finish(&mut self) -> Result<Option<Finished>, CarryError> {
        self.end_frame()?;
        Ok((!self.bytes.is_empty()).then(|| self.end_pack()))
    }

    /// Gives back the bytes of a pack that are no longer needed: the next one is written into the same memory.
    pub fn reuse(&mut self, mut bytes: Vec<u8>) {
        if self.bytes.is_empty() {
            bytes.clear();
            self.bytes = bytes;
        }
    }

    fn end_frame(&mut self) -> Result<(), CarryError> {
        if self.chunks.is_empty() {
            return Ok(());
        }
        let (raw, chunks) = (std::mem::take(&mut self.raw), std::mem::take(&mut self.chunks));
        let done = self.frame(&raw, chunks);
        self.raw = raw;
        self.raw.clear();
        done
    }

    fn frame(&mut self, raw: &[u8], chunks: Vec<Chunk>) -> Result<(), CarryError> {
        let level = if self.is_dense(raw)? { DENSE_LEVEL } else { self.level };
        self.compressor.set_compression_level(level).map_err(failed)?;
        let start = self.bytes.len();
        if start == 0 {
            // All of a pack at once: what is not written to takes no memory.
            self.bytes.reserve_exact(PACK + zstd::zstd_safe::compress_bound(FRAME + MAX_CHUNK));
        }
        self.bytes.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        let mut behind = Cursor::new(std::mem::take(&mut self.bytes));
        behind.set_position(start as u64);
        let size = self.compressor.compress_to_buffer(raw, &mut behind).map_err(failed)?;
        self.bytes = behind.into_inner();
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.frames.push(Frame { size, chunks });
        Ok(())
    }

    /// Whether samples of these bytes do not get smaller. That some are compressed at no use, or not compressed, costs time or
    /// room and nothing else.
    fn is_dense(&mut self, raw: &[u8]) -> Result<bool, CarryError> {
        if raw.len() < LOOKED_AT {
            return Ok(false);
        }
        self.sample.clear();
        for part in raw.chunks(SAMPLE_EVERY) {
            self.sample.extend_from_slice(&part[..part.len().min(SAMPLE)]);
        }
        self.compressor.set_compression_level(1).map_err(failed)?;
        let mut scratch = Vec::with_capacity(zstd::zstd_safe::compress_bound(self.sample.len()));
        let size = self.compressor.compress_to_buffer(&self.sample, &mut scratch).map_err(failed)?;
        Ok(size >= self.sample.len() / 100 * 97)
    }

    fn end_pack(&mut self) -> Finished {
        let bytes = std::mem::take(&mut self.bytes);
        let frames = std::mem::take(&mut self.frames);
        (Pack { digest: Digest::of(&bytes), size: bytes.len() as u64, frames }, bytes)
    }
}

fn failed(error: std::io::Error) -> CarryError {
    CarryError::damaged(format!("zstd: {error}"))
}

/// Walks the frames of a pack.
pub struct Frames<'a> {
    frames: std::slice::Iter<'a, Frame>,
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// Takes a pack's bytes, which must be what its digest says.
    ///
    /// # Errors
    /// They are not.
    pub fn of(pack: &'a Pack, bytes: &'a [u8]) -> Result<Self, CarryError> {
        if Digest::of(bytes) != pack.digest {
            return Err(wrong_bytes(pack));
        }
        Self::of_verified(pack, bytes)
    }

    /// The same for bytes whose digest was looked at when they came.
    ///
    /// # Errors
    /// There are more or fewer than there must be.
    pub fn of_verified(pack: &'a Pack, bytes: &'a [u8]) -> Result<Self, CarryError> {
        if bytes.len() as u64 != pack.size {
            return Err(wrong_bytes(pack));
        }
        Ok(Self { frames: pack.frames.iter(), rest: bytes })
    }
}

fn wrong_bytes(pack: &Pack) -> CarryError {
    CarryError::damaged(format!("pack {} has other bytes than it must", pack.digest))
}

impl<'a> Iterator for Frames<'a> {
    type Item = (&'a Frame, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let frame = self.frames.next()?;
        // An index whose frames do not add up to their pack is refused when it is read.
        let (bytes, rest) = self.rest.split_at_checked(frame.size as usize)?;
        self.rest = rest;
        Some((frame, bytes))
    }
}

/// Decompresses a frame into a buffer, which then holds its chunks one after the other.
///
/// # Errors
/// It is no frame, or has other bytes than its chunks together: never more than those are made.
pub fn decode_frame(frame: &Frame, bytes: &[u8], into: &mut Vec<u8>) -> Result<(), CarryError> {
    let raw = usize::try_from(frame.raw()).unwrap_or(usize::MAX);
    into.clear();
    into.reserve_exact(raw);
    let wrong = |reason: String| CarryError::damaged(format!("a frame of a pack: {reason}"));
    let mut decoder = zstd::bulk::Decompressor::new().map_err(|error| wrong(error.to_string()))?;
    decoder.decompress_to_buffer(bytes, into).map_err(|error| wrong(error.to_string()))?;
    if into.len() != raw {
        return Err(wrong(format!("it has {} bytes and not {raw}", into.len())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(chunks: &[Vec<u8>]) -> Vec<Finished> {
        let mut writer = PackWriter::new(1).unwrap();
        let mut packs = Vec::new();
        for chunk in chunks {
            packs.extend(writer.add(Digest::of(chunk), chunk).unwrap());
        }
        packs.extend(writer.finish().unwrap());
        packs
    }

    proptest! {
        #[test]
        fn chunks_come_back(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5000), 0..20)) {
            let mut back = Vec::new();
            for (pack, bytes) in packed(&chunks) {
                for (frame, bytes) in Frames::of(&pack, &bytes).unwrap() {
                    let mut raw = Vec::new();
                    decode_frame(frame, bytes, &mut raw).unwrap();
                    let mut at = 0;
                    for chunk in &frame.chunks {
                        back.push(raw[at..at + chunk.length as usize].to_vec());
                        at += chunk.length as usize;
                    }
                }
            }
            prop_assert_eq!(back, chunks);
        }
    }

    /// Text is compressed and noise is not, also where both are in one pack.
    #[test]
    fn what_is_dense_costs_no_room_and_text_is_compressed() {
        let noise = crate::chunk::tests::noise(3 << 20, 1);
        let text = b"a line of an index, 4711\n".repeat(100_000);
        let packs =
            packed(&[noise.clone(), text.clone(), noise[..100_000].to_vec(), text[..100_000].to_vec()]);
        let frames: Vec<&Frame> = packs.iter().flat_map(|(pack, _)| &pack.frames).collect();
        let [first, second, third] = frames[..] else { panic!("{frames:?}") };
        assert!(u64::from(first.size) < first.raw() + first.raw() / 1000, "{first:?}");
        assert!(u64::from(second.size) < second.raw() / 100, "{second:?}");
        assert!(u64::from(third.size) < 110_000, "{third:?}");
    }

    #[test]
    fn the_memory_of_a_pack_serves_the_next() {
        let chunk = crate::chunk::tests::noise(MAX_CHUNK, 1);
        let mut writer = PackWriter::new(3).unwrap();
        let fill = |writer: &mut PackWriter| loop {
            if let Some(done) = writer.add(Digest::of(&chunk), &chunk).unwrap() {
                return done;
            }
        };
        let (pack, bytes) = fill(&mut writer);
        let at = bytes.as_ptr();
        writer.reuse(bytes);
        let (again, bytes) = fill(&mut writer);
        assert_eq!((at, pack), (bytes.as_ptr(), again));
    }

    #[test]
    fn packs_have_bounds() {
        let chunks: Vec<Vec<u8>> = (1..9).map(|seed| crate::chunk::tests::noise(MAX_CHUNK, seed)).collect();
        let packs = packed(&chunks);
        assert!(packs.len() > 1);
        for (pack, bytes) in &packs {
            assert!(bytes.len() as u64 <= MAX_PACK && pack.size == bytes.len() as u64);
            assert!(pack.frames.iter().all(|frame| frame.raw() <= MAX_FRAME));
        }
    }

    #[test]
    fn a_changed_byte_is_found() {
        let (pack, mut bytes) = packed(&[b"abc".repeat(1000)]).remove(0);
        bytes[12] ^= 1;
        assert!(Frames::of(&pack, &bytes).is_err());
        assert!(Frames::of(&pack, &bytes[1..]).is_err());
    }

    #[test]
    fn a_bomb_makes_no_more_bytes_than_are_promised() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        let chunks = vec![Chunk { id: Digest::of(b"x"), length: 10 }];
        let frame = Frame { size: u32::try_from(bomb.len()).unwrap(), chunks };
        let mut into = Vec::new();
        assert!(decode_frame(&frame, &bomb, &mut into).is_err());
        assert!(into.capacity() < 1000);
    }
}
