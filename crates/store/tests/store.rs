//! Records, names, collection, and what happens after a reboot.

mod support;

use std::path::Path;
use std::time::{Duration, SystemTime};

use kiln_core::{Digest, Snapshot};
use kiln_store::{Ids, Problem, PruneOptions, RecordKind, Store, StoreError, ThingKind};
use support::{store, tar, unpack};

const DAY: Duration = Duration::from_secs(86_400);

/// Lets a thing look as if it was last used days ago.
fn age(path: &Path, days: u32) {
    let file = std::fs::File::open(path).unwrap();
    file.set_modified(SystemTime::now() - DAY * days).unwrap();
}

fn record_file(store: &Store, kind: &str, key: &str) -> std::path::PathBuf {
    let name = Digest::of(key.as_bytes()).hex();
    store.root().join(format!("full/records/{kind}/{}/{name}.json", &name[..2]))
}

#[test]
fn records_are_kept_by_kind_key_and_ids() {
    let (_dir, full) = store(Ids::Full);
    let single = Store::open(full.root(), Ids::Single).unwrap();
    full.put_record(RecordKind::Step, "a", &1).unwrap();
    full.put_record(RecordKind::Reference, "a", &2).unwrap();
    assert_eq!(full.get_record::<i32>(RecordKind::Step, "a").unwrap(), Some(1));
    assert_eq!(full.get_record::<i32>(RecordKind::Step, "b").unwrap(), None);
    assert_eq!(full.get_record::<i32>(RecordKind::Base, "a").unwrap(), None);
    assert_eq!(single.get_record::<i32>(RecordKind::Step, "a").unwrap(), None, "step results do not mix");
    assert_eq!(single.get_record::<i32>(RecordKind::Reference, "a").unwrap(), Some(2));
    full.put_record(RecordKind::Step, "a", &3).unwrap();
    let keys: Vec<_> =
        full.list_records(RecordKind::Step).unwrap().into_iter().map(|info| info.key).collect();
    assert_eq!(keys, ["a"]);
    assert!(full.delete_record(RecordKind::Step, "a").unwrap());
    assert!(!full.delete_record(RecordKind::Step, "a").unwrap());
}

#[test]
fn what_steps_made_is_closed_to_other_users() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, store) = store(Ids::Full);
    let mode = |name: &str| std::fs::metadata(store.root().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("full"), mode("tmp")), (0o700, 0o700));
    // As an older kiln has left it.
    std::fs::set_permissions(store.root().join("full"), std::fs::Permissions::from_mode(0o755)).unwrap();
    Store::open(store.root(), Ids::Full).unwrap();
    assert_eq!(mode("full"), 0o700);
}

#[test]
fn damaged_records_count_as_missing_and_go() {
    let (_dir, store) = store(Ids::Full);
    for text in
        ["", "{\"key\":\"a\",\"va", "{\"key\":\"a\",\"value\":\"text\"}", "{\"key\":\"other\",\"value\":1}"]
    {
        store.put_record(RecordKind::Step, "a", &1).unwrap();
        let file = record_file(&store, "step", "a");
        std::fs::write(&file, text).unwrap();
        assert_eq!(store.get_record::<i32>(RecordKind::Step, "a").unwrap(), None, "{text}");
        assert!(!file.exists(), "{text}");
    }
}

#[test]
fn names_of_images() {
    let (_dir, store) = store(Ids::Full);
    let (one, two) = (store.put_blob(b"{1}").unwrap(), store.put_blob(b"{2}").unwrap());
    for (name, digest) in [("b:2", one), ("ghcr.io:443/a/b/c:x", two), ("b", one), ("b:2", two)] {
        store.tag(&name.parse().unwrap(), &digest).unwrap();
    }
    let names: Vec<_> = store.images().unwrap().iter().map(|i| (i.name.familiar(), i.digest)).collect();
    let expected =
        [("b:2".to_owned(), two), ("b:latest".to_owned(), one), ("ghcr.io:443/a/b/c:x".to_owned(), two)];
    assert_eq!(names, expected);
    assert!(store.untag(&"b".parse().unwrap()).unwrap());
    assert!(!store.untag(&"b".parse().unwrap()).unwrap());
    assert_eq!(store.image(&"b".parse().unwrap()).unwrap(), None);
    let pinned = format!("b@{one}").parse().unwrap();
    assert!(matches!(store.tag(&pinned, &one), Err(StoreError::NoTag { .. })));
}

