//! Where a block of a tar ends. Were it every so many bytes, one file more would move the ends of all blocks after it, and
//! each would have to be compressed again. So blocks end between files, at places that follow from the files' headers and from
//! what lies before them since the last end: two tars that differ in one file have the same blocks before it, and soon after it.
//! docs/decisions/0030 has what it costs and saves.

use kiln_core::Digest;

use super::Compression;

/// A block has at least this part of what it may have. From there on, one of its ends is expected within as much again: were it
/// sooner, two tars whose blocks begin at other files would seldom choose the same end.
const PART: usize = 4;

/// Whether a block ends before an entry: one of so many bytes, headers included, that would come behind `filled` others.
pub(super) fn before(compression: Compression, filled: usize, headers: &[u8], entry: u64) -> bool {
    let most = compression.block();
    if filled == 0 || !matches!(compression, Compression::Gzip { .. } | Compression::Zstd { .. }) {
        return false;
    }
    // What is larger than a block is cut by size, from its own beginning on.
    if entry >= most as u64 {
        return true;
    }
    let part = most / PART;
    if filled < part {
        return false;
    }
    let chance = || {
        let hash = Digest::of(headers);
        u64::from(u32::from_le_bytes(*hash.as_bytes().first_chunk().expect("a digest is longer")))
    };
    // By bytes and not by entries: else there would be too many ends among small files, and too few among larger ones.
    filled as u64 + entry > most as u64 || chance() % (part as u64) < entry
}

#[cfg(test)]
mod tests {
    use super::*;

    const GZIP: Compression = Compression::Gzip { level: 2 };
    const MOST: usize = GZIP.block();

    /// Paths and sizes.
    type Files = Vec<(String, u64)>;

    /// Where the blocks of such a tar end, as the number of files before.
    fn ends(files: &[(String, u64)]) -> Vec<String> {
        let (mut filled, mut ends) = (0, Vec::new());
        for (name, size) in files {
            let entry = size + 512;
            if before(GZIP, filled, name.as_bytes(), entry) {
                ends.push(name.clone());
                filled = 0;
            }
            filled = (filled + usize::try_from(entry).unwrap()) % MOST;
        }
        ends
    }

    fn files(count: u64, size: impl Fn(u64) -> u64) -> Files {
        (0..count).map(|number| (format!("data/f{number}"), size(number))).collect()
    }

    #[test]
    fn blocks_end_at_the_same_files_again_soon_after_an_edit() {
        for size in [300, 4096, 30_000] {
            let old = files(20_000, |_| size);
            let ends_of_old = ends(&old);
            let edited = |edit: &dyn Fn(&mut Files)| {
                let mut new = old.clone();
                edit(&mut new);
                let ends = ends(&new);
                ends.iter().filter(|name| !ends_of_old.contains(name)).count()
            };
            assert!(ends_of_old.len() > 5, "{size}");
            assert!(edited(&|files| files[100].1 += 512) <= 6, "{size}, one grew");
            assert!(edited(&|files| files[100].1 = 0) <= 6, "{size}, one shrank");
            assert!(
                edited(&|files| files.insert(100, ("data/new".to_owned(), 700_000))) <= 6,
                "{size}, one more"
            );
            assert!(edited(&|files| drop(files.remove(100))) <= 6, "{size}, one less");
        }
    }

    #[test]
    fn a_block_is_large_unless_a_larger_file_follows() {
        let most = MOST as u64;
        assert!(!before(GZIP, MOST / 4 - 512, b"a", most - 1), "too little for an end");
        assert!(before(GZIP, MOST / 2, b"a", most / 2 + 512), "it would not fit");
        assert!(before(GZIP, 512, b"a", most), "a large file begins a block");
        assert!(!before(GZIP, 0, b"a", most), "there is nothing to end");
        let cut = |compression| (0..=255).any(|name: u8| before(compression, MOST / 2, &[name], 8192));
        assert!(cut(GZIP));
        assert!(!cut(Compression::None));
        assert!(!cut(Compression::Estargz { level: 2 }), "its members follow from the files already");
    }
}
