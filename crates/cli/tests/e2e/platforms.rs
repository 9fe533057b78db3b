//! Images for other architectures, and for several.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use kiln_testkit::tools::tool;

use crate::place::{Place, Ran};
use crate::user::{User, for_each_user, skip};

/// Debian's static busybox for arm64, which testdata/foreign/get-busybox fetches.
fn busybox() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let path = repository.join("target/foreign/arm64/busybox");
        if !path.exists() {
            // As `make test` does beforehand; here for who runs one case.
            let _ = Command::new(repository.join("testdata/foreign/get-busybox")).arg("arm64").status();
        }
        if path.exists() {
            return Some(path);
        }
        skip("arm64: testdata/foreign/get-busybox arm64 could not fetch a busybox");
        None
    };
    FOUND.get_or_init(find).as_deref()
}

/// A place whose context has `arm64/`, beside `bin/` which is this machine's; none where something is missing.
fn place(user: User) -> Option<Place> {
    tool("qemu-aarch64-static")?;
    let busybox = busybox()?;
    let place = Place::new(user);
    place.directory("context/arm64");
    fs::copy(busybox, place.path("context/arm64/busybox")).expect("it is there");
    for name in [
        "sh", "uname", "cat", "id", "chown", "stat", "su", "echo", "test", "true", "ps", "sleep", "kill",
        "grep",
    ] {
        place.link(&format!("context/arm64/{name}"), "busybox");
    }
    // `bin` by the architecture that a stage is for.
    place.link("context/amd64", "bin");
    Some(place)
}

/// How a Dockerfile for any platform begins.
const BASE: &str = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH/ /bin/\n";

fn with(user: User, dockerfile: &str) -> Option<Place> {
    let place = place(user)?;
    place.dockerfile(&format!("{BASE}{dockerfile}"));
    Some(place)
}

/// A PATH with what starts kiln and maps its ids, and no emulator.
fn tools(place: &Place) -> String {
    place.directory("tools");
    for tool in ["newuidmap", "newgidmap", "setpriv"] {
        if !place.path("tools").join(tool).exists() {
            place.link(&format!("tools/{tool}"), &format!("/usr/bin/{tool}"));
        }
    }
    place.text("tools")
}

fn without_emulators(place: &Place, args: &[&str]) -> Ran {
    Ran::of(place.build_command("store", args).env("PATH", tools(place)))
}

#[test]
fn a_step_of_another_architecture_runs_and_nothing_is_registered_on_the_machine() {
    let handlers = || {
        let names = fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
        let mut names: Vec<_> = names.map(|entry| entry.file_name()).collect();
        names.sort();
        (names, fs::read_to_string("/proc/mounts").expect("/proc").matches("binfmt_misc").count())
    };
    let before = handlers();
    for_each_user(|user| {
        let Some(place) = with(user, "RUN uname -m && echo $0 && sh -c 'echo $0' -sh && echo it > /file\n")
        else {
            return;
        };
        place.build(&["--platform=linux/arm64", "-t", "foreign"]).ok().prints(&["aarch64", "/bin/sh", "-sh"]);
        let ran = place.kiln(&[
            "run",
            "--rm",
            "--platform=linux/arm64",
            "foreign",
            "/bin/sh",
            "-c",
            "uname -m; cat /file; exit 3",
        ]);
        assert_eq!(ran.code(3).out(), "aarch64\nit\n");
        place.is_quiet();
        place.fsck();
    });
    assert_eq!(handlers(), before);
}

#[test]
fn two_platforms_give_an_index_that_others_read() {
    let Some(skopeo) = tool("skopeo") else { return };
    for_each_user(|user| {
        let Some(place) = with(user, "RUN uname -m > /machine\n") else { return };
        let both = "--platform=linux/amd64,linux/arm64";
        let outputs =
            ["-o", "type=oci,dest=both.tar", "-o", "type=local,dest=files", "-o", "type=tar,dest=files.tar"];
        place.build(&[&[both, "-t", "both", "-o", "type=image"], &outputs[..]].concat()).ok();
        place
            .build(&[both, "-o", "type=docker,dest=docker.tar"])
            .code(2)
            .says(&["type=docker holds one image"]);
        let tar =
            Command::new("tar").args(["-xOf", &place.text("files.tar"), "linux_arm64/machine"]).output();
        assert_eq!(String::from_utf8_lossy(&tar.expect("tar").stdout), "aarch64\n");
        for (architecture, machine) in [("amd64", "x86_64\n"), ("arm64", "aarch64\n")] {
            assert_eq!(place.read(&format!("files/linux_{architecture}/machine")), machine);
            let inspect = format!("--override-arch={architecture}");
            let args = [inspect.as_str(), "inspect", "--format={{.Architecture}}", "oci-archive:both.tar"];
            let ran = Ran::of(&mut place.as_user(skopeo.get_program(), "store", &args)).ok();
            assert_eq!(ran.out().trim(), architecture);
            let platform = format!("--platform=linux/{architecture}");
            let ran = place.kiln(&["run", "--rm", &platform, "both", "/bin/cat", "/machine"]).ok();
            assert_eq!(ran.out(), machine);
        }
        let listed = place.kiln(&["images"]).ok().out();
        assert!(listed.contains("linux/amd64") && listed.contains("linux/arm64"), "{listed}");
    });
}

