//! Steps that misbehave and machines that run short: every build ends, says what was wrong, leaves nothing behind, and
//! keeps what was finished before.

use std::fs;
use std::process::Command;

use kiln_testkit::tools::run;
use rustix::process::Signal;

use crate::place::{BASE, Place, Ran};
use crate::small::Small;
use crate::user::{User, for_each_user};

mod kills;
mod many;

#[track_caller]
fn is_clean(place: &Place) {
    place.is_quiet();
    assert_eq!(place.half_made(), [] as [String; 0]);
    place.fsck();
}

#[test]
fn a_flood_of_output_is_shown_whole_in_little_memory() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN seq 1 1000000 && seq 1 300000 >&2\n");
        // As much as kiln with its threads maps anyway: what a step writes is not kept.
        let mut command = place.as_user(
            "sh",
            "store",
            &["-c", "ulimit -v 400000; exec ./kiln build --progress=plain context"],
        );
        let ran = Ran::of(&mut command).ok();
        let shown =
            |last: usize| ran.stderr.lines().filter(|line| line.ends_with(&format!(" {last}"))).count();
        assert_eq!((shown(999_999), shown(1_000_000), shown(300_000)), (1, 1, 2));
        assert!(ran.stderr.lines().count() > 1_300_000);
        is_clean(&place);
    });
}

#[test]
fn steps_that_close_fork_and_linger_end_like_others() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN exec >&- 2>&-; echo lost; echo x > /closed\n\
             RUN (setsid sh -c '(sleep 100000 &); (setsid sleep 100000 &)' &); test -e /closed && echo x > /daemons\n\
             RUN i=0; while [ $i -lt 300 ]; do sleep 100000 & i=$((i+1)); done; test -e /daemons && echo x > /crowd\n\
             RUN test -e /crowd && test $(ps | grep -c 'sleep 10000[0]') = 0\n",
        );
        place.build(&[]).ok();
        // A bomb, in the bounds that an ordinary user can be held in; root cannot: docs/rootless.md.
        place.base("RUN echo kept\nRUN bomb() { bomb | bomb & }; bomb; wait\n");
        let ulimit = if user == User::Root { "nproc=unused" } else { "nproc=150" };
        if user != User::Root {
            let ran = place.build(&["--ulimit", ulimit]);
            assert!(matches!(ran.code, Some(0 | 1 | 3)), "{ran}");
        }
        place.base("RUN echo kept\n");
        place.build(&[]).ok();
        is_clean(&place);
    });
}

#[test]
fn what_steps_leave_of_every_kind_and_mode_is_kept_and_copied() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN --mount=type=cache,target=/c mkdir -p /a/b/c /c/a/b && echo deep > /a/b/c/f && echo deep > /c/a/b/f && \
             mkfifo /a/pipe /c/a/pipe && ln -s /nowhere /a/link && chmod 0 /a/b/c/f /a/b/c /a/b /a /c/a/b/f /c/a/b /c/a && \
             touch \"$(printf '/new\\nline')\" \"$(printf '/bad\\377\\376x')\" && mkdir \"$(printf '/d\\377')\" && \
             echo x > \"$(printf '/d\\377/f')\" && printf 'out\\377\\nput\\n' && touch \"$(printf '/c/new\\nline\\377')\"\n\
             RUN --mount=type=cache,target=/c cat /a/b/c/f /c/a/b/f && test -p /a/pipe -a -p /c/a/pipe && echo more > /a/b/c/g\n\
             RUN --mount=type=cache,target=/c,sharing=private cat /c/a/b/f && chmod 0 /c/a && rm -rf /d[!e]*\n\
             FROM scratch\nCOPY --from=0 / /all\n\
             RUN --mount=type=bind,from=0,target=/m [\"/all/bin/sh\", \"-c\", \"/all/bin/cat /all/a/b/c/g /m/a/b/c/f\"]\n",
        );
        let ran = place.build(&[
            "-t",
            "odd",
            "-o",
            "type=image",
            "-o",
            "type=oci,dest=image,tar=false",
            "-o",
            "type=tar,dest=out.tar",
        ]);
        ran.ok().prints(&["deep", "more"]);
        let again = place.build(&["-t", "odd"]).ok();
        assert_eq!(again.count("CACHED"), 6, "{again}");
        let layers = kiln_testkit::layers::read_layers(&place.path("image"));
        let names: Vec<_> =
            layers.iter().flat_map(|layer| &layer.entries).map(|entry| entry.name.as_str()).collect();
        for name in ["all/a/b/c/f", "all/a/pipe", "all/new\nline"] {
            assert!(names.contains(&name), "{name:?} is not in {names:?}");
        }
        place.kiln(&["cache", "ls"]).ok();
        place.kiln(&["du"]).ok();
        is_clean(&place);
        place.kiln(&["cache", "rm", "/c"]).ok();
        place.kiln(&["rmi", "odd"]).ok();
        place.kiln(&["prune", "--all", "--force"]).ok();
        is_clean(&place);
    });
}

