//! Much of something: files, levels, bytes; and files that nobody may change.

use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;

use kiln_testkit::layers::read_layers;
use kiln_testkit::tools::{run, tool};

use super::is_clean;
use crate::place::{BASE, Place, Ran};
use crate::small::Small;
use crate::user::{User, for_each_user, skip, users};

#[test]
fn a_hundred_thousand_files_in_one_directory() {
    const COUNT: usize = 100_000;
    for_each_user(|user| {
        // It takes seconds, whoever the user is: once with overlay and once with copies.
        let (snapshotter, copied) = match user {
            User::Root => ("copy", "FROM scratch\nCOPY --from=0 /d /d\n"),
            User::Sub | User::Caller => ("overlay", ""),
            User::Plain => return,
        };
        let place = Place::new(user);
        place.link("context/bin/xargs", "busybox");
        place.base(&format!(
            "RUN mkdir /d && cd /d && seq 1 {COUNT} | xargs touch && rm 5 && echo $(ls | wc -l)\nRUN echo x > /d/6\n{copied}"
        ));
        let args = ["--snapshotter", snapshotter, "-o", "type=oci,dest=image,tar=false"];
        place.build(&args).ok().prints(&["99999"]);
        let layers = read_layers(&place.path("image"));
        let most = layers.iter().map(|layer| layer.entries.len()).max();
        assert_eq!(most, Some(COUNT), "all but one, and the directory");
        let again = place.build(&["--snapshotter", snapshotter]).ok();
        assert!(again.count("CACHED") >= 3, "{again}");
        is_clean(&place);
    });
}

#[test]
fn as_deep_as_a_path_allows_with_few_descriptors() {
    let nest = "i=0; while [ $i -lt 2000 ]; do mkdir d && cd -P d && i=$((i+1)) || exit 9; done; echo x > f";
    for_each_user(|user| {
        // Who it is makes no difference, and getcwd(2) that far down takes its time.
        if !matches!(user, User::Plain | User::Caller) {
            return;
        }
        let place = Place::new(user);
        let mut digests = Vec::new();
        for snapshotter in ["copy", "overlay"] {
            place.dockerfile(&format!(
                "{BASE}RUN {nest}\nRUN mkdir /more && cd /more && touch -d '2001-01-01 00:00:00' . /\n\
                 FROM scratch\nCOPY --from=0 /d /d\nCOPY bin /bin\nRUN echo y > /y\n"
            ));
            let build = format!(
                "ulimit -n 1024; exec ./kiln build --progress=plain --no-cache --snapshotter={snapshotter} -t deep context"
            );
            let mut command = place.as_user("bash", "store", &["-c", &build]);
            digests.push(Ran::of(command.env("SOURCE_DATE_EPOCH", "1000000000")).ok().digest());
        }
        assert_eq!(digests[0], digests[1]);
        // Three thousand levels are more than a path can say; the step does it all the same, and nothing comes of it.
        place.base(&format!(
            "RUN mkdir /e && cd /e && {nest} && cd / && {} && mv /e/d .\n",
            nest.replace("2000", "1000").replace(" d ", " q ")
        ));
        place.build(&["--snapshotter=copy"]).code(2).says(&["a layer cannot hold a path of"]);
        is_clean(&place);
    });
}

/// Copied trees take their room a second time: it runs out everywhere once.
#[test]
fn a_disk_that_is_full_of_copies_is_full_without_harm() {
    for_each_user(|user| {
        if user == User::Caller {
            return;
        }
        let place = Place::with(
            user,
            "RUN mkdir /d && i=0; while [ $i -lt 40 ]; do echo $i > /d/small$i; i=$((i+1)); done\n\
             RUN --mount=type=cache,target=/c cat /bin/busybox > /c/b && cat /c/b > /again\nRUN cp -r /d /e && rm /again\n",
        );
        let mut codes = std::collections::BTreeSet::new();
        for kib in [1200, 2400, 3600, 6000, 9000, 13_000, 30_000] {
            let Some(small) = Small::mount(&place, &format!("size={kib}k")) else { return };
            let args = ["--snapshotter=copy", "-t", "full"];
            let build = || Ran::of(&mut place.build_command("small/store", &args));
            let ran = build();
            codes.insert(ran.code);
            assert!(matches!(ran.code, Some(0 | 1 | 3)), "{kib} KiB: {ran}");
            let told = ran.stderr.to_lowercase().contains("no space left");
            assert!(ran.code == Some(0) || told, "{kib} KiB: {ran}");
            assert!(super::half_made(&place).is_empty(), "{kib} KiB: {ran}");
            small.remount("size=40m");
            let again = build().ok();
            let fsck = Ran::of(&mut place.command_on("small/store", &["debug", "fsck"])).ok();
            assert!(fsck.stderr.contains("0 problems"), "{kib} KiB: {fsck}{again}");
        }
        assert!(codes.contains(&Some(0)) && codes.contains(&Some(3)), "{codes:?}");
    });
}

