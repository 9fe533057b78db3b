//! COPY, and what steps do to files.

use std::os::unix::fs::PermissionsExt as _;

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
fn files_of_a_stage_keep_their_owners_and_those_of_a_context_do_not() {
    for_each_user(|user| {
        let place = Place::new(user);
        // A COPY --chown makes owners that no user here could make with chown(2).
        let text = "FROM scratch AS made\nCOPY --chown=7:8 file /d/file\nCOPY --chown=9 file /d/other\n\
             FROM scratch\nCOPY file /own\nCOPY --from=made /d /kept\nCOPY --from=made --chown=5:6 /d /given\n";
        place.dockerfile(text);
        place.file("context/file", "x");
        place.build(&["-o", "type=oci,dest=image,tar=false"]).ok();
        let layers = layers(&place, "image");
        assert_eq!(layers[0]["own"].owner, (0, 0));
        assert_eq!(layers[1]["kept"].owner, (0, 0), "a directory on the way");
        assert_eq!((layers[1]["kept/file"].owner, layers[1]["kept/other"].owner), ((7, 8), (9, 9)));
        assert_eq!((layers[2]["given/file"].owner, layers[2]["given/other"].owner), ((5, 6), (5, 6)));
        // The owner alone has changed, and that is seen.
        place.dockerfile(&text.replace("--chown=9", "--chown=10"));
        place.build(&["-o", "type=oci,dest=again,tar=false"]).ok();
        assert_eq!(self::layers(&place, "again")[1]["kept/other"].owner, (10, 10));
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

/// <https://github.com/moby/buildkit/issues/4374>, <https://github.com/moby/moby/issues/46708>: a mode that is replaced made the copy
/// run again. <https://github.com/moby/buildkit/issues/7176>: a directory's new mode was not seen. FIELD P14.
#[test]
fn buildkit_4374_a_mode_counts_where_it_is_copied_and_only_there() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.mode("context/f", "f", 0o644);
        place.file("context/d/sub/f", "f");
        let chmod = |path: &str, mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(place.path(path), mode).expect("it is ours");
        };
        chmod("context/d/sub", 0o755);
        place.builds("COPY --chmod=640 f /f\nRUN stat -c %a /f\n").prints(&["640"]);
        chmod("context/f", 0o755);
        assert_eq!(place.builds("COPY --chmod=640 f /f\nRUN stat -c %a /f\n").count("CACHED"), 3);
        place.builds("COPY d /d\nRUN stat -c %a /d/sub\n").prints(&["755"]);
        chmod("context/d/sub", 0o750);
        place.builds("COPY d /d\nRUN stat -c %a /d/sub\n").prints(&["750"]);
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
        for whiteout in [".wh.gone", "d/.wh.b", "d/.wh.c", "dirgone/.wh.f"] {
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

#[test]
fn excludes_and_parents_decide_what_is_copied() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "COPY --exclude=*.md --exclude=deep/no src /excluded/\nCOPY --exclude=*.md *.* /named/\n\
             COPY --parents src/deep/*/f /kept/\nCOPY --parents src/./**/f /pivot/\nCOPY --parents --exclude=**/no nosuch* src/d* /both/\n\
             RUN cd /excluded && test \"$(find . | sort | tr '\\n' ' ')\" = '. ./a.txt ./deep ./deep/x.md ./deep/yes ./deep/yes/f '\n\
             RUN test \"$(ls /named)\" = top.txt\n\
             RUN cd /kept && test \"$(find . -type f | sort | tr '\\n' ' ')\" = './src/deep/no/f ./src/deep/yes/f ' && test $(stat -c %a src/deep) = 750\n\
             RUN cd /pivot && test \"$(find . -type f | sort | tr '\\n' ' ')\" = './deep/no/f ./deep/yes/f '\n\
             RUN cd /both && test \"$(find . -type f | sort | tr '\\n' ' ')\" = './src/deep/x.md ./src/deep/yes/f '\n",
        );
        for name in
            ["top.txt", "top.md", "src/a.txt", "src/b.md", "src/deep/x.md", "src/deep/yes/f", "src/deep/no/f"]
        {
            place.file(&format!("context/{name}"), name);
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o750);
        std::fs::set_permissions(place.path("context/src/deep"), mode).unwrap();
        place.build(&[]).ok();
        // What is left out is no part of the key.
        place.file("context/src/b.md", "other");
        place.file("context/src/deep/no/g", "new");
        place.base("COPY --exclude=*.md --exclude=deep/no src /excluded/\n");
        assert_eq!(place.build(&[]).ok().count("CACHED"), 2);
        place.base("COPY --parents src/nosuch /x/\n");
        place.build(&[]).code(2).says(&["\"src/nosuch\" not found"]);
    });
}

