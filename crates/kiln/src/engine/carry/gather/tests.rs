use std::fs::{self, File};
use std::io::Write as _;

use kiln_carry::{Frames, decode_frame};
use rustix::fs::stat;

use super::*;
use crate::CarryFailure;

fn wanted(dir: &Path, name: &str) -> Wanted {
    let identity = Identity::of(&stat(dir.join(name)).unwrap());
    Wanted { root: dir.to_owned(), path: name.into(), identity }
}

type Packed = Mutex<Vec<(Pack, Vec<u8>)>>;

fn keep(packed: &Packed) -> impl Fn(&Pack, Vec<u8>) -> Result<Vec<u8>, Error> + Sync {
    |pack, bytes| {
        lock(packed).push((pack.clone(), bytes.clone()));
        Ok(bytes)
    }
}

/// All chunks of packs, by digest.
fn unpacked(packed: &Packed) -> BTreeMap<Digest, Vec<u8>> {
    let mut found = BTreeMap::new();
    for (pack, bytes) in lock(packed).iter() {
        for (frame, bytes) in Frames::of(pack, bytes).unwrap() {
            let mut raw = Vec::new();
            decode_frame(frame, bytes, &mut raw).unwrap();
            let mut rest = &raw[..];
            for chunk in &frame.chunks {
                let (own, after) = rest.split_at(chunk.length as usize);
                assert!(found.insert(chunk.id, own.to_vec()).is_none(), "a chunk is packed once");
                rest = after;
            }
        }
    }
    found
}

fn content(gathered: &Gathered, chunks: &BTreeMap<Digest, Vec<u8>>) -> Vec<u8> {
    let Gathered::Chunks(_, ids) = gathered else { panic!("{gathered:?}") };
    ids.iter().flat_map(|id| chunks[id].clone()).collect()
}

#[test]
fn what_is_gathered_is_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let pattern: Vec<u8> = (0..20_000_000_u32).map(|n| (n.wrapping_mul(n) >> 11) as u8).collect();
    let files: [(&str, &[u8]); 5] =
        [("a", b"abc"), ("b", b"abc"), ("c", &pattern[..300_000]), ("d", &pattern), ("e", &pattern[5..])];
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let packed = Packed::default();
    let all: Vec<Wanted> = files.iter().map(|(name, _)| wanted(dir.path(), name)).collect();
    let (gathered, packs) = gather(&all, HashSet::new(), 1, &keep(&packed), &|_| {}, &Cancel::new()).unwrap();
    assert_eq!(packs.len(), lock(&packed).len());
    let chunks = unpacked(&packed);
    for ((name, bytes), gathered) in files.iter().zip(&gathered) {
        assert!(content(gathered, &chunks) == *bytes, "{name}");
    }
    // Known chunks are not packed again.
    let again = Packed::default();
    let there = chunks.into_keys().collect();
    gather(&all, there, 1, &keep(&again), &|_| {}, &Cancel::new()).unwrap();
    assert!(lock(&again).is_empty());
}

#[test]
fn a_file_that_changed_is_read_as_it_is_now() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["grown", "gone", "still"] {
        fs::write(dir.path().join(name), "before").unwrap();
    }
    let all: Vec<Wanted> = ["grown", "gone", "still"].iter().map(|name| wanted(dir.path(), name)).collect();
    fs::write(dir.path().join("grown"), "after, and longer").unwrap();
    fs::remove_file(dir.path().join("gone")).unwrap();
    let packed = Packed::default();
    let (gathered, _) = gather(&all, HashSet::new(), 1, &keep(&packed), &|_| {}, &Cancel::new()).unwrap();
    assert_eq!(content(&gathered[0], &unpacked(&packed)), b"after, and longer");
    assert!(matches!(gathered[1], Gathered::Gone));
    assert_eq!(content(&gathered[2], &unpacked(&packed)), b"before");
}

#[test]
fn a_file_that_never_stands_still_is_left_with_a_word() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("log"), "line\n").unwrap();
    let all = [wanted(dir.path(), "log")];
    let log = dir.path().join("log");
    let packed = Packed::default();
    // It grows whenever it is read.
    let grow = |_| File::options().append(true).open(&log).unwrap().write_all(b"line\n").unwrap();
    let (gathered, _) = gather(&all, HashSet::new(), 1, &keep(&packed), &grow, &Cancel::new()).unwrap();
    assert!(
        matches!(&gathered[0], Gathered::Left(reason) if reason.contains("writes to it")),
        "{gathered:?}"
    );
}

#[test]
fn the_first_failure_to_write_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    for name in 0..40 {
        fs::write(dir.path().join(name.to_string()), [name; 300_000]).unwrap();
    }
    let all: Vec<Wanted> = (0..40).map(|name| wanted(dir.path(), &name.to_string())).collect();
    let fail = |_: &Pack, _: Vec<u8>| Err(Error::Carry(CarryFailure::Nothing { place: "full".to_owned() }));
    let failed = gather(&all, HashSet::new(), 1, &fail, &|_| {}, &Cancel::new());
    assert!(matches!(failed, Err(Error::Carry(CarryFailure::Nothing { .. }))));
}