#[test]
fn a_flood_without_a_line_end_is_passed_on_in_little_memory() {
    for_each_user(|user| {
        let place = Place::with(
            user,
            "RUN dd if=/dev/zero bs=1M count=40 | tr '\\0' x; dd if=/dev/zero bs=1M count=20 >&2\n",
        );
        // As much as kiln with its threads maps anyway.
        let script = "ulimit -v 400000; exec ./kiln build --progress=plain context";
        let ran = Ran::of(&mut place.as_user("sh", "store", &["-c", script])).ok();
        // In pieces, each behind a number and a time.
        let pieces = ran.stderr.lines().filter_map(|line| line.splitn(3, ' ').nth(2));
        let shown: usize = pieces.filter(|piece| piece.bytes().all(|byte| byte == b'x')).map(str::len).sum();
        assert_eq!(shown, 40 << 20);
        // No zero reaches the terminal.
        assert_eq!(ran.stderr.matches('\0').count(), 0);
        is_clean(&place);
    });
}

/// Marks a file as `chattr +i` does; false where the file system has no such marks.
fn chattr(change: &str, path: &std::path::Path) -> bool {
    Command::new("chattr").arg(change).arg(path).status().is_ok_and(|status| status.success())
}

#[test]
fn files_that_nobody_may_change_are_copied_and_removed() {
    let (Some(chattr_program), Some(mut ldd)) = (tool("chattr"), tool("ldd")) else { return };
    if !users().contains(&User::Root) {
        return skip("chattr +i: the tests do not run as root");
    }
    let place = Place::new(User::Root);
    place.file("context/fixed", "of the context");
    if !chattr("+i", &place.path("context/fixed")) {
        return skip("chattr +i: this file system has no such marks");
    }
    // With what the program needs.
    let program = chattr_program.get_program().to_str().expect("it is ASCII").to_owned();
    let libraries = run(ldd.arg(&program));
    for path in libraries.split_whitespace().chain([program.as_str()]).filter(|word| word.starts_with('/')) {
        let (dir, _) = path.rsplit_once('/').expect("it is absolute");
        place.directory(&format!("context/chattr{dir}"));
        fs::copy(path, place.path(&format!("context/chattr{path}"))).expect("it is there");
        chown(place.path(&format!("context/chattr{path}")), Some(0), Some(0)).expect("root may");
    }
    place.base(&format!(
        "COPY chattr /\nCOPY fixed /fixed\n\
         RUN --mount=target=/ctx cat /ctx/fixed && echo more >> /fixed\n\
         RUN --security=insecure mkdir -p /d/e && echo x > /d/e/f && echo y > /d/g && {program} +i /d/e/f /d/e && {program} +a /d/g /d\n\
         RUN mv /d/e/f /d/h && rm /d/g && echo z > /d/e/new && test $(cat /d/h) = x\n"
    ));
    let mut digests = Vec::new();
    for snapshotter in ["overlay", "copy"] {
        let args = ["--allow=security.insecure", "--no-cache", "-t", "fixed", "--snapshotter", snapshotter];
        digests.push(place.build(&args).ok().digest());
        is_clean(&place);
        // One that fails leaves as much to be removed.
        let dockerfile = place.read("context/Dockerfile");
        place.dockerfile(&dockerfile.replace(" /d/g /d\n", " /d/g /d && false\n"));
        place.build(&args).code(1);
        place.dockerfile(&dockerfile);
        is_clean(&place);
    }
    assert_eq!(digests[0], digests[1]);
    place.kiln(&["rmi", "fixed"]).ok();
    place.kiln(&["prune", "--all", "--force"]).ok();
    let marked = Command::new("lsattr").arg("-Ra").arg(place.path("store")).output().expect("lsattr");
    let marked = String::from_utf8_lossy(&marked.stdout).into_owned();
    let is_marked = |line: &str| {
        line.split(' ').next().is_some_and(|marks| !marks.contains('/') && marks.contains(['i', 'a']))
    };
    assert!(!marked.lines().any(is_marked), "{marked}");
    assert!(chattr("-i", &place.path("context/fixed")));
}
