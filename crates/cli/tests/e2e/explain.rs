//! Why steps run: `kiln build --explain`, `kiln explain`. The threads that are named are in buildkit and moby.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::place::{Place, Ran};
use crate::user::{User, for_each_user};

const FILES: &str = "FROM scratch\nCOPY src /src\n";

/// A place with a context of a few files and no base.
fn files(user: User) -> Place {
    let place = Place::new(user);
    place.dockerfile(FILES);
    place.file("context/src/a.py", "a");
    place.file("context/src/b.py", "b");
    place
}

/// Builds and says why each step ran: what follows "runs because: ".
fn reasons(place: &Place, args: &[&str]) -> Vec<String> {
    because(&place.build(&[&["--explain"], args].concat()).ok())
}

fn because(ran: &Ran) -> Vec<String> {
    let line = |line: &str| line.split_once("runs because: ").map(|(_, reason)| reason.to_owned());
    ran.stderr.lines().filter_map(line).collect()
}

fn explained(place: &Place, args: &[&str]) -> String {
    place.kiln(&[&["explain"], args].concat()).ok().out()
}

fn chmod(place: &Place, name: &str, mode: u32) {
    std::fs::set_permissions(place.path(name), Permissions::from_mode(mode)).expect("it is there");
}

/// <https://github.com/moby/moby/issues/32816>: a day went by until it was found that the umask was another one.
#[test]
fn moby_32816_another_umask_is_named_and_gets_a_hint() {
    for_each_user(|user| {
        let place = files(user);
        assert_eq!(reasons(&place, &[]), ["never built here"]);
        chmod(&place, "context/src/a.py", 0o664);
        let ran = place.build(&["--explain"]).ok().says(&["hint: ", "--context-modes=git"]);
        assert_eq!(because(&ran), ["src: src/a.py mode 0644 -> 0664"]);
        // Without --explain one line at the end says what costs most and shows least.
        chmod(&place, "context/src/a.py", 0o644);
        chmod(&place, "context/src/b.py", 0o600);
        place.build(&[]).ok().lacks(&["runs because"]).says(&[
            "hint: only permission bits differ in what [1/1] COPY src /src takes",
            "--context-modes=git",
        ]);
        // What git keeps as well is no matter of the umask.
        chmod(&place, "context/src/b.py", 0o755);
        place.build(&[]).ok().lacks(&["hint:"]);
        let out = explained(&place, &[]);
        assert!(out.contains("src: src/b.py mode 0600 -> 0755"), "{out}");
        assert!(!out.contains("hint"), "{out}");
        place.fsck();
    });
}

/// <https://github.com/moby/buildkit/issues/2567>, <https://github.com/moby/moby/issues/34715>: builders say CACHED or
/// nothing; which file it was is what people ask. <https://github.com/EarthBuild/earthbuild/pull/520> looks for the same answer. FIELD P13.
#[test]
fn buildkit_2567_changed_paths_of_a_copy_are_named() {
    for_each_user(|user| {
        let place = files(user);
        place.build(&[]).ok();
        place.file("context/src/a.py", "other");
        std::fs::remove_file(place.path("context/src/b.py")).expect("it is there");
        place.directory("context/src/b.py");
        place.file("context/src/new/c.py", "c");
        place.link("context/src/link", "a.py");
        let ran = place.build(&["--explain"]).ok();
        assert_eq!(because(&ran), ["src: 5 paths differ"], "{ran}");
        let ran = ran.says(&["src/a.py content", "src/b.py type file -> directory", "src/link added"]);
        ran.says(&["src/new added", "src/new/c.py added"]);
        for number in 0..15 {
            place.file(&format!("context/src/many/{number:02}"), "x");
        }
        let ran = place.build(&["--explain"]).ok();
        assert_eq!(because(&ran), ["src: 16 paths differ"], "{ran}");
        ran.says(&["src/many/08 added", "and 6 more"]).lacks(&["many/09 added"]);
        std::fs::remove_file(place.path("context/src/link")).expect("it is there");
        assert_eq!(reasons(&place, &[]), ["src: src/link removed"]);
        assert_eq!(reasons(&place, &[]), [""; 0]);
        let out = explained(&place, &[]);
        assert!(out.contains("every result was there, nothing ran (1 step)"), "{out}");
    });
}

