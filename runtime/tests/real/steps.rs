//! What a step's process sees and how its end is told.

use kiln_core::{ExitStatus, NetworkMode};
use kiln_runtime::{RunError, Stage, UserError};

use crate::support::{Place, rungs};

#[test]
fn ends_are_told() {
    for &rung in rungs() {
        for (script, expected) in [
            ("exit 0", ExitStatus::Code(0)),
            ("exit 7", ExitStatus::Code(7)),
            ("kill -9 $$", ExitStatus::Signal(9)),
            ("kill -TERM $$", ExitStatus::Signal(15)),
        ] {
            let place = Place::new(rung);
            assert_eq!(place.run(&place.spec(script)).result, Ok(expected), "{rung:?} {script}");
        }
    }
}

#[test]
fn output_comes_from_both_streams() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let ran = place.run(&place.spec("echo out; echo err >&2; printf end"));
        assert_eq!((ran.ok(), ran.stderr.as_str()), ("out\nend", "err"), "{rung:?}");
    }
}

#[test]
fn world_is_as_documented() {
    // Script, what it prints.
    let cases = [
        ("hostname", "step\n"),
        ("pwd", "/\n"),
        ("umask", "0022\n"),
        ("env | grep -v -e ^SHLVL -e ^PWD | sort", "HOME=/root\nPATH=/bin\n"),
        ("id -u; id -g", "0\n0\n"),
        ("echo $$", "2\n"),
        // Not through a pipe, whose other end may not have begun when ps looks.
        ("ps > /tmp/all; wc -l < /tmp/all", "4\n"),
        ("ls /..", "bin\ndev\netc\nhome\nproc\nsys\ntmp\n"),
        ("cd /; cd ..; ls", "bin\ndev\netc\nhome\nproc\nsys\ntmp\n"),
        ("grep -c ' / / ' /proc/self/mountinfo", "1\n"),
        (
            "ls /dev",
            "core\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n",
        ),
        ("echo x > /dev/null && head -c 3 /dev/zero | wc -c", "3\n"),
        ("head -c 3 /dev/urandom | wc -c; head -c 3 /dev/random | wc -c", "3\n3\n"),
        ("echo x > /dev/full || echo full", "full\n"),
        ("touch /dev/shm/x /dev/mqueue/x && ls /dev/shm", "x\n"),
        ("echo x > /dev/stdout; cat < /dev/stdin", "x\n"),
        ("touch /sys/x || echo no", "no\n"),
        ("echo 1 > /proc/sys/kernel/hostname || echo no", "no\n"),
        ("head -c 1 /proc/keys | wc -c", "0\n"),
        ("ls /sys/firmware | wc -l", "0\n"),
        ("grep -c '^127.0.0.1.step$' /etc/hosts", "1\n"),
        ("echo x >> /etc/hosts || echo no", "no\n"),
        ("cat /proc/self/limits | grep core | head -c 32", "Max core file size        1     "),
        ("readlink /proc/1/exe || echo no", "no\n"),
        ("kill -9 1; echo alive", "alive\n"),
        ("tty || true", "not a tty\n"),
        // Descriptors: what ls opens is the fourth.
        ("ls /proc/self/fd", "0\n1\n2\n3\n"),
    ];
    for &rung in rungs() {
        let place = Place::new(rung);
        for (script, expected) in cases {
            place.clear();
            let ran = place.run(&place.spec(script));
            assert_eq!((ran.ok(), ran.rung), (expected, rung), "{script}\n{ran:?}");
        }
    }
}

#[test]
fn signals_are_as_at_the_start_of_the_machine() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let mut spec = place.spec("");
        // A shell has its own ideas.
        spec.args = ["grep", "^Sig[BI]", "/proc/self/status"].map(str::to_owned).to_vec();
        let ran = place.run(&spec);
        assert_eq!(ran.ok(), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n", "{rung:?}");
    }
}

#[test]
fn capabilities_are_dockers() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let ran = place
            .run(&place.spec("grep -e CapPrm -e CapEff -e CapBnd -e CapInh -e CapAmb /proc/self/status"));
        let sets: Vec<&str> = ran.ok().lines().map(|line| line.split_whitespace().last().unwrap()).collect();
        let (none, docker) = ("0000000000000000", "00000000a80425fb");
        assert_eq!(sets, [none, docker, docker, docker, none], "{rung:?}");
    }
}

#[test]
fn users_are_the_images() {
    for &rung in rungs() {
        let place = Place::new(rung);
        for (user, expected) in [
            ("ann", "uid=1000(ann) gid=1001(ann) groups=77(extra) /home"),
            ("1000:77", "uid=1000(ann) gid=77(extra) /home"),
            ("5:6", "uid=5 gid=6 /"),
        ] {
            place.clear();
            let mut spec =
                place.spec("echo $(id) $HOME; echo x > /dev/stdout; grep CapEff /proc/self/status");
            spec.user = user.to_owned();
            let ran = place.run(&spec);
            let mut lines = ran.ok().lines();
            let ids = lines.next().unwrap();
            assert_eq!(ids, expected, "{rung:?}");
            // With a single id, it is root by the kernel's account.
            let capabilities = if rung.has_range() { "0000000000000000" } else { "00000000a80425fb" };
            let capabilities = format!("CapEff:\t{capabilities}");
            assert_eq!(lines.collect::<Vec<_>>(), ["x", &capabilities], "{rung:?} {user}");
        }
        let mut spec = place.spec("true");
        spec.user = "eve".to_owned();
        place.clear();
        let expected = RunError::User(UserError::UnknownUser { name: "eve".to_owned() });
        assert_eq!(place.run(&spec).result, Err(expected), "{rung:?}");
    }
}

