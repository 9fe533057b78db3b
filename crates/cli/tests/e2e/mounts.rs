//! Bind and tmpfs mounts, and heredocs.

use crate::place::Place;
use crate::user::for_each_user;

#[test]
fn a_bind_mount_shows_the_context_without_what_dockerignore_hides() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN --mount=type=bind,target=/ctx cat /ctx/shown && test ! -e /ctx/hidden && ! touch /ctx/new\n\
             RUN --mount=type=bind,source=sub/file,target=/file grep below /file\n\
             RUN --mount=type=bind,source=sub,target=/sub grep below /sub/file\n",
        );
        place.file("context/shown", "shown");
        place.file("context/hidden", "hidden");
        place.file("context/.dockerignore", "hidden\n");
        place.file("context/sub/file", "below");
        place.build(&[]).ok();
        assert!(!place.path("context/new").exists());
        // What is mounted is in the key, what is hidden is not.
        place.file("context/hidden", "other");
        let ran = place.build(&[]).ok();
        assert_eq!(ran.count("CACHED"), 4, "{ran}");
        place.file("context/sub/file", "below, changed");
        let ran = place.build(&[]).ok();
        assert_eq!(ran.count("CACHED"), 1, "all three steps see it: {ran}");
    });
}

#[test]
fn what_is_written_to_a_bind_mount_is_thrown_away() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN --mount=type=bind,target=/ctx,rw echo changed > /ctx/file && echo new > /ctx/new && grep changed /ctx/file\n\
             RUN --mount=type=bind,target=/ctx test ! -e /ctx/new && grep original /ctx/file\n",
        );
        place.file("context/file", "original");
        place.build(&[]).ok();
        assert_eq!(place.read("context/file"), "original");
        assert!(!place.path("context/new").exists());
    });
}

#[test]
fn a_bind_mount_of_a_stage_shows_its_files() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.dockerfile(
            "FROM scratch AS made\nCOPY bin /bin\nRUN mkdir /d && echo made > /d/f && ln -s f /d/l\n\
             FROM scratch\nCOPY bin /bin\n\
             RUN --mount=type=bind,from=made,source=/d,target=/d grep made /d/l && ! touch /d/g\n\
             RUN --mount=type=bind,from=made,source=/d,target=/d,rw echo x > /d/f && rm /d/l\n\
             RUN --mount=type=bind,from=made,source=/d,target=/d grep made /d/l\n\
             RUN test ! -e /d\n",
        );
        place.build(&[]).ok();
    });
}

#[test]
fn a_tmpfs_is_empty_and_forgotten() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN mkdir /t && echo below > /t/f\n\
             RUN --mount=type=tmpfs,target=/t test ! -e /t/f && echo x > /t/g && grep -q ' /t tmpfs ' /proc/mounts\n\
             RUN test ! -e /t/g && grep below /t/f\n\
             RUN --mount=type=tmpfs,target=/t,size=1m ! dd if=/dev/zero of=/t/big bs=64k count=32\n",
        );
        place.build(&[]).ok();
    });
}

#[test]
fn heredocs_are_scripts_and_files() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "ARG who=me\n\
             RUN <<EOF\nset -e\nfalse || echo shell > /one\necho $who >> /one\nEOF\n\
             RUN <<EOF\n#!/bin/cat\nline of a cat\nEOF\n\
             RUN cat <<EOF > /three\nredirected\nEOF\n\
             COPY <<one.txt <<\"two.txt\" /files/\nexpanded $who\none.txt\nliteral $who\ntwo.txt\n\
             COPY --chmod=0755 <<EOF /script\n#!/bin/sh\necho from script\nEOF\n\
             RUN test \"$(cat /one)\" = \"$(printf 'shell\\nme')\" && grep redirected /three\n\
             RUN grep 'expanded me' /files/one.txt && grep 'literal \\$who' /files/two.txt && /script | grep 'from script'\n",
        );
        place.build(&[]).ok().prints(&["#!/bin/cat", "line of a cat"]);
    });
}

#[test]
fn a_step_has_the_devices_and_files_that_programs_expect() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN for d in null zero full random urandom tty; do test -c /dev/$d || exit 1; done; test -d /dev/shm && test -d /dev/pts && test -d /dev/mqueue\n\
             RUN head -c 3 /dev/zero > /dev/null && ! echo x > /dev/full\n\
             RUN ! touch /sys/x && test -d /proc/self && test -s /etc/hosts && test -e /etc/resolv.conf && grep -q $(hostname) /etc/hosts\n\
             RUN test $$ != 1 || test $(id -u) = 0; test $(id -u):$(id -g) = 0:0\n\
             RUN test -z \"$(ls -A /etc | grep -v -e hosts -e resolv.conf -e hostname)\"\n",
        );
        place.build(&[]).ok();
    });
}
