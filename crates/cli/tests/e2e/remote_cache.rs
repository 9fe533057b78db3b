//! `--cache-to` and `--cache-from`: results of steps in a registry, a directory, an image. A machine is a store of its own.
//!
//! What a step leaves says which execution it was (`/proc/sys/kernel/random/uuid`), and the step above copies it: whatever is
//! taken from where, the two must be the same in every image.

use kiln_core::Digest;
use kiln_testkit::registry::FakeRegistry;

use crate::place::{Place, Ran, Running};
use crate::user::for_each_user;

mod damage;
mod explain;
mod hostile;
mod lazy;
mod requests;

const UUID: &str = "/proc/sys/kernel/random/uuid";

/// Two steps, the second over what the first happened to leave.
fn chain() -> String {
    format!("RUN cat {UUID} > /one\nRUN cat /one > /two && cat {UUID} > /three\n")
}

fn from(place: &str) -> [String; 2] {
    ["--cache-from".to_owned(), place.to_owned()]
}

fn to(place: &str) -> [String; 2] {
    ["--cache-to".to_owned(), place.to_owned()]
}

/// Builds on a machine, without a time that everything is clamped to.
fn command(place: &Place, machine: &str, args: &[String]) -> std::process::Command {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut command = place.build_command(machine, &args);
    command.env_remove("SOURCE_DATE_EPOCH");
    command
}

fn build(place: &Place, machine: &str, args: &[[String; 2]]) -> Ran {
    Ran::of(&mut command(place, machine, &args.concat()))
}

/// What a command prints in an image of a machine.
fn inside(place: &Place, machine: &str, image: &str, script: &str) -> String {
    Ran::of(&mut place.command_on(machine, &["run", "--rm", image, "sh", "-c", script])).ok().out()
}

/// Checks that an image is of one execution, and returns which.
fn execution(place: &Place, machine: &str, image: &str) -> String {
    let ids = inside(place, machine, image, "cat /one /two");
    let (one, two) = ids.trim().split_once('\n').expect("two lines");
    assert_eq!(one, two, "a mixture of two executions");
    one.to_owned()
}

fn tag(name: &str) -> [String; 2] {
    ["-t".to_owned(), name.to_owned()]
}

fn fsck(place: &Place, machine: &str) {
    let ran = Ran::of(&mut place.command_on(machine, &["debug", "fsck"])).ok();
    assert!(ran.stderr.contains("0 problems"), "{ran}");
}

fn spawn(place: &Place, machine: &str, args: &[[String; 2]]) -> Running {
    place.spawn(&mut command(place, machine, &args.concat()))
}

#[test]
fn two_machines_share_what_their_steps_left() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        let cache = format!("type=registry,ref={}/cache:main", registry.host());
        let made = build(&place, "a", &[to(&cache), tag("demo")]).ok().says(&["3 results, 3 of them new"]);
        let first = execution(&place, "a", "demo");
        let again = build(&place, "a", &[to(&cache), tag("demo")]).ok();
        again.says(&["nothing new: all 3 results are there"]).lacks(&["exporting layers"]);
        let taken = build(&place, "b", &[from(&cache), tag("demo")]).ok();
        assert_eq!((taken.count("CACHED"), taken.digest()), (3, made.digest()), "{taken}");
        assert_eq!(execution(&place, "b", "demo"), first);
        // What is built over them finds their files.
        place.base(&(chain() + "RUN cat /two > /four\n"));
        let over = build(&place, "c", &[from(&cache), tag("demo")]).ok();
        assert_eq!(over.count("CACHED"), 3, "{over}");
        assert_eq!(inside(&place, "c", "demo", "cat /four").trim(), first);
        // Then they are the store's own.
        let again = build(&place, "c", &[tag("demo")]).ok();
        assert_eq!((again.count("CACHED"), again.digest()), (4, over.digest()), "{again}");
        // What is not done is not spoken of.
        again.lacks(&["exporting layers", "fetching"]);
        for machine in ["a", "b", "c"] {
            fsck(&place, machine);
        }
        place.is_quiet();
    });
}