#[test]
fn programs_that_cannot_start_are_told() {
    for &rung in rungs() {
        let place = Place::new(rung);
        place.file_at("root/bin/plain", "no format");
        let plain = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(place.path("root/bin/plain"), plain).unwrap();
        for (program, errno) in [
            ("nope", libc::ENOENT),
            ("/nope", libc::ENOENT),
            ("/etc/passwd", libc::EACCES),
            ("plain", libc::ENOEXEC),
        ] {
            place.clear();
            let mut spec = place.spec("");
            spec.args = vec![program.to_owned()];
            let ran = place.run(&spec);
            assert!(
                matches!(&ran.result, Err(RunError::Program { program: p, errno: e, .. }) if p == program && *e == errno),
                "{ran:?}"
            );
        }
    }
}

#[test]
fn working_directory_is_made() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let mut spec = place.spec("pwd; stat -c %a .");
        spec.cwd = "/a/b".to_owned();
        assert_eq!(place.run(&spec).ok(), "/a/b\n755\n");
        assert_eq!(place.upper(), ["a", "a/b"]);
        place.clear();
        spec.cwd = "/etc/passwd".to_owned();
        let failed = place.run(&spec).result;
        assert!(
            matches!(&failed, Err(RunError::Init(failure)) if failure.stage == Stage::WorkingDirectory),
            "{failed:?}"
        );
    }
}

#[test]
fn terminal_is_its_own() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let mut spec = place.spec("tty; test -t 0 && test -t 1 && test -t 2 && echo all; echo x > /dev/tty");
        spec.tty = true;
        assert_eq!(place.run(&spec).ok().replace('\r', ""), "/dev/pts/0\nall\nx\n");
        // With a terminal around it: script(1) is one.
        place.clear();
        spec.stdin = true;
        spec.args[2] = "stty size; read line; echo got $line".to_owned();
        let spec = place.write("spec.json", &spec);
        let inner = format!("stty rows 17 cols 71; {} interactive {spec}", place.program().display());
        let mut command = rung.command("script");
        command.args(["-qec", &inner, "/dev/null"]).stdin(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::piped()).current_dir("/");
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"typed\n").unwrap();
        let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert!(output.contains("17 71") && output.contains("got typed"), "{rung:?} {output:?}");
    }
}

#[test]
fn interactive_without_terminal_passes_streams_on() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let mut spec = place.spec("cat; echo err >&2; exit 3");
        spec.stdin = true;
        let spec = place.write("spec.json", &spec);
        let mut command = place.runner(&["interactive", &spec]);
        let input = place.file_at("input", "fed\n");
        let ran = crate::support::Ran::of(
            rung,
            command.stdin(std::fs::File::open(input).unwrap()).output().unwrap(),
        );
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("fed\n", "err"));
        assert_eq!(ran.result, Ok(ExitStatus::Code(3)));
    }
}

#[test]
fn isolated_network_has_only_lo() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let mut spec = place.spec("ls /sys/class/net; ip addr show lo | grep -c 'inet 127.0.0.1'");
        spec.network = NetworkMode::None;
        assert_eq!(place.run(&spec).ok(), "lo\n1\n", "{rung:?}");
    }
}

#[test]
fn limits_are_the_callers() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let spec = place.write("spec.json", &place.spec("ulimit -Sn; ulimit -Hn; ulimit -Su"));
        let inner = format!(
            "ulimit -c 0; ulimit -Sn 900; ulimit -Hn 3000; ulimit -Su; exec {} run {spec}",
            place.program().display()
        );
        let output = rung.command("bash").args(["-c", &inner]).output().unwrap();
        let ran = crate::support::Ran::of(rung, output);
        let (processes, rest) = ran.ok().split_once('\n').unwrap();
        assert_eq!(rest, format!("900\n3000\n{processes}\n"), "{rung:?}");
    }
}

#[test]
fn the_machine_is_as_asked_for() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let limit = |name: &str, soft, hard| kiln_core::Limit { name: name.to_owned(), soft, hard };
        let mut spec = place.spec(
            "grep -c '^10.0.0.2.db$' /etc/hosts; stat -f -c '%b %S' /dev/shm; ulimit -Sn; ulimit -Hn; ulimit -c",
        );
        spec.machine = kiln_core::Machine {
            hosts: vec![("10.0.0.2".to_owned(), "db".to_owned())],
            shm_size: Some(1 << 20),
            limits: vec![limit("nofile", Some(100), Some(200)), limit("core", Some(4096), Some(4096))],
        };
        assert_eq!(place.run(&spec).ok(), "1\n256 4096\n100\n200\n8\n", "{rung:?}");
        place.clear();
        // More than there may be; also for root.
        spec.machine.limits = vec![limit("nofile", Some(u64::MAX - 1), Some(u64::MAX - 1))];
        let error = place.run(&spec).result.unwrap_err().to_string();
        assert!(error.contains("cannot set the limit nofile"), "{error}");
    }
}
