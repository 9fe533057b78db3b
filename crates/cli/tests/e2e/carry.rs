//! Cache mounts that travel: `kiln cache export` and `import`, `--cache-mounts-from` and `--cache-mounts-to`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use kiln_testkit::random::Random;
use kiln_testkit::registry::{Access, FakeRegistry, Fault};
use serde_json::Value;

use crate::place::{Place, Ran};
use crate::user::for_each_user;

/// A step that fills a cache if it is empty, and says which of the two it found.
pub(crate) const FILL: &str = "RUN --mount=type=cache,id=c,target=/c if test -e /c/a; then echo WARM; cat /c/a; \
    else echo COLD; echo one > /c/a; fi\n";

impl Place {
    pub(crate) fn on(&self, store: &str, args: &[&str]) -> Ran {
        Ran::of(&mut self.command_on(store, args))
    }

    pub(crate) fn build_on(&self, store: &str, args: &[&str]) -> Ran {
        Ran::of(&mut self.build_command(store, args))
    }

    /// Exports all caches of a store and returns what kiln said of it.
    pub(crate) fn export(&self, store: &str, to: &str) -> Value {
        let args = ["cache", "export", "--all", "--json", "--progress=quiet", "--to", to];
        serde_json::from_str(&self.on(store, &args).ok().out()).expect("it is JSON")
    }

    /// Puts a file into the one cache of a store.
    pub(crate) fn cached(&self, store: &str, name: &str, bytes: &[u8]) {
        let path = self.cache_path(store, "c").join(name);
        fs::write(&path, bytes).expect("it is there");
        let (uid, gid) = self.user.ids();
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).expect("root may");
    }

    pub(crate) fn cache_path(&self, store: &str, id: &str) -> std::path::PathBuf {
        let path = self.on(store, &["cache", "path", id]).ok().out();
        path.trim_end().into()
    }
}

/// Bytes that nothing makes smaller.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    Random(seed).bytes(length)
}

/// <https://github.com/moby/buildkit/issues/6900>: extract caches, and seed a machine with them. FIELD P1.
#[test]
fn buildkit_6900_a_cache_arrives_as_it_was_wherever_it_goes() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        let place = Place::with(
            user,
            "RUN --mount=type=cache,id=c,target=/c mkdir -p /c/d/empty && echo one > /c/d/a && chown 5:6 /c/d/a \
             && chmod 4750 /c/d/a && ln /c/d/a /c/hard && ln -s ../nowhere /c/d/link && mkfifo /c/pipe && : > /c/zero \
             && touch -d '2001-02-03 04:05:06' /c/d/a /c/d/empty && chmod 1777 /c/d && chmod 0711 /c\n",
        );
        place.build_on("one", &[]).ok();
        let of = if user.has_range() || user == crate::user::User::Plain { "5:6" } else { "0:0" };
        let there = format!("docker://{}/c:main", registry.host());
        for to in ["oci:dir", "oci-archive:file.tar", &there] {
            place.export("one", to);
        }
        fs::write(place.path("piped.tar"), place.on("one", &["cache", "export", "c"]).ok().stdout).unwrap();
        place.own("piped.tar");
        let same = format!("it is 4750:{of}:981173106");
        place.base(
            "RUN --mount=type=cache,id=c,target=/c stat -c 'it is %a:%u:%g:%Y' /c/d/a && test $(stat -c %i /c/d/a) = $(stat -c %i /c/hard) && test $(readlink /c/d/link) = ../nowhere \
             && test -p /c/pipe && test -e /c/zero && test ! -s /c/zero && test $(stat -c %a:%Y /c/d/empty) = 755:981173106 \
             && test $(stat -c %a /c/d) = 1777 && test $(stat -c %a /c) = 711\n",
        );
        for (store, from) in [("two", "oci:dir"), ("three", "oci-archive:file.tar"), ("four", &there)] {
            place.on(store, &["cache", "import", "--from", from]).ok();
            place.build_on(store, &[]).ok().prints(&[&same]);
        }
        let mut piped = place.command_on("five", &["cache", "import"]);
        Ran::of(piped.stdin(fs::File::open(place.path("piped.tar")).unwrap())).ok();
        place.build_on("five", &[]).ok().prints(&[&same]);
    });
}

