//! Cache mounts that travel over what fails: full disks, registries that die, damaged packs, odd ids.

use std::fs;
use std::path::Path;

use kiln_testkit::registry::{FakeRegistry, Fault};

use crate::carry::{FILL, noise};
use crate::place::{Place, Ran};
use crate::small::Small;
use crate::user::for_each_user;

/// A cache with a file of which a pack is made that nothing makes smaller.
fn with_large(place: &Place, name: &str, seed: u64) {
    place.cached("one", name, &noise(3_000_000, seed));
}

fn pack(place: &Place, dir: &str) -> std::path::PathBuf {
    let blobs = fs::read_dir(place.path(dir).join("blobs/sha256")).expect("it is there").flatten();
    blobs.max_by_key(|blob| blob.metadata().expect("it is there").len()).expect("there is one").path()
}

fn half_made(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).expect("it is there").flatten().map(|entry| entry.file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(".kiln-")).collect()
}

fn is_full(ran: &Ran) {
    assert!(ran.code == Some(3) && ran.stderr.to_lowercase().contains("no space left"), "{ran}");
}

#[test]
fn a_registry_that_does_not_answer_keeps_no_step_from_its_cache() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        let place = Place::with(user, FILL);
        place.build_on("store", &[]).ok();
        let there = format!("docker://{}/c:main", registry.host());
        registry.fault("/blobs/uploads/", 1000, Fault::Mute);
        let export = place.spawn(&mut place.command(&["cache", "export", "c", "--to", &there]));
        // It has read the cache: the pack is on its way.
        while !registry.seen().iter().any(|seen| format!("{seen:?}").contains("/blobs/uploads/")) {
            std::thread::yield_now();
        }
        place.base("RUN --mount=type=cache,id=c,target=/c,sharing=locked echo two > /c/a\n");
        place.build(&[]).ok();
        export.signal(rustix::process::Signal::TERM);
        assert_ne!(export.wait().code, Some(0));
        place.is_quiet();
    });
}

#[test]
fn a_disk_that_is_full_ends_an_export_and_loses_nothing() {
    for_each_user(|user| {
        let place = Place::with(user, FILL);
        place.build_on("one", &[]).ok();
        let Some(small) = Small::mount(&place, "size=2m") else { return };
        for to in ["oci:small/dir", "oci-archive:small/file.tar"] {
            place.export("one", to);
        }
        with_large(&place, "large", 1);
        for (to, dir) in [("oci:small/dir", "small/dir"), ("oci-archive:small/file.tar", "small")] {
            let args = ["cache", "export", "c", "--to", to];
            is_full(&place.on("one", &args));
            assert_eq!(half_made(&place.path(dir)), [] as [String; 0], "{to}");
            let store = format!("before-{}", dir.len());
            place.on(&store, &["cache", "import", "--from", to]).ok();
            let path = place.cache_path(&store, "c");
            assert!(path.join("a").exists() && !path.join("large").exists(), "{to}");
        }
        small.remount("size=40m");
        for (to, store) in [("oci:small/dir", "three"), ("oci-archive:small/file.tar", "four")] {
            place.export("one", to);
            place.on(store, &["cache", "import", "--from", to]).ok();
            assert!(fs::read(place.cache_path(store, "c").join("large")).unwrap() == noise(3_000_000, 1));
        }
    });
}

#[test]
fn a_disk_that_is_full_ends_an_import_and_changes_no_cache() {
    for_each_user(|user| {
        let place = Place::with(user, FILL);
        place.build_on("one", &[]).ok();
        with_large(&place, "large", 2);
        place.export("one", "oci:dir");
        let Some(small) = Small::mount(&place, "size=2m") else { return };
        let import =
            || Ran::of(&mut place.command_on("small/store", &["cache", "import", "--from", "oci:dir"]));
        // It is known before anything is written.
        import().code(3).says(&["bytes", "are free where caches are"]);
        // Where room is only seen to be missing when it is: there may be so many files, and more directories.
        small.remount("size=40m,nr_inodes=60");
        place.cached("one", "d", b"");
        for number in 0..100 {
            place.cached("one", &format!("small-{number}"), b"x");
        }
        place.export("one", "oci:dir");
        is_full(&import());
        let listed = place.on("small/store", &["cache", "ls", "-q"]).ok().out();
        assert!(listed.is_empty(), "{listed}");
        small.remount("size=40m,nr_inodes=1000");
        import().ok();
        assert!(place.cache_path("small/store", "c").join("small-99").exists());
        place.on("small/store", &["debug", "fsck"]).ok();
    });
}

