//! Without overlay: the same layers, the same safety, and a word about it.

use std::process::Command;

use kiln_testkit::layers::{LayerTar, layer_differences, read_layers};
use rustix::process::Signal;

use crate::place::{BASE, Place, Ran};
use crate::user::{User, for_each_user};

/// What is above the base; all of it is built by both, and each step's layer must be the same.
const DOCKERFILES: &[(&str, &str)] = &[
    (
        "nothing but touched",
        "COPY file /d/file\nRUN : >> /d/file; chmod 755 /bin; chown 0:0 /bin/busybox; test -x /bin/sh\n",
    ),
    (
        "files",
        "RUN mkdir -p /d/sub && echo one > /d/one && echo two > /d/sub/two && ln -s one /d/link && mkfifo /d/fifo\n\
         RUN echo more >> /d/one && rm /d/sub/two && mv /d/link /d/sub/moved\n",
    ),
    (
        "modes",
        "RUN mkdir -m 1777 /d && echo x > /d/x && chmod 6755 /d/x && mkdir -m 2770 /d/s\n\
         RUN chmod 711 /d && chmod 755 /d && chmod 1777 /d && chmod 4711 /d/x\n",
    ),
    (
        "times of directories",
        "RUN mkdir /d && touch -d '2001-01-01 00:00:00' /d\nRUN touch -d '2000-01-01 00:00:00' /d\n\
         RUN touch /d/x && rm /d/x && touch -d '2000-01-01 00:00:00' /d\n",
    ),
    (
        "directories made anew",
        "RUN mkdir -p /d/a/b /d/c && echo 1 > /d/a/b/f && echo 2 > /d/a/g\n\
         RUN rm -r /d && mkdir -p /d/a && echo 3 > /d/a/new\n\
         RUN rm -r /d/a && echo file > /d/a\nRUN rm /d/a && mkdir -p /d/a/b\n",
    ),
    (
        "renamed directories",
        "RUN mkdir -p /d/a/b && echo 1 > /d/a/b/f\nRUN mv /d/a /d/z\nRUN mv /d/z /d/a && mv /d /e\n\
         RUN mkdir /e/a/new && mv /e/a/new /e/newer && mv /e/newer /e/a/b/newest\n",
    ),
    (
        "hard links",
        "RUN mkdir /d && echo x > /d/x && ln /d/x /d/y && echo z > /d/z\n\
         RUN ln /d/z /d/zz && echo more >> /d/z\nRUN rm /d/zz\nRUN chmod 600 /d/x /d/y\n",
    ),
    (
        "moved names of one file",
        "RUN mkdir /d && echo x > /d/a && ln /d/a /d/b && ln /d/a /d/c && ln /d/a /d/d\n\
         RUN mv /d/a /d/z && mkdir /e && mv /d/b /e/b\nRUN mv /d/c /d/x && mv /e/b /d/y\nRUN rm /d/d\n",
    ),
    (
        "mount points",
        "RUN --mount=type=cache,target=/var/cache/deep/er --mount=type=tmpfs,target=/etc/none touch /var/cache/deep/er/x\n\
         RUN --mount=type=bind,source=bin,target=/mnt/bin,rw touch /mnt/bin/x && touch /mnt/own\n\
         RUN --mount=type=secret,id=none,target=/run/secrets/none ls /\nRUN rmdir /mnt || true\n",
    ),
    ("working directory", "WORKDIR /a/b\nRUN pwd > where\nWORKDIR c\nRUN echo x > x && cd .. && mv c d\n"),
    (
        "copies between",
        "RUN mkdir /d && echo x > /d/x\nCOPY bin/busybox /d/x\nRUN chmod 600 /d/x\nCOPY bin /d\nRUN rm -r /d\n\
         COPY bin /d/e\n",
    ),
    (
        "stages",
        "RUN mkdir /d && echo x > /d/x && ln -s x /d/y\nFROM scratch AS other\nCOPY --from=0 / /\nRUN echo y >> /d/x\n\
         FROM scratch\nCOPY --from=0 /bin /bin\nRUN --mount=from=other,target=/o --mount=from=other,source=/d,target=/w,rw \
         cat /o/d/x > /x && touch /w/z\nCOPY --from=other /d/y /d/x /\n",
    ),
    (
        "odd names",
        "RUN touch \"$(printf 'new\\nline')\" \"$(printf '\\377\\376')\" ' ' '.wh' 'x.wh.y' && mkdir -p '/d/ ' && touch '/d/ /x'\n\
         RUN rm ' ' && rm -r '/d/ '\n",
    ),
    (
        "sparse",
        "RUN dd if=/dev/zero of=/sparse bs=1 count=1 seek=50000000 2>/dev/null\nRUN chmod 600 /sparse\n",
    ),
    ("the root directory", "RUN chmod 711 /\nRUN touch /x && mkdir /d\nRUN rm /x && chmod 755 /\n"),
];

