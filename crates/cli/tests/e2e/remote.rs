//! `ADD` of what is behind a URL.

use kiln_core::Digest;
use kiln_testkit::registry::{FakeRegistry, Fault, WebFile};
use rustix::process::Signal;

use crate::place::Place;
use crate::user::for_each_user;

const DATE: &str = "Sun, 09 Sep 2001 01:46:40 GMT";

/// Requests since the last time, with their conditions.
fn asked(server: &FakeRegistry) -> Vec<String> {
    server.seen().into_iter().map(|seen| [vec![seen.line], seen.conditions].concat().join(" ")).collect()
}

fn add(place: &Place, line: &str) {
    place.base(&format!("{line}\nRUN stat -c '%a %u:%g %Y %n' /got/* && cat /got/*\n"));
}

/// Whether any file below the store, or its name, has these words.
fn store_holds(place: &Place, words: &str) -> bool {
    let found = std::process::Command::new("grep").args(["-rqaF", words, &place.text("store")]).status();
    found.expect("grep").success()
}

#[test]
fn an_unchanged_file_costs_one_request_and_no_step() {
    for_each_user(|user| {
        let server = FakeRegistry::start();
        server.put_file("/a/b.txt", WebFile::new("one\n").etag("\"1\"").last_modified(DATE));
        let (place, url) = (Place::new(user), server.url("/a/b.txt"));
        add(&place, &format!("ADD {url} /got/"));
        let first = place.build(&[]).ok().prints(&["600 0:0 1000000000 /got/b.txt", "one"]);
        assert_eq!(asked(&server), ["GET /a/b.txt"]);
        let number =
            first.stderr.lines().find_map(|line| line.strip_suffix(&format!(" {url}"))).expect("the URL");
        assert!(first.stderr.contains(&format!("{number} DONE")), "{first}");
        let second = place.build(&[]).ok().says(&[&format!("{number} CACHED")]);
        assert_eq!(asked(&server), [format!("GET /a/b.txt if-modified-since: {DATE} if-none-match: \"1\"")]);
        second.lacks(&["600 0:0"]);
        assert_eq!(place.build(&[]).ok().digest(), first.digest());
        asked(&server);
        // Other bytes make the step anew; the same bytes under a later date do not.
        server.put_file("/a/b.txt", WebFile::new("two\n").etag("\"2\"").last_modified(DATE));
        place.build(&[]).ok().prints(&["two"]);
        server.put_file("/a/b.txt", WebFile::new("two\n").etag("\"3\""));
        place.build(&[]).ok().lacks(&["600 0:0"]);
        place.fsck();
    });
}

#[test]
fn a_checksum_is_believed_and_enforced() {
    for_each_user(|user| {
        let server = FakeRegistry::start();
        server.put_file("/b.txt", WebFile::new("one\n").etag("\"1\""));
        let (place, url) = (Place::new(user), server.url("/b.txt"));
        let (one, two) = (Digest::of(b"one\n"), Digest::of(b"two\n"));
        add(&place, &format!("ADD --checksum={one} {url} /got/c.txt"));
        place.build(&[]).ok().prints(&["600 0:0 0 /got/c.txt", "one"]);
        assert_eq!(asked(&server).len(), 1);
        place.build(&[]).ok();
        place.build(&["--no-cache"]).ok().prints(&["one"]);
        assert_eq!(asked(&server), [] as [String; 0], "the file is there");
        // Not even where it is gone and all is recorded.
        std::fs::remove_dir_all(place.path("store/sources")).expect("it is there");
        place.build(&[]).ok();
        assert_eq!(asked(&server), [] as [String; 0], "nobody needs the file");
        add(&place, &format!("ADD --checksum={two} {url}?key=s1gn3d /got/"));
        let message = format!("{url}?... has checksum {one}, not {two}");
        place.build(&[]).code(4).says(&[&message, "Dockerfile:3"]);
        assert!(!place.path("store/sources").exists() || !store_holds(&place, "one\n"));
        place.fsck();
    });
}

#[test]
fn what_cannot_be_had_is_named_with_its_line() {
    for_each_user(|user| {
        let server = FakeRegistry::start();
        let place = Place::new(user);
        add(&place, &format!("ADD {}?key=s1gn3d /got/", server.url("/none")));
        let message = format!("{}?... is not there: the server answers 404", server.url("/none"));
        place.build(&[]).code(4).says(&[&message, "Dockerfile:3"]);
        assert_eq!(place.half_made(), [] as [String; 0]);
    });
}

