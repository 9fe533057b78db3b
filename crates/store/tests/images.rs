//! What images need of a store: names under a lock, room on disk, what layers say, and what goes with a name.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kiln_core::{Digest, ImageRef, Layer, Snapshot};
use kiln_store::{Ids, Parts, PruneOptions, RecordKind, Room, Said, Store};
use support::{PLAIN, store, tar, unpack};

fn du(paths: &[&Path]) -> u64 {
    let mut du = std::process::Command::new("du");
    let output = du.args(["-s", "-c", "--block-size=1"]).args(paths).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().last().unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn room_is_what_du_says_each_file_once() {
    let (_dir, store) = store(Ids::Full);
    let base = unpack(&store, &tar("dir d 755\nfile d/a 644 base\nhard d/b => d/a")).unwrap();
    let make = |name: &str, shared: bool| {
        let layer = store.begin_layer(&Snapshot { layers: vec![base.clone()] }).unwrap();
        std::fs::write(layer.upper().join(name), vec![1; 50_000]).unwrap();
        if shared {
            // As unchanged files of copies are shared.
            std::fs::hard_link(store.layer_dir(&base).join("d/a"), layer.upper().join("linked")).unwrap();
        }
        layer.commit().unwrap().unwrap()
    };
    let (one, two, three) = (make("one", false), make("two", true), make("three", true));
    let common = store.put_blob(&[1; 9000]).unwrap();
    let own = store.put_blob(&[2; 5000]).unwrap();
    let parts = |blobs: &[Digest], layers: &[&kiln_core::LayerId]| Parts {
        blobs: blobs.iter().copied().collect(),
        layers: layers.iter().copied().cloned().collect(),
    };
    let dir = |layer: &kiln_core::LayerId| store.layer_dir(layer).parent().unwrap().to_owned();
    let (blob, own_blob) = (store.blob_path(&common), store.blob_path(&own));
    let rooms = store
        .room_of(&[
            parts(&[common, own], &[&base, &one]),
            parts(&[common, Digest::of(b"nowhere")], &[&base, &two]),
            parts(&[], &[&three]),
        ])
        .unwrap();
    let of = |paths: &[&Path]| du(paths);
    let linked = of(&[&store.layer_dir(&base).join("d/a")]);
    assert_eq!(rooms[0].size, of(&[&blob, &own_blob, &dir(&base), &dir(&one)]));
    assert_eq!(rooms[0].shared, of(&[&blob, &dir(&base)]));
    assert_eq!(rooms[0].unique(), of(&[&own_blob, &dir(&one)]));
    assert_eq!(
        rooms[1].size,
        of(&[&blob, &dir(&base), &dir(&two)]),
        "a file with a name in both counts once"
    );
    assert_eq!(rooms[1].shared, of(&[&blob, &dir(&base)]));
    assert_eq!(rooms[2], Room { size: of(&[&dir(&three)]), shared: linked });
    assert_eq!(store.room_of(&[]).unwrap(), []);
}

#[test]
fn what_a_layer_says_is_the_same_from_its_directory_and_from_its_blob() {
    let (_dir, store) = store(Ids::Full);
    let bytes = tar(
        "dir d 755\nfile d/a 644 four\nhard d/b => d/a\nlink l -> d/a\nfifo p 600\ndir e 755\nfile e/.wh..wh..opq 644\n\
         file e/new 644 n\nfile .wh.gone 644\nfile d/.wh.deep 644\nfile .wh..wh.plnk 644\nfile ./f 644 x",
    );
    let diff_id = Digest::of(&bytes);
    let (media_type, size) = (PLAIN.to_owned(), bytes.len() as u64);
    let layer = Layer { media_type, digest: diff_id, size, diff_id, annotations: Default::default() };
    let mut of_blob = BTreeMap::new();
    store
        .list_blob(&layer, &bytes[..], &mut |path, said| {
            of_blob.entry(String::from_utf8(path.to_vec()).unwrap()).or_insert_with(Vec::new).push(said);
        })
        .unwrap();
    let id = unpack(&store, &bytes).unwrap();
    let mut of_files = BTreeMap::new();
    store
        .list_layer(&id, &mut |path, said| {
            of_files.entry(String::from_utf8(path.to_vec()).unwrap()).or_insert_with(Vec::new).push(said);
        })
        .unwrap();
    assert_eq!(of_blob["e"], [Said::Directory, Said::Opaque]);
    assert_eq!(of_blob["gone"], [Said::Deleted]);
    assert_eq!(of_blob["d/deep"], [Said::Deleted]);
    assert_eq!(of_blob["f"], [Said::File { size: 1 }]);
    assert_eq!((&of_blob["l"], &of_blob["p"]), (&vec![Said::Other], &vec![Said::Other]));
    assert_eq!(of_blob["d/b"], [Said::HardLink { target: b"d/a".to_vec() }]);
    assert_eq!(of_blob, of_files);
}

#[test]
fn a_name_is_taken_away_only_while_it_means_that() {
    let (_dir, store) = store(Ids::Full);
    let name: ImageRef = "demo".parse().unwrap();
    let (old, new) = (store.put_blob(b"old").unwrap(), store.put_blob(b"new").unwrap());
    store.tag(&name, &old).unwrap();
    store.tag(&name, &new).unwrap();
    assert!(!store.untag_if(&name, &old).unwrap());
    assert_eq!(store.image(&name).unwrap().map(|tagged| tagged.digest), Some(new));
    assert!(store.untag_if(&name, &new).unwrap());
    assert!(!store.untag_if(&name, &new).unwrap());
    // What is not there gets no name.
    let gone = store.tag(&name, &Digest::of(b"gone"));
    assert!(matches!(gone, Err(kiln_store::StoreError::NoBlob { .. })), "{gone:?}");
    assert_eq!(store.image(&name).unwrap(), None);
    assert_eq!(store.fsck().unwrap(), []);
}

/// An index of a manifest of a configuration and a layer's blob.
fn image(store: &Store, text: &str) -> [Digest; 4] {
    let layer = store.put_blob(format!("layer of {text}").as_bytes()).unwrap();
    let config = store.put_blob(format!("{{\"text\":\"{text}\"}}").as_bytes()).unwrap();
    let manifest = format!("{{\"config\":\"{config}\",\"layers\":[\"{layer}\"]}}");
    let manifest = store.put_blob(manifest.as_bytes()).unwrap();
    let index = store.put_blob(format!("{{\"manifests\":[\"{manifest}\"]}}").as_bytes()).unwrap();
    [index, manifest, config, layer]
}

#[test]
fn all_of_an_image_goes_at_once_but_what_something_else_needs() {
    let (_dir, store) = store(Ids::Full);
    let (first, second) = (image(&store, "first"), image(&store, "second"));
    let there = |digests: &[Digest; 4]| digests.map(|digest| store.blob_path(&digest).exists());
    store.tag(&"second".parse().unwrap(), &second[0]).unwrap();
    // What a step's record needs stays.
    store.put_record(RecordKind::LayerBlob, "made", &first[3]).unwrap();
    let only = |digests: &[Digest]| PruneOptions {
        only: Some(digests.iter().copied().collect::<BTreeSet<_>>()),
        ..PruneOptions::default()
    };
    store.prune(&only(&second)).unwrap();
    assert_eq!((there(&first), there(&second)), ([true; 4], [true; 4]), "the one that has a name");
    {
        let _pin = store.pin().unwrap();
        assert!(store.has_blob(&first[0]));
        store.prune(&only(&first)).unwrap();
        assert_eq!(there(&first), [true; 4], "a build found it");
    }
    store.prune(&only(&first)).unwrap();
    assert_eq!((there(&first), there(&second)), ([false, false, false, true], [true; 4]));
    store.delete_record(RecordKind::LayerBlob, "made").unwrap();
    store.untag(&"second".parse().unwrap()).unwrap();
    store.prune(&PruneOptions::default()).unwrap();
    assert_eq!((there(&first), there(&second)), ([false; 4], [false; 4]), "by default all of it, too");
    assert_eq!(store.fsck().unwrap(), []);
}
