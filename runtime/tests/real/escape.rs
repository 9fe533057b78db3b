//! A hostile image and a hostile step try to read and to change a piece of the host: a table of what they do. Nothing may
//! come through, whatever else becomes of the step.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kiln_core::{ExitStatus, MountSpecKind, Rootfs, RunSpec};
use kiln_runtime::RunError;

use crate::isolation::{call, with_perl};
use crate::support::{Place, Ran, Rung, bind, mount, rungs};

/// What nobody in a step may learn.
const CANARY: &str = "the canary sings";

/// A directory of the host's, which the user who runs kiln may read and write.
struct Host {
    path: PathBuf,
    before: String,
}

impl Host {
    fn new(place: &Place) -> Self {
        let path = place.dir_at("host");
        place.dir_at("host/empty");
        place.dir_at("host/dir");
        place.dir_at("host/dir/empty");
        place.file_at("host/canary", CANARY);
        place.file_at("host/blank", "");
        place.file_at("host/program", "#!/bin/sh\n");
        let before = listing(&path);
        Self { path, before }
    }

    fn is_untouched(&self, what: &str, ran: &Ran) {
        assert_eq!(listing(&self.path), self.before, "{what}: the host was changed: {ran:?}");
        let learnt = ran.stdout.contains(CANARY) || ran.stderr.contains(CANARY);
        assert!(
            !learnt && !format!("{:?}", ran.result).contains(CANARY),
            "{what}: the host was read: {ran:?}"
        );
    }
}

