//! Caches that have lost something, that another version wrote, or that nobody may write to.

use kiln_testkit::registry::{FakeRegistry, Fault};

use super::{build, chain, execution, from, fsck, tag, to};
use crate::place::{Place, Ran};
use crate::user::for_each_user;

fn files(place: &Place, dir: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![place.path(dir)];
    while let Some(path) = todo.pop() {
        match path.is_dir() {
            true => todo.extend(
                std::fs::read_dir(path).expect("a directory").map(|entry| entry.expect("it is there").path()),
            ),
            false => found.push(path),
        }
    }
    found
}

/// A record can outlive a layer of it.
#[test]
fn a_layer_that_got_lost_is_put_back_by_who_has_it() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:1", registry.host());
        build(&place, "a", &[to(&cache), tag("demo")]).ok();
        registry.lines();
        let lost = Fault::Status { status: 404, headers: Vec::new(), body: String::new() };
        registry.fault("HEAD /v2/cache/blobs/", 1, lost);
        build(&place, "a", &[to(&cache), tag("demo")]).ok().says(&["nothing new: all 3 results"]);
        let asked = registry.lines();
        let sent = asked.iter().filter(|line| line.starts_with("PUT /v2/cache/"));
        assert_eq!(sent.count(), 1, "{asked:#?}");

        let (dest, src) = ("type=local,dest=cache", "type=local,src=cache");
        build(&place, "a", &[to(dest), tag("demo")]).ok();
        for file in files(&place, "cache/blobs") {
            std::fs::remove_file(file).expect("it is there");
        }
        build(&place, "a", &[to(dest), tag("demo")]).ok();
        let ran = build(&place, "b", &[from(src), tag("demo")]).ok();
        assert_eq!(ran.count("CACHED"), 3, "{ran}");
        assert_eq!(execution(&place, "b", "demo"), execution(&place, "a", "demo"));
        fsck(&place, "b");
    });
}

#[test]
fn a_layer_that_nobody_has_costs_its_steps_says_so_and_is_left_anew() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:1", registry.host());
        build(&place, "a", &[to(&cache)]).ok();
        let lost = Fault::Status { status: 404, headers: Vec::new(), body: String::new() };
        // One alone: what is left of it must not meet the next machine.
        registry.fault("GET /v2/cache/blobs/", 1, lost);
        let ran = build(&place, "b", &[from(&cache), to(&cache), tag("demo")]).ok();
        let ran = ran.says(&["is not used, its step runs instead"]);
        // Those that are done again are no failure.
        assert!(!ran.stderr.contains("fetching cached layers\n") || !ran.stderr.contains(" ERROR"), "{ran}");
        let told = Ran::of(&mut place.command_on("b", &["explain"])).ok().out();
        let reason = format!("{cache} has it, and its files could not be had from there");
        assert!(told.contains(&reason) && !told.contains("earlier result"), "{told}");
        let ran = build(&place, "c", &[from(&cache), tag("demo")]).ok();
        assert_eq!(ran.count("CACHED"), 3, "{ran}");
        assert_eq!(execution(&place, "c", "demo"), execution(&place, "b", "demo"));
        fsck(&place, "c");
    });
}

#[test]
fn a_directory_with_records_and_blobs_alone_is_read_and_a_newer_one_is_told() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        build(&place, "a", &[to("type=local,dest=cache"), tag("demo")]).ok();
        let list = place.read("cache/list.json");
        for file in ["list.json", "index.json", "oci-layout"] {
            std::fs::remove_file(place.path("cache").join(file)).expect("it was written");
        }
        let source = "type=local,src=cache";
        let ran = build(&place, "b", &[from(source), tag("demo")]).ok().lacks(&["WARNING"]);
        assert_eq!(ran.count("CACHED"), 3, "{ran}");
        assert_eq!(execution(&place, "b", "demo"), execution(&place, "a", "demo"));
        // It has other words for what it says.
        place.file("cache/list.json", &list.replace("kiln.steps.v1+json", "kiln.steps.v2+json"));
        for file in files(&place, "cache/steps") {
            let text = std::fs::read_to_string(&file).expect("a record");
            let newer = text.replace("{\\\"version\\\":1,\\\"key\\\"", "{\\\"version\\\":2,\\\"of\\\"");
            assert_ne!(newer, text);
            std::fs::write(file, newer).expect("it is ours");
        }
        let ran = build(&place, "c", &[from(source), tag("demo")]).ok();
        let ran = ran.says(&["the list of results in", "version 2, which a newer kiln writes"]);
        assert_eq!((ran.count("CACHED"), ran.stderr.matches("is passed over").count()), (0, 1), "{ran}");
    });
}
