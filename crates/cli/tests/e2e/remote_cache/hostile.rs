//! Caches that fail, lie, or are not allowed; and what must not be in one.

use kiln_core::Digest;
use kiln_oci::{Document, media};
use kiln_testkit::registry::{FakeRegistry, Fault};

use super::{build, chain, command, execution, from, fsck, inside, tag, to};
use crate::place::{Place, Ran};
use crate::user::for_each_user;

/// The tags of records that were written since the last look.
fn records(registry: &FakeRegistry) -> Vec<String> {
    let tag = |line: &String| Some(line.strip_prefix("PUT /v2/cache/manifests/kiln-")?.to_owned());
    let mut tags: Vec<String> = registry.lines().iter().filter_map(tag).collect();
    tags.iter_mut().for_each(|tag| *tag = format!("kiln-{}", tag.split(' ').next().unwrap_or_default()));
    tags
}

#[test]
fn a_registry_that_dies_while_layers_are_fetched_costs_only_the_hits() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:1", registry.host());
        build(&place, "a", &[to(&cache)]).ok();
        place.base(&(chain() + "RUN cat /two > /four\n"));
        let away = Fault::Status { status: 403, headers: Vec::new(), body: String::new() };
        registry.fault("GET /v2/cache/blobs/", 100, away);
        let ran = build(&place, "b", &[from(&cache), tag("demo")]).ok();
        ran.says(&["no results of steps are taken"]);
        let own = execution(&place, "b", "demo");
        assert_eq!(inside(&place, "b", "demo", "cat /four").trim(), own);
        fsck(&place, "b");
        place.is_quiet();
    });
}

#[test]
fn a_layer_with_other_bytes_is_not_used_and_its_step_runs() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:1", registry.host());
        build(&place, "a", &[to(&cache), tag("demo")]).ok();
        let first = execution(&place, "a", "demo");
        registry.fault("GET /v2/cache/blobs/", 100, Fault::Corrupt);
        let ran = build(&place, "b", &[from(&cache), tag("demo")]).ok();
        ran.says(&["is not used, its step runs instead"]);
        assert_ne!(execution(&place, "b", "demo"), first);
        fsck(&place, "b");
    });
}

#[test]
fn records_that_lie_never_make_another_image() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        let (cache, unlisted) =
            (format!("{}/cache:1", registry.host()), format!("{}/cache:2", registry.host()));
        build(&place, "a", &[to(&cache)]).ok();
        let tags = records(&registry);
        assert_eq!(tags.len(), 3, "{tags:?}");
        let originals: Vec<Vec<u8>> =
            tags.iter().map(|tag| registry.manifest("cache", tag).expect("a record").1).collect();
        let put = |tag: &str, bytes: Vec<u8>| {
            registry.put_manifest("cache", &[tag], &Document::new(media::OCI_MANIFEST, bytes));
        };
        let change = |number: usize, change: &dyn Fn(&str) -> String| {
            let text = String::from_utf8(originals[number].clone()).expect("JSON");
            let changed = change(&text);
            assert_ne!(changed, text, "nothing was changed");
            changed.into_bytes()
        };
        // Named by the diff id of other files: unpacking finds out, and the step runs.
        let diff_id = |number: usize| {
            let text = String::from_utf8(originals[number].clone()).expect("JSON");
            let at = text.rfind("diff_id").expect("a layer") + "diff_id\\\":\\\"".len();
            text[at..at + 71].to_owned()
        };
        let (real, wrong) = (diff_id(2), Digest::of(b"other files").to_string());
        let lies: [(&str, usize, Vec<u8>, &str); 5] = [
            ("another step's", 2, originals[1].clone(), "it is the record of another step"),
            ("garbage", 2, b"{\"schemaVersion\":2".to_vec(), "it is no record"),
            ("a diff id", 2, change(2, &|text| text.replace(&real, &wrong)), "its step runs instead"),
            ("sizes", 2, change(2, &|text| text.replace("\"size\":", "\"size\":9")), "its step runs instead"),
            ("version", 2, change(2, &|text| text.replace("version\\\":1", "version\\\":9")), "version 9"),
        ];
        for (name, number, bytes, says) in lies {
            put(&tags[number], bytes);
            let machine = format!("b-{}", name.len());
            let ran = build(&place, &machine, &[from(&unlisted), tag("demo")]).ok().says(&[says]);
            assert!(ran.stderr.contains(says), "{name}: {ran}");
            execution(&place, &machine, "demo");
            fsck(&place, &machine);
            put(&tags[number], originals[number].clone());
        }
    });
}

