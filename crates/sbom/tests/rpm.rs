//! The database that rpm keeps in SQLite.

use std::path::Path;

use kiln_sbom::{Inventory, MemoryTree, inventory};

fn database() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/sbom/rpmdb.sqlite");
    std::fs::read(path).expect("the database is there")
}

fn look(database: Vec<u8>) -> Inventory {
    let mut tree = MemoryTree::default();
    tree.add("etc/os-release", "ID=fedora\nVERSION_ID=40\n");
    tree.add("usr/lib/sysimage/rpm/rpmdb.sqlite", database);
    inventory(&tree)
}

#[test]
fn what_rpm_lists_is_found() {
    let found = look(database());
    assert_eq!(found.notes, []);
    let purls: Vec<String> =
        found.packages.iter().map(|package| package.purl(found.distribution.as_ref())).collect();
    let mut expected = vec![
        "pkg:rpm/fedora/alpha@1.2-3.fc40?arch=noarch&distro=fedora-40&upstream=alpha-1.2-3.fc40.src.rpm"
            .to_owned(),
        "pkg:rpm/fedora/beta@7.0-1?arch=noarch&distro=fedora-40&epoch=2&upstream=beta-7.0-1.src.rpm"
            .to_owned(),
        "pkg:rpm/fedora/long@1-1?arch=noarch&distro=fedora-40&upstream=long-1-1.src.rpm".to_owned(),
    ];
    expected.extend((1..=20).map(|number| {
        let source = format!("many-{number:02}-0.{number:02}-1.src.rpm");
        format!(
            "pkg:rpm/fedora/many-{number:02}@0.{number:02}-1?arch=noarch&distro=fedora-40&upstream={source}"
        )
    }));
    assert_eq!(purls, expected);
    let alpha = &found.packages[0];
    assert_eq!(alpha.licence.as_deref(), Some("GPL-2.0-or-later AND MIT"));
    assert_eq!(alpha.supplier.as_deref(), Some("Example Project"));
    assert_eq!(found.packages[1].version, "2:7.0-1");
}

#[test]
fn a_database_that_is_cut_off_is_noted_and_what_comes_before_is_kept() {
    let whole = database();
    let half = look(whole[..whole.len() / 2].to_vec());
    assert!(!half.packages.is_empty() && half.packages.len() < 23, "{}", half.packages.len());
    assert!(half.notes[0].reason.contains("cut off or damaged"), "{:?}", half.notes);
}

#[test]
fn a_damaged_byte_anywhere_does_no_harm() {
    let whole = database();
    for at in (0..whole.len()).step_by(37) {
        for value in [0, 0x7f, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] = value;
            look(damaged);
        }
    }
}

#[test]
fn changes_in_a_log_are_noted() {
    let mut tree = MemoryTree::default();
    tree.add("var/lib/rpm/rpmdb.sqlite", database());
    tree.add("usr/lib/sysimage/rpm/rpmdb.sqlite", database());
    tree.add("var/lib/rpm/rpmdb.sqlite-wal", "changes");
    let found = inventory(&tree);
    assert_eq!(found.packages.len(), 23);
    assert_eq!(found.packages[0].found_in.len(), 1, "one place of two with the same database");
    assert_eq!(found.notes.len(), 1);
    assert!(found.notes[0].reason.contains("write-ahead log"));
}