#[test]
fn a_second_export_reads_and_moves_what_changed() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        let place = Place::with(user, FILL);
        place.build_on("one", &[]).ok();
        place.cached("one", "big", &noise(3_000_000, 1));
        let there = format!("docker://{}/c:main", registry.host());
        for to in ["oci:dir", &there] {
            let first = place.export("one", to);
            assert!(first["moved"].as_u64().unwrap() > 3_000_000, "{first}");
            place.cached("one", "more", &noise(100_000, to.len() as u64));
            let second = place.export("one", to);
            assert!(second["moved"].as_u64().unwrap() < 110_000, "{second}");
            let third = place.export("one", to);
            assert_eq!(third["generation"], Value::Null, "{third}");
        }
        // What was imported is known, too: nothing is packed again where it came from.
        place.on("two", &["cache", "import", "--from", "oci:dir"]).ok();
        let back = place.export("two", "oci:dir");
        assert_eq!(back["generation"], Value::Null, "{back}");
    });
}

/// <https://github.com/moby/buildkit/issues/1474>: cache mounts are lost on workers that begin with nothing. The same wish was told to
/// <https://github.com/docker/buildx/issues/244>, <https://github.com/earthly/earthly/issues/2969> (one cache, and not all that the
/// builder has), <https://github.com/dagger/dagger/issues/1345>, <https://github.com/dagger/dagger/issues/6911>,
/// <https://github.com/concourse/oci-build-task/issues/87>; and to <https://github.com/moby/moby/issues/40603>, where an image was
/// to bring them along. <https://github.com/evcc-io/evcc/issues/32700> does it with two more builds. FIELD P1.
#[test]
fn buildkit_1474_ci_that_begins_with_nothing_builds_warm() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        let place = Place::with(user, FILL);
        let there = format!("{}/app/caches:main", registry.host());
        let flags = ["--cache-mounts-from", &there, "--cache-mounts-to", &there];
        place
            .build_on("one", &flags)
            .ok()
            .prints(&["COLD"])
            .says(&["no cache mount", "exported cache mount c"]);
        let warm = place.build_on("two", &flags).ok().prints(&["WARM", "one"]);
        let warm = warm.says(&["restored cache mount c", "steps read 4 B of it, 100 %", "nothing to export"]);
        drop(warm);
        // Only what the build uses is restored, and only of these ids.
        let asked = registry.lines();
        place.base("RUN echo none\n");
        place.build_on("three", &flags).ok().lacks(&["restor"]);
        assert!(!asked.is_empty() && registry.lines().is_empty());
        place.base(FILL);
        place.build_on("four", &["--cache-mounts-from", &format!("{there},id=other")]).ok().prints(&["COLD"]);
    });
}

#[test]
fn the_first_source_that_has_a_cache_is_taken() {
    for_each_user(|user| {
        let place = Place::with(user, FILL);
        place.build_on("one", &["--cache-mounts-to", "oci:dir:main"]).ok();
        let flags = ["--cache-mounts-from", "oci:dir:branch", "--cache-mounts-from", "oci:dir:main"];
        place.build_on("two", &flags).ok().prints(&["WARM"]);
    });
}

#[test]
fn a_failed_restore_fails_no_build_unless_asked() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        let place = Place::with(user, FILL);
        let there = format!("{}/c:main", registry.host());
        place.build_on("one", &["--cache-mounts-to", &there]).ok();
        registry.fault("/blobs/", 100, Fault::Status { status: 403, headers: vec![], body: String::new() });
        let ran = place.build_on("two", &["--cache-mounts-from", &there]).ok();
        ran.prints(&["COLD"]).says(&["cannot be restored", "the build goes on without"]);
        let required = ["--cache-mounts-required", "--cache-mounts-from", &there];
        place.build_on("three", &required).code(4).says(&["denies access"]);
        let nothing = ["--cache-mounts-required", "--cache-mounts-from", "oci:nothing"];
        place.build_on("three", &nothing).code(2).says(&["oci:nothing"]);
        // The image is there all the same if its caches cannot be saved.
        registry.access(Access::ReadOnly);
        let ran = place.build_on("two", &["-t", "built", "--no-cache", "--cache-mounts-to", &there]).ok();
        ran.says(&["the image is built, but cache mounts are not exported"]);
    });
}