#[test]
fn a_cache_that_cannot_be_written_is_a_failure_unless_it_is_ignored() {
    for_each_user(|user| {
        let place = Place::with(user, &chain());
        let registry = FakeRegistry::start();
        let cache = format!("type=registry,ref={}/cache:1", registry.host());
        let denied = || Fault::Status { status: 403, headers: Vec::new(), body: String::new() };
        registry.fault("PUT /v2/cache/manifests/", 1000, denied());
        let ran = build(&place, "a", &[to(&cache), tag("demo")]).code(4);
        ran.says(&["the cache could not be left in", "denies pushing to cache", "kiln login"]);
        // The image is there all the same.
        execution(&place, "a", "demo");
        let ignored = build(&place, "b", &[to(&format!("{cache},ignore-error=true")), tag("demo")]).ok();
        ignored.says(&["the cache could not be left in"]);
        // Nobody's credentials help here.
        let file = "type=local,dest=context/Dockerfile";
        let ran = build(&place, "b", &[to(file), tag("demo")]).code(3);
        ran.says(&[
            "the cache could not be left in",
            "with ignore-error=true in --cache-to this is a warning",
        ]);
        fsck(&place, "b");
    });
}

#[test]
fn what_a_failed_build_got_done_is_left_too() {
    for_each_user(|user| {
        let place = Place::with(user, &(chain() + "RUN false\n"));
        let registry = FakeRegistry::start();
        let cache = format!("{}/cache:1", registry.host());
        build(&place, "a", &[to(&cache)]).code(1);
        place.base(&chain());
        let ran = build(&place, "b", &[from(&cache), tag("demo")]).ok();
        assert_eq!(ran.count("CACHED"), 3, "{ran}");
        execution(&place, "b", "demo");
    });
}

#[test]
fn no_secret_and_no_variable_is_in_what_is_left() {
    for_each_user(|user| {
        let run =
            "ARG PASSWORD\nRUN --mount=type=secret,id=token test -s /run/secrets/token && echo fine > /one\n";
        let place = Place::with(user, run);
        place.file("token", "the-secret-value");
        let args = |machine: &str, cache: [String; 2]| {
            let more = ["--secret", "id=token,src=token", "--build-arg", "PASSWORD=a-variable-value"];
            let all = [cache.to_vec(), more.map(str::to_owned).to_vec()].concat();
            Ran::of(&mut command(&place, machine, &all)).ok()
        };
        args("a", to("type=local,dest=cache,mode=max,compression=uncompressed"));
        let mut files = 0;
        let mut todo = vec![place.path("cache")];
        while let Some(path) = todo.pop() {
            if path.is_dir() {
                todo.extend(
                    std::fs::read_dir(path)
                        .expect("a directory")
                        .map(|entry| entry.expect("an entry").path()),
                );
                continue;
            }
            let bytes = std::fs::read(&path).expect("a file");
            for value in ["the-secret-value", "a-variable-value"] {
                let found = bytes.windows(value.len()).any(|window| window == value.as_bytes());
                assert!(!found, "{value} is in {}", path.display());
            }
            files += 1;
        }
        assert!(files > 4, "{files} files");
        let ran = args("b", from("type=local,src=cache"));
        assert_eq!(ran.count("CACHED"), 2, "{ran}");
    });
}
