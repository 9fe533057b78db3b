//! What failed steps left: kept, held, taken away; and what a layer changes.

mod support;

use std::path::Path;

use kiln_core::{LayerId, Snapshot};
use kiln_store::{Ids, Problem, PruneOptions, Store, ThingKind};
use support::{store, tar, unpack};

/// Keeps a file of this content, made over `below`.
fn keep(store: &Store, below: &Snapshot, content: &str) -> LayerId {
    let layer = store.begin_layer(below).unwrap();
    std::fs::write(layer.upper().join("file"), content).unwrap();
    layer.keep(&serde_json::json!({ "content": content, "below": below })).unwrap()
}

fn content(store: &Store, layer: &LayerId) -> String {
    std::fs::read_to_string(store.layer_dir(layer).join("file")).unwrap()
}

#[test]
fn they_are_listed_read_held_and_dropped() {
    let (_dir, store) = store(Ids::Full);
    let below = Snapshot { layers: vec![unpack(&store, &tar("dir etc 755")).unwrap()] };
    let [a, b] = ["a", "b"].map(|content| keep(&store, &below, content));
    assert_eq!(store.kept().unwrap(), [b.clone(), a.clone()], "the newest first");
    let about: serde_json::Value = store.read_kept(&a).unwrap().expect("it is there");
    assert_eq!((about["content"].as_str(), content(&store, &a)), (Some("a"), "a".to_owned()));
    let single = Store::open(store.root(), Ids::Single).unwrap();
    assert_eq!(single.kept().unwrap(), []);
    let hold = store.hold_kept(&a).unwrap().expect("it is there");
    let beside = store.hold_kept(&a).unwrap().expect("two may look");
    drop(beside);
    assert!(!store.drop_kept(&a).unwrap(), "somebody is in it");
    drop(hold);
    assert!(store.drop_kept(&a).unwrap());
    assert!(store.drop_kept(&a).unwrap(), "gone is gone");
    assert!(store.hold_kept(&a).unwrap().is_none());
    assert_eq!(store.read_kept::<serde_json::Value>(&a).unwrap(), None);
    assert_eq!(store.kept().unwrap(), [b]);
    assert_eq!(store.fsck().unwrap(), []);
}

#[test]
fn an_empty_one_is_kept_too_and_one_that_is_dropped_leaves_nothing() {
    let (_dir, store) = store(Ids::Full);
    let layer = store.begin_layer(&Snapshot::default()).unwrap();
    let kept = layer.keep(&"nothing").unwrap();
    assert!(store.has_layer(&kept));
    drop(store.begin_layer(&Snapshot::default()).unwrap());
    assert_eq!(store.kept().unwrap(), [kept]);
    assert_eq!(store.fsck().unwrap(), []);
}

#[test]
fn collection_takes_them_but_not_what_is_in_use_nor_what_they_need() {
    let (_dir, store) = store(Ids::Full);
    let below = Snapshot { layers: vec![unpack(&store, &tar("dir etc 755")).unwrap()] };
    let (a, b) = (keep(&store, &below, "a"), keep(&store, &below, "b"));
    let usage = store.usage().unwrap();
    assert!(usage.failed > 0 && usage.layers > 0, "{usage:?}");
    let hold = store.hold_kept(&a).unwrap();
    let report = store.prune(&PruneOptions::default()).unwrap();
    let gone: Vec<ThingKind> = report.removed.iter().map(|gone| gone.kind).collect();
    assert_eq!((gone, store.kept().unwrap()), (vec![ThingKind::Failed], vec![a.clone()]));
    assert!(store.has_layer(&below.layers[0]) && !store.has_layer(&b), "what it was made over stays with it");
    assert_eq!(content(&store, &a), "a");
    drop(hold);
    // It goes first, and what nothing needs any more behind it.
    let report = store.prune(&PruneOptions { all: true, ..PruneOptions::default() }).unwrap();
    let gone: Vec<ThingKind> = report.removed.iter().map(|gone| gone.kind).collect();
    assert_eq!(gone, [ThingKind::Failed, ThingKind::Layer]);
    assert_eq!(store.usage().unwrap().failed, 0);
    assert_eq!(store.fsck().unwrap(), []);
}

