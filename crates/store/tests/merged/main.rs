//! A snapshot as one directory: what layers say is in it, and what is done to it becomes a layer that says so.

mod look;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use kiln_core::{Cancel, LayerId, Snapshot};
use kiln_store::{MergedTree, Share, Store};
use look::look;
use proptest::prelude::*;
use rustix::fs::XattrFlags;
use support::{store, tar, unpack};

fn tree_of(store: &Store, layers: &[&LayerId], share: Share) -> MergedTree {
    let mut tree = store.empty_tree(share).unwrap();
    let snapshot = Snapshot { layers: layers.iter().map(|layer| (*layer).clone()).collect() };
    tree.advance(&snapshot, &Cancel::new()).unwrap();
    tree
}

/// Lets `change` change a tree, and gives the snapshot that it is then.
fn step(store: &Store, tree: &mut MergedTree, change: impl FnOnce(&Path)) -> Snapshot {
    tree.begin(&Cancel::new()).unwrap();
    change(tree.path());
    let below = tree.snapshot().clone();
    let layer = store.begin_layer(&below).unwrap();
    tree.write_changes(&layer, &Cancel::new()).unwrap();
    let snapshot = layer.commit().unwrap().map_or(below.clone(), |layer| below.with(layer));
    tree.became(&snapshot);
    snapshot
}

fn top(store: &Store, snapshot: &Snapshot) -> PathBuf {
    store.layer_dir(snapshot.layers.last().unwrap())
}

/// Names of what the topmost layer has, in words: `gone` for a deletion.
fn said(store: &Store, snapshot: &Snapshot) -> Vec<String> {
    let words = look(&top(store, snapshot)).into_iter().filter(|(path, _)| *path != Path::new(""));
    words
        .map(|(path, line)| {
            let gone = line.starts_with("20000 ") && line.ends_with(" 0");
            format!("{}{}", if gone { "gone " } else { "" }, path.display())
        })
        .collect()
}

const BASE: &str = "\
dir etc 755 mtime=5
file etc/conf 644 one mtime=6 uid=7
file etc/same 644 same mtime=6
dir etc/d 750 mtime=7
file etc/d/x 600 x mtime=8
file etc/d/y 4755 y mtime=9 xattr:user.a=b
link etc/link -> /nowhere mtime=3
fifo etc/pipe 640 mtime=4
dir gone
file gone/a 644 a
file linked 644 linked mtime=2
hard other => linked
dir srv 1777 mtime=1";

#[test]
fn layers_are_put_over_one_another() {
    for ids in support::kinds() {
        let (_dir, store) = store(ids);
        let base = unpack(&store, &tar(BASE)).unwrap();
        let second = unpack(
            &store,
            &tar("dir . 711 uid=3 mtime=12\ndir etc 700 mtime=50\nfile etc/conf 600 two mtime=51\n\
                  file .wh.gone 0\ndir etc/d 755 mtime=52\nfile etc/d/.wh..wh..opq 0\nfile etc/d/z 644 z\n\
                  dir etc/same 755 mtime=53\nfile etc/same/in 644 below\nfile etc/link 644 now"),
        )
        .unwrap();
        let copied = tree_of(&store, &[&base, &second], Share::Copied);
        let seen = look(copied.path());
        let names: Vec<_> = seen.keys().map(|path| path.display().to_string()).collect();
        let expected = [
            "",
            "etc",
            "etc/conf",
            "etc/d",
            "etc/d/z",
            "etc/link",
            "etc/pipe",
            "etc/same",
            "etc/same/in",
            "linked",
            "other",
            "srv",
        ];
        assert_eq!(names, expected);
        assert_eq!(fs::read_to_string(copied.path().join("etc/conf")).unwrap(), "two");
        let modified = |path: &str| fs::metadata(copied.path().join(path)).unwrap().mtime();
        assert_eq!((modified(""), modified("etc"), modified("etc/d"), modified("srv")), (12, 50, 52, 1));
        assert!(seen[Path::new("other")].contains("name of \"linked\""));
        let inode = |tree: &MergedTree| fs::metadata(tree.path().join("etc/conf")).unwrap().ino();
        let layers = inode(&tree_of(&store, &[&second], Share::Linked));
        assert_ne!(inode(&copied), layers, "what may be written to is nobody else's");
        let linked = tree_of(&store, &[&base, &second], Share::Linked);
        assert_eq!(inode(&linked), layers);
        let path = linked.path().to_owned();
        drop(linked);
        assert!(!path.exists());
    }
}

