//! A blob's second place has the blob's bytes or none of them, and the blob is the same with and without.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use kiln_core::{Cancel, Layer, LayerId, Snapshot};
use kiln_store::{Compression, Ids, LayerOptions, Store, Twin, Waiting};
use support::store;

/// A layer of some blocks that do not get small.
fn layer(store: &Store) -> LayerId {
    let layer = store.begin_layer(&Snapshot::default()).unwrap();
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    fs::write(layer.upper().join("file"), (0..5 << 20).map(|_| next()).collect::<Vec<_>>()).unwrap();
    layer.commit().unwrap().unwrap()
}

fn pack(store: &Store, layer: &LayerId, compression: Compression, twin: Option<Twin>) -> Layer {
    let cancel = Cancel::new();
    let mut waiting = Waiting { doing: "a test", timeout: None, cancel: &cancel, on_wait: &mut |_| () };
    let options = LayerOptions { compression, epoch: Some(1) };
    store.layer_blob_beside(layer, &options, twin, &mut waiting, &mut |_| ()).unwrap()
}

#[test]
fn a_twin_has_all_bytes_or_none_and_the_blob_does_not_depend_on_it() {
    const AT: u64 = 3 << 10;
    for compression in [
        Compression::Gzip { level: 1 },
        Compression::Zstd { level: 1 },
        Compression::Estargz { level: 1 },
        Compression::None,
    ] {
        let (dir, store) = store(Ids::Full);
        let layer = layer(&store);
        let without = pack(&store, &layer, compression, None);
        let bytes = fs::read(store.blob_path(&without.digest)).unwrap();
        let path = dir.path().join("second");
        let file = Arc::new(File::options().read(true).write(true).create_new(true).open(&path).unwrap());
        file.write_all_at(b"before", AT - 6).unwrap();

        let twin = Twin::new(Arc::clone(&file), AT);
        assert_eq!(pack(&store, &layer, compression, Some(twin.clone())), without);
        assert_eq!(twin.written(), 0, "{compression:?}: it was there, and nothing is made twice");

        fs::remove_file(store.blob_path(&without.digest)).unwrap();
        assert_eq!(pack(&store, &layer, compression, Some(twin.clone())), without);
        assert_eq!((twin.at(), twin.written()), (AT, without.size));
        let whole = fs::read(&path).unwrap();
        assert!(whole[usize::try_from(AT).unwrap()..] == bytes, "{compression:?}");
        assert!(whole[..usize::try_from(AT).unwrap()].ends_with(b"before"));

        fs::remove_file(store.blob_path(&without.digest)).unwrap();
        let full = Twin::new(Arc::new(File::options().write(true).open("/dev/full").unwrap()), AT);
        assert_eq!(pack(&store, &layer, compression, Some(full.clone())), without);
        assert_eq!(full.written(), 0, "{compression:?}");
        assert!(fs::read(store.blob_path(&without.digest)).unwrap() == bytes);
    }
}
