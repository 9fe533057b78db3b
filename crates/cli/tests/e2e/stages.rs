//! What runs, what does not, and what runs beside what.

use crate::place::{BASE, Place};
use crate::user::for_each_user;

/// <https://github.com/moby/buildkit/issues/5566>: one of two stages failed, for the other one had just made the mount point. FIELD P6.
#[test]
fn buildkit_5566_two_independent_stages_run_at_the_same_time_with_one_mount_point() {
    for_each_user(|user| {
        let place = Place::new(user);
        // A pipe's two ends open only together: one stage after the other would never end.
        place.dockerfile(
            "FROM scratch AS base\nCOPY bin /bin\n\
             FROM base AS one\nRUN --mount=type=cache,id=meet,target=/m/n (mkfifo /m/n/p 2>/dev/null; true) && timeout 60 sh -c 'echo met > /m/n/p' && touch /one\n\
             FROM base AS two\nRUN --mount=type=cache,id=meet,target=/m/n (mkfifo /m/n/p 2>/dev/null; true) && timeout 60 cat /m/n/p > /two && grep met /two\n\
             FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n"
        );
        place.build(&["--jobs", "2"]).ok();
    });
}

#[test]
fn an_equal_step_of_two_stages_runs_once() {
    for_each_user(|user| {
        let place = Place::new(user);
        let stage = |name: &str| {
            format!(
                "FROM scratch AS {name}\nCOPY bin /bin\nRUN --mount=type=cache,id=runs,target=/m echo ran >> /m/runs; echo x > /x\nRUN echo {name} > /{name}\n"
            )
        };
        place.dockerfile(&format!(
            "{}{}FROM scratch\nCOPY bin /bin\nCOPY --from=a /a /\nCOPY --from=b /b /\n\
             RUN --mount=type=cache,id=runs,target=/m test \"$(cat /m/runs)\" = ran\n",
            stage("a"),
            stage("b")
        ));
        place.build(&[]).ok();
    });
}

#[test]
fn stages_that_the_target_does_not_need_do_not_run() {
    for_each_user(|user| {
        let place = Place::new(user);
        let text = format!(
            "{BASE}FROM scratch AS never\nCOPY bin /bin\nRUN false\n\
             FROM scratch AS middle\nCOPY bin /bin\nRUN echo middle > /m\n\
             FROM middle AS last\nRUN echo last-ran; false\n"
        );
        place.dockerfile(&text);
        place.build(&["--target", "middle"]).ok().lacks(&["last-ran", "never"]);
        place.build(&[]).code(1).prints(&["last-ran"]).lacks(&["never"]);
    });
}

#[test]
fn a_changed_file_runs_only_what_depends_on_it() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "COPY first /first\nRUN echo one-$(cat /first)\nCOPY second /second\nRUN echo two-$(cat /second)\n",
        );
        place.file("context/first", "1");
        place.file("context/second", "1");
        place.build(&[]).ok();
        place.file("context/second", "2");
        place.build(&[]).ok().prints(&["two-2"]).lacks(&[" one-1\n"]);
        place.file("context/unrelated", "x");
        let ran = place.build(&[]).ok();
        assert_eq!(ran.count("CACHED"), 5, "{ran}");
        // The same content again is the same step, whatever the clock says.
        place.file("context/second", "1");
        let ran = place.build(&[]).ok();
        assert_eq!(ran.count("CACHED"), 5, "{ran}");
    });
}

#[test]
fn no_cache_runs_everything_again() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN echo ran-here\n");
        place.build(&[]).ok().prints(&["ran-here"]);
        let ran = place.build(&[]).ok();
        assert_eq!(ran.count("CACHED"), 2, "{ran}");
        let ran = place.build(&["--no-cache"]).ok();
        assert_eq!(ran.count("CACHED"), 0, "{ran}");
    });
}

#[test]
fn a_step_that_did_not_change_its_result_keeps_what_follows_cached() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.dockerfile(
            "FROM scratch AS make\nCOPY bin /bin\nCOPY src /src\nRUN cut=$(head -c 1 /src) && echo $cut > /out\n\
             FROM scratch\nCOPY bin /bin\nCOPY --from=make /out /out\nRUN echo used $(cat /out)\n",
        );
        place.file("context/src", "abc");
        place.build(&[]).ok().prints(&["used a"]);
        place.file("context/src", "axx");
        let ran = place.build(&[]).ok();
        // The file that COPY --from selects is the same, so nothing behind it runs.
        ran.lacks(&[" used a\n"]);
    });
}
