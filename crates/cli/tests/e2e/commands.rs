//! The commands besides build.

use std::process::Command;

use kiln_testkit::tools::run;
use serde_json::Value;

use crate::place::{Place, Ran};
use crate::user::{User, for_each_user};

#[test]
fn run_takes_the_images_configuration_and_gives_its_status() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "ENV from=image\nWORKDIR /srv\nENTRYPOINT [\"/bin/sh\", \"-c\"]\nCMD [\"echo $from $(pwd)\"]\n",
        );
        place.build(&["-t", "demo"]).ok();
        assert_eq!(place.kiln(&["run", "--rm", "demo"]).ok().out(), "image /srv\n");
        assert_eq!(place.kiln(&["run", "-e", "from=me", "-w", "/bin", "demo"]).ok().out(), "me /bin\n");
        place.kiln(&["run", "demo", "exit 42"]).code(42);
        place.kiln(&["run", "demo", "kill -9 $$"]).code(137);
        assert_eq!(place.kiln(&["run", "--entrypoint", "/bin/echo", "demo", "a", "-b"]).ok().out(), "a -b\n");
        place.kiln(&["run", "demo", "echo x > /x"]).ok();
        place.kiln(&["run", "demo", "test ! -e /x"]).ok();
        if user.has_range() {
            assert_eq!(place.kiln(&["run", "-u", "5:6", "demo", "id -u; id -g"]).ok().out(), "5\n6\n");
        }
        place.is_quiet();
    });
}

#[test]
fn images_are_listed_and_removed_and_pruned() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN echo one > /one\n");
        place.build(&["-t", "one", "-t", "other:2"]).ok();
        place.base("RUN echo two > /two\n");
        place.build(&["-t", "127.0.0.1:1/two"]).ok();
        let listed = place.kiln(&["images"]).ok().out();
        assert!(["one", "other:2", "two"].iter().all(|name| listed.contains(name)), "{listed}");
        let json: Value = serde_json::from_str(&place.kiln(&["images", "--json"]).ok().out()).expect("JSON");
        assert_eq!(json.as_array().map(Vec::len), Some(3));
        place.kiln(&["rmi", "one", "other:2"]).ok();
        place.kiln(&["prune", "--all"]).ok();
        assert_eq!(place.run("127.0.0.1:1/two", "cat /two"), "two\n");
        place.kiln(&["rmi", "127.0.0.1:1/two"]).ok();
        place.kiln(&["prune", "--all", "--cache-mounts"]).ok();
        place.kiln(&["run", "127.0.0.1:1/two"]).code(125);
        place.fsck();
        place.build(&["-t", "again"]).ok();
    });
}

#[test]
fn du_tells_what_du_tells() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN --mount=type=cache,target=/c seq 1 100000 > /c/f && seq 1 200000 > /f && ln /f /g\n",
        );
        place.build(&["-t", "demo"]).ok();
        let usage: Value = serde_json::from_str(&place.kiln(&["du", "--json"]).ok().out()).expect("JSON");
        let kinds = ["layers", "failed", "blobs", "sources", "records", "caches", "other"];
        let total: u64 =
            kinds.iter().map(|kind| usage[kind].as_u64().unwrap_or_else(|| panic!("{usage}"))).sum();
        let real = run(Command::new("du").args(["-s", "-B1", &place.text("store")]));
        let real: u64 = real.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number");
        assert!(total.abs_diff(real) * 100 <= real, "kiln says {total}, du says {real}: {usage}");
    });
}

#[test]
fn doctor_says_which_rung_and_why() {
    for_each_user(|user| {
        let place = Place::new(user);
        let text = place.kiln(&["doctor", "--json"]).ok().out();
        let rungs: Value = serde_json::from_str(&text).expect("JSON");
        let rungs = rungs.as_array().expect("a list");
        assert!(rungs.iter().all(|rung| rung["what"].is_string() && rung["reason"].is_string()), "{text}");
        assert!(rungs.iter().all(|rung| !rung["chosen"].is_null()), "the tests run, so all works: {text}");
        let advised = rungs.iter().any(|rung| {
            rung["raise"].as_str().is_some_and(|text| text.contains("subuid") || text.contains("usermod"))
        });
        assert_eq!(advised, user == User::Plain, "{text}");
    });
}

#[test]
fn teaching_commands_need_no_store() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN echo x\n");
        let graph = place.kiln(&["graph", "context"]).ok().out();
        assert!(graph.contains("RUN echo x") && graph.contains("COPY bin /bin"), "{graph}");
        let plan = place.kiln(&["debug", "plan", "context/Dockerfile"]).ok().out();
        assert!(plan.contains("result ") && plan.contains("run root="), "{plan}");
        assert!(
            place.kiln(&["debug", "parse", "context/Dockerfile"]).ok().out().to_lowercase().contains("run")
        );
        for shell in ["bash", "zsh", "fish"] {
            assert!(place.kiln(&["completion", shell]).ok().out().contains("metadata-file"), "{shell}");
        }
        assert!(Ran::of(&mut place.command(&["--version"])).ok().out().starts_with("kiln "));
        assert!(!place.path("store").exists());
    });
}
