//! `RUN --mount=type=cache`.

use crate::images::layers;
use crate::place::{BASE, Place};
use crate::user::{User, for_each_user};

/// <https://github.com/moby/buildkit/issues/4250>: --no-cache forgot the caches as well. <https://github.com/moby/buildkit/issues/2447>: and
/// did not where a mode was given, which also made it another cache. FIELD P4.
#[test]
fn buildkit_4250_a_cache_is_kept_between_builds_and_by_no_cache() {
    for_each_user(|user| {
        let place = Place::new(user);
        let count = "RUN --mount=type=cache,target=/c echo x >> /c/f; echo had $(wc -l < /c/f)\n";
        place.base(count);
        place.build(&[]).ok().prints(&["had 1"]);
        place.build(&["--no-cache"]).ok().prints(&["had 2"]);
        // Another mode is no other cache, and no reason to run the step again.
        place.base("RUN --mount=type=cache,target=/c,mode=0755 echo x >> /c/f; echo had $(wc -l < /c/f)\n");
        let ran = place.build(&[]).ok();
        assert_eq!(ran.count("CACHED"), 2, "{ran}");
        place.build(&["--no-cache"]).ok().prints(&["had 3"]);
        place.kiln(&["cache", "rm", "/c"]).ok();
        place.build(&["--no-cache"]).ok().prints(&["had 1"]);
        let listed = place.kiln(&["cache", "ls"]).ok().out();
        assert!(listed.contains("/c ") && listed.contains("linux/"), "{listed}");
        place.kiln(&["cache", "rm", "/nothing-here"]).code(2).says(&["/nothing-here", "kiln cache ls"]);
    });
}

#[test]
fn an_id_is_the_cache_whatever_the_target() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN --mount=type=cache,id=one,target=/a echo from-a > /a/f\n\
             RUN --mount=type=cache,id=one,target=/b grep from-a /b/f\n\
             RUN --mount=type=cache,target=/a test ! -e /a/f\n",
        );
        place.build(&[]).ok();
    });
}

/// <https://github.com/moby/buildkit/issues/1673>: a cache for a user that is not root. FIELD P4.
#[test]
fn buildkit_1673_mode_and_owner_are_those_asked_for() {
    for_each_user(|user| {
        let owner = if user.has_range() { "5:6" } else { "0:0" };
        let place = Place::with(
            user,
            &format!(
                "RUN --mount=type=cache,target=/a test $(stat -c %a:%u:%g /a) = 755:0:0\n\
                 RUN --mount=type=cache,target=/b,mode=0700,uid=5,gid=6 test $(stat -c %a:%u:%g /b) = 700:{owner}\n"
            ),
        );
        place.build(&[]).ok();
    });
}

#[test]
fn buildkit_3041_an_owner_that_is_asked_for_later_is_told_and_no_other_cache() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.builds("RUN --mount=type=cache,id=c,target=/c echo x > /c/f\n");
        place.base("RUN --mount=type=cache,id=c,target=/c,uid=5,gid=6 grep x /c/f\n");
        place.build(&[]).ok().says(&["cache \"c\" belongs to 0:0", "5:6", "kiln cache rm"]);
        // With a single id there are no other owners on disk for a program of the machine.
        if matches!(user, User::Root | User::Sub) {
            place.kiln(&["cache", "shell", "c", "--", "chown", "-R", "5:6", "."]).ok();
            place.base("RUN --mount=type=cache,id=c,target=/c,uid=5,gid=6 test $(stat -c %u:%g /c) = 5:6\n");
            place.build(&[]).ok().lacks(&["belongs to"]);
        }
    });
}

/// <https://github.com/moby/buildkit/issues/2487>: apt in two builds at once. FIELD P6.
#[test]
fn buildkit_2487_locked_waits_for_another_process_and_says_so() {
    for_each_user(|user| {
        let place = Place::new(user);
        // Two Dockerfiles on one store. The first holds the cache until the other has said that it waits.
        place.base(
            "RUN --mount=type=cache,id=gate,target=/gate mkfifo /gate/p\n\
             RUN --mount=type=cache,id=l,target=/l,sharing=locked --mount=type=cache,id=gate,target=/gate \
             echo holding && cat /gate/p && echo first > /l/f\n",
        );
        let mut first = place.start(&[]);
        assert!(first.until(" holding\n"), "{}", first.seen);
        place.file(
            "context/second.Dockerfile",
            &format!("{BASE}RUN --mount=type=cache,id=l,target=/l,sharing=locked grep first /l/f\n"),
        );
        let mut second = place.start(&["-f", "context/second.Dockerfile"]);
        assert!(second.until("waiting for cache \"l\""), "{}", second.seen);
        let held = place.kiln(&["cache", "ls"]).ok().out();
        let line = held.lines().find(|line| line.starts_with("l ")).expect("it is listed").trim();
        assert!(line.contains("process "), "held by nobody: {held}");
        place.kiln(&["cache", "rm", "l"]).code(3).says(&["l"]);
        place.file(
            "context/third.Dockerfile",
            &format!("{BASE}RUN --mount=type=cache,id=gate,target=/gate echo go > /gate/p\n"),
        );
        place.build(&["-f", "context/third.Dockerfile"]).ok();
        first.wait().ok();
        second.wait().ok();
    });
}

#[test]
fn private_works_on_a_copy_that_a_failure_drops() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.builds("RUN --mount=type=cache,id=p,target=/p echo one > /p/f\n");
        place.base("RUN --mount=type=cache,id=p,target=/p,sharing=private echo two > /p/f; false\n");
        place.build(&[]).code(1);
        place.builds(
            "RUN --mount=type=cache,id=p,target=/p,sharing=private grep one /p/f && echo three > /p/f\n",
        );
        place.builds("RUN --mount=type=cache,id=p,target=/p grep three /p/f\n");
    });
}