#[test]
fn a_build_of_hits_asks_once_and_moves_no_layer_to_the_same_registry() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        let host = registry.host();
        let cache = format!("type=registry,ref={host}/cache:main,mode=max");
        let source = format!("type=registry,ref={host}/cache:main");
        let push = |name: &str| tag(&format!("{host}/{name}"));
        let output = ["-o".to_owned(), "type=registry".to_owned()];
        let made = build(&place, "a", &[to(&cache), push("app:1"), output.clone()]).ok();
        registry.lines();
        let taken = build(&place, "b", &[from(&source), to(&cache), push("other:1"), output]).ok();
        assert_eq!((taken.count("CACHED"), taken.digest()), (3, made.digest()), "{taken}");
        let asked = registry.lines();
        assert!(!asked.iter().any(|line| line.starts_with("GET") && line.contains("/blobs/")), "{asked:#?}");
        let mounted = asked.iter().filter(|line| line.contains("mount=") && line.contains("from=cache"));
        assert_eq!(mounted.count(), 3, "{asked:#?}");
        let of_cache: Vec<_> = asked.iter().filter(|line| line.contains("/v2/cache/")).collect();
        assert_eq!(of_cache.len(), 1, "one list, and nothing is written anew: {of_cache:#?}");
        assert_eq!(Ran::of(&mut place.command_on("b", &["images", "-q"])).ok().out(), "");
    });
}

/// <https://github.com/docker/buildx/issues/1142>, <https://github.com/docker/buildx/issues/841>: an export replaced the one before. FIELD P23.
#[test]
fn buildx_1142_branches_add_to_a_cache_and_take_nothing_away() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:main", registry.host());
        build(&place, "a", &[to(&cache)]).ok();
        let branch = format!("RUN cat {UUID} > /branch\n");
        place.base(&branch);
        build(&place, "b", &[to(&cache)]).ok();
        // The list is the branch's now; the records of both are there.
        for (dockerfile, steps) in [(chain(), 3), (branch, 2)] {
            place.base(&dockerfile);
            let machine = format!("fresh-{steps}");
            let ran = build(&place, &machine, &[from(&cache), tag("demo")]).ok();
            assert_eq!(ran.count("CACHED"), steps, "{ran}");
        }
        // Under another tag there is no list, which is said, and all the records.
        place.base(&chain());
        let ran = build(&place, "other", &[from(&format!("{}/cache:new", registry.host()))]).ok();
        assert_eq!(ran.count("CACHED"), 3, "{ran}");
        ran.says(&["there is no cache under", "cache:new yet"]);
    });
}

#[test]
fn a_stage_is_left_out_of_mode_min_and_need_not_run() {
    for_each_user(|user| {
        let place = Place::new(user);
        let stages = |more: &str| {
            format!(
                "FROM scratch AS tools\nCOPY bin /bin\n\
                 FROM tools AS build\nRUN cat {UUID} > /low\nRUN cp /low /out\n\
                 FROM tools\nCOPY --from=build /out /one\n{more}RUN cp /one /two\n"
            )
        };
        for (mode, lower, cached) in [("min", false, 3), ("max", true, 5)] {
            let registry = FakeRegistry::start();
            let cache = format!("{}/cache:1", registry.host());
            place.dockerfile(&stages(""));
            let a = format!("{mode}-a");
            build(&place, &a, &[to(&format!("type=registry,ref={cache},mode={mode}")), tag("demo")]).ok();
            let first = execution(&place, &a, "demo");
            let b = format!("{mode}-b");
            let ran = build(&place, &b, &[from(&cache), tag("demo")]).ok();
            // Had the stage run, it would have left something else.
            assert_eq!(
                (ran.count("CACHED"), execution(&place, &b, "demo")),
                (cached, first.clone()),
                "{ran}"
            );
            // A step that needs the stage's files: with mode=max they come, else the stage runs.
            place.dockerfile(&stages("COPY --from=build /low /low\n"));
            let c = format!("{mode}-c");
            build(&place, &c, &[from(&cache), tag("demo")]).ok();
            let low = inside(&place, &c, "demo", "cat /low").trim().to_owned();
            assert_eq!(low == first, lower, "mode={mode}");
            fsck(&place, &c);
        }
    });
}

