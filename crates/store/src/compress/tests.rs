use std::io::Read as _;

use kiln_testkit::random::Random;

use super::*;
use crate::layout::Ids;
use crate::store::Store;

/// Text-like bytes that deflate can do something with, the same ones every time.
fn sample(length: usize) -> Vec<u8> {
    const WORDS: [&str; 8] =
        ["import ", "self.", "return ", "def __init__(", "None\n", "    ", "x = ", "kiln"];
    let (mut out, mut state) = (Vec::with_capacity(length + 16), 88_172_645_463_325_252_u64);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(WORDS[(state % 8) as usize].as_bytes());
        out.push((state >> 32) as u8);
    }
    out.truncate(length);
    out
}

const BLOCK: usize = 1 << 20;

fn pack_with(
    store: &Store,
    bytes: &[u8],
    compression: Compression,
    threads: usize,
    step: usize,
) -> (Vec<u8>, Digest) {
    let packed = std::thread::scope(|scope| {
        let mut packer = Packer::new(scope, store.blob_writer().unwrap(), compression, threads).unwrap();
        bytes.chunks(step).for_each(|chunk| packer.put(chunk).unwrap());
        packer.finish().unwrap()
    });
    let digest = packed.blob.finish(None).unwrap();
    (std::fs::read(store.blob_path(&digest)).unwrap(), packed.diff_id)
}

fn unpacked(bytes: &[u8], compression: Compression) -> Vec<u8> {
    let mut decoded = Vec::new();
    match compression {
        Compression::Gzip { .. } => flate2::read::GzDecoder::new(bytes).read_to_end(&mut decoded),
        Compression::Estargz { .. } => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut decoded),
        Compression::Zstd { .. } => zstd::Decoder::new(bytes).unwrap().read_to_end(&mut decoded),
        Compression::None => (&bytes[..]).read_to_end(&mut decoded),
    }
    .unwrap();
    decoded
}

#[test]
fn bytes_depend_on_nothing_but_input_and_level() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Ids::Full).unwrap();
    let gzip = [0, 1, 9].map(|level| Compression::Gzip { level });
    let zstd = [0, 1, 9].map(|level| Compression::Zstd { level });
    for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 12_345] {
        let bytes = sample(length);
        for compression in gzip.into_iter().chain(zstd).chain([Compression::None]) {
            let (first, diff_id) = pack_with(&store, &bytes, compression, 1, usize::MAX);
            assert_eq!(diff_id, Digest::of(&bytes));
            assert!(unpacked(&first, compression) == bytes, "length {length}, {compression:?}");
            for (threads, step) in [(2, 4096), (3, 7777), (8, BLOCK)] {
                let (other, _) = pack_with(&store, &bytes, compression, threads, step);
                assert!(first == other, "length {length}, {compression:?}, {threads} threads");
            }
        }
    }
}

#[test]
fn a_block_that_resists_is_stored_and_those_beside_it_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Ids::Full).unwrap();
    let noise = Random(1).bytes(2 * BLOCK);
    let bytes = [sample(BLOCK), noise.clone(), sample(BLOCK + 5)].concat();
    for compression in [1, 2, 6, 9].map(|level| Compression::Gzip { level }) {
        let (first, diff_id) = pack_with(&store, &bytes, compression, 1, usize::MAX);
        assert_eq!(diff_id, Digest::of(&bytes));
        assert!(unpacked(&first, compression) == bytes, "{compression:?}");
        // Stored blocks of deflate have 64 KiB at most, with five bytes before each.
        assert!((noise.len()..noise.len() + BLOCK).contains(&first.len()), "{} bytes", first.len());
        assert!(first.windows(4096).any(|bytes| bytes == &noise[BLOCK..BLOCK + 4096]), "{compression:?}");
        let (other, _) = pack_with(&store, &bytes, compression, 5, 4096);
        assert!(first == other, "{compression:?}");
    }
}

/// If this fails after an update of zlib-rs, its version in `Compression::version` must change too: layers packed anew
/// get other digests. That of zstd changes by itself.
#[test]
fn bytes_are_those_of_this_compressor() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Ids::Full).unwrap();
    let digests: Vec<String> = [1, 2, 3, 4, 5, 6, 9]
        .map(|level| Compression::Gzip { level })
        .into_iter()
        .chain([1, 3].map(|level| Compression::Zstd { level }))
        .map(|how| Digest::of(&pack_with(&store, &sample(3 * BLOCK + 999), how, 2, 65_536).0).short())
        .collect();
    let expected = "6a34fbad67f3 d08530ac6f0c ccf9d599ea13 fc7afec07527 cebb8c0b2e88 d70235d60a16 53ec556c41ee \
                    9c3e146def46 76a7f32e0e6c";
    assert_eq!(digests.join(" "), expected);
}

