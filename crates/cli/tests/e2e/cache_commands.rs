//! `kiln cache`: what there is, what is in it, going into it, taking it away.

use std::fs;
use std::io::Write as _;

use serde_json::Value;

use crate::place::Place;
use crate::user::{User, for_each_user};

/// With two caches: `pip`, which holds two files, and one without an id.
fn place(user: User) -> Place {
    let place = Place::new(user);
    place.builds(
        "RUN --mount=type=cache,id=pip,target=/a echo x > /a/f && mkdir /a/wheels && echo y > /a/wheels/w\n\
         RUN --mount=type=cache,target=/root/.cache/npm echo z > /root/.cache/npm/g\n",
    );
    place
}

fn listed(place: &Place, args: &[&str]) -> Vec<Value> {
    let out = place.kiln(&[&["cache", "ls", "--json"], args].concat()).ok().out();
    serde_json::from_str(&out).expect("it is JSON")
}

fn ids(place: &Place, filter: &str) -> String {
    place.kiln(&["cache", "ls", "-q", "--filter", filter]).ok().out().lines().collect::<Vec<_>>().join(" ")
}

#[test]
fn buildx_1922_caches_are_listed_by_the_ids_that_were_given_to_them() {
    for_each_user(|user| {
        let place = place(user);
        place.builds("RUN --mount=type=cache,id=pip,target=/b test -f /b/f && rm /b/wheels/w\n");
        let all = listed(&place, &[]);
        let [pip, npm] = &all[..] else { panic!("{all:?}") };
        assert_eq!((pip["id"].as_str(), pip["scope"].as_str()), (Some("pip"), Some("global")));
        assert_eq!(
            (&pip["files"], &pip["counted"], &pip["placed"]),
            (&1.into(), &true.into(), &false.into())
        );
        assert_eq!(pip["targets"], serde_json::json!(["/a", "/b"]));
        let figures = &pip["figures"];
        assert_eq!(
            (&figures["uses"], &figures["warm"], &figures["found_files"]),
            (&2.into(), &1.into(), &2.into())
        );
        assert_eq!((&figures["added_files"], &figures["removed_files"]), (&2.into(), &1.into()));
        // By which step of which build.
        let user = pip["last_user"].as_str().unwrap_or_default();
        assert!(user.contains("test -f /b/f") && user.contains("context"), "{user}");
        assert_eq!(npm["id"], "/root/.cache/npm");
        assert!(npm["scope"].as_str().is_some_and(|scope| scope.starts_with("linux/")), "{npm}");
        // As docker names flags; a wildcard crosses slashes, for an id is no path.
        assert_eq!(ids(&place, "id=p*"), "pip");
        assert_eq!(ids(&place, "id=*npm"), "/root/.cache/npm");
        assert_eq!(ids(&place, "scope=linux/*"), "/root/.cache/npm");
        assert_eq!(ids(&place, "until=1h"), "");
        assert_eq!(ids(&place, "held=false"), "pip /root/.cache/npm");
        let formatted = place.kiln(&[
            "cache",
            "ls",
            "--format",
            "{{.ID}} {{.UsageCount}} {{.Hits}}",
            "--filter",
            "id=pip",
        ]);
        assert_eq!(formatted.ok().out(), "pip 2 1\n");
        place.kiln(&["cache", "ls", "--filter", "colour=red"]).code(2).says(&["there are id, scope, until"]);
        place.kiln(&["cache", "ls", "--filter", "id=[a"]).code(2).says(&["[a"]);
    });
}

#[test]
fn a_list_walks_no_cache_and_says_how_old_its_numbers_are() {
    for_each_user(|user| {
        let place = place(user);
        let path = place.kiln(&["cache", "path", "pip"]).ok().out();
        let path = std::path::Path::new(path.trim_end());
        let before = listed(&place, &["--filter", "id=pip"]);
        // What kiln did not see it does not know: so nothing was walked.
        fs::write(path.join("unseen"), [7; 100_000]).expect("root may");
        assert_eq!(listed(&place, &["--filter", "id=pip"]), before);
        // Nor is it counted if all that is known is that the last user died.
        let meta = path.with_file_name("meta.json");
        let text = fs::read_to_string(&meta)
            .expect("it is there")
            .replace("\"counted\": true", "\"counted\": false");
        fs::write(&meta, text).expect("root may");
        let old = &listed(&place, &["--filter", "id=pip"])[0];
        assert_eq!((&old["size"], &old["counted"]), (&before[0]["size"], &false.into()));
        let shown = place.kiln(&["cache", "ls"]).ok();
        assert!(shown.out().contains('~'), "{shown}");
        shown.says(&["kiln cache du"]);
        place.kiln(&["cache", "du"]).ok().lacks(&["~"]);
        let now = &listed(&place, &["--filter", "id=pip"])[0];
        assert!(now["size"].as_u64() >= before[0]["size"].as_u64().map(|size| size + 100_000), "{now}");
        assert_eq!((&now["files"], &now["counted"]), (&3.into(), &true.into()));
    });
}

