//! What is saved while a build still runs, and places that lose what they were given.

use std::fs;
use std::path::Path;

use kiln_testkit::registry::{Access, FakeRegistry, Fault};

use crate::carry::{FILL, noise};
use crate::place::Place;
use crate::user::for_each_user;

/// Fills a cache; then a step says 42, waits for a file in another one, and fails if there is a second file.
const THEN_WAITS: &str = "RUN --mount=type=cache,id=d,target=/d test -e /d/a || echo one > /d/a\n\
    RUN --mount=type=cache,id=c,target=/c echo says $((40 + 2)); while test ! -e /c/go; do sleep 0.05; done; \
    test ! -e /c/fail\n";

fn blobs(dir: &Path) -> usize {
    fs::read_dir(dir.join("blobs/sha256")).map_or(0, Iterator::count)
}

#[test]
fn saving_begins_beside_later_steps_and_counts_when_the_build_ended_well() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        let place = Place::with(user, THEN_WAITS);
        let there = format!("{}/c:main", registry.host());
        for (number, ends_well) in [(0, false), (1, true)] {
            for to in [there.as_str(), "oci:dir:main"] {
                let store = format!("store-{number}-{}", to.len());
                let flag = format!("{to},id=d");
                // What the build before it sent would not be sent again.
                registry.lose_blobs("c", 0);
                let mut build = place.spawn(&mut place.build_command(&store, &["--cache-mounts-to", &flag]));
                assert!(build.until("says 42"));
                // The second step runs still: packs are sent, and nobody is told of them.
                let dir = place.path("dir");
                if to == there {
                    while !registry.lines().iter().any(|line| line.starts_with("PUT /v2/c/blobs/")) {
                        std::thread::yield_now();
                    }
                    assert!(registry.manifest("c", "main").is_none());
                } else {
                    while blobs(&dir) == 0 {
                        std::thread::yield_now();
                    }
                    assert!(!dir.join("index.json").exists());
                }
                if !ends_well {
                    place.cached(&store, "fail", b"");
                }
                place.cached(&store, "go", b"");
                let ran = build.wait();
                if ends_well {
                    ran.ok().says(&["exported cache mount d"]);
                    let fresh = format!("fresh-{}", to.len());
                    place.base("RUN --mount=type=cache,id=d,target=/d cat /d/a\n");
                    place.build_on(&fresh, &["--cache-mounts-from", &flag]).ok().prints(&["one"]);
                    place.base(THEN_WAITS);
                } else {
                    // A build that failed saves nothing, and leaves nothing in a directory that nobody would take away.
                    ran.code(1).lacks(&["exported cache mount", "not exported"]);
                    assert!(registry.manifest("c", "main").is_none());
                    assert_eq!((blobs(&dir), dir.join("index.json").exists()), (0, false));
                }
            }
        }
        place.is_quiet();
    });
}

#[test]
fn a_step_that_is_cached_lets_saving_begin_and_no_step_too() {
    for_each_user(|user| {
        let place = Place::with(user, FILL);
        place.build_on("one", &[]).ok();
        let ran = place.build_on("one", &["--cache-mounts-to", "oci:dir"]).ok();
        ran.says(&["CACHED", "exported cache mount c"]);
        // Its result is there, its cache is not.
        place.on("one", &["cache", "rm", "c"]).ok();
        let ran = place.build_on("one", &["--cache-mounts-to", "oci:other"]).ok();
        ran.says(&["there is no cache mount to export to oci:other"]);
    });
}

#[test]
fn a_registry_that_lost_blobs_gets_them_again() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        let place = Place::with(user, FILL);
        let there = format!("docker://{}/c:main", registry.host());
        place.build_on("one", &[]).ok();
        place.cached("one", "large", &noise(3_000_000, 8));
        place.export("one", &there);
        for (round, least) in [100_000, 0].into_iter().enumerate() {
            registry.lose_blobs("c", least);
            let again = place.export("one", &there);
            assert!(again["moved"].as_u64().unwrap() > 2_900_000, "{again}");
            let store = format!("two-{round}");
            place.on(&store, &["cache", "import", "--from", &there]).ok();
            assert!(fs::read(place.cache_path(&store, "c").join("large")).unwrap() == noise(3_000_000, 8));
        }
    });
}

#[test]
fn a_registry_that_refuses_in_the_middle_is_named_or_asked_again() {
    for_each_user(|user| {
        let registry = FakeRegistry::start();
        let place = Place::with(user, FILL);
        let name = format!("{}/team/c", registry.host());
        let there = format!("docker://{name}:main");
        place.build_on("one", &[]).ok();
        place.cached("one", "large", &noise(3_000_000, 9));
        let status = |status, headers: &[&str]| Fault::Status {
            status,
            headers: headers.iter().map(|&line| line.to_owned()).collect(),
            body: String::new(),
        };
        let export = || place.on("one", &["cache", "export", "c", "--to", &there]);
        registry.fault("PUT /v2/team/c/blobs/", 1000, status(403, &[]));
        export().code(4).says(&[&name, "denies"]);
        let registry = FakeRegistry::start();
        let name = format!("{}/team/c", registry.host());
        let there = format!("docker://{name}:main");
        let export = || place.on("one", &["cache", "export", "c", "--to", &there]);
        let import = |store: &str| place.on(store, &["cache", "import", "--from", &there]);
        // A token that ran out, and one who is asked to wait.
        registry.access(Access::Token(None));
        let expired = format!(
            "WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"fake\",scope=\"repository:team/c:pull,push\"",
            registry.host()
        );
        registry.fault("PUT /v2/team/c/blobs/", 1, status(401, &[&expired]));
        registry.fault("PUT /v2/team/c/blobs/", 1, status(429, &["Retry-After: 0"]));
        export().ok();
        registry.fault("GET /v2/team/c/blobs/", 1, status(429, &["Retry-After: 0"]));
        import("two").ok();
        assert!(fs::read(place.cache_path("two", "c").join("large")).unwrap() == noise(3_000_000, 9));
        registry.fault("GET /v2/team/c/blobs/", 100, status(429, &["Retry-After: 100000"]));
        import("three").code(4).says(&[&name, "100000"]);
    });
}

#[test]
fn a_place_without_its_kind_is_explained_in_terms_of_caches() {
    for_each_user(|user| {
        let place = Place::with(user, FILL);
        place.build_on("one", &[]).ok();
        for to in ["dir", "./dir", "/srv/dir"] {
            let ran = place.on("one", &["cache", "export", "c", "--to", to]).code(2);
            ran.says(&["is no place for cache mounts", &format!("oci:{to}")]);
        }
    });
}
