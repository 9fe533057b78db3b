//! `kiln build --cache-mount id=ID,path=DIR`.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

use crate::place::{Place, Ran};
use crate::user::{User, for_each_user};

const WRITES: &str = "RUN --mount=type=cache,target=/root/.cache/pip echo x >> /root/.cache/pip/f; echo had $(wc -l < /root/.cache/pip/f)\n";

fn at(place: &Place, dir: &str) -> String {
    format!("id=/root/.cache/pip,path={}", place.text(dir))
}

/// <https://github.com/moby/buildkit/issues/1512>, <https://github.com/moby/buildkit/issues/2085> and, before there were cache mounts,
/// <https://github.com/moby/moby/issues/14080>: a directory of the host's, which steps write to.
/// <https://github.com/osscontainertools/kaniko/issues/444>: the place was built in. FIELD P2.
#[test]
fn buildkit_1512_a_cache_is_where_the_user_wants_it_and_his() {
    for_each_user(|user| {
        let place = Place::with(user, WRITES);
        place.directory("volume");
        let flag = format!("--cache-mount={}", at(&place, "volume/pip"));
        place.build(&[&flag]).ok().prints(&["had 1"]);
        // Made with its parents, and nothing of kiln's is in it or beside it.
        let names = |dir: &str| -> Vec<String> {
            let entries = fs::read_dir(place.path(dir)).expect("it is there");
            entries
                .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
                .collect()
        };
        assert_eq!((names("volume"), names("volume/pip")), (vec!["pip".to_owned()], vec!["f".to_owned()]));
        for file in ["volume/pip", "volume/pip/f"] {
            let found = fs::metadata(place.path(file)).expect("it is there");
            assert_eq!((found.uid(), found.gid()), user.ids(), "{file}");
        }
        // It goes on from there: in the next build, from another store, after a change by hand.
        place.build(&[&flag, "--no-cache"]).ok().prints(&["had 2"]);
        Ran::of(&mut place.build_command("other", &[&flag])).ok().prints(&["had 3"]);
        place.file("volume/pip/f", "");
        place.build(&[&flag, "--no-cache"]).ok().prints(&["had 1"]);
        // Without the flag it is the store's own.
        place.build(&["--no-cache"]).ok().prints(&["had 1"]);
        let listed = place.kiln(&["cache", "ls"]).ok().out();
        assert!(listed.contains(&place.text("volume/pip")) && listed.lines().count() == 3, "{listed}");
        // Taking it away leaves the files, and prune does not even do that.
        place.kiln(&["cache", "prune", "--all"]).ok();
        let gone = place.kiln(&["cache", "rm", "/root/.cache/pip"]).ok().out();
        assert!(gone.contains("keeps its files"), "{gone}");
        assert_eq!(place.read("volume/pip/f"), "x\n");
        place.fsck();
        place.is_quiet();
    });
}