/// All that can be seen of a tree, but for times of access.
fn listing(dir: &Path) -> String {
    let mut out = String::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let m = fs::symlink_metadata(&path).unwrap();
        let text = if m.is_file() { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        let time = (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
        writeln!(
            out,
            "{} {:o} {}:{} {} {time:?} {text}",
            path.display(),
            m.mode(),
            m.uid(),
            m.gid(),
            m.nlink()
        )
        .unwrap();
        if m.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    out
}

/// One attempt.
struct Attempt {
    name: &'static str,
    /// Makes the image and what is asked of kiln hostile.
    prepare: fn(&Place, &Path, &mut RunSpec),
    /// What the step does; `$H` is the host's directory.
    script: &'static str,
    /// What the step must have printed if it ran at all.
    prints: &'static str,
}

fn nothing(_: &Place, _: &Path, _: &mut RunSpec) {}

/// Makes `name` in the image a link.
fn link(place: &Place, name: &str, target: impl AsRef<Path>) {
    let path = place.path("root").join(name.trim_start_matches('/'));
    if path.is_dir() && !path.is_symlink() {
        fs::remove_dir_all(&path).unwrap();
    } else {
        // There may be nothing.
        let _ = fs::remove_file(&path);
    }
    symlink(target, path).unwrap();
}

fn tmpfs(target: &str) -> kiln_core::MountSpec {
    mount(target, MountSpecKind::Tmpfs { size: None })
}

const UPWARDS: &str = "../../../../../../../../../..";

const ATTEMPTS: &[Attempt] = &[
    Attempt {
        name: "a mount point below an absolute link",
        prepare: |place, host, spec| {
            link(place, "/link", host);
            spec.mounts = vec![tmpfs("/link/empty"), tmpfs("/link/new/deep")];
        },
        script: "echo x > /link/empty/f && echo x > /link/new/deep/f && echo x > $H/own; cat $H/canary; echo end",
        prints: "end\n",
    },
    Attempt {
        name: "a mount point below a link that goes up",
        prepare: |place, host, spec| {
            link(place, "/link", format!("{UPWARDS}{}", host.display()));
            spec.mounts = vec![
                tmpfs("/link/empty"),
                tmpfs("/link/dir/new"),
                bind("/link/blank", &place.file_at("own", "own"), false),
            ];
        },
        script: "echo x > /link/empty/f; echo x >> /link/blank; cat /link/canary; echo end",
        prints: "end\n",
    },
    Attempt {
        name: "a mount point that goes up by itself",
        prepare: |_, host, spec| {
            spec.mounts = vec![
                tmpfs(&format!("/{UPWARDS}{}/empty", host.display())),
                tmpfs(&format!("/bin/{UPWARDS}{}/new", host.display())),
            ];
        },
        script: "echo x > $H/empty/f; echo x > $H/new/f; cat $H/canary; echo end",
        prints: "end\n",
    },
    Attempt {
        name: "a mount point that is a link to a file",
        prepare: |place, host, spec| {
            link(place, "/file", host.join("blank"));
            let content = "inside".to_owned();
            spec.mounts = vec![mount("/file", MountSpecKind::File { content, mode: 0o666 })];
        },
        script: "cat /file; chmod 777 $H/blank; echo x > $H/blank",
        prints: "inside",
    },
    Attempt {
        name: "/etc is a link",
        prepare: |place, host, _| link(place, "/etc", host),
        script: "echo x > /etc/hosts; echo x > /etc/new; cat /etc/canary; grep -c localhost /etc/hosts",
        prints: "2\n",
    },
    Attempt {
        name: "/etc/hosts and /etc/resolv.conf are links",
        prepare: |place, host, _| {
            link(place, "/etc/hosts", host.join("blank"));
            link(place, "/etc/resolv.conf", host.join("canary"));
        },
        script: "echo x > /etc/hosts; echo x > $H/blank; cat /etc/resolv.conf $H/canary; echo end",
        prints: "",
    },
    Attempt {
        name: "/dev, /proc and /sys are links",
        prepare: |place, host, _| {
            link(place, "/dev", host);
            link(place, "/proc", host.join("dir"));
            link(place, "/sys", host.join("empty"));
        },
        script: "echo x > /dev/new; cat /dev/canary; test -e /dev/null && test -e /proc/self/status && echo end",
        prints: "end\n",
    },
    Attempt {
        name: "/dev is a link into /proc",
        prepare: |place, _, _| link(place, "/dev", "/proc/1/root"),
        script: "cat $H/canary /dev$H/canary; ls /dev$H",
        prints: "",
    },
    Attempt {
        name: "the working directory is a link",
        prepare: |place, host, spec| {
            link(place, "/work", host);
            spec.cwd = "/work/new/deep".to_owned();
        },
        script: "echo x > f; cat ../../canary; cat /work/canary; echo end",
        prints: "end\n",
    },
    Attempt {
        name: "the working directory goes up",
        prepare: |_, host, spec| spec.cwd = format!("/{UPWARDS}{}/made", host.display()),
        script: "echo x > f; cat ../canary; echo end",
        prints: "end\n",
    },
    Attempt {
        name: "the place of the stub becomes a link while the step runs",
        prepare: |place, host, spec| {
            // Directories that only the step's layer has, with the names of the host's in them.
            link(place, "/link", "/fresh");
            spec.mounts = vec![tmpfs("/link/empty"), tmpfs("/link/dir/empty")];
            assert!(host.join("dir/empty").is_dir());
        },
        // What is mounted cannot be renamed, but what it is in can.
        script: "mv /fresh /gone && ln -s $H /fresh && readlink /fresh | wc -l",
        prints: "1\n",
    },
    Attempt {
        name: "other roots in /proc",
        prepare: nothing,
        script: "for p in /proc/[0-9]*; do for d in root cwd root/../../../.. fd/3 fd/4 fd/5; do cat $p/$d$H/canary; \
                 echo x > $p/$d$H/new; done; cat $p/environ $p/maps > /dev/null; done 2>/dev/null; \
                 cat /proc/1/environ /proc/1/mem 2>/dev/null | wc -c",
        prints: "0\n",
    },
    Attempt {
        name: "descriptors of others in /proc",
        prepare: nothing,
        script: "for f in /proc/1/fd/* /proc/1/map_files/* /proc/1/exe /proc/1/cwd /proc/1/root; do readlink $f; cat $f; done \
                 2>/dev/null | wc -c",
        prints: "0\n",
    },
    Attempt {
        name: "settings of the machine's",
        prepare: nothing,
        script: "for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sysrq-trigger /proc/sys/vm/drop_caches \
                 /proc/irq/default_smp_affinity /proc/1/oom_score_adj /sys/kernel/uevent_helper /sys/power/state \
                 /sys/kernel/mm/ksm/run /sys/module/overlay/parameters/redirect_dir /sys/fs/cgroup/release_agent \
                 /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/cgroup.procs; do \
                 test -e $f && (echo 1 > $f) 2>/dev/null && echo wrote $f; done; \
                 mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x 2>/dev/null && echo made; echo end",
        prints: "end\n",
    },
    Attempt {
        name: "device nodes",
        prepare: |place, _, spec| {
            spec.mounts = vec![bind("/cache", &place.dir_at("cache"), false), tmpfs("/t")]
        },
        script: "for d in / /cache /t /dev /dev/shm /tmp; do for n in 'b 254 0' 'b 8 0' 'b 253 0' 'c 1 1' 'c 1 11' 'c 10 229'; do \
                 mknod -m 666 $d/node $n && { dd if=$d/node bs=1 count=1 | wc -c | grep 1 && echo read $d $n; \
                 (echo > $d/node) && echo wrote $d $n; rm $d/node; }; done; done 2>/dev/null; \
                 ls /dev/mem /dev/kmsg /dev/kmem /dev/vda /dev/sda /dev/fuse /dev/net /dev/kvm /dev/loop0 2>/dev/null; echo end",
        prints: "end\n",
    },
    Attempt {
        name: "hard links out of mounts",
        prepare: |place, host, spec| {
            spec.mounts = vec![bind("/ro", host, true), bind("/cache", &place.dir_at("cache"), false)];
        },
        script: "ln /ro/program /own && echo linked; ln /ro/program /cache/own && echo linked; \
                 chmod 777 /ro/program && echo changed; echo x > /ro/program && echo written; \
                 touch /ro/new && echo made; chown 1:1 /ro/program && echo given; echo end",
        // Read it may: it was given that.
        prints: "end\n",
    },
    Attempt {
        name: "signals to others",
        prepare: nothing,
        script: "trap '' TERM; kill -9 1; kill -STOP 1; kill -TERM -1; kill -9 -1; echo end",
        prints: "end\n",
    },
];

fn attempt(rung: Rung, on_tree: bool, attempt: &Attempt) {
    let place = Place::new(rung);
    let host = Host::new(&place);
    let script = format!("H={}; {}", host.path.display(), attempt.script);
    let mut spec = if on_tree { place.spec_on_tree(&script) } else { place.spec(&script) };
    (attempt.prepare)(&place, &host.path, &mut spec);
    let ran = place.run(&spec);
    let what = format!("{} as {rung:?}, on {}", attempt.name, if on_tree { "a tree" } else { "overlay" });
    host.is_untouched(&what, &ran);
    match &ran.result {
        Ok(_) => assert!(ran.stdout.ends_with(attempt.prints), "{what}: {ran:?}"),
        // Refused before the step ran.
        Err(RunError::Init(_)) => assert_eq!(ran.stdout, "", "{what}"),
        Err(other) => panic!("{what}: {other}"),
    }
}

#[test]
fn nothing_gets_through() {
    for &rung in rungs() {
        for one in ATTEMPTS {
            attempt(rung, false, one);
            attempt(rung, true, one);
        }
    }
}

/// Puts something into an image; the path is the host's.
type Lay = fn(&Place, &Path);

#[test]
fn users_are_looked_up_in_files_that_end() {
    // The image's /etc/passwd is whatever its maker wants; the step must come to an end, and not by filling the memory.
    let passwds: &[(&str, Lay)] = &[
        ("the host's file", |place, host| link(place, "/etc/passwd", host.join("canary"))),
        ("a fifo", |place, _| {
            fs::remove_file(place.path("root/etc/passwd")).unwrap();
            assert!(Command::new("mkfifo").arg(place.path("root/etc/passwd")).status().unwrap().success());
        }),
        ("zeros", |place, _| link(place, "/etc/passwd", "/dev/zero")),
        ("the step's own output", |place, _| link(place, "/etc/passwd", "/proc/self/fd/1")),
        ("a terminal", |place, _| link(place, "/etc/passwd", "/dev/tty")),
        ("what the kernel says", |place, _| link(place, "/etc/passwd", "/proc/kmsg")),
        ("itself", |place, _| link(place, "/etc/passwd", "passwd")),
        ("a directory", |place, _| link(place, "/etc/passwd", "/bin")),
        ("a hole", |place, _| {
            let file = fs::File::create(place.path("root/etc/passwd")).unwrap();
            file.set_len(1 << 40).unwrap();
        }),
    ];
    for &rung in rungs() {
        for (what, make) in passwds {
            let place = Place::new(rung);
            let host = Host::new(&place);
            make(&place, &host.path);
            let mut spec = place.spec("echo ran");
            let ran = place.run(&spec);
            assert_eq!((ran.ok(), *what), ("ran\n", *what));
            place.clear();
            spec.user = "ann".to_owned();
            let ran = place.run(&spec);
            assert!(matches!(ran.result, Err(RunError::User(_))), "{what}: {ran:?}");
            host.is_untouched(what, &ran);
        }
    }
}

#[test]
fn descriptors_of_the_callers_lead_nowhere() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let host = Host::new(&place);
        let h = host.path.display();
        // Through the step's own, and as the working directory, where runc had one left open (CVE-2024-21626).
        let script = format!(
            "for n in $(seq 0 20); do for f in /proc/self/fd/$n /dev/fd/$n; do cat $f/canary; ls $f/; cat $f/../host/canary; \
             echo x > $f/new; done; done 2>/dev/null | grep -e canary -e program; cat {h}/canary; echo end"
        );
        let mut specs = vec![place.spec(&script)];
        for number in 3..12 {
            for cwd in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/dir")] {
                let mut spec = place.spec(&script);
                spec.cwd = cwd;
                specs.push(spec);
            }
        }
        for spec in specs {
            let cwd = spec.cwd.clone();
            let spec = place.write("spec.json", &spec);
            let inner = format!(
                "cd {h}; exec 3<{h} 4<{h}/canary 5<>{h}/blank 6<{h}/dir 7</ 8</proc 9</etc; exec {} run {spec}",
                place.program().display()
            );
            let ran = Ran::of(
                rung,
                rung.command("bash").args(["-c", &inner]).stdin(Stdio::null()).output().unwrap(),
            );
            host.is_untouched(&format!("{cwd} as {rung:?}"), &ran);
            match &ran.result {
                Ok(_) => assert_eq!(ran.stdout, "end\n", "{cwd}: {ran:?}"),
                Err(error) => assert!(matches!(error, RunError::Init(_)), "{cwd}: {ran:?}"),
            }
            place.clear();
        }
    }
}