#[test]
fn a_registry_that_breaks_off_is_gone_on_with_or_nothing_has_changed() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        let place = Place::with(user, FILL);
        let there = format!("docker://{}/c:main", registry.host());
        place.build_on("one", &[]).ok();
        place.export("one", &there);
        with_large(&place, "large", 3);
        let export = || place.on("one", &["cache", "export", "c", "--to", &there]);
        registry.fault("PUT /v2/c/blobs/", 1000, Fault::DropAll(1000));
        export().code(4);
        place.on("before", &["cache", "import", "--from", &there]).ok();
        assert!(!place.cache_path("before", "c").join("large").exists());
        drop(registry);

        let registry = FakeRegistry::start();
        let there = format!("docker://{}/c:main", registry.host());
        registry.fault("PUT /v2/c/blobs/", 1, Fault::Drop(100_000));
        place.on("one", &["cache", "export", "c", "--to", &there]).ok();
        let import = |store: &str| place.on(store, &["cache", "import", "--from", &there]);
        registry.fault("GET /v2/c/blobs/", 2, Fault::Cut(100_000));
        import("two").ok();
        assert!(fs::read(place.cache_path("two", "c").join("large")).unwrap() == noise(3_000_000, 3));
        registry.fault("GET /v2/c/blobs/", 1000, Fault::Cut(10));
        import("three").code(4);
        let listed = place.on("three", &["cache", "ls", "-q"]).ok().out();
        assert!(listed.is_empty(), "{listed}");
        place.on("three", &["debug", "fsck"]).ok();
    });
}

#[test]
fn a_registry_that_dies_in_the_middle_loses_nothing() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        let place = Place::with(user, FILL);
        let there = format!("docker://{}/c:main", registry.host());
        place.build_on("one", &[]).ok();
        place.export("one", &there);
        place.cached("one", "big", &noise(300_000, 7));
        registry.fault("PUT", 100, Fault::Status { status: 403, headers: vec![], body: String::new() });
        place.on("one", &["cache", "export", "c", "--to", &there]).code(4);
        // What was there is there still.
        place.on("two", &["cache", "import", "--from", &there]).ok();
        assert!(place.cache_path("two", "c").join("a").exists());
        assert!(!place.cache_path("two", "c").join("big").exists());
    });
}

/// `ulimit -f`: a write fails like one on a full disk, and kiln says so instead of dying of the signal.
#[test]
fn a_file_that_may_not_grow_ends_an_export_and_a_build_and_loses_nothing() {
    for_each_user(|user| {
        let place = Place::with(user, FILL);
        place.build_on("one", &[]).ok();
        with_large(&place, "large", 1);
        let limited = |store: &str, args: &[&str]| {
            let kiln = place.text("kiln");
            Ran::of(&mut place.as_user(
                "prlimit",
                store,
                &[&["--fsize=524288", kiln.as_str()], args].concat(),
            ))
        };
        for (to, dir) in [("oci:images", "images"), ("oci-archive:file.tar", "")] {
            limited("one", &["cache", "export", "c", "--to", to])
                .code(3)
                .says(&["ile too large", "`ulimit -f`"]);
            assert_eq!(half_made(&place.path(dir)), [] as [String; 0], "{to}");
            place.export("one", to);
        }
        limited("two", &["cache", "import", "--from", "oci:images"]).code(3).says(&["ile too large"]);
        place.on("two", &["cache", "import", "--from", "oci:images"]).ok();
        assert!(fs::read(place.cache_path("two", "c").join("large")).unwrap() == noise(3_000_000, 1));
        // Busybox is larger.
        let ran = limited("three", &["build", "--progress=plain", "context"]);
        assert!(ran.code.is_some_and(|code| code == 2 || code == 3), "{ran}");
        ran.says(&["ile too large", "`ulimit -f`"]);
        place.build_on("three", &[]).ok();
        for store in ["one", "two", "three"] {
            place.on(store, &["debug", "fsck"]).ok().says(&["0 problems"]);
        }
        place.is_quiet();
    });
}