#[test]
fn inspect_says_what_is_in_a_cache() {
    for_each_user(|user| {
        let place = place(user);
        let text = place.kiln(&["cache", "inspect", "pip"]).ok().out();
        for words in ["wheels/", "in 2 files", "global", "/a", "1, 0 of them found something"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let json = place.kiln(&["cache", "inspect", "--json", "pip", "/root/.cache/npm"]).ok().out();
        let json: Value = serde_json::from_str(&json).expect("it is JSON");
        let names: Vec<_> =
            json[0]["parts"].as_array().expect("a list").iter().map(|part| &part["name"]).collect();
        assert!(names.contains(&&"wheels".into()) && names.contains(&&"f".into()), "{json}");
        assert_eq!(json[1]["parts"][0]["name"], "g");
        place.kiln(&["cache", "inspect", "nothing"]).code(2).says(&["nothing", "kiln cache ls"]);
    });
}

#[test]
fn an_id_in_two_scopes_wants_the_scope() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN --mount=type=cache,target=/c echo x > /c/f\n\
             RUN --mount=type=cache,id=/c,target=/d echo y > /d/f\n",
        );
        place.build(&[]).ok();
        place.kiln(&["cache", "path", "/c"]).code(2).says(&["global", "linux/", "--scope"]);
        let path = place.kiln(&["cache", "path", "/c", "--scope", "global"]).ok().out();
        assert_eq!(fs::read_to_string(format!("{}/f", path.trim_end())).expect("it is readable"), "y\n");
    });
}

#[test]
fn a_shell_in_a_cache_has_it_alone_and_may_do_what_steps_may() {
    for_each_user(|user| {
        let place = place(user);
        if user.has_range() {
            // A file that only kiln's namespace lets one remove.
            place.builds("RUN --mount=type=cache,id=pip,target=/a mkdir -m 700 /a/own && touch /a/own/f && chown -R 7:7 /a/own\n");
        } else {
            place.builds("RUN --mount=type=cache,id=pip,target=/a mkdir /a/own && touch /a/own/f\n");
        }
        let gate = place.text("gate");
        let mkfifo = place.as_user("mkfifo", "store", &[&gate]).status().expect("mkfifo");
        assert!(mkfifo.success());
        let script =
            format!("test $(id -u) = 0 && rm -r own && echo new > made && echo inside >&2 && cat {gate}");
        let mut shell =
            place.spawn(&mut place.command(&["cache", "shell", "pip", "--", "/bin/sh", "-c", &script]));
        assert!(shell.until("inside"), "{}", shell.seen);
        place.kiln(&["cache", "rm", "pip"]).code(3).says(&["kiln cache shell"]);
        let held = &listed(&place, &["--filter", "held=true"]);
        assert!(
            held.len() == 1 && held[0]["held_by"].as_str().is_some_and(|by| by.contains("cache shell")),
            "{held:?}"
        );
        place.kiln(&["cache", "prune", "--all", "--filter", "id=pip"]).ok().says(&["kept pip"]);
        fs::OpenOptions::new()
            .write(true)
            .open(place.path("gate"))
            .expect("it is read")
            .write_all(b"go")
            .expect("it is read");
        shell.wait().ok();
        let after = &listed(&place, &["--filter", "id=pip"])[0];
        assert_eq!((&after["files"], &after["counted"]), (&3.into(), &true.into()));
        place.kiln(&["cache", "shell", "pip", "--", "/bin/sh", "-c", "test -f made && exit 7"]).code(7);
        place.kiln(&["cache", "shell", "pip", "--", "/no/such/program"]).code(2).says(&["/no/such/program"]);
        place.kiln(&["cache", "shell", "none"]).code(2).says(&["none"]);
    });
}