/// A tar with a directory that replaces a link of the image, a file through another link, owners and a device.
fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append_data(&mut header, path, content).unwrap();
    };
    add("replaced", tar::EntryType::Directory, 0o710, b"");
    add("replaced/new", tar::EntryType::Regular, 0o640, b"new");
    add("through/new", tar::EntryType::Regular, 0o4755, b"new");
    add("filled", tar::EntryType::Regular, 0o644, b"a file now");
    add(".wh.real", tar::EntryType::Regular, 0o644, b"no whiteout");
    add("null", tar::EntryType::Char, 0o666, b"");
    tar.into_inner().unwrap()
}

#[test]
fn add_unpacks_archives_over_the_image() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN mkdir -p /d/real /d/filled/deep && echo old > /d/real/old && echo old > /d/filled/deep/old && ln -s real /d/replaced && ln -s real /d/through\n\
             ADD any.name /d/\nADD --unpack=false any.name /kept.tar\nCOPY any.name /copied.tar\nADD --chown=5:6 --chmod=600 any.name text /o/\n\
             RUN cd /d && test ! -L replaced && test \"$(ls replaced)\" = new && test \"$(ls real)\" = \"$(printf 'new\\nold')\" && test -L through && grep now filled && test -f .wh.real && test ! -e null\n\
             RUN test \"$(stat -c '%a %Y' /d/real/new)\" = '4755 1000000000' && test $(stat -c %a /d/replaced) = 710 && test $(stat -c %a /o/through/new) = 4755 && test $(stat -c %a /o/text) = 600\n\
             RUN cmp /kept.tar /copied.tar && test -f /kept.tar\n",
        );
        place.file("context/any.name", "");
        std::fs::write(place.path("context/any.name"), archive()).unwrap();
        place.file("context/text", "text");
        place.build(&["-o", "type=oci,dest=image,tar=false"]).ok();
        let layers = layers(&place, "image");
        assert_eq!(layers[2]["d/replaced"].kind, tar::EntryType::Directory);
        assert_eq!(layers[2]["d/filled"].kind, tar::EntryType::Regular);
        assert_eq!((layers[2]["d/real/new"].owner, layers[2]["d/replaced"].owner), ((7, 8), (7, 8)));
        assert_eq!((layers[2]["d"].owner, layers[5]["o/text"].owner), ((0, 0), (5, 6)));
        assert_eq!((layers[5]["o/through/new"].owner, layers[5]["o/through"].owner), ((5, 6), (0, 0)));
        // Damaged archives are told, not copied.
        std::fs::write(place.path("context/any.name"), &archive()[..700]).unwrap();
        place.base("ADD any.name /d/\n");
        place.build(&[]).code(2).says(&["any.name cannot be unpacked"]);
    });
}

#[test]
fn a_linked_copy_is_made_without_its_root() {
    for_each_user(|user| {
        let place = Place::new(user);
        let write = |text: &str| {
            place.dockerfile(&format!(
                "FROM scratch\nCOPY bin /bin\nRUN mkdir -m 1777 /tmp && mkdir /real && ln -s real /link && echo {text} > /real/old\n\
                 COPY --link file /link/file\nCOPY --link --chown=3 file /tmp/in/\n\
                 RUN test ! -L /link && test \"$(ls /link)\" = file && test \"$(ls /real)\" = old && test $(stat -c %a /tmp) = 755 && grep {text} /real/old\n"
            ));
        };
        place.file("context/file", "x");
        write("one");
        place.build(&["-o", "type=oci,dest=first,tar=false"]).ok();
        let first = layers(&place, "first");
        assert_eq!(first[2]["link"].kind, tar::EntryType::Directory);
        assert_eq!((first[2]["link"].mode, first[2]["link"].owner), (0o755, (0, 0)));
        assert!(first[2].contains_key("link/file") && !first[2].contains_key("real"));
        // Below it another root: the copy is not made again, and its layers are the same.
        write("two");
        let again = place.build(&["-o", "type=oci,dest=second,tar=false"]).ok();
        // The base's copy and both linked ones.
        assert_eq!(again.count("CACHED"), 3, "{again}");
        assert_eq!(first[3]["tmp/in/file"].owner, (3, 3));
        assert_eq!(layers(&place, "second")[2..4], first[2..4]);
    });
}