fn built(place: &Place, snapshotter: &str, dockerfile: &str) -> Vec<LayerTar> {
    place.base(dockerfile);
    let dest = format!("type=oci,dest=image-{snapshotter},tar=false");
    let args = ["--snapshotter", snapshotter, "-o", &dest];
    let ran = Ran::of(&mut place.build_command(&format!("store-{snapshotter}"), &args)).ok();
    ran.lacks(&["no overlay here"]);
    let image = place.path(&format!("image-{snapshotter}"));
    let layers = read_layers(&image);
    std::fs::remove_dir_all(image).expect("it was made");
    layers
}

#[test]
fn layers_are_the_same_as_with_overlay() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.file("context/file", "file");
        let mut found = Vec::new();
        for (what, dockerfile) in DOCKERFILES {
            let (overlay, copy) = (built(&place, "overlay", dockerfile), built(&place, "copy", dockerfile));
            let differences = layer_differences(("overlay", &overlay), ("copy", &copy));
            found.extend(differences.into_iter().map(|difference| format!("{what}: {difference}")));
        }
        assert!(found.is_empty(), "{}", found.join("\n"));
        place.is_quiet();
    });
}

#[test]
fn what_was_only_touched_is_in_no_layer() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.file("context/file", "file");
        for snapshotter in ["overlay", "copy"] {
            let layers = built(&place, snapshotter, DOCKERFILES[0].1);
            assert_eq!(layers.len(), 2, "{snapshotter}: {layers:?}");
        }
    });
}

#[test]
fn one_store_serves_both() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN echo x > /x\nRUN echo y > /y\n");
        place.build(&["--snapshotter", "copy", "-t", "demo"]).ok();
        let ran = place.build(&["--snapshotter", "overlay"]).ok();
        assert_eq!(ran.count("CACHED"), 3, "{ran}");
        for snapshotter in ["overlay", "copy"] {
            let words =
                ["run", "--rm", "demo", "/bin/sh", "-c", "cat /x /y; echo > /x; ls /proc/self/status"];
            let ran = place.kiln(&[&["--snapshotter", snapshotter], &words[..]].concat()).ok();
            assert_eq!(ran.out(), "x\ny\n/proc/self/status\n", "{snapshotter}");
        }
        assert_eq!(place.half_made(), [] as [String; 0]);
        place.fsck();
    });
}

#[test]
fn a_failed_step_leaves_nothing_to_the_next() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN echo x > /x\nRUN echo broken >> /x && false\n");
        let copy = ["--snapshotter", "copy"];
        place.build(&copy).code(1);
        place.base("RUN echo x > /x\nRUN test $(cat /x) = x && echo right\n");
        place.build(&copy).ok().prints(&["right"]);
        assert_eq!(place.half_made(), [] as [String; 0]);
    });
}