/// <https://github.com/docker/buildx/issues/931>: one cache mount, by its id. <https://github.com/containers/buildah/issues/4486>: there was
/// no command that removes cache mounts. FIELD P3.
#[test]
fn buildx_931_prune_takes_what_is_asked_for_and_says_what_it_would_take() {
    for_each_user(|user| {
        let place = place(user);
        place.kiln(&["cache", "prune"]).code(2).says(&["--all"]);
        place.kiln(&["cache", "prune", "-f", "--filter", "until=1h"]).ok().prints(&[]).says(&[]);
        assert_eq!(listed(&place, &[]).len(), 2);
        let would = place.kiln(&["cache", "prune", "--filter", "id=*npm", "--dry-run"]).ok().out();
        assert!(
            would.contains("would remove /root/.cache/npm") && would.contains("Would reclaim"),
            "{would}"
        );
        assert_eq!(listed(&place, &[]).len(), 2);
        // All fits.
        place.kiln(&["cache", "prune", "--max-used-space", "1g"]).ok();
        assert_eq!(listed(&place, &[]).len(), 2);
        // The least recently used one goes first.
        let npm = place.kiln(&["cache", "path", "/root/.cache/npm"]).ok().out();
        let meta = std::path::Path::new(npm.trim_end()).with_file_name("meta.json");
        let mut known: Value =
            serde_json::from_slice(&fs::read(&meta).expect("it is there")).expect("it is JSON");
        known["last_used"] = 1.into();
        fs::write(&meta, known.to_string()).expect("root may");
        let pip = listed(&place, &["--filter", "id=pip"])[0]["size"].as_u64().expect("a number");
        place.kiln(&["cache", "prune", "--keep-storage", &format!("{pip}")]).ok();
        assert_eq!(ids(&place, "placed=false"), "pip");
        place.kiln(&["cache", "prune", "-af"]).ok();
        assert!(listed(&place, &[]).is_empty());
        place.fsck();
    });
}

/// <https://github.com/moby/buildkit/issues/1359>: how layers are removed and cache mounts are not; which filters there are stood
/// nowhere. FIELD P3.
#[test]
fn buildkit_1359_layers_are_pruned_without_cache_mounts_and_filters_are_named() {
    for_each_user(|user| {
        let place = place(user);
        place.kiln(&["prune", "--all"]).ok();
        place.base("RUN --mount=type=cache,id=pip,target=/a grep x /a/f\n");
        assert_eq!(place.build(&[]).ok().count("CACHED"), 0);
        assert_eq!(ids(&place, "placed=false"), "pip /root/.cache/npm");
        place.kiln(&["prune", "--filter", "type=regular"]).code(2).says(&["type=regular", "until=AGE"]);
        place.kiln(&["prune", "--all", "--cache-mounts"]).ok();
        assert!(listed(&place, &[]).is_empty());
        place.fsck();
    });
}

/// Between two steps a build holds none of its caches, and the next one may want what the last one left.
#[test]
fn prune_leaves_what_a_running_build_has_used() {
    for_each_user(|user| {
        let place = place(user);
        place
            .base("RUN --mount=type=cache,id=made,target=/c echo x > /c/f\nRUN echo begun && sleep 100000\n");
        let mut build = place.start(&[]);
        assert!(build.until(" begun\n"), "{}", build.seen);
        for args in [&["cache", "prune", "--all"][..], &["prune", "--all", "--cache-mounts"]] {
            place.kiln(args).ok().says(&["kept made (global): a build that runs has used it"]);
            assert_eq!(ids(&place, "id=made"), "made");
        }
        build.signal(rustix::process::Signal::INT);
        build.wait().code(130);
        place.kiln(&["prune", "--all", "--cache-mounts"]).ok().lacks(&["kept made"]);
        assert!(listed(&place, &[]).is_empty());
        place.fsck();
    });
}

