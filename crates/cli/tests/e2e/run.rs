//! `kiln run`: what it mounts, how it ends, what reaches the process.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::place::{Place, Ran};
use crate::user::{User, for_each_user};

/// An image to run things in.
fn demo(user: User, dockerfile: &str) -> Place {
    let place = Place::with(user, dockerfile);
    place.build(&["-t", "demo"]).ok();
    place
}

fn sh(place: &Place, flags: &[&str], script: &str) -> Ran {
    place.kiln(&[&["run", "--rm"], flags, &["demo", "/bin/sh", "-c", script]].concat())
}

#[test]
fn files_of_this_machine_are_mounted() {
    for_each_user(|user| {
        let place = demo(user, "RUN mkdir /srv && echo image > /srv/file\n");
        place.file("data/file", "here\n");
        let data = place.text("data");
        let bound = |options: &str| format!("{data}:/srv{options}");
        assert_eq!(
            sh(&place, &["-v", &bound("")], "cat /srv/file; echo new > /srv/new").ok().out(),
            "here\n"
        );
        assert_eq!(place.read("data/new"), "new\n", "it is the directory itself");
        let ran = sh(&place, &["-v", &bound(":ro")], "cat /srv/new; echo x > /srv/other").code(1);
        assert_eq!(ran.out(), "new\n");
        assert!(!place.path("data/other").exists());
        let mount = format!("type=bind,source={data}/file,target=/deep/down/file,readonly");
        assert_eq!(
            sh(&place, &["--mount", &mount], "cat /deep/down/file /srv/file").ok().out(),
            "here\nimage\n"
        );
        // A relative one is found from here; -v makes what is not there, --mount does not.
        assert_eq!(sh(&place, &["-v", "./data:/here"], "cat /here/file").ok().out(), "here\n");
        sh(&place, &["-v", "./made/by/it:/here"], "echo x > /here/x").ok();
        assert_eq!(place.read("made/by/it/x"), "x\n");
        sh(&place, &["--mount", "type=bind,src=./nowhere,dst=/x"], "true").code(125).says(&["nowhere"]);
        sh(&place, &["-v", "data:/x"], "true").code(125).says(&["write ./data", "type=cache,id=data"]);
        // One in another one.
        let inner = ["-v", "./data/file:/outer/in/file", "-v", "./made:/outer"];
        place.directory("made/in");
        assert_eq!(sh(&place, &inner, "cat /outer/in/file /outer/by/it/x").ok().out(), "here\nx\n");
        place.fsck();
        place.is_quiet();
        assert_eq!(place.half_made(), [] as [String; 0]);
    });
}

/// <https://github.com/moby/moby/issues/48555>: what is run uses the cache mounts of builds. FIELD P2.
#[test]
fn moby_48555_memory_and_caches_are_mounted() {
    for_each_user(|user| {
        let place = demo(user, "RUN --mount=type=cache,id=shared,target=/c echo built > /c/file\n");
        let fill = "dd if=/dev/zero of=/t/f bs=1024 count=200 2>/dev/null";
        sh(&place, &["--tmpfs", "/t:size=64k"], fill).code(1);
        sh(&place, &["--mount", "type=tmpfs,target=/t,tmpfs-size=1m"], &format!("{fill} && test -k /t")).ok();
        let cache = "type=cache,id=shared,target=/cache,sharing=locked";
        assert_eq!(
            sh(&place, &["--mount", cache], "cat /cache/file; echo run > /cache/more").ok().out(),
            "built\n"
        );
        let read = "type=cache,id=shared,target=/cache,readonly";
        assert_eq!(
            sh(&place, &["--mount", read], "cat /cache/more; ! echo x > /cache/x").ok().out(),
            "run\n"
        );
        sh(&place, &["--mount", "type=cache,target=/own"], "echo 1 > /own/f").ok();
        sh(&place, &["--mount", "type=cache,target=/own"], "cat /own/f").ok();
        sh(&place, &["-v", "/fresh"], "echo 1 > /fresh/f && ls /fresh").ok();
        let twice = ["--tmpfs", "/t", "--mount", "type=tmpfs,target=/t/"];
        sh(&place, &twice, "true").code(125).says(&["something is mounted at /t already"]);
        place.fsck();
        place.is_quiet();
    });
}

