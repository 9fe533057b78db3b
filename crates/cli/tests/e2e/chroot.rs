//! Steps without namespaces: `KILN_ISOLATION=chroot` as root. In a container that has no other way: `nested::docker`.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::images::layers;
use crate::place::{Place, Ran};
use crate::user::{User, skip, users};

/// A place in which kiln does without namespaces. None where the tests do not run as root.
fn place() -> Option<Place> {
    if users().contains(&User::Root) {
        return Some(Place::new(User::Root));
    }
    skip("a chroot: the tests do not run as root");
    None
}

fn bare(place: &Place, args: &[&str]) -> Command {
    let mut command = place.build_command("store", args);
    command.env("KILN_ISOLATION", "chroot");
    command
}

#[test]
fn the_same_layers_come_out_and_it_is_said_that_it_is_a_chroot() {
    let Some(place) = place() else { return };
    place.file("context/sub/file", "from the context");
    place.dockerfile(
        "FROM scratch AS other\nCOPY bin /bin\nRUN mkdir /o && echo o > /o/f\nFROM scratch\nCOPY bin /bin\n\
         RUN mkdir -p /etc/app /a/b && echo x > /etc/app/f && chown 5:6 /etc/app && chmod 2750 /etc/app && ln -s f /etc/app/l\n\
         RUN --mount=type=cache,target=/a/b --mount=type=tmpfs,target=/t --mount=target=/ctx,rw \
             --mount=from=other,source=/o,target=/other cat /ctx/sub/file /other/f && touch /a/b/c /t/x /ctx/y && echo y > /a/f\n\
         RUN rm -r /etc/app && test ! -e /t && test ! -e /ctx && test ! -e /a/b/c && rmdir /a/b\n\
         RUN <<EOF\necho heredoc > /h\nEOF\n\
         USER 5:6\nRUN test $(id -u):$(id -g) = 5:6 && cat /h\n",
    );
    let with = place.build(&[]).ok();
    let mut command = place.build_command("another", &[]);
    let without = Ran::of(command.env("KILN_ISOLATION", "chroot")).ok();
    assert_eq!(with.digest(), without.digest(), "{without}");
    without.says(&["steps run in a chroot"]);
    with.lacks(&["chroot"]);
    place.is_quiet();
    // A build without steps has nothing to say of it.
    place.base("");
    Ran::of(&mut bare(&place, &[])).ok().lacks(&["chroot"]);
}

#[test]
fn caches_come_back_and_leave_nothing() {
    let Some(place) = place() else { return };
    let count = "RUN --mount=type=cache,target=/c/d echo x >> /c/d/f; echo had $(wc -l < /c/d/f)\n";
    place.base(count);
    Ran::of(&mut bare(&place, &[])).ok().prints(&["had 1"]);
    Ran::of(&mut bare(&place, &["--no-cache"])).ok().prints(&["had 2"]);
    // The same cache with namespaces.
    place.build(&["--no-cache"]).ok().prints(&["had 3"]);
    place.base(&format!("{count}RUN test ! -e /c\n"));
    Ran::of(&mut bare(&place, &["-o", "type=oci,dest=image,tar=false"])).ok();
    assert!(layers(&place, "image")[1..].iter().all(std::collections::BTreeMap::is_empty));
    // A step that fails, removes or moves it.
    place.base("RUN --mount=type=cache,target=/c/d echo y >> /c/d/f; mv /c /e; false\n");
    Ran::of(&mut bare(&place, &[])).code(1);
    place.base("RUN --mount=type=cache,target=/c/d echo had $(wc -l < /c/d/f)\n");
    Ran::of(&mut bare(&place, &["--no-cache"])).ok().prints(&["had 4"]);
    // Read-only, what is written is thrown away; private, it is a copy; twice, it is the same.
    place.base(
        "RUN --mount=type=cache,target=/c/d,ro cat /c/d/f && echo lost > /c/d/lost\n\
         RUN --mount=type=cache,target=/c/d,sharing=private test ! -e /c/d/lost && echo kept > /c/d/kept\n\
         RUN --mount=type=cache,id=/c/d,target=/x --mount=type=cache,id=/c/d,target=/y echo one > /x/one && cat /y/one\n",
    );
    Ran::of(&mut bare(&place, &["--no-cache"])).ok().prints(&["one"]);
    place.fsck();
    place.is_quiet();
}

