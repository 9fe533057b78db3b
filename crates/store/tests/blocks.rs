//! A layer whose blocks are copied from an earlier blob is, byte for byte, the blob that compressing all of it would have made:
//! whatever was done to the files in between, and whatever became of the earlier blob and its list.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use kiln_core::{Cancel, IgnoreList, LayerId, Selection, Snapshot, Unpack};
use kiln_store::copy::{CopyInput, CopyManifest, CopyReport, CopyRequest, CopyRules, copy};
use kiln_store::tree::{DigestRule, SourceTree};
use kiln_store::{Compression, Ids, LayerOptions, PackedLayer, Store, Waiting};
use proptest::prelude::*;
use support::store;

type Tree = BTreeMap<String, Vec<u8>>;

const GZIP: Compression = Compression::Gzip { level: 1 };
const ZSTD: Compression = Compression::Zstd { level: 1 };

/// Bytes of which half can be compressed.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    static POOL: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let word = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            [state.to_le_bytes(), *b"the same"]
        };
        (0..1 << 18).flat_map(word).flatten().collect()
    });
    let begin = usize::try_from(seed.wrapping_mul(7919) % (1 << 20)).unwrap();
    POOL[begin..begin + length].to_vec()
}

/// Some 9 MiB in 300 files, one of them of 3 MiB.
fn tree() -> Tree {
    let file = |number: u64| {
        let length =
            if number == 150 { 3 << 20 } else { 1000 + usize::try_from(number * 9973 % 40_000).unwrap() };
        (format!("d{}/f{number}", number / 50), bytes(number, length))
    };
    (0..300).map(file).collect()
}

