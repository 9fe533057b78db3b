//! A layer that shares files with the one that the same copy made before is, byte for byte, the layer that copying all of it
//! would have made: whatever was done to the sources in between, and whatever becomes of the earlier layer.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_core::{Cancel, Chmod, IgnoreList, InlineFile, LayerId, Selection, Snapshot, Unpack};
use kiln_store::copy::{CopyInput, CopyReport, CopyRequest, CopyRules, Reuse, copy};
use kiln_store::tree::{DigestRule, SourceTree};
use kiln_store::{Compression, Ids, LayerOptions, Store};
use proptest::prelude::*;
use rustix::fs::XattrFlags;
use support::store;

/// What is done to the sources between two copies.
#[derive(Debug, Clone)]
enum Edit {
    Write(&'static str, u8),
    /// Other content of the same size, and the time set back.
    WriteSecretly(&'static str, u8),
    Mode(&'static str, u32),
    Time(&'static str, u64),
    Attribute(&'static str, Option<u8>),
    Link(&'static str, &'static str),
    Directory(&'static str),
    Remove(&'static str),
    Rename(&'static str, &'static str),
    HardLink(&'static str, &'static str),
    /// Files with several names become several files each.
    Part,
}

const NAMES: [&str; 6] = ["s/a", "s/b", "s/d/a", "t/a", "t/b", "t/d/a"];

fn edit() -> impl Strategy<Value = Edit> {
    let name = || prop::sample::select(NAMES.to_vec());
    let mode = prop::sample::select(vec![0o644, 0o755, 0o600, 0o4755, 0o000]);
    prop_oneof![
        3 => (name(), 0..4_u8).prop_map(|(name, byte)| Edit::Write(name, byte)),
        1 => (name(), 0..4_u8).prop_map(|(name, byte)| Edit::WriteSecretly(name, byte)),
        1 => (name(), mode).prop_map(|(name, mode)| Edit::Mode(name, mode)),
        1 => (name(), 1..4_u64).prop_map(|(name, time)| Edit::Time(name, time)),
        1 => (name(), prop::option::of(0..3_u8)).prop_map(|(name, value)| Edit::Attribute(name, value)),
        1 => (name(), name()).prop_map(|(name, target)| Edit::Link(name, target)),
        1 => name().prop_map(Edit::Directory),
        2 => name().prop_map(Edit::Remove),
        1 => (name(), name()).prop_map(|(from, to)| Edit::Rename(from, to)),
        2 => (name(), name()).prop_map(|(from, to)| Edit::HardLink(from, to)),
        2 => Just(Edit::Part),
    ]
}

impl Edit {
    /// Does it as far as it can be done.
    fn apply(&self, root: &Path) {
        let at = |name: &str| root.join(name);
        let time = |path: &Path, seconds| {
            let time: SystemTime = UNIX_EPOCH + Duration::new(1_000_000_000 + seconds, 7);
            if let Ok(file) = File::open(path) {
                file.set_modified(time).unwrap();
            }
        };
        let is_file = |name: &str| at(name).symlink_metadata().is_ok_and(|found| found.is_file());
        let fresh = |name: &str| {
            let _ = fs::remove_file(at(name));
            let _ = fs::remove_dir_all(at(name));
            fs::create_dir_all(at(name).parent().unwrap()).is_ok()
        };
        match self {
            Self::Write(name, byte) => {
                if fresh(name) {
                    fs::write(at(name), vec![*byte; usize::from(*byte) * 3000]).unwrap();
                    time(&at(name), 0);
                }
            }
            Self::WriteSecretly(name, byte) => {
                if is_file(name) {
                    let before = fs::metadata(at(name)).unwrap();
                    fs::write(at(name), vec![*byte; usize::try_from(before.len()).unwrap()]).unwrap();
                    File::open(at(name)).unwrap().set_modified(before.modified().unwrap()).unwrap();
                }
            }
            Self::Mode(name, mode) => {
                if is_file(name) {
                    fs::set_permissions(at(name), PermissionsExt::from_mode(*mode)).unwrap();
                }
            }
            Self::Time(name, seconds) => time(&at(name), *seconds),
            Self::Attribute(name, value) => {
                if is_file(name) {
                    let _ = match value {
                        Some(byte) => {
                            rustix::fs::setxattr(at(name), "user.test", &[*byte], XattrFlags::empty())
                        }
                        None => rustix::fs::removexattr(at(name), "user.test"),
                    };
                }
            }
            Self::Link(name, target) => {
                if fresh(name) {
                    symlink(target, at(name)).unwrap();
                }
            }
            Self::Directory(name) => {
                if fresh(name) {
                    fs::create_dir(at(name)).unwrap();
                }
            }
            Self::Remove(name) => drop(fresh(name)),
            Self::Rename(from, to) => {
                if is_file(from) && from != to && fresh(to) && is_file(from) {
                    fs::rename(at(from), at(to)).unwrap();
                }
            }
            Self::HardLink(from, to) => {
                if is_file(from) && from != to && fresh(to) && is_file(from) {
                    fs::hard_link(at(from), at(to)).unwrap();
                }
            }
            Self::Part => {
                for name in NAMES.iter().filter(|name| is_file(name)) {
                    let before = fs::metadata(at(name)).unwrap();
                    let content = fs::read(at(name)).unwrap();
                    if before.nlink() > 1 {
                        fs::remove_file(at(name)).unwrap();
                        fs::write(at(name), content).unwrap();
                        fs::set_permissions(at(name), before.permissions()).unwrap();
                        File::open(at(name)).unwrap().set_modified(before.modified().unwrap()).unwrap();
                    }
                }
            }
        }
        // What only the order of edits decided is not to differ: times of directories.
        for dir in ["s", "t", "s/d", "s/d/e", "t/d"] {
            time(&at(dir), 0);
        }
    }
}

/// What is copied, and what copies look like.
#[derive(Debug, Clone)]
struct Way {
    sources: Vec<&'static str>,
    heredoc: bool,
    chown: bool,
    chmod: Option<Chmod>,
}

fn way() -> impl Strategy<Value = Way> {
    let sources = prop::sample::select(vec![
        vec!["s"],
        vec!["s", "t"],
        vec!["t", "s"],
        vec!["s/d", "t/*"],
        vec!["s/*", "t/*"],
        vec!["."],
    ]);
    let chmod =
        prop::sample::select(vec![None, Some(Chmod::Octal(0o640)), Some(Chmod::Symbolic("go=u".into()))]);
    (sources, any::<bool>(), any::<bool>(), chmod).prop_map(|(sources, heredoc, chown, chmod)| Way {
        sources,
        heredoc,
        chown,
        chmod,
    })
}

struct World {
    dir: tempfile::TempDir,
    store: Store,
    way: Way,
}

struct Made {
    layer: LayerId,
    report: CopyReport,
}

impl World {
    fn new(way: Way) -> Self {
        let (dir, store) = store(Ids::Full);
        for name in ["s", "t"] {
            fs::create_dir_all(dir.path().join("source").join(name)).unwrap();
        }
        Self { dir, store, way }
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    /// Copies; none if the sources do not fit into one another.
    fn copy(&self, store: &Store, reuse: Option<&Reuse>) -> Option<Made> {
        let root = File::open(self.source()).unwrap();
        let index = Arc::new(store.stat_index(&root, &self.source()).unwrap());
        let tree =
            SourceTree::context(root.into(), self.source(), IgnoreList::default(), Some(Arc::clone(&index)));
        let mut inputs = Vec::new();
        for source in &self.way.sources {
            let selected = tree.select(&Selection::wildcard(*source)).ok()?;
            selected.digest(DigestRule::COPY).unwrap();
            inputs.push(CopyInput::Files(selected));
        }
        if self.way.heredoc {
            inputs.push(CopyInput::Inline(InlineFile {
                name: "a".into(),
                content: "heredoc".into(),
                mode: 0o644,
            }));
        }
        let root = rustix::process::geteuid().is_root();
        let layer = store.begin_layer(&Snapshot::default()).unwrap();
        let report = copy(&CopyRequest {
            layer: layer.upper(),
            parent: None,
            inputs: &inputs,
            dest: "/x",
            dest_is_dir: true,
            unpack: Unpack::Never,
            rules: &CopyRules {
                owner: (self.way.chown && root).then_some((7, 8)),
                keep_owners: !root,
                chmod: self.way.chmod.clone(),
                epoch: None,
                ids: store.ids(),
            },
            reuse,
            cancel: &Cancel::new(),
        })
        .ok()?;
        assert_eq!(report.changed, Vec::<PathBuf>::new());
        index.save().unwrap();
        let layer = layer.commit().unwrap()?;
        report.manifest.write(&manifest(store, &layer)).unwrap();
        Some(Made { layer, report })
    }
}

fn manifest(store: &Store, layer: &LayerId) -> PathBuf {
    store.layer_dir(layer).with_file_name("copied")
}

fn reuse(store: &Store, layer: &LayerId) -> Reuse {
    Reuse::open(&store.layer_dir(layer), &manifest(store, layer)).unwrap()
}

fn diff_id(store: &Store, layer: &LayerId) -> kiln_core::Digest {
    let options = LayerOptions { compression: Compression::None, epoch: None };
    store.layer_blob(layer, &options, &Cancel::new()).unwrap().diff_id
}

/// Content, mode, owner, times and inode of all files of a layer.
fn facts(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut facts = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let found = path.symlink_metadata().unwrap();
        if found.is_dir() {
            facts.extend(self::facts(&path));
        }
        let content = if found.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let fact =
            (content, found.mode(), found.uid(), found.gid(), found.mtime(), found.mtime_nsec(), found.ino());
        facts.insert(path, format!("{fact:?}"));
    }
    facts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_layer_made_by_sharing_is_the_one_made_cold(
        way in way(),
        start in prop::collection::vec(edit(), 3..12),
        rounds in prop::collection::vec(prop::collection::vec(edit(), 0..4), 1..4),
    ) {
        let world = World::new(way);
        start.iter().for_each(|edit| edit.apply(&world.source()));
        let mut last = world.copy(&world.store, None);
        for edits in rounds {
            edits.iter().for_each(|edit| edit.apply(&world.source()));
            let before = last.as_ref().map(|made| facts(&world.store.layer_dir(&made.layer)));
            let shared = last.as_ref().map(|made| reuse(&world.store, &made.layer));
            let warm = world.copy(&world.store, shared.as_ref());
            let cold = world.copy(&world.store, None);
            prop_assert_eq!(warm.is_some(), cold.is_some());
            let (Some(warm), Some(cold)) = (warm, cold) else { continue };
            prop_assert_eq!(diff_id(&world.store, &warm.layer), diff_id(&world.store, &cold.layer));
            prop_assert_eq!(&warm.report.manifest, &cold.report.manifest);
            // Nobody changed the one that was shared with.
            let after = last.as_ref().map(|made| facts(&world.store.layer_dir(&made.layer)));
            prop_assert_eq!(before, after);
            last = Some(warm);
        }
    }
}

/// Copies, edits, and copies again with and without sharing.
#[track_caller]
fn same_as_cold(sources: &[&'static str], heredoc: bool, start: &[Edit], edits: &[Edit], shared: u64) {
    let world = World::new(Way { sources: sources.to_vec(), heredoc, chown: false, chmod: None });
    start.iter().for_each(|edit| edit.apply(&world.source()));
    let first = world.copy(&world.store, None).unwrap();
    edits.iter().for_each(|edit| edit.apply(&world.source()));
    let warm = world.copy(&world.store, Some(&reuse(&world.store, &first.layer))).unwrap();
    let cold = world.copy(&world.store, None).unwrap();
    assert_eq!(diff_id(&world.store, &warm.layer), diff_id(&world.store, &cold.layer));
    assert_eq!(warm.report.reused, shared);
}

#[test]
fn names_of_one_file_that_became_files_of_their_own_do_not_share_its_inode() {
    let start = [Edit::Write("s/a", 1), Edit::Write("s/d/a", 1), Edit::HardLink("s/a", "s/b")];
    same_as_cold(&["s"], false, &start, &[Edit::Part], 1);
    // And files that became names of one may.
    let start = [Edit::Write("s/a", 1), Edit::Write("s/b", 1), Edit::Write("s/d/a", 1)];
    same_as_cold(&["s"], false, &start, &[Edit::HardLink("s/a", "s/b")], 2);
}

#[test]
fn what_was_put_over_a_file_is_not_taken_for_it() {
    // The same size, mode and time; only the content tells them apart.
    let start =
        [Edit::Write("s/a", 1), Edit::Write("t/a", 1), Edit::WriteSecretly("t/a", 2), Edit::Write("t/b", 1)];
    same_as_cold(&["s", "t"], false, &start, &[Edit::Remove("t/a")], 1);
    same_as_cold(&["s/*", "t/*"], false, &start, &[Edit::Remove("t/a")], 1);
    // A heredoc is put over the first `a`; then the sources are in another order, so to say: `b` is new.
    same_as_cold(&["s", "t"], true, &start, &[Edit::Rename("t/b", "s/b")], 1);
}

fn files(count: usize) -> World {
    let way = Way { sources: vec!["."], heredoc: false, chown: false, chmod: None };
    let world = World::new(way);
    for number in 0..count {
        fs::write(world.source().join(format!("s/{number}")), format!("file {number}")).unwrap();
    }
    world
}

#[test]
fn buildkit_copies_all_again_where_one_of_many_changed_and_this_does_not() {
    let world = files(300);
    let first = world.copy(&world.store, None).unwrap();
    fs::write(world.source().join("s/7"), "other").unwrap();
    let second = world.copy(&world.store, Some(&reuse(&world.store, &first.layer))).unwrap();
    assert_eq!((second.report.files, second.report.reused), (300, 299));
    let inode = |made: &Made, path: &str| {
        fs::metadata(world.store.layer_dir(&made.layer).join("x/s").join(path)).unwrap().ino()
    };
    assert_eq!(inode(&first, "8"), inode(&second, "8"));
    assert_ne!(inode(&first, "7"), inode(&second, "7"));
    // The third one shares with the second what that shares with the first.
    let third = world.copy(&world.store, Some(&reuse(&world.store, &second.layer))).unwrap();
    assert_eq!((third.report.reused, inode(&third, "8")), (300, inode(&first, "8")));
    assert_eq!(diff_id(&world.store, &third.layer), diff_id(&world.store, &second.layer));
}

#[test]
fn what_is_pruned_of_the_earlier_layer_meanwhile_is_copied() {
    let world = files(300);
    let first = world.copy(&world.store, None).unwrap();
    let cold = diff_id(&world.store, &first.layer);
    for gone in ["x/s/1", "x/s/150", "x/s", "x", ""] {
        let shared = reuse(&world.store, &first.layer);
        let path = world.store.layer_dir(&first.layer).join(gone);
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        let made = world.copy(&world.store, Some(&shared)).unwrap();
        let expected = match gone {
            "x/s/1" => 299,
            "x/s/150" => 298,
            _ => 0,
        };
        assert_eq!(made.report.reused, expected, "{gone}");
        assert_eq!(diff_id(&world.store, &made.layer), cold, "{gone}");
    }
    // Without its tree, or with a list that is torn, it is none to share with.
    let dir = world.store.layer_dir(&first.layer);
    assert!(Reuse::open(&dir, &manifest(&world.store, &first.layer)).is_none());
    let second = world.copy(&world.store, None).unwrap();
    let list = manifest(&world.store, &second.layer);
    let whole = fs::read(&list).unwrap();
    for cut in [0, 7, 39, 40, whole.len() - 1] {
        fs::write(&list, &whole[..cut]).unwrap();
        assert!(Reuse::open(&world.store.layer_dir(&second.layer), &list).is_none(), "{cut}");
    }
}

#[test]
fn files_as_often_shared_as_an_inode_can_have_names_are_copied_then() {
    let world = files(2);
    let mut last = world.copy(&world.store, None).unwrap();
    let cold = diff_id(&world.store, &last.layer);
    let names = world.dir.path().join("names");
    fs::create_dir(&names).unwrap();
    let file = world.store.layer_dir(&last.layer).join("x/s/1");
    // Where a file system has no limit that is met soon, there is nothing to see.
    if (0..70_000).any(|name| fs::hard_link(&file, names.join(name.to_string())).is_err()) {
        last = world.copy(&world.store, Some(&reuse(&world.store, &last.layer))).unwrap();
        assert_eq!(last.report.reused, 1);
    }
    assert_eq!(diff_id(&world.store, &last.layer), cold);
}

#[test]
fn many_copies_at_once_may_share_with_one_layer_while_it_is_removed() {
    let world = files(400);
    let first = world.copy(&world.store, None).unwrap();
    let cold = diff_id(&world.store, &first.layer);
    let shared = reuse(&world.store, &first.layer);
    let made: Vec<Made> = std::thread::scope(|scope| {
        let copies: Vec<_> =
            (0..4).map(|_| scope.spawn(|| world.copy(&world.store, Some(&shared)).unwrap())).collect();
        fs::remove_dir_all(world.store.layer_dir(&first.layer)).unwrap();
        copies.into_iter().map(|copy| copy.join().unwrap()).collect()
    });
    for made in made {
        assert_eq!(diff_id(&world.store, &made.layer), cold);
        assert_eq!(made.report.files, 400);
    }
}
