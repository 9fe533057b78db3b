//! Fetched sources: whole or not there, kept while something names them.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use kiln_core::Digest;
use kiln_store::{Ids, Problem, PruneOptions, RecordKind, SourceId, Store, StoreError, ThingKind};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store"), Ids::Full).unwrap();
    (dir, store)
}

fn put(store: &Store, name: &str, bytes: &[u8]) -> SourceId {
    let mut file = store.begin_file(name).unwrap();
    file.append(bytes).unwrap();
    file.finish(1_000_000_000).unwrap()
}

fn reboot(store: &Store) -> Store {
    std::fs::write(store.root().join("boot"), "another").unwrap();
    Store::open(store.root(), Ids::Full).unwrap()
}

/// What is half-made, by any process.
fn half_made(store: &Store) -> usize {
    let processes = std::fs::read_dir(store.root().join("tmp")).unwrap();
    processes.map(|process| std::fs::read_dir(process.unwrap().path()).unwrap().count()).sum()
}

fn du(path: &Path) -> u64 {
    let output = std::process::Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_file_is_named_by_what_it_holds() {
    let (_dir, store) = store();
    let mut file = store.begin_file("a.txt").unwrap();
    file.append(b"not that").unwrap();
    file.restart().unwrap();
    file.append(b"o").unwrap();
    file.append(b"ne").unwrap();
    assert_eq!((file.size(), file.digest()), (3, Digest::of(b"one")));
    let id = SourceId::file("a.txt", &file.digest());
    assert!(!store.has_source(&id) && half_made(&store) == 1);
    assert_eq!(file.finish(1_000_000_000).unwrap(), id);
    assert!(store.has_source(&id) && half_made(&store) == 0);
    let path = store.source_dir(&id).join("a.txt");
    let stat = std::fs::metadata(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"one");
    assert_eq!(
        (stat.permissions().mode() & 0o7777, stat.mtime(), stat.mtime_nsec()),
        (0o600, 1_000_000_000, 0)
    );
    assert_eq!(store.source_dir(&id).metadata().unwrap().permissions().mode() & 0o7777, 0o755);
    // The same again changes nothing; the first stays.
    let inode = stat.ino();
    assert_eq!(put(&store, "a.txt", b"one"), id);
    assert_eq!((std::fs::metadata(&path).unwrap().ino(), half_made(&store)), (inode, 0));
    // Another name or other bytes are another source.
    let others = [put(&store, "b.txt", b"one"), put(&store, "a.txt", b"two")];
    assert!(!others.contains(&id) && others[0] != others[1]);
    assert_eq!(store.fsck().unwrap(), []);
    // Given up.
    drop(store.begin_file("c").unwrap());
    assert_eq!(half_made(&store), 0);
    for name in ["", ".", "..", "a/b", "/", "a\0b"] {
        assert!(matches!(store.begin_file(name), Err(StoreError::FileName { .. })), "{name:?}");
    }
}

#[test]
fn several_may_make_the_same_at_once() {
    let (_dir, store) = store();
    let start = std::sync::Barrier::new(8);
    let ids: Vec<SourceId> = std::thread::scope(|scope| {
        let make = || {
            start.wait();
            put(&store, "a", b"one")
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]));
    assert_eq!((half_made(&store), store.fsck().unwrap()), (0, vec![]));
}

#[test]
fn what_no_record_names_is_pruned() {
    let (_dir, store) = store();
    let (named, lone) = (put(&store, "a", b"named"), put(&store, "a", &[7; 100_000]));
    store.put_record(RecordKind::Source, "url", &named).unwrap();
    assert_eq!(store.usage().unwrap().sources, du(&store.root().join("sources")));
    assert_eq!(store.usage().unwrap().total(), du(store.root()));
    let report = store.prune(&PruneOptions::default()).unwrap();
    let kinds: Vec<_> = report.removed.iter().map(|removed| removed.kind).collect();
    assert_eq!(kinds, [ThingKind::Source]);
    assert!(report.freed > 100_000 && store.has_source(&named) && !store.has_source(&lone));
    // What a running build found stays.
    let all = PruneOptions { all: true, ..PruneOptions::default() };
    let pin = store.pin().unwrap();
    assert!(store.has_source(&named));
    assert_eq!(
        store.prune(&all).unwrap().removed.iter().filter(|gone| gone.kind == ThingKind::Source).count(),
        0
    );
    drop(pin);
    let kinds: Vec<_> = store.prune(&all).unwrap().removed.iter().map(|removed| removed.kind).collect();
    assert_eq!(kinds, [ThingKind::Record, ThingKind::Source], "what names it goes first");
    assert!(!store.has_source(&named));
    assert_eq!(store.fsck().unwrap(), []);
}

#[test]
fn only_what_was_synced_survives_a_power_failure() {
    let (_dir, store) = store();
    let synced = put(&store, "a", b"synced");
    store.finish_build().unwrap();
    let unsynced = put(&store, "a", b"unsynced");
    let store = reboot(&store);
    assert!(store.has_source(&synced) && !store.has_source(&unsynced));
    assert_eq!(store.fsck().unwrap(), []);
}

#[test]
fn fsck_sees_damage() {
    let (_dir, store) = store();
    let [changed, more, gone, whole] = [b"1", b"2", b"3", b"4"].map(|bytes| put(&store, "a", bytes));
    let checkout = SourceId::checkout(&Digest::of(b"commit"));
    let new = store.begin_source().unwrap();
    std::fs::write(new.files().join("a"), "whatever").unwrap();
    new.publish(&checkout).unwrap();
    assert_eq!(store.fsck().unwrap(), []);
    std::fs::write(store.source_dir(&changed).join("a"), "x").unwrap();
    std::fs::write(store.source_dir(&more).join("b"), "x").unwrap();
    std::fs::remove_file(store.source_dir(&gone).join("a")).unwrap();
    std::fs::create_dir_all(store.root().join("sources/strange/fs")).unwrap();
    let found = store.fsck().unwrap();
    let damaged = |id: &SourceId| found.contains(&Problem::Source { path: format!("sources/{id}").into() });
    assert!(found.len() == 4 && damaged(&changed) && damaged(&more) && damaged(&gone), "{found:?}");
    assert!(!damaged(&whole) && !damaged(&checkout));
}