/// <https://github.com/moby/buildkit/issues/3015>: an ARG in the environment of every RUN below it.
#[test]
fn buildkit_3015_an_argument_is_named_where_it_is_first_used() {
    for_each_user(|user| {
        let place = Place::new(user);
        let text = "ARG VERSION=1\nRUN true one\nRUN echo $VERSION\nRUN true three\n";
        place.base(text);
        place.build(&[]).ok();
        let ran = place.build(&["--explain", "--build-arg", "VERSION=2"]).ok();
        assert_eq!(
            because(&ran),
            [
                "ARG VERSION 1 -> 2 (first used here)",
                "step below is another: [2/4] RUN true one",
                "step below is another: [3/4] RUN echo $VERSION",
            ]
        );
        // Line 3 declares it, line 5 is the first to mention it.
        ran.says(&["every RUN below line 3 sees ARG VERSION, and line 5 is the first to mention it"]);
        // A value that may be a secret is not shown, nor kept.
        place.base("ARG API_TOKEN\nRUN true\n");
        place.build(&["--build-arg", "API_TOKEN=first-value"]).ok();
        let ran = place.build(&["--explain", "--build-arg", "API_TOKEN=second-value"]).ok();
        assert_eq!(because(&ran), ["ARG API_TOKEN (hidden) -> (hidden) (first used here)"]);
        let json = explained(&place, &["--json"]);
        assert!(!json.contains("second-value") && !json.contains("first-value"), "{json}");
        for notes in ["full", "single"] {
            let Ok(dir) = std::fs::read_dir(place.path(&format!("store/{notes}/notes/builds"))) else {
                continue;
            };
            for note in dir.flatten() {
                let text = std::fs::read_to_string(note.path()).expect("text");
                assert!(!text.contains("-value"), "{text}");
            }
        }
    });
}

/// <https://github.com/moby/buildkit/issues/2383>: what else it may be.
#[test]
fn buildkit_2383_each_kind_of_reason_has_words() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.base("ENV A=1\nWORKDIR /w\nRUN true one\n");
        place.build(&[]).ok();
        assert_eq!(reasons(&place, &["--no-cache"]), ["--no-cache", "--no-cache", "--no-cache"]);
        place.base("ENV A=2\nWORKDIR /w\nRUN true one\n");
        assert_eq!(reasons(&place, &[]), ["ENV A 1 -> 2"]);
        place.base("ENV A=2\nWORKDIR /w\nRUN true other\n");
        assert_eq!(reasons(&place, &[]), ["command true one -> true other"]);
        place.base("ENV A=2\nWORKDIR /x\nRUN true other\n");
        assert_eq!(
            reasons(&place, &[]),
            ["path /w -> /x", "directory /w -> /x (and 1 more)"],
            "the second stands on another step as well"
        );
        place.base("ENV A=2\nWORKDIR /x\nUSER 5\nRUN true other\n");
        assert_eq!(reasons(&place, &[]), ["user  -> 5".replace("  ", " (empty) ")]);
        place.base("ENV A=2\nWORKDIR /x\nUSER 5\nRUN --network=none true other\n");
        assert_eq!(reasons(&place, &[]), ["network default -> none"]);
        place.base("ENV A=2\nWORKDIR /x\nUSER 5\nRUN --network=none true other\nRUN true new\n");
        assert_eq!(reasons(&place, &[]), ["never built here"]);
        place.base("ENV A=2\nRUN false\n");
        place.build(&[]).code(1);
        let ran = place.build(&["--explain"]).code(1);
        assert_eq!(because(&ran), ["did not come to its end the last time"]);
        let out = explained(&place, &[]);
        assert!(out.contains("failed in") && out.contains("RUN false"), "{out}");
    });
}

#[test]
fn a_base_that_moved_is_named_and_the_digest_to_pin() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.file("context/src/a", "a");
        let base = "base=oci-layout://image";
        for content in ["one", "two"] {
            let _ = std::fs::remove_dir_all(place.path("image"));
            place.file("base/Dockerfile", &format!("FROM scratch\nCOPY <<E /version\n{content}\nE\n"));
            place.kiln(&["build", "-q", "-o", "type=oci,tar=false,dest=image", "base"]).ok();
            place.dockerfile("FROM base\nCOPY src /src\n");
            let ran = place.build(&["--explain", "--build-context", base]).ok();
            match content {
                "one" => assert_eq!(because(&ran), ["never built here"]),
                _ => {
                    let [reason] = &because(&ran)[..] else { panic!("{ran}") };
                    assert!(reason.starts_with("base image base:latest moved sha256:"), "{reason}");
                    ran.says(&["a digest does not move: FROM base:latest@sha256:"]);
                }
            }
        }
    });
}