#[test]
fn writers_at_one_time_lose_nothing() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        let place = Place::with(user, FILL);
        let there = format!("docker://{}/c:main", registry.host());
        let stores = ["one", "two", "three"];
        for (number, store) in (1..).zip(stores) {
            place.build_on(store, &[]).ok();
            place.cached(store, store, &noise(50_000, number));
        }
        for to in [there.as_str(), "oci:dir"] {
            let export = |store: &&str| {
                let mut command = place.command_on(store, &["cache", "export", "--all", "--to", to]);
                command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("kiln starts")
            };
            let running: Vec<_> = stores.iter().map(export).collect();
            for child in running {
                let output = child.wait_with_output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
            let store = format!("reader-{}", to.len());
            place.on(&store, &["cache", "import", "--from", to]).ok();
            for file in stores {
                assert!(place.cache_path(&store, "c").join(file).exists(), "{to} lacks {file}");
            }
            // One of them, whole.
            let newest = format!("newest-{}", to.len());
            place.on(&newest, &["cache", "import", "--strategy=newest", "--from", to]).ok();
            let path = place.cache_path(&newest, "c");
            assert_eq!(stores.iter().filter(|file| path.join(file).exists()).count(), 1, "{to}");
        }
    });
}

#[test]
fn an_import_keeps_what_is_newer_unless_it_is_to_replace() {
    for_each_user(|user| {
        let place = Place::with(user, FILL);
        place.build_on("one", &[]).ok();
        for name in ["old", "new", "theirs"] {
            place.cached("one", name, b"exported");
        }
        place.export("one", "oci:dir");
        place.build_on("two", &[]).ok();
        let touch = |name: &str, date: &str| {
            place.cached("two", name, b"here");
            let path = place.cache_path("two", "c").join(name);
            assert!(Command::new("touch").arg("-d").arg(date).arg(path).status().unwrap().success());
        };
        touch("old", "2001-01-01");
        touch("new", "2101-01-01");
        touch("ours", "2001-01-01");
        let read =
            |name: &str| fs::read_to_string(place.cache_path("two", "c").join(name)).unwrap_or_default();
        place.on("two", &["cache", "import", "--from", "oci:dir"]).ok();
        let merged = ["old", "new", "theirs", "ours"].map(read);
        assert_eq!(merged, ["exported", "here", "exported", "here"]);
        place.on("two", &["cache", "import", "--replace", "--from", "oci:dir"]).ok();
        let replaced = ["old", "new", "theirs", "ours"].map(read);
        assert_eq!(replaced, ["exported", "exported", "exported", ""]);
        Ran::of(&mut place.command_on("two", &["debug", "fsck"])).ok();
    });
}

/// A step that made a link in its cache must not lead an import out of it.
#[test]
fn an_import_never_follows_a_link_of_the_cache() {
    for_each_user(|user| {
        let place =
            Place::with(user, "RUN --mount=type=cache,id=c,target=/c mkdir /c/d && echo x > /c/d/f\n");
        place.build_on("one", &[]).ok();
        place.export("one", "oci:dir");
        place.directory("outside");
        let outside = place.text("outside");
        place.base(&format!("RUN --mount=type=cache,id=c,target=/c ln -s {outside} /c/d\n"));
        place.build_on("two", &[]).ok();
        place.on("two", &["cache", "import", "--from", "oci:dir"]).ok().says(&["is no directory here"]);
        assert_eq!(fs::read_dir(place.path("outside")).unwrap().count(), 0);
    });
}

#[test]
fn an_import_waits_for_a_step_that_uses_the_cache() {
    for_each_user(|user| {
        let place = Place::with(user, FILL);
        place.build_on("one", &["--cache-mounts-to", "oci:dir"]).ok();
        place.base(
            "RUN --mount=type=cache,id=c,target=/c echo in; while test ! -e /c/go; do sleep 0.05; done\n",
        );
        let mut build = place.start(&[]);
        assert!(build.until(" in"));
        let mut import =
            place.spawn(&mut place.command(&["cache", "import", "--progress=plain", "--from", "oci:dir"]));
        assert!(import.until("the import waits for cache \"c\""), "{}", import.seen);
        place.cached("store", "go", b"");
        build.wait().ok();
        import.wait().ok();
        assert!(place.cache_path("store", "c").join("a").exists());
    });
}