#[test]
fn blobs_are_what_was_promised_or_are_not() {
    let (_dir, store) = store(Ids::Full);
    let good = Digest::of(b"abc");
    let write = |expected| {
        let mut writer = store.blob_writer().unwrap();
        std::io::Write::write_all(&mut writer, b"abc").unwrap();
        writer.finish(expected)
    };
    assert!(matches!(write(Some((good, 4))), Err(StoreError::SizeMismatch { expected: 4, actual: 3, .. })));
    assert!(matches!(write(Some((Digest::of(b""), 3))), Err(StoreError::DigestMismatch { .. })));
    assert!(!store.has_blob(&good));
    assert_eq!(write(Some((good, 3))).unwrap(), good);
    assert_eq!(write(None).unwrap(), good);
    assert_eq!(store.blob_size(&good).unwrap(), 3);
    assert!(matches!(store.open_blob(&Digest::of(b"")), Err(StoreError::NoBlob { .. })));
    assert_eq!(store.fsck().unwrap(), []);
}

#[test]
fn foreign_and_newer_directories_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), "").unwrap();
    assert!(matches!(Store::open(dir.path(), Ids::Full), Err(StoreError::NotAStore { .. })));
    let (_dir, store) = store(Ids::Full);
    std::fs::write(store.root().join("format"), "2\n").unwrap();
    let refused = Store::open(store.root(), Ids::Full);
    assert!(matches!(refused, Err(StoreError::NewerFormat { found: 2, known: 1, .. })));
}

/// A base layer with a record, a step's layer with a record, a tagged image, and two things nobody names.
struct Filled {
    _dir: tempfile::TempDir,
    store: Store,
    /// Paths in the store: base layer, its record, step layer, its record, manifest, config, lone blob, lone layer.
    paths: [std::path::PathBuf; 8],
}

fn filled() -> Filled {
    let (dir, store) = store(Ids::Full);
    let base = unpack(&store, &tar("file a 644 base")).unwrap();
    let lone_layer = unpack(&store, &tar("file a 644 lone")).unwrap();
    let below = Snapshot { layers: vec![base.clone()] };
    let layer = store.begin_layer(&below).unwrap();
    std::fs::write(layer.upper().join("b"), vec![1; 100_000]).unwrap();
    let step = layer.commit().unwrap().unwrap();
    store.put_record(RecordKind::Base, "base", &below).unwrap();
    store.put_record(RecordKind::Step, "step", &below.with(step.clone())).unwrap();
    let config = store.put_blob(b"{}").unwrap();
    let manifest = store.put_blob(format!("{{\"config\":\"{config}\"}}").as_bytes()).unwrap();
    let lone = store.put_blob(b"lone").unwrap();
    store.tag(&"image".parse().unwrap(), &manifest).unwrap();
    let layers = store.root().join("full/layers");
    let paths = [
        layers.join(&base.0),
        record_file(&store, "base", "base"),
        layers.join(&step.0),
        record_file(&store, "step", "step"),
        store.blob_path(&manifest),
        store.blob_path(&config),
        store.blob_path(&lone),
        layers.join(&lone_layer.0),
    ];
    for path in &paths {
        age(path, 3);
    }
    Filled { _dir: dir, store, paths }
}

impl Filled {
    /// Prunes, and says of each path whether it is still there.
    fn left_after(&self, options: &PruneOptions) -> [bool; 8] {
        let before = du(self.store.root());
        let report = self.store.prune(options).unwrap();
        let freed = before - du(self.store.root());
        assert_eq!(if options.dry_run { 0 } else { report.freed }, freed, "{report:?}");
        assert_eq!(self.store.fsck().unwrap(), []);
        self.paths.each_ref().map(|path| path.exists())
    }
}

