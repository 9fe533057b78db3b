//! What every cache index must do.

use std::fmt::Debug;

use kiln_core::{Digest, Snapshot};
use kiln_solver::{CacheIndex, KeyPart, KeyParts, StepRecord};

/// Makes and removes the snapshots that records name: an index finds only records whose snapshot is there.
pub trait SnapshotMaker: Sync {
    /// Makes a snapshot of one new layer over another snapshot.
    fn make(&self, over: &Snapshot) -> Snapshot;

    /// Removes the top layer of a snapshot, as a collection does.
    fn remove(&self, snapshot: &Snapshot);
}

/// Checks an index. `open` opens it anew, as another process would; all that it returns are one index, which is empty
/// at the start.
///
/// # Panics
/// Where the index does not do what it must.
pub fn cache_index_conformance<I, E>(open: &dyn Fn() -> I, maker: &dyn SnapshotMaker)
where
    I: CacheIndex<Error = E>,
    E: Debug + Send,
{
    let index = open();
    finds_nothing_in_an_empty_index(&index);
    returns_what_was_recorded(&index, &open(), maker);
    keeps_the_last_record_of_a_key(&index, maker);
    keeps_the_last_alias(&index, &open());
    keeps_odd_texts(&index, maker);
    keeps_scratch(&index);
    loses_records_with_their_snapshots(&index, maker);
    shows_whole_records_to_everybody(&index, &open(), maker);
}

fn finds_nothing_in_an_empty_index<E: Debug>(index: &dyn CacheIndex<Error = E>) {
    assert_eq!(index.lookup(&key("absent")).unwrap(), None, "a record of nothing");
    assert_eq!(index.alias(&key("absent")).unwrap(), None, "an alias of nothing");
}

fn returns_what_was_recorded<E: Debug>(
    index: &dyn CacheIndex<Error = E>,
    other: &dyn CacheIndex<Error = E>,
    maker: &dyn SnapshotMaker,
) {
    let below = maker.make(&Snapshot::default());
    let asked = record("whole", maker.make(&below));
    let kept = index.record(asked.clone(), &parts()).unwrap();
    assert!(kept.created > 0, "a record without a time");
    assert_eq!(kept, StepRecord { created: kept.created, ..asked }, "only the time is the index's");
    assert_eq!(index.lookup(&kept.key).unwrap().as_ref(), Some(&kept), "the record as kept");
    assert_eq!(other.lookup(&kept.key).unwrap().as_ref(), Some(&kept), "the record seen by another process");
    assert_eq!(index.lookup(&key("absent")).unwrap(), None, "a record under another key");
    assert_eq!(index.alias(&kept.key).unwrap(), None, "a record is no alias");
}

fn keeps_the_last_record_of_a_key<E: Debug>(index: &dyn CacheIndex<Error = E>, maker: &dyn SnapshotMaker) {
    let first = index.record(record("again", maker.make(&Snapshot::default())), &parts()).unwrap();
    let bystander = index.record(record("bystander", maker.make(&Snapshot::default())), &parts()).unwrap();
    let second = index.record(record("again", maker.make(&Snapshot::default())), &parts()).unwrap();
    assert_ne!(first.snapshot, second.snapshot, "the maker makes new snapshots");
    assert!(second.created >= first.created, "time goes on");
    assert_eq!(index.lookup(&first.key).unwrap(), Some(second), "the last record of a key");
    assert_eq!(index.lookup(&bystander.key).unwrap(), Some(bystander), "another key's record");
}

fn keeps_the_last_alias<E: Debug>(index: &dyn CacheIndex<Error = E>, other: &dyn CacheIndex<Error = E>) {
    index.record_alias(&key("definition"), &key("content 1")).unwrap();
    assert_eq!(index.alias(&key("definition")).unwrap(), Some(key("content 1")));
    index.record_alias(&key("other definition"), &key("content 1")).unwrap();
    index.record_alias(&key("definition"), &key("content 2")).unwrap();
    assert_eq!(index.alias(&key("definition")).unwrap(), Some(key("content 2")), "the last alias");
    assert_eq!(
        other.alias(&key("definition")).unwrap(),
        Some(key("content 2")),
        "as another process sees it"
    );
    assert_eq!(index.alias(&key("other definition")).unwrap(), Some(key("content 1")), "another alias");
    assert_eq!(index.lookup(&key("definition")).unwrap(), None, "an alias is no record");
    assert_eq!(index.lookup(&key("content 2")).unwrap(), None, "an alias makes no record");
}

