//! A store's directory that was copied: by whatever means, from another machine or another user.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::place::{Place, Ran};
use crate::user::{User, for_each_user};

const STEPS: &str = "RUN echo made > /made && chown 5:6 /made\n\
                     RUN --mount=type=cache,id=c,target=/c echo x > /c/f && chown 7:7 /c/f\n";

fn sh(script: &str) {
    let status = Command::new("sh").arg("-ec").arg(script).status().expect("sh");
    assert!(status.success(), "{script}");
}

/// Copies the store as root, and does something to the copy.
fn copy(place: &Place, how: &str, then: &str) {
    let (from, to) = (place.text("store"), place.text("copied"));
    let then = then.replace("COPY", &to);
    sh(&format!("rm -rf {to} && cp {how} {from} {to} && {then}"));
}

fn kiln(place: &Place, args: &[&str]) -> Ran {
    Ran::of(&mut place.command_on("copied", args))
}

fn build(place: &Place) -> Ran {
    Ran::of(&mut place.build_command("copied", &["-t", "named"]))
}

/// Everything in a directory: names, owners, sizes, times.
fn listing(dir: &Path) -> String {
    let output =
        Command::new("find").arg(dir).args(["-printf", "%P %U %G %m %s %T@ %l\\n"]).output().expect("find");
    let mut lines: Vec<&str> = std::str::from_utf8(&output.stdout).expect("plain names").lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn total(place: &Place) -> u64 {
    let ran = kiln(place, &["du", "--json"]).ok();
    let said: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("it is JSON");
    said["total"].as_u64().expect("a number")
}

fn du_of(path: &Path) -> u64 {
    let output = Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().expect("du");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().next().and_then(|size| size.parse().ok()).expect("a number")
}

fn has_many_ids(user: User) -> bool {
    matches!(user, User::Root | User::Sub)
}

#[test]
fn one_with_owners_and_attributes_is_the_same_store() {
    for_each_user(|user| {
        // A COPY whose files a later one shares, by hard links that a copy need not keep.
        let place = Place::with(user, &format!("COPY files /files\n{STEPS}"));
        for number in 0..20 {
            place.file(&format!("context/files/{number}"), &"x".repeat(20_000));
        }
        place.build(&["-t", "named"]).ok();
        place.file("context/files/3", "changed");
        place.build(&["-t", "named"]).ok();
        place.kiln(&["du"]).ok();
        for how in ["-a", "-a --no-preserve=links"] {
            copy(&place, how, "true");
            assert!(total(&place).abs_diff(du_of(&place.path("copied"))) <= 16 << 10, "{how}");
            assert_eq!(build(&place).ok().count("CACHED"), 4, "{how}");
            let shown = kiln(&place, &["run", "--rm", "named", "/bin/sh", "-c", "stat -c %u:%g /made"]).ok();
            assert_eq!(shown.out(), "5:6\n");
            assert!(kiln(&place, &["cache", "ls", "-q"]).ok().out().contains('c'));
            kiln(&place, &["debug", "fsck"]).ok().says(&["0 problems"]);
        }
        place.is_quiet();
    });
}

#[test]
fn one_without_attributes_is_made_again_where_they_counted() {
    for_each_user(|user| {
        let place = Place::with(user, STEPS);
        let image = place.build(&["-t", "named"]).ok().digest();
        copy(&place, "-a --no-preserve=xattr", "true");
        assert!(kiln(&place, &["images"]).ok().out().contains("named"));
        let ran = build(&place).ok();
        assert_eq!((ran.count("CACHED"), ran.digest()), (0, image));
        assert_eq!(build(&place).ok().count("CACHED"), 3);
        kiln(&place, &["debug", "fsck"]).ok().says(&["0 problems"]);
        place.is_quiet();
    });
}

/// cp(1) without `-a` and rsync(1) without root make all files one user's, and `/etc/subuid` is another one's on each machine. Steps
/// would find files that belong to others than earlier steps gave them to.
#[test]
fn one_with_other_owners_is_refused_as_it_is() {
    for_each_user(|user| {
        if !has_many_ids(user) {
            return;
        }
        let place = Place::with(user, STEPS);
        place.build(&["-t", "named"]).ok();
        let (uid, gid) = user.ids();
        let flat = format!("chown -hR {uid}:{gid} COPY");
        let other = format!(
            "find COPY ! -uid {uid} -printf '%U %G %p\\n' | while read -r u g p; do chown -h $((u+65536)):$((g+65536)) $p; done"
        );
        for then in [&flat, &other] {
            copy(&place, "-a", then);
            let before = listing(&place.path("copied"));
            for args in
                [&["du"][..], &["prune", "--all"], &["images"], &["cache", "rm", "c"], &["build", "context"]]
            {
                kiln(&place, args)
                    .code(3)
                    .says(&["have not the owners", "copied/full", "--numeric-ids", "/etc/subuid"])
                    .lacks(&["kiln doctor"]);
            }
            assert_eq!(listing(&place.path("copied")), before);
            // What the hint says.
            let aside = Command::new("mv")
                .args([place.text("copied/full"), place.text("copied/full.copied")])
                .status();
            assert!(aside.expect("mv").success());
            assert!(kiln(&place, &["images"]).ok().out().contains("named"));
            assert_eq!(build(&place).ok().count("CACHED"), 0);
            kiln(&place, &["debug", "fsck"]).ok().says(&["0 problems"]);
            assert!(place.path("copied/full.copied/caches/global/c/data/f").exists());
        }
        place.is_quiet();
    });
}

#[test]
fn one_of_another_user_is_told_as_such() {
    for_each_user(|user| {
        let place = Place::with(user, STEPS);
        place.build(&["-t", "named"]).ok();
        // Root may open it, and sees other ids than its owner does.
        if user == User::Sub {
            let theirs = Place::new(User::Root);
            let mut command = theirs.command(&["--root", &place.text("store"), "du"]);
            Ran::of(&mut command).code(3).says(&["have not the owners"]);
        }
        if matches!(user, User::Sub | User::Plain) {
            copy(&place, "-a", "chown -h 0:0 COPY COPY/*");
            let before = listing(&place.path("copied"));
            for args in [&["du"][..], &["build", "context"]] {
                kiln(&place, args).code(3).says(&["belongs to another user", "--root or KILN_ROOT"]);
            }
            assert_eq!(listing(&place.path("copied")), before);
        }
    });
}

/// What locks and pins say is the kernel's, and not in the files: a copy that was taken in the middle of a build is free.
#[test]
fn one_taken_from_a_running_build_has_no_locks() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN --mount=type=cache,id=c,target=/c,sharing=locked echo x > /c/f && echo begun && until test -e /c/go; do sleep 0.1; done\n",
        );
        let mut running = place.start(&[]);
        assert!(running.until(" begun\n"), "{}", running.seen);
        copy(&place, "-a", "true");
        let owned = ["full", "single"].map(|ids| place.path("copied").join(ids).join("caches/global/c/data"));
        let data = owned.iter().find(|data| data.exists()).expect("one of them is there");
        fs::write(data.join("go"), "").expect("root may");
        build(&place).ok();
        kiln(&place, &["cache", "rm", "c"]).ok();
        kiln(&place, &["prune", "--all"]).ok();
        kiln(&place, &["debug", "fsck"]).ok().says(&["0 problems"]);
        running.signal(rustix::process::Signal::INT);
        running.wait().code(130);
        place.is_quiet();
    });
}