#[test]
fn a_read_only_cache_cannot_be_written() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.builds("RUN --mount=type=cache,id=r,target=/r echo x > /r/f\n");
        place.builds("RUN --mount=type=cache,id=r,target=/r,ro cat /r/f && ! touch /r/g\n");
    });
}

#[test]
fn a_new_cache_begins_with_its_seed() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.dockerfile(
            "FROM scratch AS seed\nCOPY bin /bin\nRUN mkdir -m 750 /s && echo seeded > /s/f\n\
             FROM scratch\nCOPY bin /bin\n\
             RUN --mount=type=cache,target=/c,from=seed,source=/s grep seeded /c/f && test $(stat -c %a /c) = 750 && echo used > /c/f\n\
             RUN --mount=type=cache,target=/c,from=seed,source=/s grep used /c/f\n",
        );
        place.build(&[]).ok();
    });
}

#[test]
fn a_relative_target_is_below_the_working_directory() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "WORKDIR /srv\nRUN --mount=type=cache,target=rel echo x > /srv/rel/f\n\
             RUN --mount=type=cache,target=/srv/rel grep x /srv/rel/f\n",
        );
        place.build(&[]).ok();
    });
}

/// <https://github.com/moby/buildkit/issues/2147>, <https://github.com/docker/buildx/issues/788>, <https://github.com/docker/buildx/issues/260>: what is
/// installed into a cache is not in the image. The check `CacheMountOverInstall` says it before.
/// <https://github.com/earthly/earthly/issues/3073>: what was copied there is not in the cache; nor is it lost. FIELD P7.
#[test]
fn buildkit_2147_a_cache_over_the_install_target_leaves_the_directory_as_it_was() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN mkdir /packages && echo foo > /packages/foo\n\
             RUN --mount=type=cache,target=/packages test ! -e /packages/foo && echo bar > /packages/bar\n\
             RUN test -e /packages/foo && test ! -e /packages/bar\n",
        );
        place.build(&["-o", "type=oci,dest=image,tar=false"]).ok();
        let layers = layers(&place, "image");
        // The step that only filled the cache, and the one that only looked, changed nothing.
        let changed: Vec<_> = layers[2..].iter().flat_map(|layer| layer.keys()).collect();
        assert!(changed.is_empty(), "{changed:?}");
    });
}

/// <https://github.com/moby/buildkit/issues/3936>: files of a cache in the next stage. A step copies them to where they stay. The stage itself
/// has none of them: a COPY from there fails and is no empty directory, and so does a seed, which was the question in
/// <https://github.com/moby/buildkit/issues/1531>. FIELD P7.
#[test]
fn buildkit_3936_files_leave_a_cache_by_a_step_that_copies_them() {
    for_each_user(|user| {
        let place = Place::new(user);
        let fill = "FROM scratch AS one\nCOPY bin /bin\nRUN --mount=type=cache,id=c,target=/out echo made > /out/f\n";
        place.dockerfile(&format!(
            "{fill}RUN --mount=type=cache,id=c,target=/out mkdir /kept && cp /out/f /kept/\n\
             {BASE}COPY --from=one /kept /out\nRUN grep made /out/f\n"
        ));
        place.build(&[]).ok();
        place.dockerfile(&format!("{fill}{BASE}COPY --from=one /out /out\n"));
        place.build(&[]).code(2).says(&["\"out\" not found"]);
        place.dockerfile(&format!(
            "{fill}{BASE}RUN --mount=type=cache,target=/new,from=one,source=/out true\n"
        ));
        let seeded = place.build(&[]);
        assert_ne!(seeded.code, Some(0), "{seeded}");
        seeded.says(&["seed a cache from /out"]);
    });
}

/// <https://github.com/moby/buildkit/issues/724>, <https://github.com/containers/buildah/pull/4178>: who is not root could not write to a
/// cache. <https://github.com/containers/podman/issues/27131>: nor get to it, below directories that were made for the mount. FIELD P4.
#[test]
fn buildkit_724_a_user_gets_to_a_cache_of_his_and_writes_to_it() {
    for_each_user(|user| {
        let mount = "RUN --mount=type=cache,uid=1000,gid=1000,target=/foo/bar";
        let place = Place::with(
            user,
            &format!(
                "USER 1000:1000\n\
                 {mount} test $(id -u) = 1000 && test $(stat -c %a /foo) = 755 && mkdir -p /foo/bar/00 && echo his > /foo/bar/00/f\n\
                 {mount} grep his /foo/bar/00/f && rm -r /foo/bar/00\n"
            ),
        );
        place.build(&[]).ok();
    });
}

#[test]
fn mount_points_that_the_step_needed_are_gone_with_it() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN --mount=type=cache,target=/a/b/c --mount=type=tmpfs,target=/t --mount=type=bind,target=/ctx echo x > /a/b/c/f\n\
             RUN test ! -e /a && test ! -e /t && test ! -e /ctx\n\
             RUN --mount=type=cache,target=/k/c touch /k/mine\n",
        );
        place.build(&["-o", "type=oci,dest=image,tar=false"]).ok();
        let layers = layers(&place, "image");
        let names: Vec<_> = layers[1..].iter().flat_map(|layer| layer.keys()).collect();
        assert!(names.iter().all(|name| ["", ".", "k", "k/mine"].contains(&name.as_str())), "{names:?}");
        assert!(names.iter().any(|name| *name == "k/mine"), "{names:?}");
    });
}
