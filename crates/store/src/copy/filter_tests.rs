//! `--exclude` and `--parents`: where what is left goes, and what directories on the way look like.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, UNIX_EPOCH};

use kiln_core::Selection;

use super::tests::{World, listing};
use super::*;

#[test]
fn excludes_and_parents_decide_what_goes_where() {
    let source = ["f.txt=1", "g=2", "d/a.txt=3", "d/sub/b=4", "d/sub/c.txt=5", "e/sub/b=6"];
    let exclude = |path: &str, pattern: &str| Selection {
        exclude: vec![pattern.to_owned()],
        ..Selection::wildcard(path)
    };
    let parents =
        |path: &str, pivot: &str| Selection { parents: Some(pivot.to_owned()), ..Selection::wildcard(path) };
    // Selections, destination, what the layer then holds.
    let table: [(&[Selection], &str, &[&str]); 12] = [
        (&[exclude("d", "*.txt")], "/x", &["x/", "x/sub/", "x/sub/b=4", "x/sub/c.txt=5"]),
        (&[exclude("d", "sub")], "/etc/", &["etc/", "etc/a.txt=3"]),
        // A directory without anything left is made, a file that is left out or a wildcard without a match makes none.
        (&[exclude("d", "*")], "/x", &["x/"]),
        (&[exclude("f.txt", "*.txt")], "/x/", &[]),
        (&[exclude("*.txt", "f*")], "/x/", &[]),
        (&[Selection::wildcard("nosuch*")], "/x/", &[]),
        (&[parents("d/sub/b", "")], "/x/", &["x/", "x/d/", "x/d/sub/", "x/d/sub/b=4"]),
        (&[parents("d/sub/b", "d")], "/x", &["x/", "x/sub/", "x/sub/b=4"]),
        (&[parents("**/b", "")], "/", &["d/", "d/sub/", "d/sub/b=4", "e/", "e/sub/", "e/sub/b=6"]),
        // With its parents the pivot is copied, so the destination is made.
        (&[parents("nosuch*", "")], "/x/", &["x/"]),
        (&[parents("nosuch*/x", "nosuch*")], "/x/", &[]),
        (
            &[parents("*/sub/b", "*"), parents("f.txt", "")],
            "/x/",
            &["x/", "x/f.txt=1", "x/sub/", "x/sub/b=6"],
        ),
    ];
    for (selections, dest, expected) in table {
        let world = World::new(&source, &["etc/"]);
        let inputs: Vec<CopyInput> =
            selections.iter().map(|selection| world.selected(selection).unwrap()).collect();
        world.copy_inputs(&inputs, dest, |_| {}, None).unwrap();
        assert_eq!(listing(&world.at("layer")), expected, "{selections:?} to {dest}");
    }
}

#[test]
fn parents_are_like_the_sources_unless_they_are_there() {
    let world = World::new(&["new/dir/f=1", "there/dir/f=1"], &["there/dir/old=0"]);
    let set = |path: &str, mode, secs| {
        fs::set_permissions(world.at(path), PermissionsExt::from_mode(mode)).unwrap();
        File::open(world.at(path)).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(secs)).unwrap();
    };
    for name in ["new", "there"] {
        set(&format!("source/{name}/dir"), 0o750, 1001);
        set(&format!("source/{name}"), 0o710, 1002);
    }
    set("parent/there/dir", 0o700, 2001);
    set("parent/there", 0o777, 2002);
    let selection = Selection { parents: Some(String::new()), ..Selection::wildcard("*/dir/f") };
    world.copy_inputs(&[world.selected(&selection).unwrap()], "/", |_| {}, None).unwrap();
    let stat = |path: &str| {
        let stat = fs::metadata(world.at("layer").join(path)).unwrap();
        (stat.mode() & 0o7777, stat.mtime())
    };
    assert_eq!((stat("new"), stat("new/dir")), ((0o710, 1002), (0o750, 1001)));
    // What is there keeps its time and its owner; its mode becomes the source's.
    assert_eq!((stat("there"), stat("there/dir")), ((0o710, 2002), (0o750, 2001)));

    let world = World::new(&["new/dir/f=1"], &[]);
    let input = world.selected(&selection).unwrap();
    world.copy_inputs(&[input], "/", |rules| rules.chmod = Some(Chmod::Octal(0o705)), None).unwrap();
    let mode = |path: &str| fs::metadata(world.at("layer").join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("new"), mode("new/dir"), mode("new/dir/f")), (0o705, 0o705, 0o705));
}
