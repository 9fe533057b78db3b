//! Each kind of /proc that a step can have.

use kiln_core::{ExitStatus, Resources};
use kiln_runtime::Rung as Found;

use crate::support::{Place, Ran, Rung, rungs};

/// What is the same with all of them.
const SCRIPT: &str = "grep -c MemTotal: /proc/meminfo; grep -q . /proc/mounts && echo mounts; echo by name > /dev/stdout; \
                      echo failed by name > /dev/stderr; (echo x > /proc/sys/kernel/ostype) 2> /dev/null || echo kept; \
                      (echo x > /proc/meminfo) 2> /dev/null || echo kept; test -e /proc/self/status && echo whole; \
                      test $(ls /proc | grep -c '^[0-9]') = 0 && echo no processes; true";

fn asked(place: &Place, which: &str, spec: &str) -> Ran {
    Ran::of(place.rung, place.runner(&["run", spec]).env("KILN_TEST_PROC", which).output().unwrap())
}

#[test]
fn steps_go_with_any() {
    for &rung in rungs() {
        let place = Place::new(rung);
        for (which, last) in [("fresh", "whole"), ("bound", "whole"), ("minimal", "no processes")] {
            let ran = asked(&place, which, &place.write("spec.json", &place.spec(SCRIPT)));
            let mut lines: Vec<_> = ran.ok().lines().collect();
            // What goes through a pipe of its own may come later than what does not.
            lines.sort_unstable();
            let mut expected = ["1", "mounts", "by name", "kept", "kept", last];
            expected.sort_unstable();
            assert_eq!(lines, expected, "{rung:?}, {which}: {ran:?}");
            assert!(ran.stderr.contains("failed by name"), "{rung:?}, {which}: {ran:?}");
            place.clear();
        }
    }
}

#[test]
fn limits_hold_with_any() {
    for &rung in rungs() {
        let place = Place::new(rung);
        for which in ["fresh", "bound", "minimal"] {
            let mut spec = place.spec("dd if=/dev/zero of=/dev/null bs=256M");
            spec.resources = Resources { memory: Some(64 << 20), ..Resources::default() };
            let ran = asked(&place, which, &place.write("spec.json", &spec));
            assert_eq!(ran.result, Ok(ExitStatus::Signal(9)), "{rung:?}, {which}: {ran:?}");
            place.clear();
        }
    }
}

/// As in a container: the kernel gives no new one to a user namespace while parts of the outer one are covered.
#[test]
fn where_parts_are_covered_the_outer_one_is_bound() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let covered = |args: &[&str]| {
            let script = "mount -t tmpfs none /proc/fs && exec unshare --user --map-root-user \"$@\"";
            let mut command = rung.command("unshare");
            command.args(["--user", "--map-root-user", "--mount", "/bin/sh", "-c", script, "sh"]);
            command.arg(place.program()).args(args).current_dir("/").output().unwrap()
        };
        let spec = place.write("spec.json", &place.spec("readlink /proc/self"));
        let ran = Ran::of(rung, covered(&["run", &spec]));
        let pid: u32 = ran.ok().trim().parse().unwrap();
        assert!(pid > 9, "{rung:?}: a number of the namespace that it was made in: {ran:?}");
        let output = covered(&["probe", "/"]);
        let found: Vec<Found> =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        let proc = found.iter().find(|part| part.what == "proc").unwrap();
        assert_eq!(proc.chosen.as_deref(), Some("bound"), "{rung:?}: {proc:?}");
        if rung != Rung::Caller {
            assert!(proc.reason.contains("Operation not permitted"), "{proc:?}");
        }
    }
}

#[test]
fn probe_tells_which_it_is() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let output = place.runner(&["probe", "/"]).output().unwrap();
        let found: Vec<Found> = serde_json::from_slice(&output.stdout).unwrap();
        let proc = found.iter().find(|part| part.what == "proc").unwrap();
        let spec = place.spec("test $(readlink /proc/self) -lt 10 && echo fresh || echo bound");
        let ran = place.run(&spec);
        assert_eq!(ran.ok().trim(), proc.chosen.as_deref().unwrap_or_default(), "{rung:?}: {proc:?}");
    }
}
