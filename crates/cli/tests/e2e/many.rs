//! Many kiln processes on one store: equal steps run once, a wait says for whom, and ends with whoever is waited for.

use rustix::process::Signal;

use crate::place::{BASE, Place, Ran, Running};
use crate::user::{User, for_each_user};

/// Counts how often it runs; the first time it goes on only when somebody writes to the FIFO.
const GATE: &str = "RUN --mount=type=cache,id=g,target=/g echo x >> /g/runs && echo run $(wc -l < /g/runs) && \
                    { test $(wc -l < /g/runs) -gt 1 || cat /g/p; } && echo made > /made\n";

/// A place with the FIFO, and a build whose step is at it.
fn at_the_gate(user: User) -> (Place, Running) {
    let place = Place::new(user);
    place.builds("RUN --mount=type=cache,id=g,target=/g mkfifo /g/p\n");
    place.file(
        "context/open.Dockerfile",
        &format!("{BASE}RUN --mount=type=cache,id=g,target=/g echo go > /g/p\n"),
    );
    place.base(GATE);
    let mut first = place.start(&["-t", "first"]);
    assert!(first.until(" run 1\n"), "{}", first.seen);
    (place, first)
}

fn open(place: &Place) {
    place.build(&["-f", "context/open.Dockerfile", "--no-cache"]).ok();
}

fn wait_for(mut build: Running, words: &str) -> Running {
    assert!(build.until(words), "{}", build.seen);
    build
}

/// <https://github.com/moby/buildkit/issues/7088>: builds of one step at the same time. FIELD P6.
#[test]
fn buildkit_7088_a_step_that_another_process_runs_is_waited_for_and_taken() {
    for_each_user(|user| {
        let (place, first) = at_the_gate(user);
        let waiting = format!("waiting for process {}, kiln build context", first.pid().as_raw_nonzero());
        let others: Vec<Running> =
            (0..3).map(|_| wait_for(place.start(&["-t", "other"]), &waiting)).collect();
        open(&place);
        first.wait().ok();
        for other in others {
            let ran = other.wait().ok();
            assert_eq!(ran.count("CACHED"), 2, "{ran}");
        }
        assert_eq!(place.run("other", "cat /made"), "made\n");
        place.file(
            "context/count.Dockerfile",
            &format!("{BASE}RUN --mount=type=cache,id=g,target=/g echo ran $(wc -l < /g/runs)\n"),
        );
        place.build(&["-f", "context/count.Dockerfile"]).ok().prints(&["ran 1"]);
        place.fsck();
        place.is_quiet();
    });
}

#[test]
fn who_waits_for_a_process_that_is_killed_runs_the_step() {
    for_each_user(|user| {
        let (place, first) = at_the_gate(user);
        let second = wait_for(place.start(&[]), "waiting for process");
        first.signal(Signal::KILL);
        drop(first);
        second.wait().ok().prints(&["run 2"]);
        place.wait_until_quiet();
        place.fsck();
        place.is_quiet();
    });
}

#[test]
fn a_wait_can_be_interrupted() {
    for_each_user(|user| {
        let (place, first) = at_the_gate(user);
        let second = wait_for(place.start(&[]), "waiting for process");
        second.signal(Signal::INT);
        second.wait().code(130);
        open(&place);
        first.wait().ok();
        place.fsck();
        assert_eq!(place.half_made(), [""; 0]);
    });
}

#[test]
fn a_failure_is_told_to_all_who_waited_and_each_tries_itself() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.builds("RUN --mount=type=cache,id=g,target=/g mkfifo /g/p\n");
        place.file(
            "context/open.Dockerfile",
            &format!("{BASE}RUN --mount=type=cache,id=g,target=/g echo go > /g/p\n"),
        );
        place.base(
            "RUN --mount=type=cache,id=g,target=/g echo x >> /g/runs && \
             { test $(wc -l < /g/runs) -gt 1 || { echo at the gate; cat /g/p; exit 7; }; }\n",
        );
        let first = wait_for(place.start(&[]), "at the gate");
        let others: Vec<Running> =
            (0..2).map(|_| wait_for(place.start(&[]), "waiting for process")).collect();
        open(&place);
        first.wait().code(1).says(&["7"]);
        for other in others {
            other.wait().ok();
        }
        place.fsck();
    });
}

