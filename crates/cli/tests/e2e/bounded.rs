//! A store with a bound: `--max-store`, `kiln du`, `kiln prune`, and docker's names of these.

use std::path::Path;
use std::process::Command;

use crate::place::{Place, Ran};
use crate::small::Small;
use crate::user::{User, for_each_user};

/// A step whose layer takes three megabytes, and differs from others' by its number.
fn large(number: usize) -> String {
    format!("RUN dd if=/dev/zero of=/f bs=1M count=3 && echo {number} > /n\n")
}

fn du(place: &Place) -> serde_json::Value {
    let ran = place.kiln(&["du", "--json", "--next", "100"]).ok();
    serde_json::from_slice(&ran.stdout).expect("it is JSON")
}

fn total(place: &Place) -> u64 {
    du(place)["total"].as_u64().expect("a number")
}

/// As du(1) counts.
fn du_of(path: &Path) -> u64 {
    let output = Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().expect("du");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().next().and_then(|size| size.parse().ok()).expect("a number")
}

/// Makes all that was used today look as if that was some days ago, for what was used just now is never collected
/// beside a build.
fn age(place: &Place, days: u32) {
    let root = place.text("store");
    let script = format!(
        "find {root}/*/layers/* {root}/blobs/sha256/* -maxdepth 0 -mtime -1 -exec touch -h -d '{days} days ago' {{}} +; \
         find {root}/records {root}/*/records -name '*.json' -mtime -1 -exec touch -d '{days} days ago' {{}} +"
    );
    let status = Command::new("sh").arg("-c").arg(script).status().expect("sh");
    assert!(status.success());
}

fn warns(ran: &Ran) -> bool {
    ran.stderr.contains("more than it may (--max-store")
}

/// <https://github.com/moby/buildkit/issues/1962>: what the collector counts is not what the disk has lost. FIELD P22.
#[test]
fn buildkit_1962_du_is_what_du_says_and_names_what_would_go_next() {
    for_each_user(|user| {
        let place = Place::with(user, &large(1));
        place.build(&["-t", "named"]).ok();
        place.builds(&format!(
            "RUN --mount=type=cache,id=c,target=/c dd if=/dev/zero of=/c/f bs=1M count=2\n{}",
            large(2)
        ));
        let (said, is) = (total(&place), du_of(&place.path("store")));
        assert!(said.abs_diff(is) * 100 <= is, "{said}, du says {is}");
        // Counted once and kept: the second answer is the same.
        assert!(total(&place).abs_diff(said) <= 8192);
        let next = du(&place)["next"].clone();
        assert!(next.as_array().is_some_and(|next| !next.is_empty()), "{next}");
        let shown = place.kiln(&["system", "df"]).ok().out();
        assert!(
            shown.contains("next to go") && shown.contains("cache mounts") && shown.contains("result of "),
            "{shown}"
        );
        let ran = place.kiln(&["du", "--max-store", "50M", "--next", "0"]).ok();
        assert!(ran.out().contains(" of 52.4 MB") && ran.out().contains(" of 26.2 MB"), "{ran}");
    });
}

/// <https://github.com/moby/buildkit/issues/4218>, <https://github.com/kernel/hypeman/issues/335>: the limit was a floor for what is kept, and
/// no bound. FIELD P22.
#[test]
fn buildkit_4218_a_bound_is_kept_by_every_build_least_recently_used_first() {
    for_each_user(|user| {
        let place = Place::new(user);
        for (number, days) in [9, 8, 7, 6].into_iter().enumerate() {
            place.builds(&large(number));
            age(&place, days);
        }
        let before = total(&place);
        // The second was used since.
        place.base(&large(1));
        assert_eq!(place.build(&[]).ok().count("CACHED"), 2);
        let bound = before - 500_000;
        place.base(&large(4));
        let ran = place.build(&["--max-store", &bound.to_string()]).ok();
        assert!(!warns(&ran), "{ran}");
        let after = total(&place);
        assert!(after <= bound, "{after} {bound}");
        place.fsck();
        // The new one and the one used last are there, the oldest is not.
        for (number, cached) in [(4, 2), (1, 2), (0, 1)] {
            place.base(&large(number));
            assert_eq!(place.build(&[]).ok().count("CACHED"), cached, "{number}");
        }
        place.is_quiet();
    });
}

/// <https://github.com/moby/buildkit/issues/5459>: what was reported was less than there was, and nothing was collected. FIELD P22.
#[test]
fn buildkit_5459_what_du_says_is_what_the_bound_counts() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.builds(&large(1));
        age(&place, 2);
        place.base("RUN true\n");
        place.build(&[]).ok();
        let told = total(&place);
        // Room for all that is told, and for the note of one more build; then for less.
        for (bound, cached) in [(told + 300_000, 2), (told - 100_000, 1)] {
            age(&place, 2);
            place.base("RUN true\n");
            place.build(&["--max-store", &bound.to_string()]).ok();
            place.base(&large(1));
            let ran = place.build(&["-o", "type=cacheonly"]).ok();
            assert_eq!(ran.count("CACHED"), cached, "{ran}");
        }
        place.fsck();
    });
}