/// <https://github.com/containers/buildah/issues/6554>: a place for a cache that moves nothing else, said once for all builds. FIELD P2.
#[test]
fn buildah_6554_the_configuration_file_places_caches_for_all_builds() {
    for_each_user(|user| {
        let place = Place::with(user, WRITES);
        let config = |text: &str| place.file("home/.config/kiln/config.json", text);
        config(
            r#"{"cache_mounts": [{"id": "/root/.cache/pip", "path": "~/pip"}, {"id": "unused", "path": "~/unused"}]}"#,
        );
        place.build(&[]).ok().prints(&["had 1"]).lacks(&["--cache-mount"]);
        assert_eq!(place.read("home/pip/f"), "x\n");
        assert!(!place.path("home/unused").exists());
        assert_eq!(
            place.kiln(&["cache", "path", "/root/.cache/pip"]).ok().out().trim_end(),
            place.text("home/pip")
        );
        // The command line goes before.
        place
            .build(&["--no-cache", &format!("--cache-mount={}", at(&place, "other"))])
            .ok()
            .prints(&["had 1"]);
        assert_eq!(place.read("other/f"), "x\n");
        config(r#"{"cache_mounts": [{"id": "a", "path": "relative"}]}"#);
        place.build(&[]).code(2).says(&["relative"]);
        config(r#"{"cache_mounts": [{"id": "a", "dir": "/x"}]}"#);
        place.build(&[]).code(2).says(&["config.json", "dir"]);
        // What has nothing to do with caches goes on all the same.
        config(r#"{"cache_mounts": [{"id": "a", "path": "/proc/self/status/x"}]}"#);
        place.kiln(&["images"]).ok();
    });
}

#[test]
fn a_place_that_is_of_no_use_or_in_the_way_is_told() {
    for_each_user(|user| {
        let place = Place::with(user, WRITES);
        let dir = place.text("volume");
        let with = |flag: String| place.build(&["--no-cache", &format!("--cache-mount={flag}")]);
        with(format!("id=pip,path={dir}"))
            .ok()
            .says(&["no step mounts a cache of this id", "/root/.cache/pip"]);
        with(format!("id=/root/.cache/pip,path={dir},scope=linux/s390x")).ok().says(&["add scope=linux/"]);
        assert!(!place.path("volume").exists());
        let inside = place.text("context/pip");
        with(format!("id=/root/.cache/pip,path={inside}")).ok().says(&[
            "inside of the build context",
            "`pip`",
            ".dockerignore",
        ]);
        place.file("context/.dockerignore", "pip\n");
        with(format!("id=/root/.cache/pip,path={inside}"))
            .ok()
            .prints(&["had 2"])
            .lacks(&["inside of the build context"]);
    });
}

#[test]
fn a_place_that_cannot_be_a_cache_is_refused() {
    for_each_user(|user| {
        let place = Place::with(user, WRITES);
        let with = |flag: &str| place.build(&[&format!("--cache-mount={flag}")]);
        let id = "id=/root/.cache/pip";
        place.file("file", "mine");
        with(&format!("{id},path={}", place.text("file"))).code(2).says(&["it is no directory"]);
        with(&format!("{id},path={}", place.text("store/single"))).code(2).says(&["kiln's store"]);
        with(&format!("{id},path=/")).code(2).says(&["root directory"]);
        let volume = place.text("volume");
        with(&format!("{id},path={volume},size=1")).code(2).says(&["\"size\" is not known"]);
        place
            .build(&[
                &format!("--cache-mount={id},path={volume}"),
                &format!("--cache-mount=id=b,path={volume}"),
            ])
            .code(2)
            .says(&["is kept there already"]);
        assert_eq!(place.read("file"), "mine");
        // One that may only be read serves steps that only read.
        place.file("volume/f", "kept\n");
        fs::set_permissions(place.path("volume"), fs::Permissions::from_mode(0o555)).expect("root may");
        if user != User::Root {
            // In its user namespace the user is root, and its own directory's mode does not bind it; a stranger's does.
            chown(place.path("volume"), Some(0), Some(0)).expect("root may");
            with(&format!("{id},path={volume}"))
                .code(2)
                .says(&["cannot be written to (permission denied)", "`ro`"]);
            with(&format!("{id},path={volume}/new/dir"))
                .code(2)
                .says(&["kept in", "it is not there and cannot be made: permission denied"])
                .lacks(&["put the store", "kiln doctor"]);
            place.base("RUN --mount=type=cache,target=/root/.cache/pip,ro cat /root/.cache/pip/f\n");
            with(&format!("{id},path={volume}")).ok().prints(&["kept"]);
        }
    });
}

#[test]
fn placed_caches_lock_between_stores_and_say_for_whom_a_step_waits() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.directory("volume");
        let flags = [
            format!("--cache-mount=id=l,path={}", place.text("volume/l")),
            format!("--cache-mount=id=g,path={}", place.text("volume/g")),
        ];
        place.base(
            "RUN --mount=type=cache,id=g,target=/g mkfifo /g/p\n\
             RUN --mount=type=cache,id=l,target=/l,sharing=locked --mount=type=cache,id=g,target=/g echo holding && cat /g/p && echo first > /l/f\n",
        );
        let mut first = place.start(&[&flags[0], &flags[1]]);
        assert!(first.until(" holding\n"), "{}", first.seen);
        place.file(
            "context/second.Dockerfile",
            &format!(
                "{}RUN --mount=type=cache,id=l,target=/l,sharing=locked grep first /l/f\n",
                crate::place::BASE
            ),
        );
        let mut second =
            place.spawn(&mut place.build_command("other", &["-f", "context/second.Dockerfile", &flags[0]]));
        assert!(second.until("waiting for cache \"l\""), "{}", second.seen);
        fs::write(place.path("volume/g/p"), "go\n").expect("it is read");
        first.wait().ok();
        let second = second.wait().ok();
        assert!(second.stderr.contains("process "), "{second}");
    });
}