fn keeps_odd_texts<E: Debug>(index: &dyn CacheIndex<Error = E>, maker: &dyn SnapshotMaker) {
    let texts = ["", " ", "\n", "a\0b", "\u{1b}[31m", "\"quoted\" \\ /", "naïve 漢字 🔥", "../../etc/passwd"];
    let parts = texts.iter().map(|text| KeyPart { name: format!("env {text}"), value: (*text).to_owned() });
    let mut odd = record("odd", maker.make(&Snapshot::default()));
    odd.title = texts.concat();
    odd.duration_us = u64::MAX;
    let kept = index.record(odd.clone(), &KeyParts(parts.collect())).unwrap();
    assert_eq!(kept, StepRecord { created: kept.created, ..odd });
    assert_eq!(index.lookup(&kept.key).unwrap(), Some(kept), "odd texts come back as they were");
}

fn keeps_scratch<E: Debug>(index: &dyn CacheIndex<Error = E>) {
    let kept = index.record(record("scratch", Snapshot::default()), &parts()).unwrap();
    assert_eq!(index.lookup(&kept.key).unwrap(), Some(kept), "a snapshot without layers is always there");
}

fn loses_records_with_their_snapshots<E: Debug>(
    index: &dyn CacheIndex<Error = E>,
    maker: &dyn SnapshotMaker,
) {
    let below = maker.make(&Snapshot::default());
    let lower = index.record(record("lower", below.clone()), &parts()).unwrap();
    let upper = index.record(record("upper", maker.make(&below)), &parts()).unwrap();
    maker.remove(&upper.snapshot);
    assert_eq!(index.lookup(&upper.key).unwrap(), None, "a record whose own layer is gone");
    assert_eq!(index.lookup(&lower.key).unwrap().as_ref(), Some(&lower), "a record below it");
    let upper = index.record(record("upper", maker.make(&below)), &parts()).unwrap();
    maker.remove(&below);
    assert_eq!(index.lookup(&upper.key).unwrap(), None, "a record whose lower layer is gone");
    let again = index.record(record("upper", maker.make(&Snapshot::default())), &parts()).unwrap();
    assert_eq!(index.lookup(&upper.key).unwrap(), Some(again), "a record made again");
}

/// Several write one key while several read it: who reads sees one of the records as it was written.
fn shows_whole_records_to_everybody<E: Debug + Send>(
    index: &dyn CacheIndex<Error = E>,
    other: &dyn CacheIndex<Error = E>,
    maker: &dyn SnapshotMaker,
) {
    const WRITERS: usize = 4;
    const ROUNDS: usize = 25;
    let snapshots: Vec<Snapshot> = (0..WRITERS).map(|_| maker.make(&Snapshot::default())).collect();
    let written = |writer: usize| {
        let mut record = record("raced", snapshots[writer].clone());
        record.duration_us = writer as u64;
        // Long enough that a torn write would show.
        record.title = writer.to_string().repeat(20_000);
        record
    };
    index.record(written(0), &parts()).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let index = if writer % 2 == 0 { index } else { other };
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    index.record(written(writer), &parts()).unwrap();
                    let seen =
                        index.lookup(&key("raced")).unwrap().expect("a record that is replaced is there");
                    let by = usize::try_from(seen.duration_us).unwrap();
                    let whole = StepRecord { created: seen.created, ..written(by) };
                    assert!(seen == whole, "a record that nobody wrote");
                }
            });
        }
    });
}

fn key(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn record(name: &str, snapshot: Snapshot) -> StepRecord {
    StepRecord {
        key: key(name),
        snapshot,
        created: 0,
        duration_us: 1_234_567,
        title: format!("[1/2] RUN {name}"),
    }
}

fn parts() -> KeyParts {
    let part = |name: &str, value: &str| KeyPart { name: name.to_owned(), value: value.to_owned() };
    KeyParts(vec![part("op", "run"), part("arg 1", "make")])
}