#[test]
fn a_record_over_another_execution_of_the_step_below_is_not_taken() {
    for_each_user(|user| {
        let place = Place::with(user, &format!("RUN cat {UUID} > /one\n"));
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:1", registry.host());
        // This machine has done the lower step itself.
        build(&place, "b", &[tag("low")]).ok();
        let own = inside(&place, "b", "low", "cat /one").trim().to_owned();
        place.base(&chain());
        build(&place, "a", &[to(&cache)]).ok();
        build(&place, "b", &[from(&cache), tag("demo")]).ok();
        assert_eq!(execution(&place, "b", "demo"), own);
        // What it leaves there goes together again, for everybody.
        build(&place, "b", &[to(&cache)]).ok();
        let ran = build(&place, "c", &[from(&cache), tag("demo")]).ok();
        assert_eq!((ran.count("CACHED"), execution(&place, "c", "demo")), (3, own), "{ran}");
    });
}

#[test]
fn no_cache_takes_nothing_and_leaves_what_is_new() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:1", registry.host());
        build(&place, "a", &[to(&cache), tag("demo")]).ok();
        let old = execution(&place, "a", "demo");
        let mut args = [from(&cache), to(&cache), tag("demo")].concat();
        args.push("--no-cache".to_owned());
        let ran = Ran::of(&mut command(&place, "b", &args)).ok();
        assert_eq!(ran.count("CACHED"), 0, "{ran}");
        let new = execution(&place, "b", "demo");
        assert_ne!(new, old);
        build(&place, "c", &[from(&cache), tag("demo")]).ok();
        assert_eq!(execution(&place, "c", "demo"), new);
    });
}

#[test]
fn several_builds_that_leave_the_same_keys_at_once_leave_whole_records() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        let dir = place.text("cache");
        for target in [format!("{}/cache:1", registry.host()), format!("type=local,dest={dir}")] {
            let machines: Vec<String> = (0..3).map(|n| format!("m{n}-{}", target.len())).collect();
            let running: Vec<Running> =
                machines.iter().map(|machine| spawn(&place, machine, &[to(&target), tag("demo")])).collect();
            for running in running {
                running.wait().ok();
            }
            let source = target.replace("dest=", "src=");
            let machine = format!("reader-{}", target.len());
            build(&place, &machine, &[from(&source), tag("demo")]).ok();
            execution(&place, &machine, "demo");
            fsck(&place, &machine);
        }
    });
}

#[test]
fn a_directory_is_a_cache_like_a_repository() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let made = build(&place, "a", &[to("type=local,dest=cache,compression=zstd"), tag("demo")]).ok();
        let taken = build(&place, "b", &[from("type=local,src=cache"), tag("demo")]).ok();
        // Of another compression the files are the same, and so is the image.
        assert_eq!((taken.count("CACHED"), taken.digest()), (3, made.digest()), "{taken}");
        assert_eq!(execution(&place, "b", "demo"), execution(&place, "a", "demo"));
        // From a directory to a registry, without a step that runs.
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:1", registry.host());
        let ran = build(
            &place,
            "c",
            &[from("type=local,src=cache"), to(&cache), ["-o".to_owned(), "type=cacheonly".to_owned()]],
        );
        assert_eq!(ran.ok().count("CACHED"), 3);
        let ran = build(&place, "d", &[from(&cache), tag("demo")]).ok();
        assert_eq!((ran.count("CACHED"), ran.digest()), (3, made.digest()), "{ran}");
        build(&place, "e", &[from("type=local,src=nothing-here"), tag("demo")])
            .ok()
            .says(&["no results of steps are taken"]);
        fsck(&place, "d");
    });
}