#[test]
fn a_token_opens_and_is_nowhere() {
    for_each_user(|user| {
        let server = FakeRegistry::start();
        server.put_file("/b.txt", WebFile::new("one\n").etag("\"1\"").for_whom("Bearer t0k3n-0f-m1ne"));
        let place = Place::new(user);
        add(&place, &format!("ADD {} /got/", server.url("/b.txt")));
        place.build(&[]).code(4).says(&["no credentials are given", "--secret id=HTTP_AUTH_TOKEN_127.0.0.1"]);
        place.file("token", "t0k3n-0f-m1ne\n");
        let secret = format!("--secret=id=HTTP_AUTH_TOKEN_127.0.0.1,src={}", place.text("token"));
        let tar = format!("--output=type=oci,dest={}", place.text("image.tar"));
        for _ in 0..2 {
            let args = ["build", "--progress=json", &secret, &tar, "context"];
            place.kiln(&args).ok().lacks(&["t0k3n-0f-m1ne"]).says(&["step_declared", "/b.txt"]);
        }
        place.build(&[&secret]).ok().lacks(&["t0k3n-0f-m1ne"]);
        assert!(!store_holds(&place, "t0k3n-0f-m1ne"));
        assert!(store_holds(&place, "b.txt"), "the store was looked through");
        let image = std::fs::read(place.path("image.tar")).expect("the image");
        assert!(!image.windows(13).any(|bytes| bytes == b"t0k3n-0f-m1ne"));
    });
}

#[test]
fn several_files_and_a_run_go_on_at_once() {
    for_each_user(|user| {
        let server = FakeRegistry::start();
        let place = Place::new(user);
        let mut lines = String::from("RUN echo slow > /slow\n");
        for name in ["a", "b", "c", "d", "e"] {
            let bytes = name.repeat(300_000);
            server.put_file(&format!("/{name}"), WebFile::new(bytes.clone()).etag("\"1\""));
            server.fault(format!("/{name}"), 1, Fault::Cut(100_000));
            let checksum = if name < "c" {
                String::new()
            } else {
                format!("--checksum={} ", Digest::of(bytes.as_bytes()))
            };
            lines.push_str(&format!("ADD {checksum}{} /got/\n", server.url(&format!("/{name}"))));
        }
        lines.push_str("RUN cat /slow /got/* | wc -c\n");
        place.base(&lines);
        place.build(&[]).ok().prints(&["1500005"]);
        assert_eq!(
            server.seen().iter().filter(|seen| seen.range.is_some()).count(),
            5,
            "each went on where it broke off"
        );
        place.build(&[]).ok();
        assert_eq!(server.seen().len(), 2, "those without a checksum are asked for");
        place.fsck();
    });
}

#[test]
fn an_interrupt_ends_a_download_and_leaves_nothing() {
    for_each_user(|user| {
        let server = FakeRegistry::start();
        server.put_file("/b.txt", WebFile::new(vec![b'x'; 3_000_000]));
        server.fault("/b.txt", 1, Fault::Hang(2_000_000));
        let place = Place::new(user);
        place.base(&format!("ADD {} /got/\nRUN wc -c < /got/b.txt\n", server.url("/b.txt")));
        let mut build = place.start(&[]);
        assert!(build.until("b.txt 0 B"), "{}", build.seen);
        build.signal(Signal::INT);
        build.wait().code(130);
        assert_eq!(place.half_made(), [] as [String; 0]);
        place.is_quiet();
        place.build(&[]).ok().prints(&["3000000"]);
        place.fsck();
    });
}

#[test]
fn two_builds_at_once_fetch_a_file_once() {
    for_each_user(|user| {
        let server = FakeRegistry::start();
        server.put_file("/b.txt", WebFile::new("x".repeat(5_000_000)).etag("\"1\""));
        let place = Place::new(user);
        place.base(&format!("ADD {} /got/\nRUN wc -c < /got/b.txt\n", server.url("/b.txt")));
        let builds: Vec<_> = (0..4).map(|_| place.start(&[])).collect();
        for build in builds {
            build.wait().ok();
        }
        let asked = asked(&server);
        assert_eq!(asked.iter().filter(|line| !line.contains("if-")).count(), 1, "{asked:#?}");
        place.fsck();
    });
}

#[test]
fn sources_are_counted_and_pruned() {
    for_each_user(|user| {
        let server = FakeRegistry::start();
        server.put_file("/b.txt", WebFile::new("x".repeat(5_000_000)).etag("\"1\""));
        let place = Place::new(user);
        place.base(&format!("ADD {} /got/\n", server.url("/b.txt")));
        place.build(&["-t", "demo"]).ok();
        let sources = || {
            let usage: serde_json::Value =
                serde_json::from_str(&place.kiln(&["du", "--json"]).ok().out()).expect("JSON");
            usage["sources"].as_u64().expect("a number")
        };
        assert!(sources() > 5_000_000);
        place.kiln(&["prune"]).ok();
        assert!(sources() > 5_000_000, "a build would still ask whether it is the same");
        place.kiln(&["prune", "--all"]).ok();
        assert!(sources() < 100_000);
        place.fsck();
    });
}