/// With one job. What it waits for goes on only when another step of the same build has run.
#[test]
fn a_step_that_waits_for_another_process_lets_a_ready_one_run() {
    for_each_user(|user| {
        let (place, first) = at_the_gate(user);
        place.file("context/second.Dockerfile", &beside(GATE));
        let second = place.start(&["-f", "context/second.Dockerfile", "--jobs=1"]);
        wait_for(second, "waiting for process").wait().ok();
        first.wait().ok();
        place.fsck();
        place.is_quiet();
    });
}

#[test]
fn a_step_that_waits_for_a_locked_cache_lets_a_ready_one_run() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.builds("RUN --mount=type=cache,id=g,target=/g mkfifo /g/p\n");
        let locked = "RUN --mount=type=cache,id=l,target=/l,sharing=locked";
        place.base(&format!("{locked} --mount=type=cache,id=g,target=/g echo holding && cat /g/p\n"));
        let first = wait_for(place.start(&[]), " holding\n");
        place.file("context/second.Dockerfile", &beside(&format!("{locked} echo made > /made\n")));
        place.build(&["-f", "context/second.Dockerfile", "--jobs=1"]).ok().says(&["waiting for", "\"l\""]);
        first.wait().ok();
        place.fsck();
        place.is_quiet();
    });
}

/// A step that makes /made, and one beside it that writes to the FIFO. Which of two is found ready first is chance, so that one
/// has a step below it: when that has run, the first one has been ready for long.
fn beside(waits: &str) -> String {
    format!(
        "{BASE}{waits}{BASE}RUN echo below\nRUN --mount=type=cache,id=g,target=/g echo go > /g/p && echo opened > /opened\n{BASE}\
         COPY --from=0 /made /\nCOPY --from=1 /opened /\n"
    )
}

#[test]
fn a_wait_for_a_step_can_be_bounded_and_then_it_runs_here() {
    for_each_user(|user| {
        let (place, first) = at_the_gate(user);
        let pid = first.pid().as_raw_nonzero();
        place
            .build(&["--lock-timeout", "1s"])
            .ok()
            .prints(&["run 2"])
            .says(&[&format!("waited 1 s for process {pid}, kiln build context"), "runs here, too"]);
        place.build(&["--lock-timeout", "soon"]).code(2).says(&["--lock-timeout soon", "90s"]);
        open(&place);
        first.wait().ok();
        place.fsck();
    });
}

/// <https://github.com/foundry-rs/foundry/issues/13231>: `sharing=locked` made builds queue without a word. FIELD P6.
#[test]
fn foundry_13231_a_wait_for_a_locked_cache_can_be_bounded_and_names_who_has_it() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.builds("RUN --mount=type=cache,id=g,target=/g mkfifo /g/p\n");
        place.file(
            "context/open.Dockerfile",
            &format!("{BASE}RUN --mount=type=cache,id=g,target=/g echo go > /g/p\n"),
        );
        let locked = "RUN --mount=type=cache,id=l,target=/l,sharing=locked";
        place.base(&format!("{locked} --mount=type=cache,id=g,target=/g echo holding && cat /g/p\n"));
        let first = wait_for(place.start(&[]), " holding\n");
        let pid = first.pid().as_raw_nonzero().to_string();
        place.file("context/second.Dockerfile", &format!("{BASE}{locked} true\n"));
        let ran = place.build(&["-f", "context/second.Dockerfile", "--lock-timeout=1s"]);
        ran.code(3).says(&["waited 1 s for cache \"l\"", &pid, "--lock-timeout"]);
        open(&place);
        first.wait().ok();
        place.build(&["-f", "context/second.Dockerfile", "--lock-timeout=1s"]).ok();
        place.fsck();
    });
}