#[test]
fn kilns_own_program_cannot_be_changed() {
    // CVE-2019-5736: a step whose program is kiln's own, and which keeps it open.
    for &rung in rungs() {
        let place = Place::new(rung);
        let program = place.program();
        // Other tests give it other names meanwhile.
        let about = || {
            let m = fs::metadata(&program).unwrap();
            (m.mode(), m.uid(), m.gid(), m.len(), m.mtime(), m.mtime_nsec())
        };
        let before = about();
        let mut spec = with_perl(&place, "");
        // `keep` executes the shell with its own program open as the descriptor OWN.
        let script = "chmod 4777 /proc/self/fd/$OWN && echo changed mode; touch /proc/self/fd/$OWN && echo changed time; \
                      chown 1:1 /proc/self/fd/$OWN && echo changed owner; echo x >> /proc/self/fd/$OWN && echo changed; \
                      (setsid sh -c 'while ! echo x >> /proc/self/fd/$OWN; do :; done' &) 2>/dev/null; echo end";
        spec.args = ["/proc/self/exe", "keep", "/bin/sh", "-c", script].map(str::to_owned).to_vec();
        for name in ["lib", "lib64"] {
            // The example is no static program.
            assert!(place.path("root").join(name).is_symlink());
        }
        let ran = place.run(&spec);
        assert_eq!((ran.ok(), rung), ("end\n", rung), "{ran:?}");
        assert_eq!(about(), before, "{rung:?}: {ran:?}");
    }
}