/// While a step has it nobody takes it, and whoever wants to is told who has it.
#[test]
fn a_cache_in_use_stays_and_says_whose_it_is() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN --mount=type=cache,id=used,target=/c echo x > /c/f && echo begun && sleep 100000\n",
        );
        let mut build = place.start(&[]);
        assert!(build.until(" begun\n"), "{}", build.seen);
        let held = place.kiln(&["cache", "rm", "used"]).code(3);
        held.says(&["is in use by process", "sleep 100000", "`kiln cache ls` shows who"])
            .lacks(&["kiln doctor"]);
        assert!(listed(&place, &[])[0]["held_by"].as_str().is_some_and(|by| by.contains("sleep 100000")));
        for args in [&["cache", "prune", "--all"][..], &["prune", "--all", "--cache-mounts"]] {
            place.kiln(args).ok().says(&["kept used (global): process", "uses it"]);
        }
        build.signal(rustix::process::Signal::INT);
        build.wait().code(130);
        place.kiln(&["cache", "rm", "used"]).ok();
        place.fsck();
    });
}

#[test]
fn odd_ids_are_shown_and_found_and_stay_inside() {
    for_each_user(|user| {
        let place = Place::new(user);
        let long = "x".repeat(3000);
        place.dockerfile(&format!(
            "FROM scratch\nCOPY bin /bin\nRUN --mount=type=cache,id=../../../up,target=/a echo up > /a/f\n\
             RUN --mount=type=cache,id=\"two words\",target=/a echo two > /a/f\n\
             RUN --mount=type=cache,id={long},target=/a echo long > /a/f\n"
        ));
        place.build(&[]).ok();
        for (id, content) in [("../../../up", "up\n"), ("two words", "two\n"), (long.as_str(), "long\n")] {
            let path = place.kiln(&["cache", "path", id]).ok().out();
            assert!(path.starts_with(&place.text("store/")), "{path}");
            assert_eq!(fs::read_to_string(format!("{}/f", path.trim_end())).expect("root may"), content);
            place.kiln(&["cache", "rm", id]).ok();
        }
        assert!(listed(&place, &[]).is_empty());
        // Nobody types these into a Dockerfile, but an argument may bring them.
        let accents = "é".repeat(200);
        let odd = [
            "a\nb",
            "\u{1b}[31mred",
            "\u{202e}txt.exe",
            "größe 日本",
            "-rf",
            "..",
            ".hidden",
            "a+b",
            "global",
            accents.as_str(),
        ];
        for id in odd {
            place.base("ARG ID\nRUN --mount=type=cache,id=$ID,target=/a echo \"$ID\" > /a/f\n");
            place.kiln(&["cache", "path", "--", id]).code(2).lacks(&["\u{1b}[31m", "panicked"]);
            place.build(&[&format!("--build-arg=ID={id}")]).ok();
            let path = place.kiln(&["cache", "path", "--", id]).ok().out();
            let path = path.strip_suffix('\n').expect("one line");
            assert!(
                path.starts_with(&place.text("store/")) && !path.contains(['\n', '\u{1b}', '\u{202e}']),
                "{path:?}"
            );
            assert_eq!(fs::read_to_string(format!("{path}/f")).expect("root may"), format!("{id}\n"));
        }
        let shown = place.kiln(&["cache", "ls"]).ok().out();
        let quiet = place.kiln(&["cache", "ls", "-q"]).ok().out();
        assert_eq!((shown.lines().count(), quiet.lines().count()), (odd.len() + 1, odd.len()), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() < 200), "{shown}");
        assert!(!(shown + &quiet).contains(['\u{1b}', '\u{202e}']));
        let mut found: Vec<String> = listed(&place, &[])
            .iter()
            .map(|cache| cache["id"].as_str().unwrap_or_default().to_owned())
            .collect();
        found.sort();
        let mut sorted = odd.to_vec();
        sorted.sort_unstable();
        assert_eq!(found, sorted);
        let inspected = place.kiln(&["cache", "inspect", "--", odd[0]]).ok().out();
        assert!(inspected.contains("a\\nb"), "{inspected}");
        for id in odd {
            let gone = place.kiln(&["cache", "rm", "--", id]).ok();
            assert_eq!(gone.out().lines().count(), 1, "{gone}");
            assert!(!gone.out().contains(['\u{1b}', '\u{202e}']), "{gone}");
        }
        // An empty one is none: the target counts.
        place.base("RUN --mount=type=cache,id=,target=/a true\n");
        place.build(&[]).ok();
        assert_eq!(listed(&place, &[])[0]["id"], "/a");
    });
}