/// Makes a layer of it; of a copy, if one says so.
fn layer(store: &Store, tree: &Tree, copy: Option<Option<&LayerId>>) -> LayerId {
    let layer = store.begin_layer(&Snapshot::default()).unwrap();
    for (path, bytes) in tree {
        let path = layer.upper().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let id = layer.commit().unwrap().unwrap();
    if let Some(before) = copy {
        store.note_copy(&id, &CopyManifest::default(), before).unwrap();
    }
    id
}

/// Copies it as a COPY does, sharing files with an earlier layer.
fn copied(store: &Store, tree: &Tree, before: Option<&LayerId>) -> (LayerId, CopyReport) {
    let source = tempfile::tempdir().unwrap();
    for (path, bytes) in tree {
        let path = source.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    for path in tree.keys() {
        let time = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for path in Path::new(path).ancestors() {
            File::open(source.path().join(path)).unwrap().set_modified(time).unwrap();
        }
    }
    let root = File::open(source.path()).unwrap();
    let context = SourceTree::context(root.into(), source.path(), IgnoreList::default(), None);
    let selected = context.select(&Selection::all()).unwrap();
    selected.digest(DigestRule::COPY).unwrap();
    let layer = store.begin_layer(&Snapshot::default()).unwrap();
    let report = copy(&CopyRequest {
        layer: layer.upper(),
        parent: None,
        inputs: &[CopyInput::Files(selected)],
        dest: "/",
        dest_is_dir: true,
        unpack: Unpack::Never,
        rules: &CopyRules { owner: None, keep_owners: true, chmod: None, epoch: None, ids: store.ids() },
        reuse: before.and_then(|before| store.reuse(before)).as_ref(),
        cancel: &Cancel::new(),
    });
    (layer.commit().unwrap().unwrap(), report.unwrap())
}

/// One that the next copy can share with.
fn noted(store: &Store, tree: &Tree, before: Option<&LayerId>) -> LayerId {
    let (id, report) = copied(store, tree, before);
    store.note_copy(&id, &report.manifest, before).unwrap();
    id
}

fn pack(store: &Store, layer: &LayerId, compression: Compression) -> PackedLayer {
    store.pack_layer(layer, &LayerOptions { compression, epoch: Some(1) }, &Cancel::new()).unwrap()
}

/// What packing makes of a tree without any help.
fn anew(store: &Store, tree: &Tree, compression: Compression) -> PackedLayer {
    let packed = pack(store, &layer(store, tree, None), compression);
    assert_eq!(packed.copied, 0);
    packed
}

fn dir(store: &Store, layer: &LayerId) -> PathBuf {
    store.layer_dir(layer).parent().unwrap().to_owned()
}

fn list(store: &Store, layer: &LayerId) -> PathBuf {
    let mut entries = fs::read_dir(dir(store, layer)).unwrap().map(|entry| entry.unwrap().path());
    entries.find(|path| path.to_string_lossy().contains("blocks-")).expect("there is a list of blocks")
}

/// How many blocks a layer was packed into.
fn blocks(store: &Store, layer: &LayerId) -> usize {
    usize::try_from((fs::metadata(list(store, layer)).unwrap().len() - 104) / 52).unwrap()
}

#[derive(Debug, Clone)]
enum Edit {
    Write(usize, u64, usize),
    Append(usize, usize),
    Remove(usize),
    Add(String, usize),
    Rename(usize, String),
}

fn edit() -> impl Strategy<Value = Edit> {
    let name = || "d[0-6]/[a-z]{1,8}";
    let small = || prop_oneof![0..2000_usize, 0..60_000_usize];
    prop_oneof![
        3 => (any::<usize>(), any::<u64>(), small()).prop_map(|(at, seed, length)| Edit::Write(at, seed, length)),
        3 => (any::<usize>(), small()).prop_map(|(at, length)| Edit::Append(at, length)),
        2 => any::<usize>().prop_map(Edit::Remove),
        2 => (name(), prop_oneof![small(), 1_000_000..3_000_000_usize]).prop_map(|(name, length)| Edit::Add(name, length)),
        1 => (any::<usize>(), name()).prop_map(|(at, name)| Edit::Rename(at, name)),
    ]
}

fn apply(tree: &mut Tree, edit: &Edit) {
    let name = |tree: &Tree, at: usize| tree.keys().nth(at % tree.len()).unwrap().clone();
    match edit {
        Edit::Write(at, seed, length) => drop(tree.insert(name(tree, *at), bytes(*seed, *length))),
        Edit::Append(at, length) => {
            let name = name(tree, *at);
            tree.get_mut(&name).unwrap().extend(bytes(9, *length));
        }
        Edit::Remove(at) => drop(tree.remove(&name(tree, *at))),
        Edit::Add(name, length) => drop(tree.insert(name.clone(), bytes(5, *length))),
        Edit::Rename(at, to) => {
            let content = tree.remove(&name(tree, *at)).unwrap();
            tree.insert(to.clone(), content);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    #[test]
    fn copied_blocks_are_those_that_compressing_makes(steps in prop::collection::vec(prop::collection::vec(edit(), 1..4), 1..4)) {
        let (_dir, store) = store(Ids::Full);
        for compression in [GZIP, ZSTD] {
            let mut tree = tree();
            let mut before = layer(&store, &tree, Some(None));
            prop_assert_eq!(pack(&store, &before, compression).copied, 0);
            for edits in &steps {
                edits.iter().for_each(|edit| apply(&mut tree, edit));
                let here = layer(&store, &tree, Some(Some(&before)));
                let packed = pack(&store, &here, compression);
                prop_assert_eq!(&packed.layer, &anew(&store, &tree, compression).layer);
                // An edit spoils the block that it is in, the next one for its window, and perhaps one more on either side.
                // Frames are too few to say so of them.
                let spoilt = blocks(&store, &here) - packed.copied;
                prop_assert!(compression == ZSTD || spoilt <= 5 * edits.len() + 3, "{} spoilt by {:?}", spoilt, edits);
                before = here;
            }
        }
    }
}

/// As above, where the copy's list says which file it is, and the bytes are not asked.
#[test]
fn blocks_that_are_known_by_the_digests_of_files_are_those_that_compressing_makes() {
    let (_dir, store) = store(Ids::Full);
    let rounds: [&[Edit]; 4] = [
        &[Edit::Write(0, 1, 10), Edit::Append(200, 600)],
        &[Edit::Remove(3), Edit::Add("d2/new".to_owned(), 2_000_000), Edit::Rename(250, "d0/0".to_owned())],
        // The large one: its blocks are parts of it.
        &[Edit::Append(151, 1 << 20), Edit::Write(0, 2, 0)],
        &[],
    ];
    for compression in [GZIP, ZSTD] {
        let mut tree = tree();
        let mut before = noted(&store, &tree, None);
        assert_eq!(pack(&store, &before, compression).copied, 0);
        for edits in rounds {
            edits.iter().for_each(|edit| apply(&mut tree, edit));
            let here = noted(&store, &tree, Some(&before));
            let packed = pack(&store, &here, compression);
            assert_eq!(packed.layer, pack(&store, &copied(&store, &tree, None).0, compression).layer);
            let spoilt = blocks(&store, &here) - packed.copied;
            assert!(compression == ZSTD || spoilt <= 5 * edits.len(), "{spoilt} spoilt by {edits:?}");
            before = here;
        }
    }
}

/// The list says what a file was; what goes into the image is what it is.
#[test]
fn a_file_that_was_damaged_in_the_store_does_not_pass_for_what_it_was() {
    for compression in [GZIP, ZSTD] {
        let (_dir, store) = store(Ids::Full);
        let before = noted(&store, &tree(), None);
        pack(&store, &before, compression);
        let here = noted(&store, &tree(), Some(&before));
        let file = store.layer_dir(&here).join("d3/f150");
        let mut bytes = fs::read(&file).unwrap();
        bytes[1 << 20] ^= 1;
        fs::write(&file, bytes).unwrap();
        let packed = pack(&store, &here, compression);
        assert!(packed.copied > 0);
        assert!((1..=2).contains(&(blocks(&store, &here) - packed.copied)));
        store.check_layer(&packed.layer).unwrap();
    }
}

/// `force-compression` there and back: the tar is cut where packing the files cut it, and so are names that take headers of PAX.
#[test]
fn a_blob_that_is_packed_another_way_and_back_is_what_it_was() {
    let (_dir, store) = store(Ids::Full);
    let mut tree = tree();
    for number in 0..40 {
        let deep = format!("{}ü{number}", "a-long-name/".repeat(20));
        tree.insert(deep, bytes(number, 50_000));
    }
    let packed = anew(&store, &tree, GZIP).layer;
    let cancel = Cancel::new();
    let repack = |layer: &kiln_core::Layer, compression| {
        let mut waiting = Waiting { doing: "a test", timeout: None, cancel: &cancel, on_wait: &mut |_| () };
        store.repack(layer, compression, &mut waiting, &mut |_| ()).unwrap()
    };
    let other = repack(&packed, ZSTD);
    assert_eq!(other.digest, anew(&store, &tree, ZSTD).layer.digest);
    // Another level first: it would be no news that the store has the blob.
    let level = repack(&other, Compression::Gzip { level: 6 });
    assert_ne!(level.digest, packed.digest);
    assert_eq!(repack(&level, GZIP), packed);
}

#[test]
fn one_changed_file_spoils_few_blocks() {
    let (_dir, store) = store(Ids::Full);
    let old = tree();
    let before = layer(&store, &old, Some(None));
    pack(&store, &before, GZIP);
    // Shorter, longer, gone, one more: at the beginning, so that all the rest moves.
    let edits = [
        Edit::Write(0, 1, 10),
        Edit::Append(0, 600),
        Edit::Remove(0),
        Edit::Add("d0/0".to_owned(), 777),
        Edit::Add("d0/0".to_owned(), 2_000_000),
    ];
    for edit in edits {
        let mut tree = old.clone();
        apply(&mut tree, &edit);
        let here = layer(&store, &tree, Some(Some(&before)));
        let packed = pack(&store, &here, GZIP);
        let all = blocks(&store, &here);
        assert!(packed.copied * 2 > all, "{edit:?}: {} of {all}", packed.copied);
        assert_eq!(packed.layer, anew(&store, &tree, GZIP).layer);
    }
}

#[test]
fn a_layer_in_between_that_was_not_packed_does_no_harm() {
    let (_dir, store) = store(Ids::Full);
    let first = layer(&store, &tree(), Some(None));
    pack(&store, &first, GZIP);
    let mut before = first;
    for _ in 0..3 {
        before = layer(&store, &tree(), Some(Some(&before)));
    }
    assert_eq!(pack(&store, &before, ZSTD).copied, 0, "another compressor's blocks are others");
    let packed = pack(&store, &before, GZIP);
    assert_eq!(packed.copied, blocks_of(&store, &before, GZIP), "all of them");
}

fn blocks_of(store: &Store, layer: &LayerId, compression: Compression) -> usize {
    let whole = pack(store, layer, compression).copied;
    assert!(whole > 5);
    whole
}

#[test]
fn what_was_damaged_is_compressed_anew() {
    let (_dir, store) = store(Ids::Full);
    let old = tree();
    let before = layer(&store, &old, Some(None));
    let blob = store.blob_path(&pack(&store, &before, GZIP).layer.digest);
    let list = list(&store, &before);
    let (good_blob, good_list) = (fs::read(&blob).unwrap(), fs::read(&list).unwrap());
    let mut new = old;
    new.insert("d0/f1".to_owned(), b"other".to_vec());
    let expected = anew(&store, &new, GZIP).layer;
    let copied = |what: &str| {
        let here = layer(&store, &new, Some(Some(&before)));
        let packed = pack(&store, &here, GZIP);
        assert_eq!(packed.layer, expected, "{what}");
        packed.copied
    };
    let usual = copied("nothing damaged");
    assert!(usual > 5);

    let half = good_blob.len() / 2;
    let mut bad = good_blob.clone();
    bad[half] ^= 1;
    fs::write(&blob, &bad).unwrap();
    assert_eq!(copied("one bit of the blob"), usual - 1, "the other blocks are still good");
    fs::write(&blob, &good_blob[..half]).unwrap();
    assert!(copied("half of the blob") < usual);
    fs::write(&blob, b"").unwrap();
    assert_eq!(copied("an empty blob"), 0);
    fs::remove_file(&blob).unwrap();
    assert_eq!(copied("no blob"), 0);
    fs::write(&blob, &good_blob).unwrap();
    assert_eq!(copied("the blob is back"), usual);

    for at in [0, 10, 50, 90, 104, 104 + 33, 104 + 41, good_list.len() - 1] {
        let mut bad = good_list.clone();
        bad[at] ^= 1;
        fs::write(&list, &bad).unwrap();
        assert_eq!(copied(&format!("byte {at} of the list")), 0);
    }
    for length in [0, 8, 103, 104, good_list.len() - 1, good_list.len() - 52] {
        fs::write(&list, &good_list[..length]).unwrap();
        assert_eq!(copied(&format!("{length} bytes of the list")), 0);
    }
    fs::remove_file(&list).unwrap();
    assert_eq!(copied("no list"), 0);
    fs::write(&list, &good_list).unwrap();
    assert_eq!(copied("the list is back"), usual);
}

/// Sound by its hash, and nonsense: places beyond the blob, or of other bytes.
#[test]
fn a_list_that_says_what_is_not_so_is_not_believed() {
    let (_dir, store) = store(Ids::Full);
    let before = layer(&store, &tree(), Some(None));
    pack(&store, &before, GZIP);
    let list = list(&store, &before);
    let good = fs::read(&list).unwrap();
    let expected = anew(&store, &tree(), GZIP).layer;
    for (at, value) in [(32, u64::MAX), (32, 1 << 40), (32, 11), (40, u64::from(u32::MAX)), (40, 0), (40, 1)]
    {
        let mut bad = good.clone();
        for record in bad[104..].chunks_mut(52) {
            let width = if at == 32 { 8 } else { 4 };
            record[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        }
        let hash = *kiln_core::Digest::of(&bad[40..]).as_bytes();
        bad[8..40].copy_from_slice(&hash);
        fs::write(&list, &bad).unwrap();
        let packed = pack(&store, &layer(&store, &tree(), Some(Some(&before))), GZIP);
        assert_eq!((packed.layer, packed.copied), (expected.clone(), 0), "{at}: {value}");
    }
}

#[test]
fn names_of_earlier_layers_lead_nowhere_else() {
    let (_dir, store) = store(Ids::Full);
    let before = layer(&store, &tree(), Some(None));
    pack(&store, &before, GZIP);
    for name in ["", "gone", "../layers/x", "/", "a\n", &before.0.to_uppercase(), &format!("./{}", before.0)]
    {
        let here = layer(&store, &tree(), Some(Some(&LayerId(name.to_owned()))));
        assert_eq!(pack(&store, &here, GZIP).copied, 0, "{name:?}");
    }
    // Round in a circle.
    let here = layer(&store, &tree(), Some(None));
    store.note_copy(&here, &CopyManifest::default(), Some(&here)).unwrap();
    assert_eq!(pack(&store, &here, GZIP).copied, 0);
}

/// Lists are in nobody's way: the store's size is what du says, and its checker has no complaint.
#[test]
fn lists_count_in_the_size_of_the_store() {
    let (dir, store) = store(Ids::Full);
    let before = layer(&store, &tree(), Some(None));
    store.usage().unwrap();
    pack(&store, &before, GZIP);
    let du =
        std::process::Command::new("du").args(["-s", "-B1"]).arg(dir.path().join("store")).output().unwrap();
    let du: u64 = String::from_utf8(du.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(store.usage().unwrap().total(), du);
    let problems = store.fsck().unwrap();
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn the_same_list_serves_who_has_one_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Ids::Single).unwrap();
    let before = layer(&store, &tree(), Some(None));
    pack(&store, &before, GZIP);
    let here = layer(&store, &tree(), Some(Some(&before)));
    assert!(pack(&store, &here, GZIP).copied > 5);
    assert!(Path::new(&list(&store, &here)).exists());
}
