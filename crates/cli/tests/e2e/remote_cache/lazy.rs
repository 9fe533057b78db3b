//! What was taken once from `--cache-from` counts in later builds without it: docs/decisions/0034.

use kiln_testkit::registry::{FakeRegistry, Fault};

use super::{UUID, build, chain, execution, from, fsck, inside, tag, to};
use crate::place::{Place, Ran};
use crate::user::for_each_user;

fn away(registry: &FakeRegistry) {
    let denied = Fault::Status { status: 403, headers: Vec::new(), body: String::new() };
    registry.fault("", 10_000, denied);
}

fn nothing_else() -> [String; 2] {
    ["-o".to_owned(), "type=cacheonly".to_owned()]
}

/// How many results of elsewhere a machine knows of.
fn known(place: &Place, machine: &str) -> usize {
    let below = |dir: std::path::PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten();
    below(place.path(&format!("{machine}/records/taken"))).flat_map(|entry| below(entry.path())).count()
}

/// A build of hits into the image store moves blobs and unpacks nothing: the same build without the flag is one of hits, too.
#[test]
fn buildkit_2804_what_was_taken_once_needs_no_flag_and_no_request() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:1", registry.host());
        build(&place, "a", &[to(&cache)]).ok();
        let taken = build(&place, "b", &[from(&cache), tag("demo")]).ok();
        let first = execution(&place, "b", "demo");
        registry.lines();
        let again = build(&place, "b", &[tag("demo")]).ok();
        assert_eq!((again.count("CACHED"), again.digest()), (3, taken.digest()), "{again}");
        assert_eq!(registry.lines(), [""; 0]);
        fsck(&place, "b");
        // What the records name is kept for them, when nothing else needs it; and files are made of it.
        Ran::of(&mut place.command_on("b", &["rmi", "demo"])).ok();
        Ran::of(&mut place.command_on("b", &["prune", "-f"])).ok();
        away(&registry);
        place.base(&(chain() + "RUN cat /two > /four\n"));
        let over = build(&place, "b", &[tag("demo")]).ok();
        assert_eq!(over.count("CACHED"), 3, "{over}");
        assert_eq!(inside(&place, "b", "demo", "cat /four").trim(), first);
        // Now that their files are here they are the store's own.
        assert_eq!(known(&place, "b"), 0);
        fsck(&place, "b");
        place.is_quiet();
    });
}

#[test]
fn a_source_that_has_gone_costs_the_hits_and_never_the_build() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        for (n, target) in [format!("{}/cache:1", registry.host()), "type=local,dest=cache".to_owned()]
            .into_iter()
            .enumerate()
        {
            build(&place, "a", &[to(&target)]).ok();
            let source = target.replace("dest=", "src=");
            let (b, c) = (format!("b{n}"), format!("c{n}"));
            for machine in [&b, &c] {
                let ran = build(&place, machine, &[from(&source), nothing_else()]).ok();
                assert_eq!((ran.count("CACHED"), known(&place, machine)), (3, 3), "{ran}");
            }
            // While it is there, what is needed comes from there.
            let ran = build(&place, &b, &[tag("demo")]).ok();
            assert_eq!(ran.count("CACHED"), 3, "{ran}");
            execution(&place, &b, "demo");
            match n {
                0 => away(&registry),
                _ => std::fs::remove_dir_all(place.path("cache")).expect("it is there"),
            }
            let ran = build(&place, &c, &[tag("demo")]).ok();
            let said = "results that an earlier build took from";
            assert_eq!(ran.stderr.matches(said).count(), 1, "{ran}");
            execution(&place, &c, "demo");
            // What runs takes the place of what was taken.
            assert_eq!(known(&place, &c), 0);
            build(&place, &c, &[tag("demo")]).ok().lacks(&[said]);
            fsck(&place, &c);
        }
        place.is_quiet();
    });
}

#[test]
fn a_copy_from_a_stage_that_nobody_has_is_known_too() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.dockerfile(&format!(
            "FROM scratch AS tools\nCOPY bin /bin\nFROM tools AS build\nRUN cat {UUID} > /out\n\
             FROM tools\nCOPY --from=build /out /one\nRUN cp /one /two\n"
        ));
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:1", registry.host());
        build(&place, "a", &[to(&format!("type=registry,ref={cache},mode=min")), tag("demo")]).ok();
        build(&place, "b", &[from(&cache), nothing_else()]).ok();
        let ran = build(&place, "b", &[tag("demo")]).ok();
        assert_eq!(ran.count("CACHED"), 3, "{ran}");
        assert_eq!(execution(&place, "b", "demo"), execution(&place, "a", "demo"));
    });
}

#[test]
fn no_cache_replaces_what_was_taken_and_verify_does_not_know_it() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:1", registry.host());
        build(&place, "a", &[to(&cache)]).ok();
        build(&place, "b", &[from(&cache), nothing_else()]).ok();
        let first = build(&place, "a", &[tag("demo")]).ok();
        let no_cache = ["--no-cache".to_owned(), "--quiet".to_owned()];
        build(&place, "b", &[no_cache, tag("demo")]).ok();
        assert_eq!(known(&place, "b"), 0);
        let ran = build(&place, "b", &[tag("demo")]).ok();
        assert_eq!(ran.count("CACHED"), 3, "{ran}");
        assert_ne!(ran.digest(), first.digest());
    });
}

#[test]
fn records_of_an_image_with_clamped_times_count_for_the_same_time_only() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        let app = format!("{}/app:1", registry.host());
        let at = |machine: &str, epoch: &str, args: &[&str]| {
            let mut command = place.build_command(machine, args);
            Ran::of(command.env("SOURCE_DATE_EPOCH", epoch)).ok()
        };
        at("a", "1000", &["--cache-to", "type=inline", "-t", &app, "-o", "type=registry"]);
        at("b", "1000", &["--cache-from", &app, "-o", "type=cacheonly"]);
        assert_eq!(at("b", "1000", &["-o", "type=cacheonly"]).count("CACHED"), 3);
        let other = at("b", "2000", &["-o", "type=cacheonly"]);
        assert_eq!(other.count("CACHED"), 0, "{other}");
    });
}