#[test]
fn a_cache_that_a_step_has_is_waited_for() {
    let Some(place) = place() else { return };
    place.base(
        "RUN --mount=type=cache,id=shared,target=/s mkfifo /s/gate; echo holding; cat /s/gate; rm /s/gate; echo first > /s/f\n",
    );
    let mut first = place.spawn(&mut bare(&place, &[]));
    assert!(first.until(" holding\n"), "{}", first.seen);
    place.file(
        "context/second.Dockerfile",
        &format!("{}RUN --mount=type=cache,id=shared,target=/s grep first /s/f\n", crate::place::BASE),
    );
    let mut second = place.spawn(&mut bare(&place, &["-f", "context/second.Dockerfile"]));
    assert!(second.until("waiting for cache \"shared\""), "{}", second.seen);
    // The cache is in the first one's tree meanwhile.
    let cache = find(&place.path("store/tmp"), "s").expect("the cache's place");
    fs::write(cache.join("gate"), "go").expect("somebody reads it");
    first.wait().ok();
    second.wait().ok().prints(&["first"]);
}

/// A directory of this name in a step's root file system.
fn find(tmp: &std::path::Path, name: &str) -> Option<std::path::PathBuf> {
    let processes = fs::read_dir(tmp).ok()?.flatten();
    let steps = processes.flat_map(|process| fs::read_dir(process.path()).into_iter().flatten().flatten());
    steps.map(|step| step.path().join("fs").join(name)).find(|path| path.is_dir())
}

#[test]
fn killed_in_the_middle_of_a_step_nothing_is_lost() {
    let Some(place) = place() else { return };
    let step = "RUN --mount=type=cache,target=/c --mount=type=secret,id=s,target=/run/s test -e /c/f && echo found; echo x > /c/f; \
                cat /run/s > /dev/null; echo ready; sleep 1000\n";
    place.file("secret", "s3cr3t-of-the-chroot");
    place.base(step);
    let args = ["--secret", "id=s,src=secret", "--no-cache"];
    for round in 0..2 {
        let mut first = place.spawn(&mut bare(&place, &args));
        assert!(first.until(" ready\n"), "{}", first.seen);
        assert!(round == 0 || first.seen.contains(" found\n"), "{}", first.seen);
        first.signal(Signal::KILL);
        first.wait();
        place.wait_until_quiet();
    }
    // Whoever comes next has it, with namespaces or without.
    place.base("RUN --mount=type=cache,target=/c cat /c/f\n");
    place.build(&[]).ok().prints(&["x"]);
    place.fsck();
    assert!(place.half_made().is_empty(), "{:?}", place.half_made());
    let grep = Command::new("grep").args(["-r", "s3cr3t-of-the-chroot"]).arg(place.path("store")).output();
    assert_eq!(grep.expect("grep").stdout, b"");
    place.is_quiet();
}

#[test]
fn what_needs_namespaces_is_refused_with_its_line() {
    let Some(place) = place() else { return };
    place.base("RUN --network=none true\n");
    Ran::of(&mut bare(&place, &[]))
        .code(3)
        .says(&[">>> RUN --network=none true", "--network=none needs namespaces"]);
    place.base("RUN true\n");
    let mut command = place.build_command("store", &[]);
    Ran::of(command.env("KILN_ISOLATION", "none")).code(2).says(&["--isolation", "namespaces, chroot"]);
}

#[test]
fn doctor_tells_of_it() {
    let Some(place) = place() else { return };
    let mut command = place.command(&["doctor"]);
    let ran = Ran::of(command.env("KILN_ISOLATION", "chroot")).ok();
    for words in ["isolation", "chroot: nothing keeps a step", "a chroot was asked for", "copy", "minimal"] {
        assert!(ran.out().contains(words), "{words}: {ran}");
    }
    let ran = place.kiln(&["doctor", "--json"]).ok();
    let rungs: serde_json::Value = serde_json::from_str(&ran.out()).expect("JSON");
    let parts: Vec<_> =
        rungs.as_array().expect("a list").iter().filter_map(|rung| rung["what"].as_str()).collect();
    assert!(
        ["user ids", "isolation", "file system", "proc", "network"].iter().all(|part| parts.contains(part)),
        "{parts:?}"
    );
}

/// What cannot be varied is said, with the reason; the order of directories can, with all of root's capabilities.
#[test]
fn verify_says_what_it_cannot_vary() {
    let Some(place) = place() else { return };
    place.base("COPY d /d\nRUN ls /d > /out; hostname > /name\n");
    for name in ["one", "two", "three"] {
        place.file(&format!("context/d/{name}"), name);
    }
    let verify = || {
        let mut command = place.command(&["verify", "--progress=plain", "--json", "context"]);
        Ran::of(command.env("KILN_ISOLATION", "chroot"))
    };
    let json = verify().ok().out();
    let report: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let same = serde_json::json!([{ "circumstance": "host-name", "reason": "steps run in a chroot" }]);
    assert_eq!(report["same"], same, "{json}");
    place.base("COPY d /d\nRUN find /d > /out\n");
    let json = verify().code(1).out();
    assert!(json.contains("/out"), "{json}");
}
