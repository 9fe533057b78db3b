//! Packs: making them, and getting chunks back.

use kiln_core::Digest;

use crate::{CarryError, Chunk, Frame, MAX_CHUNK, Pack};

/// A frame is compressed when it has this many bytes: as one frame small files compress about as a tar of them does.
const FRAME: usize = 1 << 20;
/// A pack is finished when it has this many bytes: few enough to be sent again if a connection breaks, many enough to
/// be worth a request.
const PACK: usize = 8 << 20;
/// No frame has more bytes once decompressed.
pub const MAX_FRAME: u64 = (FRAME + MAX_CHUNK) as u64;
/// No pack is larger, bytes. zstd makes what does not compress a little larger.
pub const MAX_PACK: u64 = (PACK + 2 * (FRAME + MAX_CHUNK)) as u64;

/// Makes packs of chunks. Memory: a frame and a pack.
pub struct PackWriter {
    compressor: zstd::bulk::Compressor<'static>,
    raw: Vec<u8>,
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
        let compressor = zstd::bulk::Compressor::new(level);
        let compressor = compressor.map_err(|error| CarryError::damaged(format!("zstd: {error}")))?;
        let (raw, chunks, bytes, frames) = Default::default();
        Ok(Self { compressor, raw, chunks, bytes, frames })
    }

    /// Takes a chunk in; returns a pack if one is full now.
    ///
    /// # Errors
    /// zstd failed, which it does only without memory.
    pub fn add(&mut self, id: Digest, bytes: &[u8]) -> Result<Option<Finished>, CarryError> {
        self.raw.extend_from_slice(bytes);
        // A chunk has at most MAX_CHUNK bytes.
        self.chunks.push(Chunk { id, length: u32::try_from(bytes.len()).unwrap_or(u32::MAX) });
        if self.raw.len() >= FRAME {
            self.end_frame()?;
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

    fn end_frame(&mut self) -> Result<(), CarryError> {
        if self.chunks.is_empty() {
            return Ok(());
        }
        let start = self.bytes.len();
        self.bytes.resize(start + zstd::zstd_safe::compress_bound(self.raw.len()), 0);
        let done = self.compressor.compress_to_buffer(&self.raw, &mut self.bytes[start..]);
        let size = done.map_err(|error| CarryError::damaged(format!("zstd: {error}")))?;
        self.bytes.truncate(start + size);
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.frames.push(Frame { size, chunks: std::mem::take(&mut self.chunks) });
        self.raw.clear();
        Ok(())
    }

    fn end_pack(&mut self) -> Finished {
        let bytes = std::mem::take(&mut self.bytes);
        let frames = std::mem::take(&mut self.frames);
        (Pack { digest: Digest::of(&bytes), size: bytes.len() as u64, frames }, bytes)
    }
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
