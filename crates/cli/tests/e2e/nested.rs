//! kiln inside of what others put around it: unshare(1), bubblewrap, podman, docker.
//!
//! Each nest takes other things away: ids, mounts, /proc, /sys, system calls. Every build does the same in all of them.

use std::process::Command;

use crate::place::{Place, Ran};
use crate::user::{User, for_each_user, skip, users};

mod docker;
mod podman;

/// A stage with a cache mount, a COPY from it, and a look at what every program needs.
const BUILD: &str = "FROM scratch AS made\nCOPY bin /bin\n\
    RUN --mount=type=cache,target=/c echo x >> /c/f; echo had $(wc -l < /c/f); echo made > /made\n\
    FROM scratch\nCOPY bin /bin\nCOPY --from=made /made /made\n\
    RUN --mount=type=bind,target=/ctx grep made /made && test -e /ctx/Dockerfile && test $(id -u) = 0\n\
    RUN echo gone > /dev/null && head -c 4 /dev/urandom | wc -c && grep localhost /etc/hosts && test -d /sys\n\
    RUN test -r /proc/meminfo && test ! -e /c\n";

/// Builds twice in a nest, in which this place's directory has the path `here`.
fn builds_in(place: &Place, here: &str, store: &str, nest: &dyn Fn() -> Command) {
    place.dockerfile(BUILD);
    let build = |more: &[&str]| {
        let mut command = nest();
        command.arg(format!("{here}/kiln")).args(["build", "--progress=plain", "--root", store]).args(more);
        Ran::of(command.arg(format!("{here}/context"))).ok()
    };
    build(&[]).prints(&["had 1", "4"]);
    build(&["--no-cache"]).prints(&["had 2"]);
    let again = build(&[]);
    assert_eq!(again.count("CACHED"), 6, "{again}");
}

/// A program of this machine's in the place of a user's, with what it needs to find others.
fn nest(place: &Place, program: &str, args: &[&str]) -> Command {
    place.as_user(program, "store", args)
}

#[test]
fn in_a_namespace_with_a_single_id() {
    for_each_user(|user| {
        let place = Place::new(user);
        builds_in(&place, &place.here(), &place.text("store"), &|| nest(&place, "unshare", &["-Ur", "--"]));
    });
}

#[test]
fn in_a_namespace_with_a_whole_range_of_ids() {
    if !users().contains(&User::Sub) {
        return skip("unshare --map-auto: it needs kiln-sub");
    }
    let place = Place::new(User::Sub);
    builds_in(&place, &place.here(), &place.text("store"), &|| {
        nest(&place, "unshare", &["--map-auto", "-r", "--"])
    });
    // The ids of the range are there: files of others are made, and steps run as others.
    place.base(
        "RUN touch /f && chown 7:8 /f && test $(stat -c %u:%g /f) = 7:8\nUSER 5\nRUN test $(id -u) = 5\n",
    );
    let mut command = nest(&place, "unshare", &["--map-auto", "-r", "--", "./kiln", "build", "context"]);
    Ran::of(&mut command).ok();
}

#[test]
fn in_bubblewrap() {
    if kiln_testkit::tools::tool("bwrap").is_none() {
        return;
    }
    for_each_user(|user| {
        let place = Place::new(user);
        let here = place.here();
        builds_in(&place, &here, &place.text("store"), &|| nest(&place, "bwrap", &["--dev-bind", "/", "/"]));
        // Nothing but kiln and a place for the store: no /sys, no /etc, its own processes.
        let store = place.text("tight");
        place.directory("tight");
        let tight = ["--unshare-all", "--proc", "/proc", "--dev", "/dev", "--ro-bind", &here, "/here"];
        let tight: Vec<&str> = tight.into_iter().chain(["--bind", &store, "/store"]).collect();
        builds_in(&place, "/here", "/store", &|| nest(&place, "bwrap", &tight));
        // The store in memory.
        let memory = ["--unshare-all", "--proc", "/proc", "--dev", "/dev", "--ro-bind", &here, "/here"];
        let memory: Vec<&str> = memory.into_iter().chain(["--dir", "/store"]).collect();
        let mut command = nest(&place, "bwrap", &memory);
        Ran::of(command.args(["/here/kiln", "build", "--root", "/store", "/here/context"])).ok();
    });
}

/// Root of a namespace that has none of root's capabilities: nobody may map that id, so nothing can be done.
#[test]
fn root_without_capabilities_is_told_why_it_cannot_build() {
    if kiln_testkit::tools::tool("bwrap").is_none() || !users().contains(&User::Plain) {
        return skip("bwrap --uid 0: it needs bubblewrap and kiln-plain");
    }
    let place = Place::with(User::Plain, "RUN true\n");
    let args =
        ["--unshare-user", "--uid", "0", "--gid", "0", "--dev-bind", "/", "/", "./kiln", "build", "context"];
    Ran::of(&mut nest(&place, "bwrap", &args)).code(3).says(&["root without root's capabilities"]);
}