fn du(path: &Path) -> u64 {
    // What went is noted in a file, which grows.
    let args = ["-s", "--block-size=1", "--exclude=removed", "--exclude=account"];
    let output = std::process::Command::new("du").args(args).arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn pruning_takes_what_it_was_told_to() {
    let all = PruneOptions { all: true, ..PruneOptions::default() };
    let (gone, kept) = (false, true);
    let filled_now = filled();
    let left = filled_now.left_after(&PruneOptions { dry_run: true, ..all.clone() });
    assert_eq!(left, [kept; 8], "a dry run takes nothing");
    let left = filled_now.left_after(&PruneOptions::default());
    assert_eq!(left, [kept, kept, kept, kept, kept, kept, gone, gone], "what nothing refers to");
    let left = filled_now.left_after(&all);
    assert_eq!(left, [gone, gone, gone, gone, kept, kept, gone, gone], "all but images");
    filled_now.store.untag(&"image".parse().unwrap()).unwrap();
    assert_eq!(filled_now.left_after(&all), [gone; 8]);

    let old = filled();
    let until = PruneOptions { until: Some(DAY * 4), ..all.clone() };
    assert_eq!(old.left_after(&until), [kept; 8], "nothing is that old");
    // The step was used a day ago, and with it the base below it.
    age(&old.paths[3], 1);
    let until = PruneOptions { until: Some(DAY * 2), ..all };
    assert_eq!(old.left_after(&until), [kept, gone, kept, kept, kept, kept, gone, gone]);
}

#[test]
fn pruning_to_a_size_takes_the_oldest_first() {
    let filled = filled();
    // The lone things are older than the step, the base younger.
    age(&filled.paths[6], 9);
    age(&filled.paths[7], 9);
    age(&filled.paths[1], 1);
    let keep = PruneOptions { keep_bytes: Some(du(filled.store.root()) - 50_000), ..PruneOptions::default() };
    let report = filled.store.prune(&PruneOptions { dry_run: true, ..keep.clone() }).unwrap();
    let kinds: Vec<_> = report.removed.iter().map(|removed| removed.kind).collect();
    assert_eq!(
        kinds[kinds.len() - 2..],
        [ThingKind::Record, ThingKind::Layer],
        "the record before its layer"
    );
    assert_eq!(filled.left_after(&keep), [true, true, false, false, true, true, false, false]);
    assert!(du(filled.store.root()) <= keep.keep_bytes.unwrap());
}

#[test]
fn a_running_build_keeps_what_it_found() {
    let filled = filled();
    let all = PruneOptions { all: true, ..PruneOptions::default() };
    let pin = filled.store.pin().unwrap();
    // Found by this build: stays, with the layers it names. Not found: goes.
    let found: Option<Snapshot> = filled.store.get_record(RecordKind::Step, "step").unwrap();
    assert!(found.is_some());
    let fresh = filled.store.put_blob(b"made by this build").unwrap();
    let left = filled.left_after(&all);
    assert_eq!(left, [true, false, true, true, true, true, false, false]);
    assert!(filled.store.has_blob(&fresh));
    drop(pin);
    filled.left_after(&all);
    assert!(!filled.store.has_blob(&fresh));
    assert_eq!(std::fs::read_dir(filled.store.root().join("pins")).unwrap().count(), 0);
}

#[test]
fn usage_is_what_du_says() {
    let filled = filled();
    // A file that two layers share counts once.
    let layers = filled.store.root().join("full/layers");
    let mut trees = std::fs::read_dir(&layers).unwrap().map(|entry| entry.unwrap().path().join("fs"));
    std::fs::hard_link(filled.paths[2].join("fs/b"), trees.next().unwrap().join("linked")).unwrap();
    let usage = filled.store.usage().unwrap();
    assert_eq!(usage.total(), du(filled.store.root()));
    assert_eq!(usage.blobs, du(&filled.store.root().join("blobs/sha256")));
    assert_eq!(usage.layers, du(&layers));
}

/// As after a power failure: another boot, and what was not synced may be anything.
fn reboot(store: &Store) -> Store {
    std::fs::write(store.root().join("boot"), "another").unwrap();
    Store::open(store.root(), Ids::Full).unwrap()
}

#[test]
fn what_a_finished_build_made_survives() {
    let Filled { store, paths, _dir } = filled();
    store.finish_build().unwrap();
    let store = reboot(&store);
    assert!(paths.iter().all(|path| path.exists()));
    assert_eq!(store.fsck().unwrap(), []);
}

#[test]
fn what_was_not_synced_goes_or_is_checked() {
    let Filled { store, paths, _dir } = filled();
    std::fs::write(&paths[6], "damaged").unwrap();
    let store = reboot(&store);
    let left = paths.each_ref().map(|path| path.exists());
    // Layers go with the records that name them; blobs that are whole stay.
    assert_eq!(left, [false, false, false, false, true, true, false, false]);
    assert_eq!(store.fsck().unwrap(), []);
    // And once only.
    let blob = store.put_blob(b"new").unwrap();
    assert!(Store::open(store.root(), Ids::Full).unwrap().has_blob(&blob));
}

#[test]
fn fsck_finds_what_is_wrong() {
    let Filled { store, paths, _dir } = filled();
    assert_eq!(store.fsck().unwrap(), []);
    std::fs::write(&paths[6], "damaged").unwrap();
    std::fs::remove_dir_all(&paths[2]).unwrap();
    std::fs::remove_file(paths[0].join("layer.json")).unwrap();
    std::fs::write(&paths[1], "x").unwrap();
    std::fs::remove_file(&paths[4]).unwrap();
    std::fs::create_dir(store.root().join("tmp/dead")).unwrap();
    let kinds: Vec<_> = store
        .fsck()
        .unwrap()
        .iter()
        .map(|problem| match problem {
            Problem::Blob { .. } => "blob",
            Problem::Layer { .. } => "layer",
            Problem::Source { .. } => "source",
            Problem::Record { .. } => "record",
            Problem::Dangling { .. } => "dangling",
            Problem::LeftOver { .. } => "left over",
        })
        .collect();
    assert_eq!(kinds, ["blob", "layer", "record", "dangling", "dangling", "left over"]);
}

#[test]
fn a_store_is_made_by_several_at_once() {
    for _ in 0..50 {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    Store::open(&root, Ids::Single).expect("whoever is first, all have a store");
                });
            }
        });
    }
}