#[test]
fn an_image_can_hold_its_own_records() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        let (with, without) = (format!("{}/app:1", registry.host()), format!("{}/plain:1", registry.host()));
        let made = build(
            &place,
            "a",
            &[to("type=inline"), tag(&with), ["-o".to_owned(), "type=registry".to_owned()]],
        )
        .ok();
        let taken = build(&place, "b", &[from(&with), to("type=inline"), tag("demo")]).ok();
        assert_eq!((taken.count("CACHED"), taken.digest()), (3, made.digest()), "{taken}");
        execution(&place, "b", "demo");
        build(&place, "a", &[tag(&without), ["-o".to_owned(), "type=registry".to_owned()]]).ok();
        let ran = build(&place, "c", &[from(&without), tag("demo")]).ok();
        assert_eq!(ran.count("CACHED"), 0, "{ran}");
        ran.says(&["holds no results of steps"]);
    });
}

#[test]
fn sources_that_are_not_there_are_warnings() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:1", registry.host());
        build(&place, "a", &[to(&cache)]).ok();
        // The first that has a record counts; one that fails is not asked again.
        let dead = "127.0.0.1:1/cache";
        let ran = build(&place, "b", &[from(dead), from(&cache), tag("demo")]).ok();
        assert_eq!(ran.count("CACHED"), 3, "{ran}");
        let ran = ran.says(&["no results of steps are taken from 127.0.0.1:1/cache"]);
        assert_eq!(ran.stderr.matches("no results of steps").count(), 1, "{ran}");
        let missing = build(&place, "c", &[from(&format!("{}/nothing:1", registry.host()))]).ok();
        assert_eq!(missing.count("CACHED"), 0, "{missing}");
    });
}

/// <https://github.com/moby/buildkit/issues/6499>: what the cache had took longer than making it again. FIELD P23.
#[test]
fn buildkit_6499_what_takes_longer_to_fetch_than_to_make_is_made() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN head -c 3000000 /dev/urandom > /large\n");
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:1", registry.host());
        build(&place, "a", &[to(&cache)]).ok();
        // What the last build measured: ten bytes a second.
        let slow = |machine: &str| {
            let host = registry.host();
            let name = Digest::of(host.as_bytes()).hex();
            let path = format!("{machine}/records/rate/{}/{name}.json", &name[..2]);
            build(
                &place,
                machine,
                &[
                    ["-o".to_owned(), "type=cacheonly".to_owned()],
                    ["-f".to_owned(), "context/empty".to_owned()],
                ],
            )
            .ok();
            place.file(&path, &format!("{{\"key\":\"{host}\",\"value\":10}}"));
        };
        place.file("context/empty", "FROM scratch\nCOPY empty /\n");
        slow("b");
        let ran = build(&place, "b", &[from(&cache), tag("demo")]).ok();
        // Nothing is wrong: a line of the step, and no warning.
        ran.says(&["runs because: ", "has it, but fetching it would take"]).lacks(&["WARN", "warning"]);
        let told = Ran::of(&mut place.command_on("b", &["explain"])).ok().out();
        assert!(told.contains("has it, but fetching it would take"), "{told}");
        let asked = registry.lines();
        assert!(!asked.iter().any(|line| line.starts_with("GET /v2/cache/blobs/")), "{asked:#?}");
        // Nobody needs the files of what goes to a registry that has them.
        slow("c");
        let name = format!("{}/app:1", registry.host());
        let ran =
            build(&place, "c", &[from(&cache), tag(&name), ["-o".to_owned(), "type=registry".to_owned()]])
                .ok();
        assert_eq!(ran.count("CACHED"), 2, "{ran}");
        ran.lacks(&["fetching it would take"]);
    });
}

