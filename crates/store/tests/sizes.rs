//! Kept sizes: that they are right, that they are kept, and that layers which share files count each once.

mod support;

use std::path::Path;

use kiln_core::{LayerId, Snapshot};
use kiln_store::{Ids, Parts, PruneOptions, RecordKind, RemovalReason, Store};
use support::store;

fn du(paths: &[&Path]) -> u64 {
    let args = ["-s", "-c", "--block-size=1", "--exclude=removed", "--exclude=account", "--exclude=shared"];
    let output = std::process::Command::new("du").args(args).args(paths).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().last().unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// The whole store, with the files that tell of it: they may be written right after they were counted.
#[track_caller]
fn assert_is_all(store: &Store, total: u64) {
    let all = du_of(store.root());
    assert!(total.abs_diff(all) <= 8192, "{total}, du says {all}");
}

fn du_of(path: &Path) -> u64 {
    let output = std::process::Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// A layer with files of 100 kB, some of which are those of another layer.
fn layer(store: &Store, own: &[&str], from: Option<&LayerId>, linked: &[&str]) -> LayerId {
    let layer = store.begin_layer(&Snapshot::default()).unwrap();
    for name in own {
        std::fs::write(layer.upper().join(name), vec![7; 100_000]).unwrap();
    }
    for name in linked {
        let from = store.layer_dir(from.unwrap()).join(name);
        std::fs::hard_link(from, layer.upper().join(name)).unwrap();
    }
    let made = layer.commit().unwrap().unwrap();
    if let Some(from) = from {
        store.shares_files(from);
    }
    store.put_record(RecordKind::Step, &made.0, &Snapshot { layers: vec![made.clone()] }).unwrap();
    made
}

fn dir(store: &Store, layer: &LayerId) -> std::path::PathBuf {
    store.layer_dir(layer).parent().unwrap().to_owned()
}

fn rooms(store: &Store, layers: &[&LayerId]) -> Vec<(u64, u64)> {
    let parts =
        layers.iter().map(|layer| Parts { layers: [LayerId::clone(layer)].into(), ..Parts::default() });
    let rooms = store.room_of(&parts.collect::<Vec<_>>()).unwrap();
    rooms.iter().map(|room| (room.size, room.unique())).collect()
}

#[test]
fn layers_that_share_files_count_each_once_in_any_order_of_coming_and_going() {
    let (_dir, store) = store(Ids::Full);
    let first = layer(&store, &["a", "b"], None, &[]);
    assert_is_all(&store, store.usage().unwrap().total());
    // The second shares two files with the first, the third one of these, and one that only the second had.
    let second = layer(&store, &["c"], Some(&first), &["a", "b"]);
    let third = layer(&store, &["d"], Some(&second), &["a", "c"]);
    let [one, two, three] = [&first, &second, &third].map(|layer| dir(&store, layer));
    let all = store.usage().unwrap();
    assert_eq!(all.layers, du(&[&store.root().join("full/layers")]));
    let found = rooms(&store, &[&first, &second, &third]);
    assert_eq!(found.iter().map(|room| room.0).collect::<Vec<_>>(), [&one, &two, &three].map(|at| du(&[at])));
    assert_eq!(found[0].1, du(&[&one, &two, &three]) - du(&[&two, &three]));
    assert_eq!(found[2].1, du(&[&one, &two, &three]) - du(&[&one, &two]));
    // One that is not asked for with the others shares nothing with them.
    assert_eq!(rooms(&store, &[&second])[0], (du(&[&two]), du(&[&two])));

    // Whatever goes first: what is said to become free is what becomes free.
    for layer in [&second, &first, &third] {
        let before = du(&[store.root()]);
        assert!(store.delete_record(RecordKind::Step, &layer.0).unwrap());
        let record = before - du(&[store.root()]);
        let report = store.prune(&PruneOptions::default()).unwrap();
        assert_eq!(report.freed + record, before - du(&[store.root()]), "{layer}");
        assert_is_all(&store, store.usage().unwrap().total());
    }
    let lists = std::fs::read_dir(store.root().join("full/shared")).unwrap().count();
    assert_eq!(lists, 0, "a list of a layer that is gone");
}

#[test]
fn a_layer_is_walked_once() {
    let (_dir, store) = store(Ids::Full);
    let made = layer(&store, &["a"], None, &[]);
    let before = rooms(&store, &[&made]);
    // No layer ever changes. If one does, that is not seen: so nobody looked.
    std::fs::write(store.layer_dir(&made).join("more"), vec![7; 100_000]).unwrap();
    assert_eq!(rooms(&store, &[&made]), before);
    store.shares_files(&made);
    assert_ne!(rooms(&store, &[&made]), before);
}

#[test]
fn the_account_is_right_whatever_came_and_went() {
    let (_dir, store) = store(Ids::Full);
    let account = || store.usage_without_caches().unwrap().total();
    let empty = account();
    let made = layer(&store, &["a"], None, &[]);
    assert_is_all(&store, account());
    assert!(account() > empty + 100_000);
    let blob = store.put_blob(&[3; 50_000]).unwrap();
    assert_is_all(&store, account());
    // Nothing came or went: nobody looks.
    std::fs::write(store.blob_path(&blob), [3; 500_000]).unwrap();
    assert!(account() < du(&[store.root()]));
    std::fs::write(store.blob_path(&blob), [3; 50_000]).unwrap();
    let all = PruneOptions { all: true, ..PruneOptions::default() };
    store.prune(&all).unwrap();
    assert!(!store.has_layer(&made) && !store.has_blob(&blob));
    // Directories of records stay.
    assert!(account() < empty + 64 * 1024, "{} {empty}", account());
    assert_is_all(&store, account());
}

#[test]
fn what_was_removed_is_known_with_its_reason() {
    let (_dir, store) = store(Ids::Full);
    let key = "5".repeat(64);
    let put = || store.put_record(RecordKind::Step, &key, &Snapshot::default()).unwrap();
    put();
    store.prune(&PruneOptions { all: true, dry_run: true, ..PruneOptions::default() }).unwrap();
    assert_eq!(store.removals().unwrap(), [], "a dry run removes nothing");
    store.prune(&PruneOptions { all: true, ..PruneOptions::default() }).unwrap();
    put();
    store.prune(&PruneOptions { keep_bytes: Some(0), ..PruneOptions::default() }).unwrap();
    let made = layer(&store, &["a"], None, &[]);
    std::fs::write(store.root().join("boot"), "another").unwrap();
    let store = Store::open(store.root(), Ids::Full).unwrap();
    assert!(!store.has_layer(&made));
    let found: Vec<_> = store.removals().unwrap().into_iter().map(|gone| (gone.key, gone.why)).collect();
    let lost = kiln_core::Digest::of(made.0.as_bytes()).hex();
    assert_eq!(
        found,
        [(key.clone(), RemovalReason::Pruned), (key, RemovalReason::Room), (lost, RemovalReason::Lost)]
    );
}

/// Directories below each other whose path no system call takes.
fn deep(top: &Path) {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let name = "n".repeat(200);
    let open = |at: &std::os::fd::OwnedFd| openat(at, &*name, OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut at = openat(CWD, top, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..100 {
        mkdirat(&at, &*name, Mode::from_raw_mode(0o755)).unwrap();
        at = open(&at);
    }
    openat(&at, "f", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644)).unwrap();
}

#[test]
fn what_any_tool_does_in_a_cache_is_counted_at_once() {
    for ids in [Ids::Full, Ids::Single] {
        let (_dir, store) = store(ids);
        let caches = store.root().join(ids.dir()).join("caches");
        let [one, two] = ["one", "two"].map(|id| caches.join("global").join(id).join("data"));
        std::fs::create_dir_all(&one).unwrap();
        std::fs::create_dir_all(&two).unwrap();
        let check = || {
            let usage = store.usage().unwrap();
            assert_eq!((usage.total(), usage.caches), (du_of(store.root()), du_of(&caches)));
            assert_eq!(usage.unread, 0);
        };
        check();
        // Sparse, with several names in one cache and in two, a directory of several blocks, links, fifos, and a path too long to say.
        let sparse = std::fs::File::create(one.join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&sparse, &[7; 5000], 700_000).unwrap();
        check();
        std::fs::write(one.join("a"), vec![7; 50_000]).unwrap();
        std::fs::hard_link(one.join("a"), one.join("b")).unwrap();
        std::fs::hard_link(one.join("a"), two.join("c")).unwrap();
        check();
        let wide = two.join("wide");
        std::fs::create_dir(&wide).unwrap();
        for number in 0..3000 {
            std::fs::write(wide.join(format!("{number:0100}")), []).unwrap();
        }
        std::os::unix::fs::symlink("x".repeat(2000), two.join("long link")).unwrap();
        std::os::unix::fs::symlink("/", two.join("link")).unwrap();
        check();
        deep(&two);
        check();
        // Other users' files, some closed to all.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(one.join("b"), Some(1001), Some(100)).unwrap();
            std::fs::set_permissions(&wide, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
            std::os::unix::fs::lchown(&wide, Some(100_005), Some(1)).unwrap();
            check();
        }
        std::fs::remove_file(one.join("sparse")).unwrap();
        check();
    }
}