#[test]
fn a_context_may_hold_what_nobody_copies_lightly() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "COPY odd /odd\nRUN test -p /odd/pipe && ls /odd && test $(stat -c %a /odd/closed) = 0\n",
        );
        place.directory("context/odd");
        run(Command::new("mkfifo").arg(place.path("context/odd/pipe")));
        let (uid, gid) = user.ids();
        std::os::unix::fs::chown(place.path("context/odd/pipe"), Some(uid), Some(gid)).expect("root may");
        let socket =
            std::os::unix::net::UnixListener::bind(place.path("context/odd/socket")).expect("a short path");
        place.mode("context/odd/closed", "", 0);
        place.file("context/odd/new\nline", "x");
        // No hang on the pipe; what comes of the socket and the closed file is said.
        let ran = place.build(&[]);
        assert!(matches!(ran.code, Some(0..=3)), "{ran}");
        drop(socket);
        is_clean(&place);
    });
}

#[test]
fn a_hole_of_a_terabyte_costs_nothing_and_is_no_layer() {
    for_each_user(|user| {
        // In a stage, and copied, and in a cache: as fast as a small file.
        let place = Place::with(
            user,
            "RUN --mount=type=cache,target=/c truncate -s 1099511627776 /big && echo end >> /big && truncate -s 1099511627776 /c/big\n\
             FROM scratch AS copied\nCOPY --from=0 /big /big\nCOPY --from=0 /bin /bin\n\
             RUN test $(stat -c %s /big) = 1099511627780 && test $(stat -c %b /big) -lt 100\n\
             FROM scratch\nCOPY --from=0 /bin /bin\n\
             RUN --mount=type=bind,from=copied,target=/m --mount=type=cache,target=/c,sharing=private test -s /m/big -a -s /c/big\n",
        );
        place.link("context/bin/truncate", "busybox");
        place.build(&["-t", "fine"]).ok();
        // An image would have to hold all the zeros.
        place.build(&["--target", "copied", "-t", "big"]).code(2).says(&[
            "/big",
            "1099511627780 bytes",
            "useradd",
        ]);
        assert!(!place.kiln(&["images"]).ok().out().contains("big"));
        is_clean(&place);
        place.kiln(&["prune", "--all", "--force"]).ok();
    });
}

#[test]
fn directories_as_deep_as_a_path_allows_and_deeper() {
    let nest = |depth: u32| {
        format!(
            "RUN i=0; while [ $i -lt {depth} ]; do mkdir d && cd -P d && i=$((i+1)) || exit 9; done; echo x > f\n"
        )
    };
    for_each_user(|user| {
        let place = Place::new(user);
        place.dockerfile(&format!(
            "{BASE}{}RUN cp -a /bin /more\nFROM scratch\nCOPY --from=0 /d /d\n",
            nest(2000)
        ));
        place.build(&["-t", "deep", "-o", "type=image", "-o", "type=oci,dest=image,tar=false"]).ok();
        let layers = kiln_testkit::layers::read_layers(&place.path("image"));
        let longest = layers.iter().flat_map(|layer| &layer.entries).map(|entry| entry.name.len()).max();
        assert_eq!(longest, Some(4001));
        // What nobody could unpack is refused; the step itself may do it, though no path of it can be said at once.
        let deeper = format!(
            "RUN mkdir /e && cd /e && {} && cd / && {} && mv /e/d .",
            nest(2000).trim_start_matches("RUN ").trim_end(),
            nest(1000).trim_start_matches("RUN ").trim_end().replace(" d ", " q ")
        );
        place.base(&format!("RUN echo kept\n{deeper}\n"));
        place.build(&["--target", "0"]).code(2).says(&["a layer cannot hold a path of", "q/q/q"]);
        // And a step that fails leaves as much to be removed.
        place.base(&format!("RUN echo kept\n{deeper} && false\n"));
        place.build(&[]).code(1);
        place.kiln(&["du"]).ok();
        is_clean(&place);
        place.kiln(&["prune", "--all", "--force"]).ok();
        is_clean(&place);
    });
}

#[test]
fn more_steps_than_overlay_takes_layers() {
    for_each_user(|user| {
        // Minutes on a busy machine; what the runner does as each user is in its own tests.
        if user == User::Root || user == User::Sub {
            return;
        }
        let steps: String = (0..520).map(|number| format!("RUN echo {number} > /f{number}\n")).collect();
        let place = Place::with(
            user,
            &format!(
                "{steps}RUN rm /f3 /f510\nRUN ls -d /f* | wc -l && test ! -e /f3\nCOPY --chmod=700 bin/ls /f7\n"
            ),
        );
        // Few descriptors, as is usual.
        let script = "ulimit -Sn 1024; exec ./kiln build --progress=plain -t many context";
        Ran::of(&mut place.as_user("bash", "store", &["-c", script])).ok().prints(&["518"]);
        assert_eq!(place.run("many", "ls -d /f* | wc -l; stat -c %a /f7"), "518\n700\n");
        is_clean(&place);
    });
}