#[test]
fn what_is_damaged_or_foreign_is_named_and_changes_nothing() {
    for_each_user(|user| {
        let place = Place::with(user, FILL);
        place.build_on("one", &["-t", "image"]).ok();
        place.cached("one", "big", &noise(300_000, 7));
        place.export("one", "oci:dir");
        let blobs = || fs::read_dir(place.path("dir/blobs/sha256")).unwrap().flatten();
        let pack = blobs().max_by_key(|entry| entry.metadata().unwrap().size()).unwrap().path();
        let whole = fs::read(&pack).unwrap();
        let import = |from: &str| place.on("two", &["cache", "import", "--from", from]);
        let mut bad = whole.clone();
        bad[1000] ^= 1;
        for (bytes, words) in [(&bad[..], "digest"), (&whole[..5000], "bytes")] {
            fs::write(&pack, bytes).unwrap();
            import("oci:dir").code(2).says(&[words]);
            assert!(
                place
                    .on("two", &["cache", "ls", "-q"])
                    .ok()
                    .out()
                    .lines()
                    .all(|id| { fs::read_dir(place.cache_path("two", id)).unwrap().count() == 0 })
            );
        }
        fs::remove_file(&pack).unwrap();
        import("oci:dir").code(3).says(&["no such file"]);
        fs::write(&pack, &whole).unwrap();
        import("oci:dir").ok();

        place.on("one", &["save", "-o", "oci.tar", "--format=oci", "image"]);
        place.file("text.tar", "hello");
        place.file("other/file", "hello");
        import("oci-archive:text.tar").code(2).says(&["text.tar"]);
        import("oci:other").code(2).says(&["other files"]);
        import("oci-archive:none.tar").code(3).says(&["none.tar"]);
        import("oci:none").code(2).says(&["no cache mounts at oci:none", "cache export"]);
        import("oci:dir:other").code(2).says(&["no cache mounts"]);
        place
            .on("two", &["cache", "import", "nothing", "--from", "oci:dir"])
            .code(2)
            .says(&["\"nothing\"", "there is c"]);
        place.on("one", &["cache", "export", "nothing", "--to", "oci:new"]).code(2).says(&["nothing"]);
        place.on("one", &["cache", "export", "c", "--to", "oci:other"]).code(2).says(&["other files"]);
        place
            .on("one", &["cache", "export", "c", "--to", "oci-archive:text.tar"])
            .code(2)
            .says(&["text.tar"]);
        assert_eq!(place.read("text.tar"), "hello");
        // An image is no export, and is never overwritten by one.
        place.on("one", &["copy", "image", "oci:images:cache"]).ok();
        import("oci:images").code(2).says(&["no export of cache mounts"]);
        let before = place.read("images/index.json");
        place
            .on("one", &["cache", "export", "c", "--to", "oci:images"])
            .code(2)
            .says(&["no export of cache mounts"]);
        assert_eq!(place.read("images/index.json"), before);
    });
}

#[test]
fn caps_leave_behind_what_was_used_least() {
    for_each_user(|user| {
        let place = Place::with(user, FILL);
        place.build_on("one", &[]).ok();
        for name in ["old", "new"] {
            place.cached("one", name, &noise(10_000, 1));
        }
        let old = place.cache_path("one", "c").join("old");
        assert!(Command::new("touch").args(["-d", "2001-01-01"]).arg(&old).status().unwrap().success());
        for (flag, value) in [("--max-age", "30d"), ("--max-size", "15000")] {
            let to = format!("oci:dir{flag}");
            let said = place.on("one", &["cache", "export", "c", flag, value, "--to", &to]).ok();
            said.says(&["1 file, 10.0 kB stayed behind"]);
            place.on(flag, &["cache", "import", "--from", &to]).ok();
            let path = place.cache_path(flag, "c");
            assert!(path.join("new").exists() && !path.join("old").exists(), "{flag}");
        }
    });
}

#[test]
fn old_generations_go_and_take_their_blobs_along() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        let place = Place::with(user, FILL);
        place.build_on("one", &[]).ok();
        let there = format!("docker://{}/c:main", registry.host());
        for number in 0..5 {
            place.cached("one", "changing", &noise(200_000, number));
            for to in ["oci:dir", &there] {
                place.on("one", &["cache", "export", "c", "--keep=2", "--to", to]).ok();
            }
        }
        let bytes: u64 = fs::read_dir(place.path("dir/blobs/sha256"))
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().size())
            .sum();
        assert!(bytes < 450_000, "{bytes}");
        let (_, pointer) = registry.manifest("c", "main").expect("it is there");
        let pointer: Value = serde_json::from_slice(&pointer).unwrap();
        let tags: Vec<&str> = pointer["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["annotations"]["dev.kiln.cache.tag"].as_str().unwrap())
            .collect();
        assert_eq!(tags.len(), 2);
        assert!(tags.iter().all(|tag| registry.manifest("c", tag).is_some()));
        place.on("two", &["cache", "import", "--from", "oci:dir"]).ok();
        assert_eq!(fs::read(place.cache_path("two", "c").join("changing")).unwrap(), noise(200_000, 4));
    });
}
