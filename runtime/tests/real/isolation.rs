//! What a step may not do, and what a privileged one may. The calls are made by the machine's own perl.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use kiln_core::{RunSpec, Security};

use crate::support::{Place, bind, rungs, skip};

/// The bits of docker's default capabilities.
const DOCKER: &str = "00000000a80425fb";

/// A step in which `perl` works, as it does on this machine.
pub(crate) fn with_perl(place: &Place, script: &str) -> RunSpec {
    for name in ["lib", "lib64"] {
        if place.path("root").join(name).symlink_metadata().is_err() {
            symlink(format!("usr/{name}"), place.path("root").join(name)).unwrap();
        }
    }
    let mut spec = place.spec(script);
    spec.mounts = vec![bind("/usr", Path::new("/usr"), true)];
    spec.env = vec![("PATH".to_owned(), "/bin:/usr/bin".to_owned())];
    spec
}

/// A line of a script: makes a call and says what came of it.
pub(crate) fn call(name: &str, number: libc::c_long, arguments: &str) -> String {
    format!(
        "perl -e '$r = syscall({number}{arguments}); print \"{name} \", $r < 0 ? $! + 0 : \"done\", \"\\n\"'\n"
    )
}

#[test]
fn dangerous_calls_are_refused() {
    let calls = [
        ("mount", libc::SYS_mount, ", my $a = \"none\", my $b = \"/tmp\", my $c = \"tmpfs\", 0, 0", "1"),
        ("umount2", libc::SYS_umount2, ", my $a = \"/proc\", 2", "1"),
        ("unshare", libc::SYS_unshare, ", 0x10000000", "1"),
        ("setns", libc::SYS_setns, ", 0, 0", "1"),
        ("keyctl", libc::SYS_keyctl, ", 0, -3, 0", "1"),
        ("add_key", libc::SYS_add_key, ", my $a = \"user\", my $b = \"k\", my $c = \"v\", 1, -3", "1"),
        ("request_key", libc::SYS_request_key, ", my $a = \"user\", my $b = \"k\", 0, 0", "1"),
        ("bpf", libc::SYS_bpf, ", 0, 0, 0", "1"),
        ("perf_event_open", libc::SYS_perf_event_open, ", 0, 0, -1, -1, 0", "1"),
        ("userfaultfd", libc::SYS_userfaultfd, ", 0", "1"),
        ("io_uring_setup", libc::SYS_io_uring_setup, ", 1, 0", "1"),
        ("kexec_load", libc::SYS_kexec_load, ", 0, 0, 0, 0", "1"),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, ", 0, 0, 0", "1"),
        ("sethostname", libc::SYS_sethostname, ", my $a = \"x\", 1", "1"),
        ("reboot", libc::SYS_reboot, ", 0, 0, 0, 0", "1"),
        ("clone3", libc::SYS_clone3, ", 0, 0", "38"),
        ("of a coming kernel", 4000, "", "38"),
        // As docker has it since Linux 4.8.
        ("ptrace", libc::SYS_ptrace, ", 0, 0, 0, 0", "done"),
        ("chroot", libc::SYS_chroot, ", my $a = \"/tmp\"", "done"),
    ];
    let script: String =
        calls.iter().map(|(name, number, arguments, _)| call(name, *number, arguments)).collect();
    let expected: String = calls.iter().map(|(name, _, _, result)| format!("{name} {result}\n")).collect();
    for &rung in rungs() {
        let place = Place::new(rung);
        assert_eq!(place.run(&with_perl(&place, &script)).ok(), expected, "{rung:?}");
    }
}

