//! COPY, and what steps do to files.

use crate::images::layers;
use crate::place::Place;
use crate::user::for_each_user;

#[test]
fn destinations_are_files_or_directories_as_in_docker() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "COPY a /one\nCOPY a /two/\nCOPY dir /three\nCOPY a b /four/\nCOPY *.txt /five/\nCOPY dir/../a /six\nCOPY . /all\n\
             RUN cat /one /two/a /three/below /four/a /four/b /five/x.txt /five/y.txt /six /all/dir/below > /dev/null && test ! -e /five/a\n\
             RUN test ! -e /all/hidden && test ! -e /all/deep/er/hidden.log && test -e /all/deep/er/kept.log\n",
        );
        for name in
            ["a", "b", "dir/below", "x.txt", "y.txt", "hidden", "deep/er/hidden.log", "deep/er/kept.log"]
        {
            place.file(&format!("context/{name}"), name);
        }
        place.file("context/.dockerignore", "hidden\n**/*.log\n!**/kept.log\n");
        place.build(&[]).ok();
    });
}

#[test]
fn from_takes_files_of_stages_by_name_and_number() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.dockerfile(
            "FROM scratch AS first\nCOPY bin /bin\nRUN echo one > /one && mkdir -p /d/e && echo two > /d/e/two && ln -s e/two /d/link\n\
             FROM scratch\nCOPY bin /bin\nCOPY --from=first /one /by-name\nCOPY --from=0 /one /by-number\nCOPY --from=first /d /d\nCOPY --from=first /d/link /followed\n\
             RUN grep one /by-name /by-number && grep two /d/e/two && test $(readlink /d/link) = e/two && test ! -L /followed && grep two /followed\n",
        );
        place.build(&[]).ok();
    });
}

#[test]
fn chown_takes_names_of_the_image_and_chmod_modes() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "COPY passwd group /etc/\nCOPY --chown=ann file /a\nCOPY --chown=ann:extra file /b\nCOPY --chmod=4711 file /c\nCOPY --chmod=600 --chown=3 file /d\n",
        );
        place.file("context/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\n");
        place.file("context/group", "root:x:0:\nann:x:1001:\nextra:x:77:ann\n");
        place.mode("context/file", "x", 0o640);
        place.build(&["-o", "type=oci,dest=image,tar=false"]).ok();
        let layers = layers(&place, "image");
        let seen: Vec<_> = ["a", "b", "c", "d"]
            .iter()
            .enumerate()
            .map(|(index, name)| (layers[index + 2][*name].owner, layers[index + 2][*name].mode))
            .collect();
        assert_eq!(seen, [((1000, 1001), 0o640), ((1000, 77), 0o640), ((0, 0), 0o4711), ((3, 3), 0o600)]);
    });
}

#[test]
fn links_modes_and_deletions_are_kept() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN mkdir /d && echo x > /d/a && ln /d/a /d/b && ln -s a /d/c && ln -s /nowhere /d/dangling && mkfifo /d/p && chmod 2755 /d && touch '/d/with space' && echo y > /gone && mkdir /dirgone && touch /dirgone/f\n\
             RUN rm -r /gone /dirgone && mkdir /dirgone && touch /dirgone/g && rm /d/b && mv /d/c /d/e\n\
             RUN test ! -e /gone && test \"$(ls /dirgone)\" = g && test $(stat -c %a /d) = 2755 && test -p /d/p && test $(readlink /d/e) = a\n",
        );
        place.build(&["-o", "type=oci,dest=image,tar=false"]).ok();
        let layers = layers(&place, "image");
        let (first, second) = (&layers[1], &layers[2]);
        assert_eq!(first["d/b"].kind, tar::EntryType::Link);
        assert_eq!(first["d/b"].link.as_deref(), Some("d/a"));
        assert_eq!(first["d/c"].link.as_deref(), Some("a"));
        assert_eq!(first["d/p"].kind, tar::EntryType::Fifo);
        assert_eq!(first["d"].mode, 0o2755);
        for whiteout in [".wh.gone", "d/.wh.b", "d/.wh.c", "dirgone/.wh..wh..opq"] {
            assert!(second.contains_key(whiteout), "{whiteout} in {second:#?}");
        }
        assert!(second.contains_key("dirgone/g") && !second.contains_key("dirgone/f"));
    });
}

#[test]
fn setuid_and_xattrs_of_the_context_are_kept() {
    for_each_user(|user| {
        let place =
            Place::with(user, "COPY setuid attributed /f/\nRUN test $(stat -c %a /f/setuid) = 4755\n");
        place.mode("context/setuid", "x", 0o4755);
        place.file("context/attributed", "x");
        rustix::fs::setxattr(
            place.path("context/attributed"),
            "user.kind",
            b"test",
            rustix::fs::XattrFlags::empty(),
        )
        .expect("the file system has xattrs");
        place.build(&["-o", "type=oci,dest=image,tar=false"]).ok();
        let layers = layers(&place, "image");
        assert_eq!(layers[1]["f/setuid"].mode, 0o4755);
        assert_eq!(layers[1]["f/attributed"].xattrs.get("user.kind").map(Vec::as_slice), Some(&b"test"[..]));
    });
}

#[test]
fn a_copy_through_links_stays_inside() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN mkdir -p /real && ln -s /real /link && ln -s /../../../../real /up\nCOPY a /link/a\nCOPY a /up/b\nRUN cat /real/a /real/b\n",
        );
        place.file("context/a", "x");
        place.build(&[]).ok();
        // A link of the context that leads out of it is copied as it stands, and not followed.
        place.file("secret", "secret");
        place.link("context/out", "../secret");
        place.base("COPY out /taken\n");
        let ran = place.build(&[]);
        assert_ne!(ran.code, Some(0), "{ran}");
    });
}

#[test]
fn a_wildcard_that_matches_nothing_is_told() {
    for_each_user(|user| {
        let place =
            Place::with(user, "COPY nomatch* /x/\nCOPY file* /y/\nRUN test ! -e /x && test -e /y/file\n");
        place.file("context/file", "x");
        let built = place.build(&[]).ok();
        let line = built.stderr.lines().find(|line| line.contains("EmptyWildcard")).unwrap_or_default();
        assert!(line.contains("`nomatch*` matches no file"), "{}", built.stderr);
        assert!(!built.stderr.contains("`file*`"), "{}", built.stderr);
    });
}
