//! A fresh machine has no builds of its own to compare with: the list of the cache that it reads says what the last build there was.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use kiln_testkit::registry::{FakeRegistry, Fault};

use super::{build, from, fsck, tag, to};
use crate::place::{Place, Ran};
use crate::user::{User, for_each_user};

fn explained() -> [String; 2] {
    ["--explain".to_owned(), "--jobs=4".to_owned()]
}

fn argument(version: &str) -> [String; 2] {
    ["--build-arg".to_owned(), format!("VERSION={version}")]
}

fn because(ran: &Ran) -> Vec<String> {
    let line = |line: &str| line.split_once("runs because: ").map(|(_, reason)| reason.to_owned());
    ran.stderr.lines().filter_map(line).collect()
}

/// A context, and a Dockerfile that takes files and an argument.
fn files(user: User) -> Place {
    let place = Place::with(user, "COPY src /src\nARG VERSION=1\nRUN cat /src/a.py $VERSION || true\n");
    place.file("context/src/a.py", "a");
    place.file("context/src/b.py", "b");
    chmod(&place, 0o664);
    place
}

fn chmod(place: &Place, mode: u32) {
    std::fs::set_permissions(place.path("context/src/a.py"), Permissions::from_mode(mode))
        .expect("it is there");
}

/// <https://github.com/moby/buildkit/issues/2567> of a worker that has nothing.
#[test]
fn buildkit_2567_a_fresh_worker_says_what_differs_from_the_cache_that_it_reads() {
    for_each_user(|user| {
        let place = files(user);
        let registry = FakeRegistry::start();
        let name = format!("{}/cache:main", registry.host());
        for (n, target) in [name, "type=local,dest=cache".to_owned()].into_iter().enumerate() {
            chmod(&place, 0o664);
            build(&place, "a", &[to(&target)]).ok();
            let source = target.replace("dest=", "src=");
            let label = source.replace("type=local,src=", "");
            let fresh = |name: &str, args: &[[String; 2]]| {
                let args = [&[from(&source), tag("demo")], args].concat();
                build(&place, &format!("{name}{n}"), &args).ok()
            };
            chmod(&place, 0o644);
            registry.lines();
            let ran = fresh("b", &[explained()]);
            let place_of = |line: usize| because(&ran)[line].replace(&place.text(""), "");
            assert_eq!(
                [place_of(0), place_of(1)],
                [
                    format!("src: src/a.py mode 0664 -> 0644 (against the cache in {label})"),
                    format!("step below is another: [2/3] COPY src /src (against the cache in {label})"),
                ],
                "{ran}"
            );
            let asked = registry.lines();
            let blobs = asked.iter().filter(|line| line.starts_with("GET") && line.contains("/blobs/"));
            // The layer below, and the list of files.
            assert_eq!(blobs.count(), if n == 0 { 2 } else { 0 }, "{asked:#?}");
            let told = Ran::of(&mut place.command_on(&format!("b{n}"), &["explain", "2/3"])).ok().out();
            assert!(
                told.contains("mode 0664 -> 0644") && told.contains("compared with the cache in"),
                "{told}"
            );
            // What it has of its own says as much, and nobody is asked for files.
            chmod(&place, 0o664);
            let ran = fresh("b", &[explained(), argument("2")]);
            let line = because(&ran).pop().expect("the RUN ran");
            let shown = "ARG VERSION (hidden) -> 2 (first used here) (against the cache in ";
            assert!(line.starts_with(shown), "{ran}");
            // Without being asked for reasons it says nothing, and fetches no list of files.
            chmod(&place, 0o644);
            registry.lines();
            assert_eq!(because(&fresh("c", &[])), [""; 0]);
            let asked = registry.lines();
            let blobs = asked.iter().filter(|line| line.starts_with("GET") && line.contains("/blobs/"));
            assert_eq!(blobs.count(), usize::from(n == 0), "{asked:#?}");
            // What nobody has built is said to be that.
            place.base("WORKDIR /new\n");
            assert_eq!(because(&fresh("d", &[explained()])), ["never built here"]);
            fsck(&place, &format!("b{n}"));
            place.base("COPY src /src\nARG VERSION=1\nRUN cat /src/a.py $VERSION || true\n");
        }
    });
}

#[test]
fn who_hits_all_and_has_no_notes_leaves_the_list_as_it_is() {
    for_each_user(|user| {
        let place = files(user);
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:main", registry.host());
        build(&place, "a", &[to(&cache)]).ok();
        let list = registry.manifest("cache", "main").expect("a list");
        build(&place, "b", &[from(&cache), to(&cache), tag("demo")]).ok();
        assert_eq!(registry.manifest("cache", "main"), Some(list));
        // One that adds to it keeps what is said of the files that it did not read.
        place.base("COPY src /src\nARG VERSION=1\nRUN cat /src/a.py $VERSION || true\nRUN true\n");
        build(&place, "b", &[from(&cache), to(&cache), tag("demo")]).ok();
        place.file("context/src/b.py", "other");
        let ran = build(&place, "c", &[from(&cache), explained(), tag("demo")]).ok();
        assert!(because(&ran)[0].starts_with("src: src/b.py content (against"), "{ran}");
    });
}

#[test]
fn a_list_of_files_that_is_damaged_or_not_there_makes_the_reason_shorter() {
    for_each_user(|user| {
        let place = files(user);
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:main", registry.host());
        build(&place, "a", &[to(&cache)]).ok();
        // `bin` is another, too: nothing below is fetched but what is said of files.
        place.file("context/bin/more", "more");
        place.file("context/src/b.py", "other");
        for (machine, fault) in [
            ("b", Fault::Corrupt),
            ("c", Fault::Status { status: 404, headers: Vec::new(), body: String::new() }),
        ] {
            registry.fault("GET /v2/cache/blobs/", 2, fault);
            let ran = build(&place, machine, &[from(&cache), explained(), tag("demo")]).ok();
            let reasons = because(&ran);
            assert!(reasons[0].starts_with("bin: the files differ (against"), "{ran}");
            assert!(reasons[1].starts_with("src: the files differ"), "{ran}");
            ran.lacks(&["WARNING"]);
        }
    });
}