#[test]
fn calls_that_reach_for_the_machine_are_refused() {
    let none = [
        ("init_module", libc::SYS_init_module),
        ("finit_module", libc::SYS_finit_module),
        ("delete_module", libc::SYS_delete_module),
        ("clock_settime", libc::SYS_clock_settime),
        ("settimeofday", libc::SYS_settimeofday),
        ("swapon", libc::SYS_swapon),
        ("swapoff", libc::SYS_swapoff),
        ("acct", libc::SYS_acct),
        ("pivot_root", libc::SYS_pivot_root),
        ("quotactl", libc::SYS_quotactl),
        ("setdomainname", libc::SYS_setdomainname),
        ("open_tree", libc::SYS_open_tree),
        ("move_mount", libc::SYS_move_mount),
        ("fsopen", libc::SYS_fsopen),
        ("fsmount", libc::SYS_fsmount),
        ("fspick", libc::SYS_fspick),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("kexec_file_load", libc::SYS_kexec_file_load),
        ("fanotify_init", libc::SYS_fanotify_init),
        ("syslog", libc::SYS_syslog),
        ("vhangup", libc::SYS_vhangup),
        ("iopl", libc::SYS_iopl),
        ("ioperm", libc::SYS_ioperm),
        ("personality", libc::SYS_personality),
        ("kcmp", libc::SYS_kcmp),
        ("process_madvise", libc::SYS_process_madvise),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("io_uring_enter", libc::SYS_io_uring_enter),
        ("io_uring_register", libc::SYS_io_uring_register),
    ];
    let mut script: String = none
        .iter()
        .map(|(name, number)| {
            let arguments = match *name {
                "personality" => ", 0x0400000",
                "syslog" => ", 2, 0, 0",
                "process_madvise" | "pidfd_getfd" | "kcmp" => ", 1, 1, 0, 0, 0",
                _ => ", my $a = \"x\", my $b = \"y\", 0, 0, 0",
            };
            call(name, *number, arguments)
        })
        .collect();
    // Into init: attach, read its memory, take a descriptor of its.
    let init = [
        ("ptrace", libc::SYS_ptrace, ", 16, 1, 0, 0"),
        ("seize", libc::SYS_ptrace, ", 0x4206, 1, 0, 0"),
        ("process_vm_readv", libc::SYS_process_vm_readv, ", 1, 0, 0, 0, 0, 0"),
    ];
    script.extend(init.iter().map(|(name, number, arguments)| call(name, *number, arguments)));
    for &rung in rungs() {
        let place = Place::new(rung);
        let ran = place.run(&with_perl(&place, &script));
        for line in ran.ok().lines() {
            let (name, result) = line.split_once(' ').unwrap();
            // An empty read of somebody's memory is allowed to succeed.
            let fine = result == "1" || result == "38" || name == "process_vm_readv";
            assert!(fine, "{rung:?}: {line}");
        }
        assert_eq!(ran.stdout.lines().count(), none.len() + init.len(), "{ran:?}");
    }
}