#[test]
fn a_damaged_pack_of_a_directory_is_replaced_by_the_next_export() {
    for_each_user(|user| {
        let place = Place::with(user, FILL);
        place.build_on("one", &[]).ok();
        with_large(&place, "large", 4);
        place.export("one", "oci:dir");
        let import = |store: &str| place.on(store, &["cache", "import", "--from", "oci:dir"]);
        let whole = || fs::read(place.cache_path("one", "c").join("large")).unwrap();
        for (round, cut) in [(0, true), (1, false)] {
            let pack = pack(&place, "dir");
            let mut bytes = fs::read(&pack).unwrap();
            if cut {
                // Seen without reading it.
                bytes.truncate(1000);
                fs::write(&pack, bytes).unwrap();
            } else {
                bytes[1000] ^= 1;
                fs::write(&pack, bytes).unwrap();
                import("damaged").code(2).says(&["digest"]);
            }
            let again = place.export("one", "oci:dir");
            assert!(again["moved"].as_u64().unwrap() > 2_900_000, "{again}");
            let store = format!("healed-{round}");
            import(&store).ok();
            assert!(fs::read(place.cache_path(&store, "c").join("large")).unwrap() == whole());
            assert_eq!(half_made(&place.path("dir")), [] as [String; 0]);
        }
    });
}

#[test]
fn a_place_that_may_only_be_read_is_named() {
    for_each_user(|user| {
        let place = Place::with(user, FILL);
        place.build_on("one", &[]).ok();
        let Some(small) = Small::mount(&place, "size=4m") else { return };
        place.export("one", "oci:small/dir");
        with_large(&place, "more", 5);
        small.remount("ro");
        for to in ["oci:small/dir", "oci:small/new", "oci-archive:small/file.tar"] {
            let ran = place.on("one", &["cache", "export", "c", "--to", to]).code(3);
            let said = ran.stderr.to_lowercase();
            assert!(said.contains("small/") && said.contains("read-only file system"), "{to}: {ran}");
        }
        place.on("two", &["cache", "import", "--from", "oci:small/dir"]).ok();
    });
}

#[test]
fn ids_are_names_and_no_paths() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN --mount=type=cache,id=../../up,target=/a --mount=type=cache,id=/a/../b,target=/b \
             --mount=type=cache,id=..,target=/c echo x > /a/f && echo y > /b/f && echo z > /c/f\n",
        );
        place.build_on("one", &[]).ok();
        place.export("one", "oci:dir");
        place.on("two", &["cache", "import", "--from", "oci:dir"]).ok();
        place.base(
            "RUN --mount=type=cache,id=../../up,target=/a --mount=type=cache,id=/a/../b,target=/b \
             --mount=type=cache,id=..,target=/c cat /a/f /b/f /c/f\n",
        );
        place.build_on("two", &[]).ok().prints(&["x", "y", "z"]);
        for id in ["../../up", "/a/../b", ".."] {
            let path = place.cache_path("two", id);
            let real = fs::canonicalize(&path).unwrap();
            assert!(real.starts_with(fs::canonicalize(place.path("two")).unwrap()), "{id}: {real:?}");
            assert_eq!(path.parent().unwrap().parent().unwrap().file_name().unwrap(), "global");
        }
    });
}

/// A volume of a CI runner that is mounted: nothing can be renamed to it, and files come into it all the same.
#[test]
fn an_import_goes_into_a_cache_that_is_a_file_system_of_its_own() {
    for_each_user(|user| {
        let place = Place::with(user, FILL);
        place.build_on("one", &[]).ok();
        with_large(&place, "large", 6);
        place.export("one", "oci:dir");
        let Some(_small) = Small::mount(&place, "size=40m") else { return };
        let volume = place.text("small");
        place.file(
            "home/.config/kiln/config.json",
            &format!(r#"{{"cache_mounts": [{{"id": "c", "path": {volume:?}}}]}}"#),
        );
        place.file("small/a", "older\n");
        let touch = ["-d", "2001-01-01", "small/a"];
        let touched = std::process::Command::new("touch").args(touch).current_dir(place.path("")).status();
        assert!(touched.unwrap().success());
        place.file("small/own", "kept\n");
        place.on("two", &["cache", "import", "--from", "oci:dir"]).ok();
        assert_eq!(
            (place.read("small/a"), place.read("small/own")),
            ("one\n".to_owned(), "kept\n".to_owned())
        );
        assert!(fs::read(place.path("small/large")).unwrap() == noise(3_000_000, 6));
        assert_eq!(half_made(&place.path("small")), [] as [String; 0]);
        // In one step it cannot become what the export says.
        let replace = ["cache", "import", "--replace", "--from", "oci:dir"];
        place.on("two", &replace).code(2).says(&["renaming", "impossible here"]);
        // A build restores into it, too.
        for name in ["a", "large"] {
            fs::remove_file(place.path("small").join(name)).unwrap();
        }
        place.build_on("three", &["--cache-mounts-from", "oci:dir"]).ok().prints(&["WARM", "one"]);
        place.on("three", &["debug", "fsck"]).ok();
    });
}
