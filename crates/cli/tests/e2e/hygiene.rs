//! What is left behind: nothing, however a build ends.

use rustix::process::Signal;

use crate::place::{BASE, Place};
use crate::user::{User, for_each_user};

/// Says so once a child of its own runs, which then waits without end.
const HANGS: &str = "RUN echo begun && (setsid sleep 100000 & sleep 100000)\n";

#[test]
fn orphans_end_with_their_step() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN setsid sh -c 'echo orphan-begun > /begun; while true; do sleep 100000; done' & until test -s /begun; do true; done\n\
             RUN test -s /begun && test $(ps | grep -c 'sleep 10000[0]') = 0\n",
        );
        place.build(&[]).ok();
        place.is_quiet();
    });
}

#[test]
fn an_interrupt_ends_a_build_with_130_and_leaves_nothing() {
    for_each_user(|user| {
        let place = Place::with(user, &format!("RUN echo kept\n{HANGS}"));
        for signal in [Signal::INT, Signal::TERM] {
            let mut build = place.start(&[]);
            assert!(build.until(" begun\n"), "{}", build.seen);
            build.signal(signal);
            build.wait().code(130).says(&["interrupted"]);
            place.is_quiet();
            assert_eq!(place.half_made(), [] as [String; 0]);
        }
        place.fsck();
        place.base("RUN echo kept\n");
        let ran = place.build(&[]).ok();
        assert_eq!(ran.count("CACHED"), 2, "what was finished is kept: {ran}");
    });
}

#[test]
fn killed_while_a_step_runs_nothing_goes_on() {
    for_each_user(|user| {
        let place = Place::with(user, HANGS);
        let mut build = place.start(&[]);
        assert!(build.until(" begun\n"), "{}", build.seen);
        build.signal(Signal::KILL);
        assert_eq!(build.wait().code, None);
        // It hangs here if something goes on.
        place.wait_until_quiet();
        place.base("");
        place.build(&[]).ok();
        place.is_quiet();
        assert_eq!(place.half_made(), [] as [String; 0]);
        place.fsck();
    });
}

#[test]
fn killed_at_fifty_points_the_store_is_whole_and_builds_on() {
    for_each_user(|user| {
        let rounds = if user == User::Plain { 10 } else { 50 };
        let place = Place::new(user);
        place.file("context/file", &"x".repeat(300_000));
        let mut random = 12_345_u32;
        for round in 0..rounds {
            let steps: String = (0..4)
                .map(|step| format!("COPY file /f{step}\nRUN --mount=type=cache,target=/c echo {round}-{step} | tee /c/f > /s{step}\n"))
                .collect();
            place.dockerfile(&format!("{BASE}ENV round={round}\n{steps}"));
            let mut build = place.start(&["-t", "killed", "-o", "type=image", "-o", "type=oci,dest=out.tar"]);
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // A build writes some 35 lines.
            build.lines((random >> 16) as usize % 36);
            build.signal(Signal::KILL);
            build.wait();
            place.wait_until_quiet();
            if round % 10 == 9 {
                place.fsck();
                place.build(&["-t", "whole"]).ok();
                assert_eq!(place.half_made(), [] as [String; 0]);
            }
        }
        place.is_quiet();
        place.fsck();
        assert_eq!(place.run("whole", "cat /s3"), format!("{}-3\n", rounds - 1));
    });
}

#[test]
fn five_builds_at_once_share_a_store() {
    for_each_user(|user| {
        let place = Place::new(user);
        for number in 0..5 {
            place.file(
                &format!("context/{number}.Dockerfile"),
                &format!(
                    "{BASE}RUN --mount=type=cache,target=/c echo common > /common && echo {number} >> /c/all\n\
                     RUN echo {number} > /own\nCOPY bin /copied\n"
                ),
            );
        }
        let builds: Vec<_> = (0..5)
            .map(|number| {
                place.start(&["-f", &format!("context/{number}.Dockerfile"), "-t", &format!("image{number}")])
            })
            .collect();
        for build in builds {
            build.wait().ok();
        }
        for number in 0..5 {
            assert_eq!(place.run(&format!("image{number}"), "cat /own"), format!("{number}\n"));
        }
        place.fsck();
        place.is_quiet();
    });
}
