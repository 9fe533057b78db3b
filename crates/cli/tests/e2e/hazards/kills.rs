//! Something of kiln's own is killed while a step runs: nothing is left, what was finished stays, and the next build goes on.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::is_clean;
use crate::place::Place;
use crate::user::{User, for_each_user};

/// Whom to kill: kiln, its child the nursery, or that one's child, the step's init.
const VICTIMS: [(&str, usize); 3] = [("kiln", 0), ("the nursery", 1), ("init", 2)];

fn below(kiln: Pid, generations: usize) -> Pid {
    let mut pid = kiln.as_raw_pid();
    for _ in 0..generations {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").flatten();
        let children =
            threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
        let all = children.collect::<String>();
        pid = all.split_whitespace().next().expect("a child").parse().expect("a number");
    }
    Pid::from_raw(pid).expect("not 0")
}

/// Control groups of a kiln that is gone.
fn groups_of(kiln: Pid) -> Vec<String> {
    let mark = format!("kiln-{}-", kiln.as_raw_pid());
    let mut todo = vec![Path::new("/sys/fs/cgroup").to_owned()];
    let mut found = Vec::new();
    while let Some(dir) = todo.pop() {
        // One that goes meanwhile is somebody else's.
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(&mark) {
                    found.push(entry.path().display().to_string());
                }
                todo.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn whoever_is_killed_nothing_is_left() {
    for_each_user(|user| {
        let ways: &[&[&str]] = match user {
            User::Root => &[&[], &["--snapshotter=copy"], &["--isolation=chroot"]],
            _ => &[&[], &["--snapshotter=copy"]],
        };
        for way in ways {
            let place = Place::new(user);
            for (who, generations) in VICTIMS {
                place.base(
                    "RUN echo kept > /kept\n\
                     RUN --mount=type=cache,target=/c echo x > /c/f; echo begun; (setsid sleep 100000 &); sleep 100000\n",
                );
                let mut build = place.start(&[way, &["--memory=1g", "--pids-limit=1000"][..]].concat());
                assert!(build.until(" begun\n"), "{}", build.seen);
                let kiln = build.pid();
                kill_process(below(kiln, generations), Signal::KILL).expect("root may");
                let ran = build.wait();
                // Whom nobody is left to wait for goes a moment later. It hangs here if something goes on.
                place.wait_until_quiet();
                let what = format!("{who}, as {} {way:?}: {ran}", user.name());
                assert_eq!(ran.code, if generations == 0 { None } else { Some(3) }, "{what}");
                place.base(&format!(
                    "RUN echo kept > /kept\nRUN --mount=type=cache,target=/c cat /c/f /kept; : {generations}\n"
                ));
                let again = place.build(&[way, &["--memory=1g"][..]].concat());
                let again = again.ok().prints(&["x", "kept"]);
                // The base, and the first step.
                assert!(again.count("CACHED") >= 2, "{what}: {again}");
                assert_eq!(groups_of(kiln), [] as [String; 0], "{what}");
                is_clean(&place);
            }
        }
    });
}