#[test]
fn a_disk_of_any_size_is_full_without_harm() {
    // From a disk that has no room for the base to one that has room for all: it runs out everywhere once.
    for_each_user(|user| {
        if user == User::Caller {
            return;
        }
        let place = Place::with(
            user,
            "COPY large /large\nRUN --mount=type=cache,target=/c cat /large /large > /c/twice && cat /large > /again\n\
             RUN i=0; while [ $i -lt 40 ]; do echo $i > /small$i; i=$((i+1)); done\n",
        );
        // What no compressor makes smaller.
        let mut state = 12_345_u64;
        let noise: Vec<u8> = (0..700_000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as u8
            })
            .collect();
        place.file("context/large", "");
        fs::write(place.path("context/large"), noise).expect("it is ours");
        let mut codes = std::collections::BTreeSet::new();
        for kib in (1200..9200).step_by(400) {
            let Some(small) = Small::mount(&place, &format!("size={kib}k")) else { return };
            let build = || Ran::of(&mut place.build_command("small/store", &["-t", "full"]));
            let ran = build();
            codes.insert(ran.code);
            assert!(matches!(ran.code, Some(0 | 1 | 3)), "{kib} KiB: {ran}");
            assert!(
                ran.code == Some(0) || ran.stderr.to_lowercase().contains("no space left"),
                "{kib} KiB: {ran}"
            );
            assert!(half_made(&place).is_empty(), "{kib} KiB: {:?}: {ran}", half_made(&place));
            // With more room the same store goes on from there.
            small.remount("size=40m");
            let again = build().ok();
            let fsck = Ran::of(&mut place.command_on("small/store", &["debug", "fsck"])).ok();
            assert!(fsck.stderr.contains("0 problems"), "{kib} KiB: {fsck}{again}");
        }
        assert!(codes.contains(&Some(0)) && codes.contains(&Some(3)), "{codes:?}");
    });
}

fn half_made(place: &Place) -> Vec<String> {
    let Ok(entries) = fs::read_dir(place.path("small/store/tmp")) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn little_memory_ends_a_build_and_harms_nothing() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN echo kept > /kept\nCOPY bin /more\nRUN --mount=type=cache,target=/c cat /more/busybox > /c/b\n",
        );
        let mut ended = std::collections::BTreeSet::new();
        for megabytes in [4, 20, 40, 60, 80, 100, 140, 200, 300, 2000] {
            let script = format!(
                "ulimit -c 0; ulimit -v {}; exec ./kiln build --progress=plain -t small context",
                megabytes * 1024
            );
            let ran = Ran::of(&mut place.as_user("sh", "store", &["-c", &script]));
            ended.insert(ran.code == Some(0));
        }
        assert!(ended.contains(&true) && ended.contains(&false), "{ended:?}");
        place.wait_until_quiet();
        place.build(&["-t", "small"]).ok();
        is_clean(&place);
    });
}

#[test]
fn an_interrupt_at_any_line_leaves_nothing_half_made() {
    for_each_user(|user| {
        let place = Place::new(user);
        place.file("context/file", &"x".repeat(3_000_000));
        for (round, signal) in (0..24).zip([Signal::INT, Signal::TERM].into_iter().cycle()) {
            let steps: String = (0..3)
                .map(|step| format!("COPY file /f{step}\nRUN --mount=type=cache,target=/c echo {round}-{step} | tee /c/f > /s{step}\n"))
                .collect();
            place.dockerfile(&format!("{BASE}ENV round={round}\n{steps}"));
            let mut build =
                place.start(&["-t", "interrupted", "-o", "type=image", "-o", "type=oci,dest=out.tar"]);
            // From the first line on it listens to signals.
            build.lines(round + 1);
            build.signal(signal);
            let ran = build.wait();
            assert!(matches!(ran.code, Some(0 | 130)), "round {round}: {ran}");
            assert_eq!(place.half_made(), [] as [String; 0], "round {round}: {ran}");
        }
        // Those may all have been done before the signal was there; this one waits for it.
        place.base("COPY file /f\nRUN echo begun; sleep 100000\n");
        let mut build = place.start(&["-t", "interrupted", "-o", "type=oci,dest=out.tar"]);
        assert!(build.until(" begun\n"), "{}", build.seen);
        build.signal(Signal::INT);
        let ran = build.wait();
        assert_eq!(ran.code, Some(130), "{ran}");
        is_clean(&place);
    });
}

#[test]
fn kilns_helpers_killed_in_a_build_end_it_with_a_word() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN echo kept\nRUN echo begun; sleep 100000\n");
        // The nursery is kiln's child, an init the nursery's.
        for generations in [1, 2] {
            let mut build = place.start(&[]);
            assert!(build.until(" begun\n"), "{}", build.seen);
            let mut pid = build.pid().as_raw_pid();
            for _ in 0..generations {
                let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").flatten();
                let children = threads
                    .map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
                let first = children.collect::<String>();
                pid = first.split_whitespace().next().expect("a child").parse().expect("a number");
            }
            let victim = rustix::process::Pid::from_raw(pid).expect("not 0");
            rustix::process::kill_process(victim, Signal::KILL).expect("root may");
            build.wait().code(3).says(&["killed"]);
            is_clean(&place);
        }
        place.base("RUN echo kept\n");
        assert_eq!(place.build(&[]).ok().count("CACHED"), 2);
    });
}