/// <https://github.com/moby/moby/issues/34715>: a log says that the cache was not used, and not why. FIELD P13.
#[test]
fn moby_34715_what_was_pruned_is_said_to_be() {
    for_each_user(|user| {
        let place = files(user);
        place.build(&["-o", "type=cacheonly"]).ok();
        place.kiln(&["prune", "--all", "--force"]).ok();
        let [reason] = &reasons(&place, &["-o", "type=cacheonly"])[..] else { panic!("one step runs") };
        assert!(reason.starts_with("earlier result pruned ") && reason.ends_with(" ago"), "{reason}");
        // Changed as well: the change is what counts.
        place.kiln(&["prune", "--all", "--force"]).ok();
        place.file("context/src/a.py", "other");
        assert_eq!(reasons(&place, &["-o", "type=cacheonly"]), ["src: src/a.py content"]);
        place.fsck();
    });
}

#[test]
fn a_step_over_a_result_that_was_made_again_says_so() {
    for_each_user(|user| {
        let place = Place::new(user);
        let text = "FROM scratch AS a\nCOPY bin /bin\nRUN cat /proc/sys/kernel/random/uuid > /id\n\
                    FROM a\nRUN true above\n";
        place.dockerfile(text);
        place.build(&[]).ok();
        place.build(&["--no-cache", "--target", "a"]).ok();
        let reasons = reasons(&place, &[]);
        let [reason] = &reasons[..] else { panic!("{reasons:?}") };
        assert!(
            reason.starts_with("step below ran again, and its result differs: [a 2/2] RUN cat"),
            "{reason}"
        );
    });
}

#[test]
fn files_of_another_stage_are_named_with_it() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.dockerfile(
            "FROM scratch AS made\nCOPY bin /bin\nCOPY src /src\nRUN cp -r src out\n\
             FROM scratch\nCOPY --from=made /out /app\n",
        );
        place.file("context/src/a", "a");
        place.file("context/src/b", "b");
        place.build(&[]).ok();
        place.file("context/src/a", "other");
        let reasons = reasons(&place, &[]);
        let named = reasons.iter().any(|reason| reason == "out of stage made: out/a content");
        assert!(named && reasons.contains(&"src: src/a content".to_owned()), "{reasons:?}");
    });
}

#[test]
fn a_line_that_moved_is_found_again_and_a_new_one_is_new() {
    for_each_user(|user| {
        let place = files(user);
        place.file("context/lib/x", "x");
        place.dockerfile("FROM scratch\nCOPY src /src\nCOPY lib /lib\n");
        place.build(&[]).ok();
        place.dockerfile("FROM scratch\n# moved\nCOPY lib /lib\nCOPY src /src\n");
        assert_eq!(
            reasons(&place, &[]),
            ["step below is another: FROM scratch", "step below is another: [1/2] COPY lib /lib"]
        );
        place.file("context/src/a.py", "other");
        assert_eq!(reasons(&place, &[]), ["src: src/a.py content"]);
        place.dockerfile("FROM scratch\nCOPY lib /new\nCOPY lib /lib\nCOPY src /src\n");
        assert_eq!(reasons(&place, &[])[0], "never built here");
    });
}

#[test]
fn two_dockerfiles_of_one_directory_do_not_mix() {
    for_each_user(|user| {
        let place = files(user);
        place.file("context/other.Dockerfile", "FROM scratch\nCOPY src /elsewhere\n");
        place.build(&[]).ok();
        let other = ["-f", "context/other.Dockerfile"];
        assert_eq!(reasons(&place, &other), ["never built here"]);
        place.file("context/src/a.py", "1");
        place.build(&[]).ok();
        place.file("context/src/b.py", "2");
        assert_eq!(reasons(&place, &other), ["src: 2 paths differ"], "against its own last run");
        assert_eq!(reasons(&place, &[]), ["src: src/b.py content"]);
        // Another checkout of the same, as CI makes it, is compared all the same.
        for name in ["src/a.py", "src/b.py"] {
            place.file(&format!("again/{name}"), &place.read(&format!("context/{name}")));
        }
        place.file("again/Dockerfile", FILES);
        chmod(&place, "again/src/a.py", 0o664);
        let ran = place.kiln(&["build", "--progress=plain", "--explain", "again"]).ok();
        assert_eq!(because(&ran), ["src: src/a.py mode 0644 -> 0664"]);
    });
}