#[test]
fn platforms_share_what_is_the_same_and_keep_apart_what_is_not() {
    for_each_user(|user| {
        let place = Place::with(user, "ARG TARGETARCH\nCOPY $TARGETARCH /arch\n");
        place.file("context/amd64", "amd64");
        place.file("context/arm64", "arm64");
        let registry = FakeRegistry::start();
        let platforms = ["--platform".to_owned(), "linux/amd64,linux/arm64".to_owned()];
        for target in [format!("{}/cache:1", registry.host()), "type=inline".to_owned()] {
            let image = format!("{}/app:{}", registry.host(), target.len());
            let output = ["-o".to_owned(), "type=registry".to_owned()];
            let n = target.len();
            let made =
                build(&place, &format!("a{n}"), &[platforms.clone(), to(&target), tag(&image), output]).ok();
            let source = if target.contains("inline") { image.clone() } else { target.clone() };
            let mut args = vec![platforms.clone(), from(&source)];
            if target.contains("inline") {
                args.push(to(&target));
            }
            let taken = build(&place, &format!("b{n}"), &args).ok();
            assert_eq!((taken.count("CACHED"), taken.digest()), (3, made.digest()), "{taken}");
        }
    });
}

#[test]
fn times_of_a_source_date_epoch_hold_for_what_is_taken() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:1", registry.host());
        // With and without a time, the records are the same; the images are not.
        build(&place, "a", &[to(&cache)]).ok();
        let clamped = |machine: &str, from: &str| {
            let args: Vec<&str> = ["--cache-from", from, "-t", "demo"].to_vec();
            Ran::of(&mut place.build_command(machine, &args)).ok()
        };
        let here = Ran::of(&mut place.build_command("a", &["-t", "demo"])).ok();
        let there = clamped("b", &cache);
        assert_eq!((there.count("CACHED"), there.digest()), (3, here.digest()), "{there}");
    });
}

/// <https://github.com/aws/containers-roadmap/issues/876>: a registry refused a cache that was an index of blobs. FIELD P23.
#[test]
fn containers_roadmap_876_a_cache_is_made_of_image_manifests_and_one_index_of_them() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        build(&place, "a", &[to(&format!("type=registry,ref={}/cache:1,mode=max", registry.host()))]).ok();
        let lines = registry.lines();
        let sent = lines.iter().filter_map(|line| line.strip_prefix("PUT /v2/cache/manifests/"));
        let sent: Vec<&str> = sent.filter_map(|rest| rest.split_whitespace().next()).collect();
        let mut indexes = 0;
        for reference in &sent {
            let (media_type, bytes) = registry.manifest("cache", reference).expect("it was sent");
            let document: serde_json::Value = serde_json::from_slice(&bytes).expect("it is JSON");
            if media_type == "application/vnd.oci.image.index.v1+json" {
                indexes += 1;
                for entry in document["manifests"].as_array().expect("a list") {
                    assert_eq!(entry["mediaType"], "application/vnd.oci.image.manifest.v1+json", "{entry}");
                    let digest = entry["digest"].as_str().expect("a digest");
                    assert!(registry.manifest("cache", digest).is_some(), "{digest} is no manifest there");
                }
                continue;
            }
            assert_eq!(media_type, "application/vnd.oci.image.manifest.v1+json", "{reference}");
            assert_eq!(document["config"]["mediaType"], "application/vnd.oci.empty.v1+json", "{document}");
            let layers = document["layers"].as_array().expect("a list");
            assert!(!layers.is_empty(), "{document}");
            for layer in layers {
                let digest =
                    layer["digest"].as_str().and_then(|digest| digest.parse().ok()).expect("a digest");
                assert!(registry.blob("cache", digest).is_some(), "{layer} is no blob there");
            }
        }
        assert_eq!((sent.len() > 3, indexes), (true, 1), "{sent:?}");
    });
}

#[test]
fn debians_registry_takes_records_and_lists() {
    use kiln_testkit::debian_registry::DebianRegistry;
    let Some(registry) = DebianRegistry::start(None) else { return };
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let cache = format!("type=registry,ref=127.0.0.1:{}/{}/cache:1", registry.port(), user.name());
        build(&place, "a", &[to(&format!("{cache},mode=max")), tag("demo")]).ok();
        let ran = build(&place, "b", &[from(&cache), tag("demo")]).ok();
        assert_eq!(ran.count("CACHED"), 3, "{ran}");
        assert_eq!(execution(&place, "b", "demo"), execution(&place, "a", "demo"));
    });
}