#[test]
fn damage_is_found() {
    let (_dir, store) = store(Ids::Full);
    let below = Snapshot { layers: vec![unpack(&store, &tar("dir etc 755")).unwrap()] };
    let kept = keep(&store, &below, "a");
    let dir = store.layer_dir(&kept).parent().unwrap().to_owned();
    std::fs::remove_dir_all(store.layer_dir(&below.layers[0]).parent().unwrap()).unwrap();
    let path = Path::new("full/layers").join(&kept.0);
    let missing = format!("layer {}", below.layers[0]);
    assert_eq!(store.fsck().unwrap(), [Problem::Dangling { path: path.clone(), missing }]);
    std::fs::write(dir.join("failed.json"), "{\"content").unwrap();
    assert_eq!(store.fsck().unwrap(), [Problem::Layer { path }]);
    assert_eq!(store.read_kept::<serde_json::Value>(&kept).unwrap(), None, "and counts as missing");
}

#[test]
fn after_a_reboot_what_was_not_synced_is_gone_with_what_was_made_over_it() {
    let (_dir, store) = store(Ids::Full);
    let base = unpack(&store, &tar("dir etc 755")).unwrap();
    store.finish_build().unwrap();
    let synced = keep(&store, &Snapshot { layers: vec![base] }, "synced");
    store.finish_build().unwrap();
    let other = unpack(&store, &tar("dir usr 755")).unwrap();
    keep(&store, &Snapshot { layers: vec![other] }, "not synced");
    std::fs::write(store.root().join("boot"), "another").unwrap();
    let store = Store::open(store.root(), Ids::Full).unwrap();
    assert_eq!(store.kept().unwrap(), [synced]);
    assert_eq!(store.fsck().unwrap(), []);
}

#[test]
fn what_a_layer_changes_is_told_file_by_file() {
    let (_dir, store) = store(Ids::Full);
    let base = tar(
        "dir a 755\nfile a/same 644 x\nfile a/grows 644 x\ndir a/turns 755\nfile a/turns/inside 644 x\ndir opaque 755\n\
         file opaque/hidden 644 x\nfile opaque/again 644 x\nlink way -> a\nfile gone 644 x\n",
    );
    let base = unpack(&store, &base).unwrap();
    let over = tar(
        "file a/grows 600 xyz\nfile a/turns 644 y\nfile a/.wh.nosuch 0\nfile .wh.gone 0\ndir opaque 755\nfile opaque/.wh..wh..opq 0\n\
         file opaque/again 644 z\ndir way 755\nfile way/same 644 x uid=3 gid=4\n",
    );
    let over = unpack(&store, &over).unwrap();
    let below = std::fs::File::open(store.layer_dir(&base)).unwrap();
    let snapshot = Snapshot { layers: vec![base] };
    let links = store.link_owners(&snapshot).unwrap();
    let changes = store.changes(&over, &below, &links).unwrap();
    let shown: Vec<String> = changes
        .iter()
        .map(|change| {
            let state = |state: &Option<kiln_store::FileState>| match state {
                None => "none".to_owned(),
                Some(state) => {
                    format!("{} {:o} {}:{} {}", state.kind, state.mode, state.uid, state.gid, state.size)
                }
            };
            format!("{}: {} > {}", change.path.display(), state(&change.before), state(&change.after))
        })
        .collect();
    assert_eq!(
        shown,
        [
            "/a: directory 755 0:0 0 > directory 755 0:0 0",
            "/a/grows: file 644 0:0 1 > file 600 0:0 3",
            "/a/turns: directory 755 0:0 0 > file 644 0:0 1",
            "/gone: file 644 0:0 1 > none",
            "/opaque: directory 755 0:0 0 > directory 755 0:0 0",
            "/opaque/again: file 644 0:0 1 > file 644 0:0 1",
            "/opaque/hidden: file 644 0:0 1 > none",
            // What a link leads to is not below what takes its place.
            "/way: link 777 0:0 0 > directory 755 0:0 0",
            "/way/same: none > file 644 3:4 1",
        ]
    );
    let text = serde_json::to_string(&changes[1]).unwrap();
    assert_eq!(serde_json::from_str::<kiln_store::Change>(&text).unwrap(), changes[1]);
}