#[test]
fn volumes_can_be_written_to_where_the_rest_cannot() {
    for_each_user(|user| {
        let place = demo(user, "RUN mkdir /data && echo image > /data/file\nVOLUME /data /made\n");
        let write = "cat /data/file && echo 1 > /data/new && echo 1 > /made/new && ls /data /made";
        assert_eq!(sh(&place, &[], write).ok().out(), "image\n/data:\nfile\nnew\n\n/made:\nnew\n");
        let only = "! echo x 2>/dev/null > /x || exit 9; ! echo x 2>/dev/null > /bin/x || exit 8; ";
        let ran = sh(&place, &["--read-only"], &format!("{only}{write}")).ok();
        assert_eq!(ran.out(), "image\n/data:\nfile\nnew\n\n/made:\nnew\n", "{ran}");
        // Nothing of it is kept; what is mounted there goes before.
        assert_eq!(sh(&place, &["--read-only"], "ls /data /made").ok().out(), "/data:\nfile\n\n/made:\n");
        place.file("mine/own", "mine\n");
        let ran = sh(
            &place,
            &["--read-only", "--tmpfs", "/tmp", "-v", "./mine:/data"],
            "cat /data/*; echo > /tmp/x",
        );
        assert_eq!(ran.ok().out(), "mine\n");
        place.fsck();
        place.is_quiet();
        assert_eq!(place.half_made(), [] as [String; 0]);
    });
}

#[test]
fn variables_names_and_limits_are_what_was_asked_for() {
    for_each_user(|user| {
        let place = demo(user, "ENV a=image b=image c=image\nENTRYPOINT [\"/bin/echo\"]\nCMD [\"cmd\"]\n");
        place.file("vars", "# a remark\n\na=file\n  b=file with spaces\nHOME\nNOSUCH\n");
        let sh = |flags: &[&str], script: &str| {
            let flags = [&["run", "--entrypoint", "/bin/sh"], flags, &["demo", "-c", script]].concat();
            place.kiln(&flags)
        };
        let show = "echo $a, $b, $c, $d, $HOME, ${NOSUCH-none}";
        let ran = sh(&["--env-file", "vars", "-e", "a=flag", "-e", "d=flag"], show).ok();
        assert_eq!(ran.out(), format!("flag, file with spaces, image, flag, {}, none\n", place.text("home")));
        place.file("bad", "a b=c\n");
        sh(&["--env-file", "bad"], show).code(125).says(&["bad", "\"a b\""]);
        assert_eq!(place.kiln(&["run", "demo"]).ok().out(), "cmd\n");
        assert_eq!(place.kiln(&["run", "demo", "args"]).ok().out(), "args\n");
        let nothing = place.kiln(&["run", "--entrypoint", "", "demo", "/bin/echo", "-n", "x"]).ok().out();
        assert_eq!(nothing, "x");
        place.kiln(&["run", "--entrypoint", "", "demo"]).code(125).says(&["say what to run"]);
        let ran =
            sh(&["--hostname", "named", "--init", "--ulimit", "nofile=99:99"], "hostname; ulimit -n").ok();
        assert_eq!(ran.out(), "named\n99\n");
        assert_eq!(sh(&["--add-host", "db:10.1.2.3"], "grep db /etc/hosts").ok().out(), "10.1.2.3\tdb\n");
        place.is_quiet();
    });
}

#[test]
fn the_exit_status_says_who_failed() {
    for_each_user(|user| {
        let place = demo(user, "RUN echo text > /text && mkdir /dir\n");
        let run = |args: &[&str]| place.kiln(&[&["run"], args].concat());
        run(&["demo", "sh", "-c", "exit 125"]).code(125).lacks(&["error"]);
        run(&["demo", "sh", "-c", "kill -TERM $$"]).code(143);
        run(&["demo", "nosuch"]).code(127).says(&["nosuch", "not found in PATH"]);
        run(&["demo", "/no/such"]).code(127);
        run(&["demo", "/text"]).code(126).says(&["/text"]);
        run(&["demo", "/dir"]).code(126);
        run(&["127.0.0.1:1/nosuch", "true"]).code(125);
        run(&["-u", "nobody-here", "demo", "true"]).code(125).says(&["/etc/passwd"]);
        run(&["--memory", "much", "demo", "true"]).code(125);
        for (flag, words) in
            [("-d", "ends with it"), ("--name=x", "ends with it"), ("--volumes-from=x", "no containers")]
        {
            run(&[flag, "demo", "true"]).code(125).says(&[words]);
        }
        run(&["--no-such-flag", "demo", "true"]).code(125).says(&["--no-such-flag"]);
        run(&["--network=elsewhere", "demo", "true"]).code(125).says(&["elsewhere"]);
        run(&["--help"]).code(0);
        place.kiln(&["build", "--no-such-flag", "context"]).code(2);
        place.is_quiet();
    });
}

