use kiln_core::Snapshot;
use kiln_store::{Ids, Store};
use kiln_testkit::{SnapshotMaker, cache_index_conformance};

use super::StoreIndex;

/// Makes real layers of one file each.
struct Layers<'a>(&'a Store);

impl SnapshotMaker for Layers<'_> {
    fn make(&self, over: &Snapshot) -> Snapshot {
        let layer = self.0.begin_layer(over).expect("a layer");
        std::fs::write(layer.upper().join("file"), "content").expect("a file");
        over.with(layer.commit().expect("a commit").expect("a change"))
    }

    fn remove(&self, snapshot: &Snapshot) {
        let tree = self.0.layer_dir(snapshot.layers.last().expect("a layer"));
        std::fs::remove_dir_all(tree.parent().expect("a layer's directory")).expect("removed");
    }
}

#[test]
fn the_store_is_a_cache_index() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), Ids::Single).expect("a store");
    let open = || StoreIndex::new(&store, 1_700_000_000);
    cache_index_conformance(&open, &Layers(&store));
}