/// Files as a tar has them, whose blocks end between files.
fn pack_files(store: &Store, compression: Compression, threads: usize) -> (Vec<u8>, usize) {
    let packed = std::thread::scope(|scope| {
        let mut packer = Packer::new(scope, store.blob_writer().unwrap(), compression, threads).unwrap();
        packer.list_blocks(None);
        for number in 0..700 {
            let content = if number == 300 { sample(5 * BLOCK + 7) } else { sample(number * 40) };
            let (name, size) = (format!("data/f{number}"), content.len() as u64);
            packer.header(&Item { name: name.as_bytes(), flag: b'0', size, ..Item::default() }).unwrap();
            packer.put(&content).unwrap();
            packer.put(&vec![0; content.len().next_multiple_of(512) - content.len()]).unwrap();
        }
        packer.finish().unwrap()
    });
    let blocks = packed.places.len();
    let digest = packed.blob.finish(None).unwrap();
    (std::fs::read(store.blob_path(&digest)).unwrap(), blocks)
}

/// As above: if this fails because blocks end elsewhere, the packer's number in `Compression::version` must change.
#[test]
fn blocks_end_where_they_did() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Ids::Full).unwrap();
    let seen = [Compression::Gzip { level: 2 }, Compression::Zstd { level: 3 }].map(|compression| {
        let (bytes, blocks) = pack_files(&store, compression, 1);
        for threads in [2, 5] {
            assert!(pack_files(&store, compression, threads) == (bytes.clone(), blocks), "{threads} threads");
        }
        let tar = unpacked(&bytes, compression);
        let (mut at, mut number) = (0, 0);
        while at < tar.len() {
            assert!(tar[at..].starts_with(format!("data/f{number}\0").as_bytes()));
            let size = if number == 300 { 5 * BLOCK + 7 } else { number * 40 };
            at += 512 + size.next_multiple_of(512);
            number += 1;
        }
        format!("{blocks} {}", Digest::of(&bytes).short())
    });
    assert_eq!(seen, ["24 fcf66285fbac", "8 05467bee2bd7"]);
}

#[test]
fn a_writer_that_fails_ends_the_crew() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Ids::Full).unwrap();
    let bytes = sample(BLOCK);
    let result = std::thread::scope(|scope| {
        let mut packer = Packer::new(scope, BlobWriter::full(&store), Compression::Gzip { level: 1 }, 3)?;
        for _ in 0..100 {
            packer.put(&bytes)?;
        }
        packer.finish().map(|_| ())
    });
    assert!(result.unwrap_err().is_full());
}

#[test]
fn zstd_stays_below_100_mib_at_every_level() {
    const MIB: usize = 1 << 20;
    // What the rest of kiln takes, as measured.
    let rest = 12 * MIB;
    let block = vec![0; 4 * MIB];
    for level in 0..=22_u32 {
        let mut compressor = zstd(level.cast_signed()).unwrap();
        // Tables are of the size that the block asks for.
        compressor.compress(&block).unwrap();
        let tables = compressor.context_mut().sizeof();
        let threads = Compression::Zstd { level }.most_threads();
        let all = threads * tables + (threads + 2) * 2 * block.len() + rest;
        assert!(
            all < 100 * MIB,
            "level {level}: {threads} threads of {} MiB, {} in all",
            tables / MIB,
            all / MIB
        );
    }
}

/// Else what is measured is something else.
#[test]
fn the_compressor_alone_makes_what_a_layer_is_made_of() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Ids::Full).unwrap();
    for length in [1, BLOCK, 3 * BLOCK + 12_345] {
        let (bytes, gzip) = (sample(length), Compression::Gzip { level: 6 });
        let (packed, _) = pack_with(&store, &bytes, gzip, 2, usize::MAX);
        // The header's ten bytes, and the trailer's eight.
        assert_eq!(deflate_alone(&bytes, 6, 2) + 18, packed.len() as u64, "length {length}");
    }
}