#[test]
fn a_step_has_what_a_container_has() {
    let script = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; ulimit -c; cat /proc/kcore | wc -c; \
                  cat /proc/keys | wc -c; ls /sys/firmware | wc -l; echo b 2>/dev/null > /proc/sysrq-trigger || echo ro; \
                  echo x 2>/dev/null > /proc/sys/kernel/hostname || echo ro; mkdir /sys/fs/cgroup/x 2>/dev/null || echo ro; \
                  cat < /dev/tty || echo no terminal; cat /proc/1/environ | wc -c; ls -l /proc/1/exe 2>&1 | grep -c denied";
    let caps = |bits: &str, bound: &str| {
        format!(
            "CapInh:\t{z}\nCapPrm:\t{bits}\nCapEff:\t{bits}\nCapBnd:\t{bound}\nCapAmb:\t{z}\nNoNewPrivs:\t0\nSeccomp:\t2\n",
            z = "0".repeat(16)
        )
    };
    let rest = "0\n0\n0\n0\nro\nro\nro\nno terminal\n0\n1\n";
    for &rung in rungs() {
        let place = Place::new(rung);
        let mut spec = place.spec(script);
        assert_eq!(place.run(&spec).ok(), caps(DOCKER, DOCKER) + rest, "{rung:?}");
        if rung.has_range() {
            place.clear();
            spec.user = "ann".to_owned();
            assert_eq!(place.run(&spec).ok(), caps(&"0".repeat(16), DOCKER) + rest, "{rung:?}");
        }
    }
}

#[test]
fn an_insecure_step_may_do_what_kiln_may() {
    let script = "mount -t tmpfs none /tmp && echo mounted; grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; \
                  grep -c ' /proc/[^ ]' /proc/self/mountinfo";
    for &rung in rungs() {
        let place = Place::new(rung);
        let mut spec = place.spec(script);
        spec.security = Security::Insecure;
        let mut users = vec![""];
        users.extend(rung.has_range().then_some("ann"));
        for user in users {
            spec.user = user.to_owned();
            let ran = place.run(&spec);
            let lines: Vec<&str> = ran.stdout.lines().collect();
            // Only root may mount by mount(8)'s own word; the capability is there all the same.
            let lines = lines.strip_prefix(&["mounted"]).unwrap_or(&lines);
            let bits = u64::from_str_radix(lines[0].trim_start_matches("CapEff:\t"), 16).unwrap();
            assert!(bits & 1 << 21 != 0, "CAP_SYS_ADMIN: {ran:?}");
            let outside = std::fs::read_to_string("/proc/self/status").unwrap();
            assert!(outside.contains(lines[1]), "no filter of kiln's: {ran:?}");
            assert_eq!(lines[2], "0", "nothing is covered: {ran:?}");
            place.clear();
        }
    }
}

#[test]
fn the_callers_keyring_is_out_of_reach() {
    let number = libc::SYS_keyctl;
    // The serial number of the session keyring.
    let ask = format!("print syscall({number}, 0, -3, 0)");
    for &rung in rungs() {
        let place = Place::new(rung);
        let outside = rung.command("perl").args(["-e", &ask]).output().unwrap().stdout;
        if outside == b"-1" {
            skip("the session keyring: a filter forbids keyctl here");
            continue;
        }
        let mut spec = with_perl(&place, &format!("perl -e '{ask}'"));
        spec.security = Security::Insecure;
        let ran = place.run(&spec);
        let inside = ran.ok();
        assert_ne!(inside, String::from_utf8(outside).unwrap(), "{rung:?}");
        assert!(inside.parse::<i64>().unwrap() > 0, "{rung:?}: {inside}");
    }
}

#[test]
fn no_new_way_to_the_callers_terminal() {
    // script(1) gives kiln a terminal; the step, which has none of its own, inherits it as its standard input.
    let script = Command::new("script").arg("--version").output();
    if !script.is_ok_and(|output| output.status.success()) {
        return skip("a terminal to inherit: script(1) is missing");
    }
    const TIOCSTI: u32 = 0x5412;
    const TIOCSCTTY: u32 = 0x540e;
    for &rung in rungs() {
        let place = Place::new(rung);
        let push = format!(
            "perl -e 'for (0..2) {{ open($f, \"<&=\", $_); print ioctl($f, {TIOCSCTTY}, my $n = 0) ? \"taken\" : \"kept\", \" \"; \
             my $x = \"x\"; print ioctl($f, {TIOCSTI}, $x) ? \"pushed\" : \"refused\", \" \" }}'"
        );
        let mut spec = with_perl(&place, &push);
        spec.stdin = true;
        let spec = place.write("spec.json", &spec);
        let inner = format!("{} interactive {spec}", place.program().display());
        let output = rung.command("script").args(["-qec", &inner, "/dev/null"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("kept refused kept refused kept refused"), "{rung:?}: {text}");
    }
}