/// The same of all that takes a cache without a build.
#[test]
fn foundry_13231_runs_shells_exports_and_imports_wait_so_long_and_say_for_whom() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.builds("RUN --mount=type=cache,id=g,target=/g mkfifo /g/p\n");
        let locked = "RUN --mount=type=cache,id=l,target=/l,sharing=locked";
        place.base(&format!("{locked} echo one > /l/one\n"));
        place.build(&["-t", "image"]).ok();
        place.kiln(&["cache", "export", "l", "--to=oci:exports"]).ok();
        place.base(&format!("{locked} --mount=type=cache,id=g,target=/g echo holding && cat /g/p\n"));
        let first = wait_for(place.start(&[]), " holding\n");
        let pid = first.pid().as_raw_nonzero().to_string();
        let mount = "--mount=type=cache,id=l,target=/l,sharing=locked";
        for (code, args) in [
            (125, &["run", "--rm", "--lock-timeout=1s", mount, "image", "true"][..]),
            (3, &["cache", "shell", "l", "--lock-timeout=1s", "--", "true"]),
            (3, &["cache", "export", "l", "--lock-timeout=1s", "--to=oci:exports"]),
            (3, &["cache", "import", "--replace", "--lock-timeout=1s", "--from=oci:exports"]),
        ] {
            let waited = ["wait", "waited 1 s for cache \"l\"", &pid, "--lock-timeout"];
            place.kiln(args).code(code).says(&waited);
        }
        // What takes a cache away does not wait.
        place.kiln(&["cache", "rm", "l"]).code(3).says(&["in use by", &pid]);
        place.kiln(&["cache", "shell", "l", "--lock-timeout=soon"]).code(2).says(&["--lock-timeout soon"]);
        place.file(
            "context/open.Dockerfile",
            &format!("{BASE}RUN --mount=type=cache,id=g,target=/g echo go > /g/p\n"),
        );
        open(&place);
        first.wait().ok();
        place.kiln(&["run", "--rm", "--lock-timeout=1s", mount, "image", "true"]).ok();
        place.fsck();
        place.is_quiet();
    });
}

/// <https://github.com/moby/buildkit/issues/1662>, <https://github.com/containers/buildah/issues/2602>: builds at once on one store.
#[test]
fn buildah_2602_twenty_builds_at_once_all_end_well_and_share_what_is_equal() {
    for_each_user(|user| {
        let place = Place::new(user);
        let counted = "RUN --mount=type=cache,id=n,target=/n echo x >> /n/same && echo same > /same\n";
        for number in 0..5 {
            let own = format!("{BASE}{counted}COPY n{number} /n\nRUN grep {number} /n && grep same /same\n");
            place.file(&format!("context/{number}.Dockerfile"), &own);
            place.file(&format!("context/n{number}"), &number.to_string());
        }
        let start = |process: usize| {
            let number = process % 5;
            let (file, tag) = (format!("context/{number}.Dockerfile"), format!("i{process}"));
            place.start(&["-f", &file, "-t", &tag])
        };
        let builds: Vec<Running> = (0..20).map(start).collect();
        // Beside them, what collects all that they do not use.
        let prunes: Vec<Ran> = (0..3).map(|_| place.kiln(&["prune", "--all"])).collect();
        let builds: Vec<Ran> = builds.into_iter().map(Running::wait).collect();
        for ran in builds.into_iter().chain(prunes) {
            ran.ok();
        }
        place.file(
            "context/count.Dockerfile",
            &format!("{BASE}RUN --mount=type=cache,id=n,target=/n echo ran $(wc -l < /n/same)\n"),
        );
        place.build(&["-f", "context/count.Dockerfile"]).ok().prints(&["ran 1"]);
        let listed = place.kiln(&["images"]).ok().out();
        assert_eq!(listed.lines().count(), 21, "{listed}");
        for process in [0, 7, 19] {
            assert_eq!(place.run(&format!("i{process}"), "cat /n /same"), format!("{}same\n", process % 5));
        }
        place.fsck();
        place.is_quiet();
        assert_eq!(place.half_made(), [""; 0]);
    });
}