#[test]
fn a_step_that_changes_nothing_has_no_layer() {
    let (_dir, store) = store(support::kinds()[0]);
    let base = unpack(&store, &tar(BASE)).unwrap();
    let mut tree = tree_of(&store, &[&base], Share::Copied);
    let snapshot = step(&store, &mut tree, |root| {
        // Touched, and as it was in the end.
        let file = fs::File::options().write(true).open(root.join("etc/conf")).unwrap();
        fs::set_permissions(root.join("etc/d"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(root.join("etc/d"), fs::Permissions::from_mode(0o750)).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        file.write_at(b"one", 0).unwrap();
        file.set_modified(modified).unwrap();
    });
    assert_eq!(snapshot.layers.len(), 1);
}

#[test]
fn content_that_looks_the_same_is_read() {
    let (_dir, store) = store(support::kinds()[0]);
    let base = unpack(&store, &tar(BASE)).unwrap();
    let mut tree = tree_of(&store, &[&base], Share::Copied);
    for (content, count) in [("two", 2), ("six", 3)] {
        let snapshot = step(&store, &mut tree, |root| {
            let path = root.join("etc/conf");
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            fs::write(&path, content).unwrap();
            fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        });
        assert_eq!(snapshot.layers.len(), count);
        assert_eq!(said(&store, &snapshot), ["etc", "etc/conf"]);
        let layers: Vec<&LayerId> = snapshot.layers.iter().collect();
        let again = tree_of(&store, &layers, Share::Linked);
        assert_eq!(fs::read_to_string(again.path().join("etc/conf")).unwrap(), content);
    }
}

#[test]
fn each_kind_of_change_is_told_as_overlay_would() {
    type Change = fn(&Path);
    let cases: &[(&str, Change, &[&str])] = &[
        ("time of a directory", |root| touch(&root.join("etc/d"), 99), &["etc", "etc/d"]),
        ("new file", |root| fs::write(root.join("srv/new"), "").unwrap(), &["srv", "srv/new"]),
        ("deletion", |root| fs::remove_file(root.join("etc/conf")).unwrap(), &["etc", "gone etc/conf"]),
        ("deleted directory", |root| fs::remove_dir_all(root.join("etc/d")).unwrap(), &["etc", "gone etc/d"]),
        (
            "made anew",
            |root| {
                fs::remove_dir_all(root.join("etc/d")).unwrap();
                fs::create_dir(root.join("etc/d")).unwrap();
                fs::write(root.join("etc/d/new"), "").unwrap();
            },
            &["etc", "etc/d", "etc/d/new", "gone etc/d/x", "gone etc/d/y"],
        ),
        (
            "renamed directory",
            |root| fs::rename(root.join("etc/d"), root.join("srv/d")).unwrap(),
            &["etc", "gone etc/d", "srv", "srv/d", "srv/d/x", "srv/d/y"],
        ),
        (
            "there and back",
            |root| {
                fs::rename(root.join("etc/d"), root.join("etc/e")).unwrap();
                fs::rename(root.join("etc/e"), root.join("etc/d")).unwrap();
                touch(&root.join("etc"), 5);
            },
            &[],
        ),
        (
            "a file where a directory was, and the other way round",
            |root| {
                fs::remove_dir_all(root.join("etc/d")).unwrap();
                fs::write(root.join("etc/d"), "").unwrap();
                fs::remove_file(root.join("etc/conf")).unwrap();
                fs::create_dir(root.join("etc/conf")).unwrap();
                fs::write(root.join("etc/conf/in"), "").unwrap();
            },
            &["etc", "etc/conf", "etc/conf/in", "etc/d"],
        ),
        (
            "set-id bits",
            |root| {
                fs::set_permissions(root.join("etc/conf"), fs::Permissions::from_mode(0o6755)).unwrap();
            },
            &["etc", "etc/conf"],
        ),
        (
            "another name",
            |root| fs::hard_link(root.join("etc/same"), root.join("srv/same")).unwrap(),
            &["etc", "etc/same", "srv", "srv/same"],
        ),
        ("one name less", |root| fs::remove_file(root.join("other")).unwrap(), &["gone other"]),
        (
            "names that change together are parted",
            |root| touch(&root.join("linked"), 77),
            &["linked", "other"],
        ),
        (
            "a device that is overlay's deletion",
            |root| {
                fs::remove_file(root.join("etc/conf")).unwrap();
                let kind = rustix::fs::FileType::CharacterDevice;
                let root = fs::File::open(root).unwrap();
                for path in ["etc/conf", "srv/never"] {
                    rustix::fs::mknodat(&root, path, kind, rustix::fs::Mode::RUSR, 0).unwrap();
                }
            },
            &["etc", "gone etc/conf", "srv"],
        ),
    ];
    for (what, change, expected) in cases {
        let (_dir, store) = store(support::kinds()[0]);
        let base = unpack(&store, &tar(BASE)).unwrap();
        let mut tree = tree_of(&store, &[&base], Share::Copied);
        let snapshot = step(&store, &mut tree, change);
        let said = if snapshot.layers.len() == 1 { Vec::new() } else { said(&store, &snapshot) };
        assert_eq!(said, *expected, "{what}");
        if *what == "another name" {
            let linked = look(&top(&store, &snapshot));
            assert!(linked[Path::new("srv/same")].contains("name of \"etc/same\""), "{linked:?}");
        }
        let layers: Vec<&LayerId> = snapshot.layers.iter().collect();
        if !what.contains("parted") {
            assert_eq!(look(tree.path()), look(tree_of(&store, &layers, Share::Copied).path()), "{what}");
        }
    }
}

#[test]
fn what_a_layer_has_is_not_written_to_by_the_next_step() {
    let (_dir, store) = store(support::kinds()[0]);
    let base = unpack(&store, &tar(BASE)).unwrap();
    let mut tree = tree_of(&store, &[&base], Share::Copied);
    let first = step(&store, &mut tree, |root| {
        fs::write(root.join("srv/a"), "first").unwrap();
        fs::write(root.join("srv/replaced"), "first").unwrap();
        fs::write(root.join("srv/removed"), "first").unwrap();
    });
    // Another layer comes over it, as COPY makes one.
    let copied = store.begin_layer(&first).unwrap();
    fs::create_dir(copied.upper().join("srv")).unwrap();
    fs::create_dir(copied.upper().join("srv/replaced")).unwrap();
    let whiteout = rustix::fs::FileType::CharacterDevice;
    let upper = fs::File::open(copied.upper()).unwrap();
    rustix::fs::mknodat(&upper, "srv/removed", whiteout, rustix::fs::Mode::empty(), 0).unwrap();
    let between = first.with(copied.commit().unwrap().unwrap());
    tree.advance(&between, &Cancel::new()).unwrap();
    let second = step(&store, &mut tree, |root| {
        let file = fs::File::options().write(true).open(root.join("srv/a")).unwrap();
        file.write_at(b"SECOND", 0).unwrap();
    });
    assert_eq!(fs::read_to_string(top(&store, &first).join("srv/a")).unwrap(), "first");
    assert_eq!(fs::read_to_string(top(&store, &second).join("srv/a")).unwrap(), "SECOND");
    assert_eq!(said(&store, &second), ["srv", "srv/a"]);
}

#[test]
fn odd_names_and_sparse_files() {
    let (_dir, store) = store(support::kinds()[0]);
    let mut tree = store.empty_tree(Share::Copied).unwrap();
    let odd = OsString::from_vec(b"new\nline \xff\xfe".to_vec());
    let snapshot = step(&store, &mut tree, |root| {
        fs::write(root.join(&odd), "odd").unwrap();
        let sparse = fs::File::create(root.join("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        sparse.write_at(b"middle", 1 << 39).unwrap();
        fs::hard_link(root.join("sparse"), root.join("too")).unwrap();
        symlink("x".repeat(4000), root.join("long")).unwrap();
    });
    let layers: Vec<&LayerId> = snapshot.layers.iter().collect();
    for share in [Share::Copied, Share::Linked] {
        let tree = tree_of(&store, &layers, share);
        assert_eq!(fs::read_to_string(tree.path().join(&odd)).unwrap(), "odd");
        let sparse = fs::File::open(tree.path().join("sparse")).unwrap();
        let stat = sparse.metadata().unwrap();
        assert_eq!(stat.len(), 1 << 40);
        assert!(stat.blocks() < 100, "{}", stat.blocks());
        let mut middle = [0; 6];
        sparse.read_exact_at(&mut middle, 1 << 39).unwrap();
        assert_eq!(&middle, b"middle");
        assert_eq!(fs::metadata(tree.path().join("too")).unwrap().ino(), stat.ino());
        assert_eq!(fs::read_link(tree.path().join("long")).unwrap().as_os_str().len(), 4000);
    }
}

#[test]
fn an_interrupted_tree_is_an_error() {
    let (_dir, store) = store(support::kinds()[0]);
    let base = unpack(&store, &tar(BASE)).unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    let mut tree = store.empty_tree(Share::Copied).unwrap();
    assert!(tree.advance(&Snapshot { layers: vec![base] }, &cancel).is_err());
}

fn touch(path: &Path, seconds: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// What is done to a tree: each picks its files by numbers, so that every sequence can be done to every tree.
#[derive(Debug, Clone)]
struct Deed {
    kind: u8,
    first: usize,
    second: usize,
    text: String,
}

fn deed() -> impl Strategy<Value = Deed> {
    (0..16_u8, any::<usize>(), any::<usize>(), "[a-z]{0,3}").prop_map(|(kind, first, second, text)| Deed {
        kind,
        first,
        second,
        text,
    })
}

/// A name for something new: now and then one that is no text, as long as it may be, or of two lines.
fn name(deed: &Deed) -> OsString {
    match deed.first / 7 % 9 {
        0 => OsString::from_vec(b"n\xff\x01".to_vec()),
        1 => "n\nl".into(),
        2 => "y".repeat(255).into(),
        3 => "ä é =".into(),
        _ => format!("n{}", deed.text).into(),
    }
}

/// Seconds since 1970: also before, and after what a tar's own field can say.
fn time(deed: &Deed) -> std::time::SystemTime {
    let (epoch, seconds) = (std::time::UNIX_EPOCH, std::time::Duration::from_secs(deed.second as u64 % 100));
    match deed.first % 4 {
        0 => epoch - seconds,
        1 => epoch + std::time::Duration::from_secs(1 << 33) + seconds,
        _ => epoch + seconds,
    }
}

/// Does it; what cannot be done is left.
fn done(ids: kiln_store::Ids, root: &Path, deed: &Deed) -> Option<()> {
    let all: Vec<PathBuf> = look(root).into_keys().collect();
    let dirs: Vec<PathBuf> = all.iter().filter(|path| root.join(path).is_dir()).cloned().collect();
    let pick = |from: &[PathBuf], by: usize| root.join(&from[by % from.len()]);
    let one = pick(&all, deed.first);
    let place = pick(&dirs, deed.second).join(name(deed));
    let is_link = one.is_symlink();
    match deed.kind {
        0 => fs::write(&place, &deed.text).ok(),
        1 if one.is_file() && !is_link => fs::write(&one, &deed.text).ok(),
        2 if !is_link => {
            let mode = [0o644, 0o4755, 0o700, 0o1777][deed.second % 4];
            fs::set_permissions(&one, fs::Permissions::from_mode(mode)).ok()
        }
        // With a single id, owners are records.
        3 if ids == kiln_store::Ids::Single && !is_link && (one.is_dir() || one.is_file()) => {
            let file = fs::File::open(&one).ok()?;
            let stat = rustix::fs::fstat(&file).ok()?;
            kiln_store::owner::set(ids, &file, &stat, deed.second as u32 % 3, 1).ok()
        }
        3 if ids == kiln_store::Ids::Full => {
            std::os::unix::fs::lchown(&one, Some(deed.second as u32 % 3), Some(1)).ok()
        }
        4 if one != root => fs::rename(&one, &place).ok(),
        5 if one != root && one.is_dir() && !is_link => fs::remove_dir_all(&one).ok(),
        6 if one != root => fs::remove_file(&one).ok(),
        7 => fs::create_dir(&place).ok(),
        8 => symlink(&deed.text, &place).ok(),
        9 => fs::hard_link(&one, &place).ok(),
        10 if one.is_file() && !is_link => {
            let modified = fs::metadata(&one).ok()?.modified().ok()?;
            let file = fs::File::options().write(true).open(&one).ok()?;
            file.write_at(deed.text.as_bytes(), 0).ok()?;
            file.set_modified(modified).ok()
        }
        11 if !is_link && (one.is_file() || one.is_dir()) => {
            rustix::fs::lsetxattr(&one, "user.t", deed.text.as_bytes(), XattrFlags::empty()).ok()
        }
        12 => {
            let parent = fs::File::open(place.parent()?).ok()?;
            let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
            rustix::fs::mknodat(&parent, place.file_name()?, kind, mode, 0).ok()
        }
        // Made anew, with what it had.
        13 if one != root && one.is_dir() && !is_link => {
            let aside = root.join("aside");
            fs::rename(&one, &aside).ok()?;
            let status = std::process::Command::new("cp").arg("-a").arg(&aside).arg(&one).status();
            fs::remove_dir_all(&aside).ok()?;
            status.ok().map(drop)
        }
        14 if !is_link && (one.is_dir() || one.is_file()) => {
            fs::File::open(&one).ok()?.set_modified(time(deed)).ok()
        }
        // Whoever may; 0:0 would be a whiteout.
        15 => {
            let parent = fs::File::open(place.parent()?).ok()?;
            let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::RUSR);
            let device = rustix::fs::makedev(1, 3);
            rustix::fs::mknodat(&parent, place.file_name()?, kind, mode, device).ok()
        }
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]
    /// apply(diff(a, b)) over a is b; and what overlay would leave of the same becomes the same layer.
    #[test]
    fn changes_over_the_tree_are_the_changed_tree(
        deeds in prop::collection::vec(prop::collection::vec(deed(), 0..8), 1..4),
    ) {
        for ids in support::kinds() {
            let (_dir, store) = store(ids);
            let base = unpack(&store, &tar(BASE)).unwrap();
            let mut tree = tree_of(&store, &[&base], Share::Copied);
            for round in &deeds {
                let below = tree.snapshot().clone();
                let snapshot = step(&store, &mut tree, |root| {
                    for deed in round {
                        done(ids, root, deed);
                    }
                });
                let seen = look(tree.path());
                let several = seen.values().any(|line| line.contains("name of"));
                let mut seen_of_layers = [Share::Copied, Share::Linked].map(|share| {
                    look(tree_of(&store, &snapshot.layers.iter().collect::<Vec<_>>(), share).path())
                });
                if several {
                    // Names that change together are parted in the layer.
                    let part = |look: &mut BTreeMap<PathBuf, String>| look.values_mut().for_each(|line| {
                        line.truncate(line.find(" name of").unwrap_or(line.len()));
                    });
                    let mut seen = seen;
                    part(&mut seen);
                    seen_of_layers.iter_mut().for_each(part);
                    prop_assert_eq!(&seen_of_layers[0], &seen);
                    continue;
                }
                prop_assert_eq!(&seen_of_layers[0], &seen);
                let other = as_overlay(&store, &below, tree.path());
                prop_assert_eq!(other.layers.len(), snapshot.layers.len());
                if other.layers.len() > below.layers.len() {
                    prop_assert_eq!(look(&top(&store, &other)), look(&top(&store, &snapshot)));
                }
            }
        }
    }
}

/// The layer of a step that copied all up and hid all directories below its own.
fn as_overlay(store: &Store, below: &Snapshot, tree: &Path) -> Snapshot {
    let mut layer = store.begin_layer(below).unwrap();
    let copied = std::process::Command::new("cp").arg("-a").arg(tree.join(".")).arg(layer.upper()).status();
    assert!(copied.unwrap().success());
    let lower = tree_of(store, &below.layers.iter().collect::<Vec<_>>(), Share::Linked);
    for entry in fs::read_dir(lower.path()).unwrap() {
        let name = entry.unwrap().file_name();
        if !layer.upper().join(&name).is_symlink() && !layer.upper().join(&name).exists() {
            let upper = fs::File::open(layer.upper()).unwrap();
            let kind = rustix::fs::FileType::CharacterDevice;
            rustix::fs::mknodat(&upper, &name, kind, rustix::fs::Mode::empty(), 0).unwrap();
        }
    }
    for entry in fs::read_dir(layer.upper()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            rustix::fs::lsetxattr(&path, "user.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        }
    }
    layer.take_out_unchanged().unwrap();
    layer.commit().unwrap().map_or(below.clone(), |layer| below.with(layer))
}
