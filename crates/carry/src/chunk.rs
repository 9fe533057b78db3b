//! Where a file is cut.
//!
//! FastCDC (<https://www.usenix.org/conference/atc16/technical-sessions/presentation/xia>): what is inserted into a large
//! file changes the chunks around it and no others, which is what restic and borg do, too. The numbers are part of the
//! format: with others nothing of an earlier export would be found again.

use fastcdc::v2020::FastCDC;

/// A file, or the rest of one, up to this size is one chunk, bytes.
pub const MIN_CHUNK: usize = 256 << 10;
/// What chunks of large files have on average, bytes.
const AVERAGE: usize = 1 << 20;
/// No chunk is larger, bytes.
pub const MAX_CHUNK: usize = 4 << 20;

/// Returns how many of these bytes the next chunk has. There must be at least [`MAX_CHUNK`] bytes, or all that are left.
pub fn cut(bytes: &[u8]) -> usize {
    if bytes.len() <= MIN_CHUNK {
        return bytes.len();
    }
    let bytes = &bytes[..bytes.len().min(MAX_CHUNK)];
    let (_, end) = FastCDC::new(bytes, MIN_CHUNK, AVERAGE, MAX_CHUNK).cut(0, bytes.len());
    end
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashSet;

    use kiln_core::Digest;

    use super::*;

    /// Bytes without a pattern, the same each time.
    pub(crate) fn noise(length: usize, mut seed: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            bytes.extend(seed.to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    fn chunks(mut bytes: &[u8]) -> Vec<&[u8]> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let (chunk, rest) = bytes.split_at(cut(bytes));
            found.push(chunk);
            bytes = rest;
        }
        found
    }

    #[test]
    fn small_files_are_one_chunk() {
        for length in [0, 1, 1000, MIN_CHUNK] {
            assert_eq!(cut(&noise(length, 1)), length);
        }
    }

    #[test]
    fn chunks_are_whole_and_within_bounds() {
        for length in [MIN_CHUNK + 1, 3 << 20, (16 << 20) + 7] {
            for bytes in [noise(length, 2), vec![0; length]] {
                let found = chunks(&bytes);
                assert_eq!(found.concat(), bytes);
                let (last, rest) = found.split_last().unwrap();
                assert!(rest.iter().all(|chunk| (MIN_CHUNK..=MAX_CHUNK).contains(&chunk.len())));
                assert!(last.len() <= MAX_CHUNK);
            }
        }
    }

    /// The cut points are part of the format: if they move, every export is made anew.
    #[test]
    fn cut_points_never_change() {
        let bytes = noise(6 << 20, 3);
        let lengths: Vec<usize> = chunks(&bytes).iter().map(|chunk| chunk.len()).collect();
        assert_eq!(lengths, GOLDEN);
    }

    const GOLDEN: [usize; 5] = [1_080_746, 2_009_055, 1_061_369, 2_098_044, 42_242];

    #[test]
    fn an_insertion_changes_the_chunks_around_it_only() {
        let before = noise(32 << 20, 4);
        let mut after = before.clone();
        after.splice(9_000_000..9_000_000, *b"inserted");
        let ids = |bytes: &[u8]| chunks(bytes).iter().map(|c| Digest::of(c)).collect::<HashSet<_>>();
        let (before, after) = (ids(&before), ids(&after));
        assert!(after.difference(&before).count() <= 3, "{} are new", after.difference(&before).count());
        assert!(before.len() > 10);
    }
}