#[test]
fn a_build_of_another_branch_in_between_is_not_what_is_compared_with() {
    for_each_user(|user| {
        let place = files(user);
        place.build(&[]).ok();
        let first = explained(&place, &[]);
        for name in ["a.py", "b.py", "c.py", "d.py"] {
            place.file(&format!("context/src/{name}"), "of a branch");
        }
        place.build(&[]).ok();
        for (name, content) in [("a.py", "a"), ("b.py", "back")] {
            place.file(&format!("context/src/{name}"), content);
        }
        for name in ["c.py", "d.py"] {
            std::fs::remove_file(place.path(&format!("context/src/{name}"))).expect("it is there");
        }
        assert_eq!(reasons(&place, &[]), ["src: src/b.py content"]);
        let id = first.split_whitespace().nth(1).expect("an id").to_owned();
        let out = explained(&place, &[]);
        assert!(out.contains(&format!("compared with build {id}")), "{out}\n{first}");
    });
}

#[test]
fn builds_and_steps_are_found_by_what_people_call_them() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.kiln(&["explain"]).code(2).says(&["no build is remembered"]);
        assert_eq!(explained(&place, &["--list"]).lines().count(), 1);
        place.base("RUN true one\nRUN true two\n");
        place.build(&[]).ok();
        place.base("RUN true one\nRUN false\n");
        place.build(&[]).code(1);
        let json: Value = serde_json::from_str(&explained(&place, &["--list", "--json"])).expect("JSON");
        let builds = json.as_array().expect("a list");
        let verdicts: Vec<&str> = builds.iter().filter_map(|build| build["verdict"].as_str()).collect();
        assert_eq!(verdicts, ["failed", "done"]);
        assert_eq!(builds[1]["steps"][2]["summary"], "never built here");
        let first = builds[1]["id"].as_str().expect("an id");
        assert_eq!(explained(&place, &["--list"]).lines().count(), 3);
        for step in ["3", "3/3", "[3/3]", ":4", "Dockerfile:4", "true two"] {
            let out = explained(&place, &[&first[..6], step]);
            assert!(out.contains("[3/3] RUN true two") && !out.contains("true one"), "{step}: {out}");
        }
        // One word is a step of the last build, unless it is a build.
        assert!(explained(&place, &["3"]).contains("RUN false"));
        assert!(explained(&place, &[first]).contains("RUN true one"));
        place.kiln(&["explain", first, "9"]).code(2).says(&["no step \"9\" ran", "was cached"]);
        place.kiln(&["explain", first, "true"]).code(2).says(&["RUN true one or"]);
        place.kiln(&["explain", "ffffffffffff", "3"]).code(2).says(&["--list"]);
        let events = place.kiln(&["build", "--progress=json", "--explain", "--no-cache", "context"]).code(1);
        let line = |line: &&str| line.contains("\"event\":\"step_reason\"");
        let event: Value = events
            .stderr
            .lines()
            .find(line)
            .and_then(|line| serde_json::from_str(line).ok())
            .expect("an event");
        assert_eq!(event["why"]["reason"]["reason"], "no_cache", "{event}");
    });
}

#[test]
fn what_is_noted_is_bounded_and_a_damaged_note_harms_nothing() {
    for_each_user(|user| {
        let place = files(user);
        place.build(&[]).ok();
        for kind in ["builds", "lines", "files"] {
            let dirs = ["full", "single"].map(|ids| place.path(&format!("store/{ids}/notes/{kind}")));
            for note in dirs.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten() {
                std::fs::write(note.path(), "\u{1}damaged").expect("written");
            }
        }
        place.file("context/src/a.py", "other");
        let reasons = reasons(&place, &[]);
        assert_eq!(reasons, ["never built here"], "nothing is left to compare with");
        place.kiln(&["explain", "--list"]).ok();
        place.file("context/src/a.py", "third");
        assert_eq!(self::reasons(&place, &[]), ["src: src/a.py content"]);
        place.fsck();
    });
}