#[test]
fn signals_reach_the_process() {
    for_each_user(|user| {
        let place = demo(user, "RUN true\n");
        let start = |script: &str| {
            let mut running = place.spawn(&mut place.command(&["run", "demo", "/bin/sh", "-c", script]));
            assert!(running.until("ready"), "{}", running.seen);
            running
        };
        let waits = "sleep 1000 & echo ready >&2; while :; do wait; done";
        for (name, signal) in [
            ("TERM", Signal::TERM),
            ("INT", Signal::INT),
            ("HUP", Signal::HUP),
            ("QUIT", Signal::QUIT),
            ("USR1", Signal::USR1),
            ("USR2", Signal::USR2),
        ] {
            let running = start(&format!("trap 'echo got {name} >&2; exit 7' {name}; {waits}"));
            running.signal(signal);
            running.wait().code(7).says(&[&format!("got {name}")]);
        }
        // Without a trap it does what it does.
        let running = start("echo ready >&2; exec sleep 1000");
        running.signal(Signal::TERM);
        running.wait().code(143);
        // Who does not want to end is ended by the second interrupt.
        let mut running = start(&format!("trap 'echo not yet >&2' INT; {waits}"));
        running.signal(Signal::INT);
        assert!(running.until("not yet"), "{}", running.seen);
        running.signal(Signal::INT);
        running.wait().code(130);
        place.is_quiet();
        assert_eq!(place.half_made(), [] as [String; 0]);
    });
}

#[test]
fn standard_input_is_passed_on_if_asked_for() {
    for_each_user(|user| {
        let place = demo(user, "RUN true\n");
        let feed = |args: &[&str], input: &str| {
            let mut command = place.command(args);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().expect("kiln starts");
            // Who does not read it may have ended.
            let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
            let output = child.wait_with_output().expect("it is ours");
            (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let long = "line\n".repeat(50_000);
        assert_eq!(feed(&["run", "-i", "demo", "/bin/wc", "-l"], &long), (Some(0), "50000\n".to_owned()));
        assert_eq!(feed(&["run", "demo", "/bin/wc", "-l"], "line\n"), (Some(0), "0\n".to_owned()));
        place.is_quiet();
    });
}

/// Something typed at a terminal of its own.
struct Typed {
    child: Child,
    out: std::process::ChildStdout,
    shown: String,
}

impl Typed {
    fn start(place: &Place, command: &str) -> Self {
        let mut script = place.as_user("script", "store", &["-qec", command, "/dev/null"]);
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = script.spawn().expect("script starts");
        let out = child.stdout.take().expect("it is piped");
        Self { child, out, shown: String::new() }
    }

    fn until(&mut self, words: &str) {
        let mut bytes = [0; 4096];
        while !self.shown.contains(words) {
            let length = self.out.read(&mut bytes).expect("a pipe can be read");
            assert!(length > 0, "no {words:?} in {}", self.shown);
            self.shown.push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    }

    fn types(&mut self, keys: &[u8]) {
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        stdin.write_all(keys).and_then(|()| stdin.flush()).expect("script reads it");
    }

    fn ends(mut self) -> (Option<i32>, String) {
        self.out.read_to_string(&mut self.shown).expect("a pipe can be read");
        (self.child.wait().expect("it is ours").code(), self.shown)
    }
}

#[test]
fn a_terminal_is_one_with_its_keys_and_its_size() {
    for_each_user(|user| {
        let place = demo(user, "RUN true\n");
        let kiln = place.text("kiln");
        let run = |script: &str| format!("{kiln} run -it demo /bin/sh -c '{script}'");

        // Control-C interrupts what runs inside, and kiln gives its status.
        let mut typed = Typed::start(
            &place,
            &run(
                "trap \"echo got-$((1+1)); exit 9\" INT; test -t 0 && test -t 1 && echo ready-$((2+2)); sleep 1000 & wait",
            ),
        );
        typed.until("ready-4");
        typed.types(b"\x03");
        let (code, shown) = typed.ends();
        assert_eq!(code, Some(9), "{shown}");
        assert!(shown.contains("got-2"), "{shown}");

        // Control-D ends the input.
        let mut typed =
            Typed::start(&place, &run("echo ready-$((2+2)); cat > /file; echo read-$(cat /file)-it"));
        typed.until("ready-4");
        typed.types(b"words\n\x04");
        let (code, shown) = typed.ends();
        assert!(code == Some(0) && shown.contains("read-words-it"), "{shown}");

        // The size is that of the terminal around it, and changes with it.
        let script = run(
            "/bin/busybox stty size; trap \"/bin/busybox stty size; exit 0\" WINCH; echo ready-$((2+2)); sleep 1000 & while :; do wait; done",
        );
        let mut typed = Typed::start(&place, &format!("stty rows 33 cols 99; tty > pts; {script}"));
        typed.until("ready-4");
        assert!(typed.shown.contains("33 99"), "{}", typed.shown);
        let mut resize = Command::new("stty");
        resize.args(["-F", place.read("pts").trim(), "rows", "44"]);
        assert!(resize.status().expect("stty").success());
        let (code, shown) = typed.ends();
        assert!(code == Some(0) && shown.contains("44 99"), "{shown}");
        place.is_quiet();
    });
}