#[test]
fn images_with_names_and_what_a_build_uses_stay_and_it_says_so() {
    for_each_user(|user| {
        let place = Place::with(user, &large(1));
        let ran = place.build(&["-t", "named", "--max-store=1M"]).ok();
        assert!(warns(&ran), "{ran}");
        age(&place, 3);
        place.base(&large(2));
        let mut command = place.build_command("store", &[]);
        let ran = Ran::of(command.env("KILN_MAX_STORE", "1M")).ok();
        assert!(warns(&ran), "{ran}");
        place.run("named", "test -e /f");
        // What the build before this one used is nobody's any more, unless it has a name.
        place.base("RUN true\n");
        place.build(&["--max-store=1M"]).ok();
        place.base(&large(2));
        assert!(place.build(&[]).ok().count("CACHED") < 2);
        place.fsck();
    });
}

/// <https://github.com/moby/buildkit/issues/1385>: which policy takes what, and when. FIELD P22.
#[test]
fn buildkit_1385_cache_mounts_have_a_share_of_their_own() {
    for_each_user(|user| {
        let place = Place::new(user);
        let fill = "RUN --mount=type=cache,id=big,target=/c dd if=/dev/zero of=/c/f bs=1M count=3\n";
        place.builds(fill);
        place.builds("RUN --mount=type=cache,id=small,target=/c echo x > /c/f\n");
        let caches = || place.kiln(&["cache", "ls"]).ok().out();
        // Within the share of a large store it stays, also beside a bound that takes results.
        place.builds("RUN true\n");
        place.build(&["--max-store=500M"]).ok();
        assert!(caches().contains("big"));
        place.build(&["--max-cache-mounts=1M"]).ok();
        assert!(!caches().contains("big") && caches().contains("small"), "{}", caches());
        // One that this build itself uses stays, and that is told.
        place.base(fill);
        let ran = place.build(&["--no-cache", "--max-cache-mounts=1M"]).ok();
        assert!(warns(&ran) && caches().contains("big"), "{ran}");
        place.fsck();
    });
}

/// What is said to go next is what goes, in that order.
#[test]
fn what_du_says_would_go_next_is_what_goes() {
    for_each_user(|user| {
        let place = Place::new(user);
        let fill = |id: &str| {
            format!(
                "RUN --mount=type=cache,id={id},target=/c echo {id} && dd if=/dev/zero of=/c/f bs=1M count=2\n"
            )
        };
        for (number, days) in [9, 7, 5].into_iter().enumerate() {
            place.builds(&(fill(&format!("c{number}")) + &large(number)));
            age(&place, days);
        }
        let names = |bound: &[&str]| -> Vec<String> {
            let ran = place.kiln(&[&["du", "--json", "--next", "1000"], bound].concat()).ok();
            let said: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("it is JSON");
            let name = |thing: &serde_json::Value| thing["name"].as_str().expect("a name").to_owned();
            let names = said["next"].as_array().expect("a list").iter().map(name);
            // Each build writes these anew.
            names.filter(|name| !["/build/", "/last-copy/"].iter().any(|kind| name.contains(kind))).collect()
        };
        assert!(!names(&[]).iter().any(|name| name.contains("(global)")), "without a bound no cache goes");
        // One of the three caches has to go, and of the rest about a half.
        let bound = ["--max-store", "8M", "--max-cache-mounts", "5M"];
        let before = names(&bound);
        let caches: Vec<&String> = before.iter().filter(|name| name.contains("(global)")).collect();
        assert_eq!((caches.len(), before.first()), (1, caches.first().copied()), "{before:#?}");
        // It uses nothing of what is there.
        place.dockerfile("FROM scratch\nCOPY Dockerfile /x\n");
        place.build(&[&bound[..], &["-o", "type=cacheonly"]].concat()).ok();
        let after = names(&bound);
        let stays: Vec<&String> = before.iter().filter(|name| after.contains(name)).collect();
        let gone = before.len() - stays.len();
        assert!(gone > 3 && !stays.is_empty(), "{before:#?}\n{after:#?}");
        assert!(before[..gone].iter().all(|name| !after.contains(name)), "{before:#?}\n{after:#?}");
        place.fsck();
    });
}

#[test]
fn the_bound_can_stand_in_the_configuration_file() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN true\n");
        place.file("home/.config/kiln/config.json", "{\"max_store\":\"1M\"}");
        let ran = place.build(&[]).ok();
        assert!(warns(&ran), "{ran}");
        assert_eq!(du(&place)["max_store"], 1 << 20);
        // What is typed goes before.
        assert!(!warns(&place.build(&["--max-store=500M"]).ok()));
        place.file("home/.config/kiln/config.json", "{\"max_store\":\"much\"}");
        place.build(&[]).code(2).says(&["max_store in the configuration file", "much"]);
        place.build(&["--max-store=0"]).code(2).says(&["--max-store", "no size"]);
    });
}