#[test]
fn marks_of_overlays_are_no_way_to_other_files() {
    // A step writes what overlay would read as "this directory is really that one"; a later one looks.
    let marks = "user.overlay.redirect user.overlay.metacopy user.overlay.opaque user.overlay.whiteout user.overlay.origin \
                 trusted.overlay.redirect trusted.overlay.opaque trusted.overlay.metacopy \
                 user.overlay.overlay.redirect user.overlay.overlay.opaque";
    for &rung in rungs() {
        let place = Place::new(rung);
        let host = Host::new(&place);
        for name in ["root/secret", "root/dir"] {
            place.dir_at(name);
        }
        place.file_at("root/secret/file", "of another directory");
        place.file_at("root/dir/old", "old");
        let set = format!(
            "mkdir /new; for n in {marks}; do for v in /secret {h} {UPWARDS}{h} y; do for f in /new /dir /dir/old; do \
             perl -e 'my ($f, $n, $v) = @ARGV; syscall({number}, $f, $n, $v, length $v, 0)' $f $n $v; done; done; done; \
             cat /new/file /dir/file /new/canary /dir/canary 2>/dev/null; cat /dir/old",
            h = host.path.display(),
            number = libc::SYS_setxattr,
        );
        let ran = place.run(&with_perl(&place, &set));
        assert_eq!((ran.ok(), rung), ("old", rung));
        // What is now the upper directory is a layer of the next step's.
        fs::rename(place.path("upper"), place.path("layer")).unwrap();
        // As if the marks had come by themselves: no layer that kiln makes has them, but if one had.
        let forged = place.dir_at("layer/forged");
        for (name, value) in [("user.overlay.redirect", "/secret"), ("user.overlay.metacopy", "y")] {
            rustix::fs::setxattr(&forged, name, value.as_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
        }
        let _ = fs::remove_dir_all(place.path("work"));
        for name in ["upper", "work"] {
            place.dir_at(name);
        }
        let mut spec =
            place.spec("cat /new/file /dir/file /forged/file /new/canary /dir/canary 2>/dev/null; cat /dir/old; ls /forged 2>/dev/null; true");
        let lower = vec![place.path("root"), place.path("layer")];
        spec.rootfs = Rootfs::Overlay { lower, upper: place.path("upper"), work: place.path("work") };
        let ran = place.run(&spec);
        assert_eq!((ran.ok(), rung), ("old", rung));
        host.is_untouched("marks of overlay's", &ran);
    }
}

#[test]
fn a_cache_that_changes_while_it_is_mounted_leads_nowhere() {
    const ROUNDS: usize = 40;
    for &rung in rungs() {
        let place = Place::new(rung);
        let host = Host::new(&place);
        let h = host.path.display();
        let cache = place.dir_at("cache");
        place.dir_at("cache/a");
        for name in ["upper-other", "work-other"] {
            place.dir_at(name);
        }
        // One step keeps exchanging a directory and a link to the host's, until it is told to stop.
        let mut other = place.spec(&format!(
            "cd /c; echo begun; while ! test -e /c/stop; do mv a b; ln -s {h} a; rm a; mv b a; done 2>/dev/null"
        ));
        other.mounts = vec![bind("/c", &cache, false)];
        let lower = vec![place.path("root")];
        let (upper, work) = (place.path("upper-other"), place.path("work-other"));
        other.rootfs = Rootfs::Overlay { lower, upper, work };
        let other = place.write("other.json", &other);
        let mut child =
            place.runner(&["run", &other]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut begun = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut begun).unwrap();
        // Meanwhile others have something mounted below it.
        let mut ran = 0;
        for round in 0..ROUNDS {
            let mut spec = place.spec(&format!(
                "echo x > /c/a/empty/f; echo x > /c/a/dir/f; cat /c/a/canary; cat {h}/canary; echo end"
            ));
            spec.mounts = vec![bind("/c", &cache, false), tmpfs("/c/a/empty"), tmpfs("/c/a/dir/empty")];
            let result = place.run(&spec);
            host.is_untouched(&format!("round {round} as {rung:?}"), &result);
            match &result.result {
                Ok(ExitStatus::Code(0)) => ran += 1,
                Err(RunError::Init(_)) => {}
                other => panic!("{rung:?}: {other:?}"),
            }
            place.clear();
        }
        place.file_at("cache/stop", "");
        assert!(child.wait().unwrap().success());
        assert!(ran > 0, "{rung:?}: not once was it mounted");
    }
}