#[test]
fn steps_beside_one_another_have_trees_of_their_own() {
    for_each_user(|user| {
        // Both go on from one snapshot, and meet in the middle of their steps.
        let meet = |own: &str, other: &str| {
            format!(
                "RUN --mount=type=cache,target=/c touch /c/{own} && until test -e /c/{other}; do sleep 0.01; done && \
                 echo {own} >> /common && test ! -e /{other} && touch /{own}\n"
            )
        };
        let place = Place::with(
            user,
            &format!(
                "RUN echo common > /common\nFROM 0 AS one\n{}FROM 0 AS two\n{}FROM scratch\n\
                 COPY --from=one /common /one\nCOPY --from=two /common /two\n",
                meet("a", "b"),
                meet("b", "a"),
            )
            .replace("FROM 0", "FROM base"),
        );
        place.dockerfile(&place.read("context/Dockerfile").replacen(
            "FROM scratch",
            "FROM scratch AS base",
            1,
        ));
        place.build(&["--snapshotter", "copy", "-o", "out"]).ok();
        assert_eq!(
            (place.read("out/one"), place.read("out/two")),
            ("common\na\n".into(), "common\nb\n".into())
        );
    });
}

#[test]
fn killed_at_any_point_the_store_is_whole_and_builds_on() {
    for_each_user(|user| {
        let place = Place::new(user);
        let mut random = 4_321_u32;
        for round in 0..10 {
            let steps: String = (0..4)
                .map(|step| format!("RUN cp -r /bin /copy{step} && echo {round} > /s{step}\n"))
                .collect();
            place.dockerfile(&format!("{BASE}ENV round={round}\n{steps}"));
            let mut build = place.start(&["--snapshotter", "copy", "-t", "killed"]);
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            build.lines((random >> 16) as usize % 20);
            build.signal(Signal::KILL);
            build.wait();
            place.wait_until_quiet();
        }
        place.build(&["--snapshotter", "copy", "-t", "whole"]).ok();
        assert_eq!(place.half_made(), [] as [String; 0]);
        place.fsck();
        assert_eq!(place.run("whole", "cat /s3 && ls /copy0/busybox"), "9\n/copy0/busybox\n");
        place.is_quiet();
    });
}

#[test]
fn five_builds_at_once() {
    for_each_user(|user| {
        let place = Place::new(user);
        for number in 0..5 {
            let steps = "RUN echo common > /common\nRUN echo more >> /common\n";
            let own = format!(
                "{BASE}{steps}RUN echo {number} > /own && cat /common\nCOPY bin /copied\nRUN rm /copied/ls\n"
            );
            place.file(&format!("context/{number}.Dockerfile"), &own);
        }
        let builds: Vec<_> = (0..5)
            .map(|number| {
                let (file, tag) = (format!("context/{number}.Dockerfile"), format!("image{number}"));
                place.start(&["--snapshotter", "copy", "-f", &file, "-t", &tag])
            })
            .collect();
        for build in builds {
            build.wait().ok();
        }
        for number in 0..5 {
            assert_eq!(
                place.run(&format!("image{number}"), "cat /own /common"),
                format!("{number}\ncommon\nmore\n")
            );
        }
        assert_eq!(place.half_made(), [] as [String; 0]);
        place.fsck();
    });
}

/// A store on overlay itself, as in a container without a volume: the kernel refuses an upper directory there.
#[test]
fn it_is_chosen_where_overlay_is_refused_and_says_so() {
    let place = Place::with(User::Root, "RUN echo x > /x\nRUN cat /x\n");
    for name in ["lower", "upper", "work", "merged"] {
        place.directory(name);
    }
    let script =
        "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged && exec \"$@\"";
    let inside = |args: &[&str]| {
        let mut command = Command::new("unshare");
        let kiln = place.text("kiln");
        command.args(["--mount", "sh", "-c", script, "sh", &kiln, "--root", "merged/store"]).args(args);
        Ran::of(command.current_dir(place.path("")).env_remove("KILN_SNAPSHOTTER"))
    };
    let ran = inside(&["build", "--progress=plain", "context"]);
    if ran.stderr.contains("unshare: ") {
        return;
    }
    ran.ok().says(&["no overlay here, so files are copied, which is slower: "]).prints(&["x"]);
    let doctor = inside(&["doctor"]).ok().out();
    assert!(doctor.contains("copy: layers are copied") && doctor.contains("--root DIR"), "{doctor}");
    // Forced, it is an error as ever.
    inside(&["build", "--progress=plain", "--no-cache", "--snapshotter=overlay", "context"]).code(3);
}
