//! Layers become blobs and layers again, and nothing is lost or depends on chance.

mod support;

use kiln_core::{Digest, LayerId, Snapshot};
use kiln_store::{Compression, Ids, LayerOptions, Store};
use proptest::prelude::*;
use support::{list, store, tar, unpack};

/// Packs a layer and unpacks it again, in another store.
fn there_and_back(store: &Store, layer: &LayerId, ids: Ids) -> (Digest, String) {
    let packed = store.layer_blob(layer, &LayerOptions::default(), &kiln_core::Cancel::new()).unwrap();
    let (_dir, other) = support::store(ids);
    let blob = store.open_blob(&packed.digest).unwrap();
    let layer = other.unpack(&packed.diff_id, &packed.media_type, blob).unwrap();
    (packed.digest, list(&other.layer_dir(&layer)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// apply(diff(x)) is x, for trees of everything; both kinds of stores make the same bytes.
    #[test]
    fn trees_survive_and_digests_agree(lines in tree()) {
        let bytes = tar(&lines.join("\n"));
        let mut digests = Vec::new();
        for ids in support::kinds() {
            let (_dir, store) = store(ids);
            let layer = unpack(&store, &bytes).unwrap();
            let before = list(&store.layer_dir(&layer));
            for other in support::kinds() {
                let (digest, after) = there_and_back(&store, &layer, other);
                prop_assert_eq!(&after, &before);
                digests.push(digest);
            }
        }
        prop_assert!(digests.iter().all(|digest| *digest == digests[0]));
    }
}

/// Lines for [`tar`] whose names do not get in each other's way: directories first, then what is in them.
fn tree() -> impl Strategy<Value = Vec<String>> {
    let name = prop_oneof![
        "[a-z]{1,3}",
        Just("ä".to_owned()),
        Just("x".repeat(101)),
        Just(format!("{}/{}", "d".repeat(90), "f".repeat(90))),
        Just("y".repeat(255)),
    ];
    let meta = (prop_oneof![Just(0_u32), Just(1000), Just(3_000_000)], 0..70_000_u32, 0..2_000_000_000_i64)
        .prop_map(|(uid, gid, mtime)| format!("uid={uid} gid={gid} mtime={mtime}"));
    let mode = prop_oneof![Just("644"), Just("4755"), Just("0"), Just("1777"), Just("2710")];
    let entry = (0..8_u8, name, mode, meta, "[a-z]{0,9}", 0..3_usize).prop_map(
        |(kind, name, mode, meta, text, dir)| {
            let path = format!("{}{name}", ["", "dir/", "dir/sub/"][dir]);
            let long = path.len() > 100 || !path.is_ascii();
            let path_option = if long { format!(" path={path}") } else { String::new() };
            let path = if long { "long" } else { &path };
            match kind {
                0 => format!("dir {path} {mode} {meta}{path_option}"),
                1 => format!("link {path} -> /{text}/.. {meta}{path_option}"),
                2 => format!("fifo {path} {mode} {meta}{path_option}"),
                3 => format!("char {path} {mode} 5:1 {meta}{path_option}"),
                4 => format!("hard {path} => dir/first {path_option}"),
                5 if !long => format!("file .wh.gone-{} 0", path.replace('/', "-")),
                _ => format!("file {path} {mode} {text} xattr:user.{text}={mode} {meta}{path_option}"),
            }
        },
    );
    prop::collection::vec(entry, 0..24).prop_map(|entries| {
        let first = ["dir dir 750 mtime=7", "dir dir/sub mtime=8", "file dir/first 600 first mtime=9 uid=7"];
        let mut lines: Vec<String> = first.into_iter().map(str::to_owned).collect();
        lines.extend(entries.into_iter().map(|line| line.replace("  ", " ")));
        lines
    })
}

#[test]
fn a_step_that_changes_nothing_has_no_layer() {
    let (_dir, store) = store(support::kinds()[0]);
    let layer = store.begin_layer(&Snapshot::default()).unwrap();
    std::fs::create_dir(layer.work().join("work")).unwrap();
    assert_eq!(layer.commit().unwrap(), None);
}

#[test]
fn a_dropped_layer_is_gone_and_a_committed_one_stays() {
    let (_dir, store) = store(support::kinds()[0]);
    let layer = store.begin_layer(&Snapshot::default()).unwrap();
    let upper = layer.upper().to_owned();
    std::fs::write(upper.join("a"), "x").unwrap();
    drop(layer);
    assert!(!upper.exists());
    let layer = store.begin_layer(&Snapshot::default()).unwrap();
    std::fs::write(layer.upper().join("a"), "x").unwrap();
    let id = layer.commit().unwrap().unwrap();
    assert!(store.has_layer(&id));
    assert_eq!(std::fs::read_to_string(store.layer_dir(&id).join("a")).unwrap(), "x");
}

#[test]
fn the_root_directory_belongs_to_the_topmost_layer_that_says_so() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    for ids in support::kinds() {
        let (_dir, store) = store(ids);
        let base = unpack(&store, &tar("dir . 711 uid=5 mtime=9\nfile a 644")).unwrap();
        let middle = unpack(&store, &tar("file b 644")).unwrap();
        let below = Snapshot { layers: vec![base, middle] };
        let layer = store.begin_layer(&below).unwrap();
        let upper = std::fs::metadata(layer.upper()).unwrap();
        assert_eq!((upper.mode() & 0o7777, upper.mtime()), (0o711, 9));
        std::fs::write(layer.upper().join("c"), "").unwrap();
        let unchanged = layer.commit().unwrap().unwrap();
        let layer = store.begin_layer(&below).unwrap();
        std::fs::set_permissions(layer.upper(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let changed = layer.commit().unwrap().unwrap();
        for (id, said) in [(unchanged, false), (changed, true)] {
            let options = LayerOptions { compression: Compression::None, epoch: None };
            let blob = std::fs::read(
                store.blob_path(&store.layer_blob(&id, &options, &kiln_core::Cancel::new()).unwrap().digest),
            )
            .unwrap();
            assert_eq!(blob.starts_with(b"./\0"), said);
        }
    }
}

#[test]
fn opaque_marks_that_hide_nothing_go() {
    let (_dir, store) = store(support::kinds()[0]);
    let base = unpack(&store, &tar("dir a\ndir a/b\nfile f 644\ndir gone")).unwrap();
    let hiding = unpack(&store, &tar("file .wh.gone 0")).unwrap();
    let layer = store.begin_layer(&Snapshot { layers: vec![base, hiding] }).unwrap();
    for path in ["a", "a/b", "a/new", "a/new/deep", "f", "gone"] {
        std::fs::create_dir(layer.upper().join(path)).unwrap();
    }
    for path in ["a/b", "a/new", "f", "gone"] {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(layer.upper().join(path), "user.overlay.opaque", b"y", flags).unwrap();
    }
    let id = layer.commit().unwrap().unwrap();
    let listed = list(&store.layer_dir(&id));
    let marks: Vec<_> = listed.lines().filter(|line| line.starts_with("opaque")).collect();
    assert_eq!(marks, ["opaque a/b"], "{listed}");
}

#[test]
fn a_tar_is_the_same_bytes_every_time() {
    let lines = "\
dir a 755 mtime=1700000000
file a/b 644 hello mtime=1700000001 uid=1000 gid=1000
hard a/c => a/b
file a/.wh.d 0
file a/.wh..wh..opq 0
link l -> a/b mtime=1700000002
file z 644 x mtime=1800000000 xattr:user.b=2 xattr:user.a=1";
    for ids in support::kinds() {
        let (_dir, store) = store(ids);
        let layer = unpack(&store, &tar(lines)).unwrap();
        let pack = |compression, epoch| {
            store.layer_blob(&layer, &LayerOptions { compression, epoch }, &kiln_core::Cancel::new()).unwrap()
        };
        let plain = pack(Compression::None, None);
        assert_eq!(plain.digest, plain.diff_id);
        assert_eq!(plain.media_type, "application/vnd.oci.image.layer.v1.tar");
        let gzip = pack(Compression::Gzip { level: 6 }, None);
        assert_eq!(gzip.diff_id, plain.diff_id);
        assert_eq!(gzip.media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
        assert_eq!(gzip.size, std::fs::metadata(store.blob_path(&gzip.digest)).unwrap().len());
        let clamped = pack(Compression::None, Some(1_700_000_001));
        let names = |digest| {
            let file = store.open_blob(digest).unwrap();
            let mut archive = tar::Archive::new(file);
            let entries = archive.entries().unwrap().map(|entry| {
                let entry = entry.unwrap();
                format!("{} {}", entry.path().unwrap().display(), entry.header().mtime().unwrap())
            });
            entries.collect::<Vec<_>>()
        };
        let expected = [
            "a/ 1700000000",
            "a/.wh..wh..opq 0",
            "a/b 1700000001",
            "a/c 1700000001",
            "a/.wh.d 0",
            "l 1700000002",
            "z 1800000000",
        ];
        assert_eq!(names(&plain.digest), expected);
        let expected = [
            "a/ 1700000000",
            "a/.wh..wh..opq 1700000001",
            "a/b 1700000001",
            "a/c 1700000001",
            "a/.wh.d 1700000001",
            "l 1700000001",
            "z 1700000001",
        ];
        assert_eq!(names(&clamped.digest), expected);
        assert_eq!(
            (plain.digest.short(), gzip.digest.short()),
            ("f8149598ddc8".to_owned(), "4eb82316512d".to_owned())
        );
    }
}

#[test]
fn one_packs_and_the_others_wait() {
    let (_dir, store) = store(support::kinds()[0]);
    let lines: String = (0..300).map(|n| format!("file d{}/f{n} 644 {n}\n", n % 7)).collect();
    let layer = unpack(&store, &tar(&lines)).unwrap();
    let packed: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let store = Store::open(store.root(), store.ids()).unwrap();
                    store.layer_blob(&layer, &LayerOptions::default(), &kiln_core::Cancel::new()).unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(packed.iter().all(|one| *one == packed[0]));
    // A record whose blob is gone is no record.
    std::fs::remove_file(store.blob_path(&packed[0].digest)).unwrap();
    assert_eq!(
        store.layer_blob(&layer, &LayerOptions::default(), &kiln_core::Cancel::new()).unwrap(),
        packed[0]
    );
    assert!(store.has_blob(&packed[0].digest));
}

#[test]
fn sockets_are_left_out_and_named() {
    let (_dir, store) = store(support::kinds()[0]);
    let layer = store.begin_layer(&Snapshot::default()).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(layer.upper().join("s")).unwrap();
    let id = layer.commit().unwrap().unwrap();
    let packed = store.pack_layer(&id, &LayerOptions::default(), &kiln_core::Cancel::new()).unwrap();
    assert_eq!(packed.sockets, [std::path::PathBuf::from("s")]);
}