/// <https://github.com/moby/buildkit/issues/1198>: `prune --keep-storage` left far more on the disk than it was told to. FIELD P22.
#[test]
fn buildkit_1198_prune_takes_what_it_is_told_and_a_dry_run_tells_it_all() {
    for_each_user(|user| {
        let place = Place::with(user, &large(1));
        place.build(&["-t", "named"]).ok();
        place.builds(&large(2));
        age(&place, 3);
        // The image without a name, its layer's blob among it, as the real thing.
        let told = place.kiln(&["prune", "--dry-run", "--json"]).ok();
        let before = total(&place);
        let done = place.kiln(&["prune", "--json"]).ok();
        assert_eq!(told.out(), done.out());
        assert!(done.out().contains("\"blob\""), "{done}");
        assert!(total(&place) < before);
        place.base(&large(2));
        assert_eq!(place.build(&["-o", "type=cacheonly"]).ok().count("CACHED"), 2, "results stay");
        age(&place, 3);
        // One thing by its id, with what needs it.
        let next = du(&place)["next"].clone();
        let layer =
            next.as_array().and_then(|next| next.iter().find(|thing| thing["kind"] == "layer")).expect("one");
        let id = layer["name"].as_str().and_then(|name| name.rsplit('/').next()).expect("a path").to_owned();
        let gone = place.kiln(&["prune", "--filter", &format!("id={id}"), "--verbose"]).ok();
        gone.says(&[&id, "record"]);
        place.fsck();
        place.kiln(&["prune", "--filter", "id="]).code(2);
        let keep = (total(&place) - 1_000_000).to_string();
        place.kiln(&["prune", "--keep-storage", &keep]).ok();
        assert!(total(&place) <= keep.parse().expect("a number"));
        place.kiln(&["system", "prune", "-a", "-f"]).ok();
        place.run("named", "test -e /f");
        place.fsck();
        place.is_quiet();
    });
}

/// docs/store.md: what a newer kiln has written is not touched; what came from another machine is checked or made again.
#[test]
fn a_newer_store_is_refused_and_one_of_another_machine_is_checked() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN echo made > /made\n");
        place.build(&["-t", "named"]).ok();
        let copied = place.path("copied");
        // With xattrs the copy is as good as the store.
        let archive = |extra: &str| {
            let script = format!(
                "rm -rf {0} && mkdir {0} && tar -C {1} {extra} -cf - . | tar -C {0} {extra} -xpf - && \
                 chown --reference={1} {0} && echo another-boot > {0}/boot",
                copied.display(),
                place.text("store"),
            );
            assert!(Command::new("sh").arg("-c").arg(script).status().expect("sh").success());
        };
        let build = || Ran::of(&mut place.build_command("copied", &[]));
        let fsck = || Ran::of(&mut place.command_on("copied", &["debug", "fsck"])).ok().says(&["0 problems"]);
        archive("--xattrs --xattrs-include=*");
        assert_eq!(build().ok().count("CACHED"), 2);
        fsck();
        // Without, its layers are worth nothing: they are made again, and nothing fails.
        archive("--no-xattrs");
        assert_eq!(build().ok().count("CACHED"), 0);
        fsck();
        place.file("copied/format", "2\n");
        for args in [&["du"][..], &["prune", "--all"], &["images"], &["build", "context"]] {
            Ran::of(&mut place.command_on("copied", args)).code(3).says(&[
                "format 2",
                "newer kiln",
                "--root",
            ]);
        }
        place.file("copied/format", "1\n");
        fsck();
    });
}

/// Making room needs none: <https://github.com/moby/buildkit/issues/4218>, where a full disk could only be emptied by hand.
#[test]
fn buildkit_4218_a_full_disk_can_be_emptied() {
    for_each_user(|user| {
        if user != User::Root {
            return;
        }
        let place = Place::with(user, "RUN echo named > /named\n");
        let Some(small) = Small::ext4(&place, "48m") else { return };
        let build = |args: &[&str]| Ran::of(&mut place.build_command("small/store", args));
        let kiln = |args: &[&str]| Ran::of(&mut place.command_on("small/store", args));
        build(&["-t", "named"]).ok();
        for number in 0..3 {
            place.base(&format!(
                "RUN --mount=type=cache,id=c{number},target=/c dd if=/dev/zero of=/c/f bs=1M count=1\n{}",
                large(number)
            ));
            build(&[]).ok();
        }
        small.fill();
        place.base("RUN echo another > /another\n");
        build(&[]).code(3).says(&["no space left", "make room"]);
        kiln(&["cache", "rm", "c0"]).ok();
        small.fill();
        kiln(&["cache", "prune", "--max-used-space=1m"]).ok();
        small.fill();
        let before = du_of(&place.path("small/store"));
        kiln(&["prune", "--all"]).ok();
        let after = du_of(&place.path("small/store"));
        assert!(after + (6 << 20) < before, "{before} -> {after}");
        kiln(&["debug", "fsck"]).ok().says(&["0 problems"]);
        assert!(kiln(&["images"]).ok().out().contains("named"));
        build(&[]).ok();
    });
}