#[test]
fn without_an_emulator_it_is_said_before_anything_runs() {
    for_each_user(|user| {
        let Some(place) = with(user, "RUN --mount=type=cache,target=/c uname -m\n") else { return };
        place.file(
            "context/Dockerfile",
            "FROM --platform=$BUILDPLATFORM scratch AS tool\nCOPY bin /bin\nRUN echo native-ran > /made\n\
             FROM scratch\nCOPY arm64 /bin/\nCOPY --from=tool /made /\nRUN cat /made\n",
        );
        let ran = without_emulators(&place, &["--platform=linux/arm64"]).code(3);
        let ran = ran.says(&[
            ">>> RUN cat /made",
            "arm64 programs do not run here",
            "qemu-aarch64-static",
            "qemu-user-static",
        ]);
        assert_eq!(ran.count("DONE"), 1, "only the Dockerfile was read: {ran}");
        // With one it is built; then there is nothing to run any more, and nothing is needed.
        place.build(&["--platform=linux/arm64"]).ok().prints(&["native-ran"]);
        without_emulators(&place, &["--platform=linux/arm64"]).ok();
        without_emulators(&place, &["--platform=linux/arm64", "--no-cache"]).code(3);
    });
}

#[test]
fn what_executes_nothing_needs_no_emulator() {
    for_each_user(|user| {
        let Some(place) = place(user) else { return };
        place.dockerfile(
            "FROM --platform=$BUILDPLATFORM scratch AS build\nARG TARGETARCH\nCOPY bin /bin\nRUN echo for $TARGETARCH > /out\n\
             FROM scratch\nCOPY arm64/busybox /bin/sh\nWORKDIR /made/here\nENV A=b\nCOPY --from=build /out /\nADD Dockerfile /\nCMD [\"/bin/sh\"]\n",
        );
        let args = ["--platform=linux/arm64", "-o", "type=local,dest=files"];
        without_emulators(&place, &args).ok();
        assert_eq!(place.read("files/out"), "for arm64\n");
    });
}

#[test]
fn a_stage_for_the_building_machine_is_one_for_all_platforms() {
    for_each_user(|user| {
        let Some(place) = place(user) else { return };
        place.dockerfile(
            "FROM --platform=$BUILDPLATFORM scratch AS build\nCOPY bin /bin\n\
             RUN --mount=type=cache,id=runs,target=/m echo ran >> /m/runs; cat /m/runs > /runs\n\
             FROM scratch\nCOPY --from=build /runs /\n",
        );
        let both = ["--platform=linux/amd64,linux/arm64", "-o", "type=local,dest=files"];
        place.build(&both).ok();
        for platform in ["linux_amd64", "linux_arm64"] {
            assert_eq!(place.read(&format!("files/{platform}/runs")), "ran\n");
        }
    });
}

#[test]
fn five_builds_at_once_have_an_emulator_each() {
    let Some(place) = with(User::Plain, "ARG N\nRUN echo $N-$(uname -m)\n") else { return };
    std::thread::scope(|scope| {
        for n in 0..5 {
            let place = &place;
            scope.spawn(move || {
                let arg = format!("N={n}");
                let ran = place.build(&["--platform=linux/arm64", "--build-arg", &arg]).ok();
                ran.prints(&[&format!("{n}-aarch64")]);
            });
        }
    });
    place.is_quiet();
    place.fsck();
}

#[test]
fn an_emulator_that_is_given_is_the_one_that_is_used() {
    for_each_user(|user| {
        let Some(place) = with(user, "RUN uname -m\n") else { return };
        let Some(qemu) = tool("qemu-aarch64-static") else { return };
        let build = |emulator: &Path| {
            let mut command = place.build_command("store", &["--platform=linux/arm64"]);
            Ran::of(command.env("KILN_EMULATOR_ARM64", emulator))
        };
        place.mode("closed", "no program", 0o644);
        build(&place.path("closed")).code(3).says(&["closed cannot be executed"]);
        build(Path::new("/bin/ls")).code(3).says(&["/bin/ls is not static: it needs /lib"]);
        build(&place.path("nowhere")).code(3).says(&["nowhere cannot be read"]);
        // It is a program, but emulates nothing.
        build(Path::new("/bin/busybox"))
            .code(3)
            .says(&["/bin/busybox cannot emulate arm64", "a program does not run with it"]);
        // A name that a line of binfmt_misc could not hold.
        let odd = "a:b\\x41, a name of more than a hundred and twenty-seven bytes, which is as much as the kernel takes for an interpreter's path";
        place.link(odd, qemu.get_program().to_str().expect("it is ASCII"));
        build(&place.path(odd)).ok().prints(&["aarch64"]);
    });
}