#[test]
fn buildkit_1237_as_root_a_cache_in_somebodys_directory_is_his() {
    for_each_user(|user| {
        if user != User::Root {
            // Root inside is the user anyway.
            return;
        }
        let place = Place::new(user);
        for dir in ["his", "fives", "private"] {
            place.directory(dir);
            chown(place.path(dir), Some(4321), Some(4322)).expect("root may");
        }
        let flag = |id: &str| format!("--cache-mount=id={id},path={}", place.text(id));
        place.base(
            "RUN --mount=type=cache,id=his,target=/c --mount=type=cache,id=fives,target=/d,uid=5,gid=6 \
             test $(stat -c %u:%g /c) = 0:0 && echo x > /c/f && echo y > /c/g && chown 7:7 /c/g && test $(stat -c %u:%g /c/g) = 7:7 && \
             test $(stat -c %u:%g /d) = 5:6 && touch /d/f && chown 5:6 /d/f\n",
        );
        place.build(&[&flag("his"), &flag("fives")]).ok();
        let owner = |name: &str| {
            fs::metadata(place.path(name)).map(|found| (found.uid(), found.gid())).expect("it is there")
        };
        assert_eq!(owner("his/f"), (4321, 4322));
        assert_eq!(owner("his/g"), (7, 7));
        assert_eq!(owner("fives/f"), (4321, 4322));
        // The next build reads them, and `kiln run` sees them so, too.
        place.base("RUN --mount=type=cache,id=his,target=/c,sharing=locked test $(stat -c %u:%g /c/f) = 0:0 && rm /c/f /c/g\n");
        place.build(&[&flag("his"), "-t", "demo"]).ok();
        assert!(!place.path("his/f").exists());
        place.file(
            "home/.config/kiln/config.json",
            &format!(r#"{{"cache_mounts": [{{"id": "his", "path": {:?}}}]}}"#, place.text("his")),
        );
        place
            .kiln(&[
                "run",
                "--rm",
                "--mount",
                "type=cache,id=his,target=/c",
                "demo",
                "/bin/sh",
                "-c",
                "echo run > /c/r",
            ])
            .ok();
        assert_eq!(owner("his/r"), (4321, 4322));
        // One that is not there is made for whom the one above belongs to.
        place.base("RUN --mount=type=cache,id=his/new/pip,target=/c,mode=0750 test $(stat -c %u:%g:%a /c) = 0:0:750 && echo x > /c/f\n");
        place.build(&[&flag("his/new/pip")]).ok();
        for made in ["his/new", "his/new/pip", "his/new/pip/f"] {
            assert_eq!(owner(made), (4321, 4322), "{made}");
        }
        // A copy cannot be renamed over what is mounted.
        place.base("RUN --mount=type=cache,id=private,target=/c,sharing=private true\n");
        place.build(&[&flag("private")]).code(2).says(&["something is mounted there", "sharing=locked"]);
        place.is_quiet();
    });
}

/// A configuration file is there for all commands, and in a chroot no cache can be in a directory of the user's.
#[test]
fn in_a_chroot_places_are_refused_only_where_a_step_wants_one() {
    for_each_user(|user| {
        if user != User::Root {
            return;
        }
        let place = Place::with(user, "RUN --mount=type=cache,id=stored,target=/c echo x > /c/f\n");
        place.build(&["-t", "image"]).ok();
        place.file(
            "home/.config/kiln/config.json",
            r#"{"cache_mounts": [{"id": "placed", "path": "~/placed"}]}"#,
        );
        let chroot = |args: &[&str]| Ran::of(place.command(args).env("KILN_ISOLATION", "chroot"));
        assert!(chroot(&["cache", "ls"]).ok().out().contains("stored"));
        chroot(&["cache", "inspect", "stored"]).ok();
        chroot(&["cache", "export", "stored", "--to=oci:exports"]).ok();
        chroot(&["du"]).ok();
        let run = |id: &str| {
            chroot(&["run", "--rm", &format!("--mount=type=cache,id={id},target=/c"), "image", "true"])
        };
        run("stored").ok();
        run("placed").code(125).says(&["\"placed\"", "chroot"]);
        assert!(!place.path("home/placed").exists());
        chroot(&["cache", "rm", "stored"]).ok();
    });
}
