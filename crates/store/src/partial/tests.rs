use super::*;
use crate::layout::Ids;

/// 17 MiB that do not repeat.
fn blob() -> (Vec<u8>, Digest) {
    let mut state = 1_u64;
    let mut bytes = Vec::with_capacity(17 << 20);
    while bytes.len() < 17 << 20 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    let digest = Digest::of(&bytes);
    (bytes, digest)
}

fn store(dir: &tempfile::TempDir) -> Store {
    Store::open(dir.path(), Ids::Full).unwrap()
}

fn names(store: &Store) -> Vec<String> {
    let parts = parts(&store.0.layout).unwrap();
    parts.iter().map(|part| part.path.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn what_came_stays_and_the_next_try_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, digest) = blob();
    let size = bytes.len() as u64;
    let mut writer = store(&dir).blob_writer_for(&digest, size).unwrap();
    assert_eq!(writer.size(), 0);
    writer.append(&bytes[..5 << 20]).unwrap();
    drop(writer);
    // Another process.
    let store = store(&dir);
    assert_eq!(names(&store), [digest.hex()]);
    assert!(!store.has_blob(&digest));
    assert_eq!(store.fsck().unwrap(), []);
    assert!(store.usage().unwrap().other >= 5 << 20);
    let mut writer = store.blob_writer_for(&digest, size).unwrap();
    assert_eq!(writer.size(), 5 << 20);
    assert_eq!(writer.hasher().finish(), Digest::of(&bytes[..5 << 20]));
    let mut start = Vec::new();
    writer.written().unwrap().read_to_end(&mut start).unwrap();
    assert!(start == bytes[..5 << 20]);
    writer.append(&bytes[5 << 20..]).unwrap();
    writer.finish(Some((digest, size))).unwrap();
    assert_eq!(names(&store), [] as [String; 0]);
    assert!(std::fs::read(store.blob_path(&digest)).unwrap() == bytes);
    assert_eq!(store.fsck().unwrap(), []);
}

#[test]
fn wrong_bytes_are_never_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, digest) = blob();
    let (size, store) = (bytes.len() as u64, store(&dir));
    let path = dir.path().join("partial").join(digest.hex());
    let begin = |there: &[u8]| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, there).unwrap();
        store.blob_writer_for(&digest, size).unwrap()
    };
    // A wrong start shows at the end.
    let mut writer = begin(&[7; 2 << 20]);
    assert_eq!(writer.size(), 2 << 20);
    writer.append(&bytes[2 << 20..]).unwrap();
    assert!(matches!(
        writer.finish(Some((digest, size))).unwrap_err(),
        StoreError::DigestMismatch { expected, .. } if expected == digest
    ));
    assert_eq!(names(&store), [] as [String; 0]);
    // Too much, or all of it and wrong, at once.
    assert_eq!(begin(&vec![7; bytes.len()]).size(), 0);
    assert_eq!(begin(&vec![7; bytes.len() + 9]).size(), 0);
    // All of it and right needs nothing more.
    let writer = begin(&bytes);
    assert_eq!(writer.size(), size);
    writer.finish(Some((digest, size))).unwrap();
    assert!(store.has_blob(&digest));
    // What is next to nothing goes.
    begin(&[]).append(&bytes[..100]).unwrap();
    assert_eq!(names(&store), [] as [String; 0]);
    assert_eq!(store.fsck().unwrap(), []);
}

#[test]
fn two_who_fetch_the_same_do_not_meet() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, digest) = blob();
    let size = bytes.len() as u64;
    let (one, other) = (store(&dir), store(&dir));
    let mut first = one.blob_writer_for(&digest, size).unwrap();
    first.append(&bytes[..3 << 20]).unwrap();
    let mut second = other.blob_writer_for(&digest, size).unwrap();
    assert_eq!(second.size(), 0, "the part is another's");
    second.append(&bytes).unwrap();
    second.finish(Some((digest, size))).unwrap();
    // A part that is being written to is nobody's to take.
    assert_eq!(other.prune(&PruneOptions { all: true, ..PruneOptions::default() }).unwrap().removed.len(), 1);
    assert_eq!(names(&one), [digest.hex()]);
    first.append(&bytes[3 << 20..]).unwrap();
    first.finish(Some((digest, size))).unwrap();
    assert_eq!(names(&one), [] as [String; 0]);
    assert!(std::fs::read(one.blob_path(&digest)).unwrap() == bytes);
}

#[test]
fn parts_go_by_age_by_room_when_asked_and_at_a_reboot() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir);
    std::fs::create_dir_all(dir.path().join("partial")).unwrap();
    let part = |number: u64, megabytes: u64, age: Duration| {
        let path = dir.path().join("partial").join(Digest::of(&number.to_le_bytes()).hex());
        let file = open(&path).unwrap();
        std::io::copy(&mut std::io::repeat(1).take(megabytes << 20), &mut &file).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        path
    };
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    let old = part(1, 1, AGE + hours(1));
    let (young, younger) = (part(2, 2, hours(5)), part(3, 3, hours(1)));
    drop(store.blob_writer_for(&Digest::of(b"x"), 20 << 20).unwrap());
    assert!(!old.exists() && young.exists() && younger.exists());
    let dry = PruneOptions { dry_run: true, ..PruneOptions::default() };
    assert!(store.prune(&dry).unwrap().freed >= 5 << 20 && young.exists());
    let until = PruneOptions { until: Some(hours(3)), ..PruneOptions::default() };
    assert_eq!(store.prune(&until).unwrap().removed[0].path, young.strip_prefix(dir.path()).unwrap());
    assert!(!young.exists() && younger.exists());
    let keep = |bytes| PruneOptions { keep_bytes: Some(bytes), ..PruneOptions::default() };
    store.prune(&keep(1 << 40)).unwrap();
    assert!(younger.exists());
    store.prune(&keep(0)).unwrap();
    assert!(!younger.exists());
    let last = part(4, 1, hours(0));
    std::fs::write(dir.path().join("boot"), "another boot").unwrap();
    drop(self::store(&dir));
    assert!(!last.exists(), "nothing says what of it is on the disk");
}