#[test]
fn a_step_cannot_change_its_emulator() {
    for_each_user(|user| {
        let Some(qemu) = tool("qemu-aarch64-static") else { return };
        // It is opened while it runs, when nobody can write to it, and written to when nobody runs it.
        let attack = "RUN exec 4>/said; sleep 1000 & exec 3</proc/$!/exe && kill $! && { wait $!; echo spoilt >/proc/self/fd/3; } 2>&4; cat /said; \\\n\
             grep -q 'Read-only file system' /said\n";
        let Some(place) = with(user, attack) else { return };
        fs::copy(qemu.get_program(), place.path("qemu")).expect("room for a copy");
        place.own("qemu");
        let before = fs::read(place.path("qemu")).expect("it is ours");
        let mut command = place.build_command("store", &["--platform=linux/arm64"]);
        Ran::of(command.env("KILN_EMULATOR_ARM64", place.path("qemu"))).ok();
        assert!(fs::read(place.path("qemu")).expect("it is ours") == before, "the emulator was changed");
    });
}

#[test]
fn owners_and_set_user_id_bits_are_those_of_a_step_of_this_machine() {
    let digests = Mutex::new(Vec::new());
    for_each_user(|user| {
        if !user.has_range() {
            return;
        }
        let Some(place) = place(user) else { return };
        place.dockerfile(
            "FROM scratch\nCOPY arm64 /bin\n\
             COPY <<passwd /etc/passwd\nroot::0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\npasswd\n\
             RUN chown 1000:1001 /etc/passwd && test $(stat -c %u:%g /etc/passwd) = 1000:1001\n\
             RUN busybox chmod 4755 /bin/busybox\n\
             USER ann\nRUN test $(id -u) = 1000 && test $(su -c 'id -u' root) = 0\n",
        );
        digests.lock().unwrap().push(place.build(&["--platform=linux/arm64"]).ok().digest());
    });
    let mut digests = digests.into_inner().unwrap();
    digests.dedup();
    assert!(digests.len() <= 1, "as root there is a user namespace more, and nothing else: {digests:?}");
}

#[test]
fn doctor_tells_which_emulator_each_architecture_has() {
    for_each_user(|user| {
        let Some(qemu) = tool("qemu-aarch64-static") else { return };
        let place = Place::new(user);
        let rungs = |path: Option<String>| {
            let mut command = place.command(&["doctor", "--json"]);
            if let Some(path) = path {
                command.env("PATH", path);
            }
            let ran = Ran::of(&mut command).ok();
            serde_json::from_str::<Vec<serde_json::Value>>(&ran.out()).expect("JSON")
        };
        let of = |rungs: &[serde_json::Value], what: &str| {
            rungs
                .iter()
                .find(|rung| rung["what"] == what)
                .unwrap_or_else(|| panic!("{what}: {rungs:?}"))
                .clone()
        };
        let with = rungs(None);
        assert_eq!(of(&with, "linux/arm64")["chosen"], qemu.get_program().to_str().expect("it is ASCII"));
        // Each was tried with a program of its architecture.
        for architecture in ["386", "arm", "riscv64", "ppc64le", "s390x"] {
            let rung = of(&with, &format!("linux/{architecture}"));
            assert!(rung["chosen"].is_string() && rung["raise"].is_null(), "{rung}");
        }
        let without = of(&rungs(Some(tools(&place))), "linux/arm64");
        assert!(without["chosen"].is_null(), "{without}");
        assert_eq!(without["raise"], "sudo apt-get install qemu-user-static");
    });
}

#[test]
fn a_handler_of_the_machine_is_used_if_it_works_inside_a_step() {
    let (Some(qemu), Some(unshare)) = (tool("qemu-aarch64-static"), tool("unshare")) else { return };
    for_each_user(|user| {
        let Some(place) = with(user, "RUN uname -m\n") else { return };
        // A user namespace plays the machine, so that the real one stays as it is.
        let machine = "/usr/bin/mount -t binfmt_misc none /proc/sys/fs/binfmt_misc && \
                       printf %s \"$1\" >/proc/sys/fs/binfmt_misc/register && shift && exec \"$@\"";
        let hex = |bytes: &str| bytes.split(' ').map(|byte| format!("\\x{byte}")).collect::<String>();
        let magic = hex("7f 45 4c 46 02 01 01 00 00 00 00 00 00 00 00 00 02 00 b7 00");
        let mask = hex("ff ff ff ff ff ff ff 00 ff ff ff ff ff ff ff ff fe ff ff ff");
        let build = |flags: &str| {
            let line = format!(":foreign:M::{magic}:{mask}:{}:{flags}", qemu.get_program().to_string_lossy());
            let kiln = place.text("kiln");
            let namespace = ["--user", "--map-root-user", "--mount", "/bin/sh", "-c", machine, "sh", &line];
            let kiln =
                [&kiln, "build", "--progress=plain", "--platform=linux/arm64", "--no-cache", "context"];
            let args = [&namespace[..], &kiln[..]].concat();
            let mut command = place.as_user(unshare.get_program(), "store", &args);
            Ran::of(command.env("PATH", tools(&place)))
        };
        build("F").ok().prints(&["aarch64"]);
        // The kernel would look for the interpreter in the step's root.
        build("").code(3).says(&["the machine has no handler that works inside a step"]);
    });
}
