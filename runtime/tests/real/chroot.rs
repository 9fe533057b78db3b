//! Steps without namespaces, as root with what docker leaves a container's root by default.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output, Stdio};

use kiln_core::{
    DirectoryOrder, ExitStatus, Limit, MOVED_JOURNAL, Machine, MountSpecKind, Moved, NetworkMode, RunSpec,
    Secret, Security,
};
use kiln_runtime::RunError;

use crate::hazards::{init_of, processes, witness};
use crate::support::{Place, Ran, Rung, bind, mount, skip};

const CAPABILITIES: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,\
                            +net_raw,+sys_chroot,+mknod,+audit_write,+setfcap";

fn place() -> Option<Place> {
    if !rustix::process::geteuid().is_root() {
        skip("a chroot: the tests do not run as root");
        return None;
    }
    Some(Place::new(Rung::Root))
}

fn runner(place: &Place, command: &str, spec: &RunSpec) -> Command {
    let spec = place.write("spec.json", spec);
    let mut runner = Command::new("setpriv");
    runner
        .args(["--bounding-set", CAPABILITIES, "--inh-caps=-all"])
        .arg(place.program())
        .args([command, &spec]);
    runner.env("KILN_TEST_CHROOT", "1").stdin(Stdio::null());
    runner
}

fn run_as(place: &Place, command: &str, spec: &RunSpec) -> Ran {
    Ran::of(Rung::Root, output(&mut runner(place, command, spec)))
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// What the journal says, in its order.
fn moved(place: &Place) -> Vec<Moved> {
    let text = fs::read_to_string(place.path(MOVED_JOURNAL)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_programs_need_is_there() {
    let Some(place) = place() else { return };
    let script = "echo gone > /dev/null; head -c 3 /dev/zero | wc -c; test -s /proc/meminfo && test -s /proc/cpuinfo && \
                  grep -q localhost /etc/hosts && cat /proc/mounts; test ! -e /proc/self/status && echo by name > /dev/stdout; \
                  echo failed by name > /dev/stderr; test -d /sys && echo mine > /dev/shm/f; umask; pwd; id -u";
    let ran = run_as(&place, "run", &place.spec_on_tree(script));
    let mut lines: Vec<_> = ran.ok().lines().collect();
    // What goes through a pipe of its own may come later than what does not.
    lines.sort_unstable();
    assert_eq!(lines, ["/", "0", "0022", "3", "by name", "rootfs / rootfs rw 0 0"], "{ran:?}");
    assert!(ran.stderr.contains("failed by name"), "{ran:?}");
}

#[test]
fn users_limits_and_capabilities_are_those_of_other_steps() {
    let Some(place) = place() else { return };
    let script = "id -u; id -G; ulimit -n; ulimit -c; hostname";
    let mut spec = place.spec_on_tree(script);
    spec.user = "ann".to_owned();
    let nofile = Limit { name: "nofile".to_owned(), soft: Some(123), hard: Some(123) };
    spec.machine = Machine { limits: vec![nofile], ..Machine::default() };
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(run_as(&place, "run", &spec).ok(), format!("1000\n1001 77\n123\n0\n{name}"));
    // The machine's name is not the step's to change, nor kiln's.
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), name);
}

#[test]
fn what_is_mounted_elsewhere_is_moved_and_written_down() {
    let Some(place) = place() else { return };
    let cache = place.dir_at("cache");
    place.file_at("cache/kept", "kept");
    let inode = fs::metadata(&cache).unwrap().ino();
    let mut spec = place.spec_on_tree(
        "cat /c/d/kept /again/kept; echo new > /c/d/new; stat -c %a:%u:%g /run/s; cat /run/s; stat -c %a /t; cat /f",
    );
    let own = place.file_at("own", "somebody's own\n");
    spec.mounts = vec![
        bind("/own", &own, true),
        bind("/c/d", &cache, false),
        bind("/again", &cache, false),
        mount("/t", MountSpecKind::Tmpfs { size: None }),
        mount("/f", MountSpecKind::File { content: "file\n".to_owned(), mode: 0o644 }),
        mount(
            "/run/s",
            MountSpecKind::Secret {
                content: Secret::new(b"secret\n".to_vec()).unwrap(),
                mode: 0o400,
                uid: 3,
                gid: 4,
            },
        ),
    ];
    assert_eq!(run_as(&place, "run", &spec).ok(), "keptkept400:3:4\nsecret\n1777\nfile\n");
    assert_eq!(fs::read_to_string(&own).unwrap(), "somebody's own\n");
    // It is for the store to move it back: kiln-store has the tests of that.
    assert!(!cache.exists() && fs::metadata(place.path("root/c/d")).unwrap().ino() == inode);
    assert_eq!(fs::read_to_string(place.path("root/c/d/new")).unwrap(), "new\n");
    let moved = moved(&place);
    assert_eq!(moved[0], Moved::Root { path: place.path("root").canonicalize().unwrap() });
    let puts = moved.iter().filter_map(|line| match line {
        Moved::Put { source, target, .. } if *source == cache => Some(target.to_str().unwrap()),
        _ => None,
    });
    assert_eq!(puts.collect::<Vec<_>>(), ["c/d"]);
    assert!(moved.contains(&Moved::Place { path: "c".into() }), "{moved:?}");
    // What the step saw of the directories around was the image's.
    assert_eq!(fs::metadata(place.path("root/etc")).unwrap().mtime(), 1_000_000_000);
}

#[test]
fn a_link_in_the_image_leads_nowhere() {
    let Some(place) = place() else { return };
    let outside = place.dir_at("outside");
    std::os::unix::fs::symlink(&outside, place.path("root/c")).unwrap();
    let cache = place.dir_at("cache");
    let mut spec = place.spec_on_tree("echo in > /c/d/f");
    spec.mounts = vec![bind("/c/d", &cache, false)];
    run_as(&place, "run", &spec).ok();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn nothing_of_a_step_outlives_it() {
    let Some(place) = place() else { return };
    let mark = format!("5{}", std::process::id());
    let script = format!(
        "(setsid nohup sleep {mark} > /dev/null 2>&1 &); (trap '' TERM HUP; sleep {mark} &); \
         (sh -c '(setsid sleep {mark} &) &' &); echo done"
    );
    assert_eq!(run_as(&place, "run", &place.spec_on_tree(&script)).ok(), "done\n");
    assert_eq!(processes(&format!("sleep\0{mark}\0")), Vec::<String>::new());
}

#[test]
fn one_that_is_always_another_process_is_caught() {
    let Some(place) = place() else { return };
    let mark = format!("hop{}", std::process::id());
    // Each starts the next one and ends: in one process group, and each in a session of its own. There are never more than
    // a few, for the machine's sake.
    place.file_at("root/hop", &format!("#!/bin/sh\n: {mark}\nsetsid /bin/sh /hop {mark} &\n"));
    let script = format!(
        "(hop() {{ : {mark}; hop & }}; hop); /bin/sh /hop {mark} & n=0; while test $n -lt 20000; do n=$((n+1)); done; echo done"
    );
    assert_eq!(run_as(&place, "run", &place.spec_on_tree(&script)).ok(), "done\n");
    assert_eq!(processes(&mark), Vec::<String>::new());
}

#[test]
fn cancelled_it_ends_with_all_that_it_started() {
    let Some(place) = place() else { return };
    let mark = format!("6{}", std::process::id());
    let script = format!("trap '' TERM INT; (setsid sleep {mark} &); echo started; sleep {mark}");
    let ran = run_as(&place, "cancel", &place.spec_on_tree(&script));
    assert_eq!(ran.result, Err(RunError::Cancelled));
    assert_eq!(processes(&format!("sleep\0{mark}\0")), Vec::<String>::new());
}

#[test]
fn killed_kiln_takes_the_step_along() {
    let Some(place) = place() else { return };
    let mark = format!("7{}", std::process::id());
    let script = format!("trap '' TERM HUP; echo started; (setsid sleep {mark} &); sleep 1{mark}");
    let mut child = runner(&place, "run", &place.spec_on_tree(&script))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut String::new()).unwrap();
    let witnesses = [witness(&mark), witness(&format!("1{mark}"))];
    child.kill().unwrap();
    child.wait().unwrap();
    for witness in &witnesses {
        let gone = rustix::event::PollFd::new(witness, rustix::event::PollFlags::IN);
        rustix::event::poll(&mut [gone], None).unwrap();
    }
    // Its journal is free when all are gone: whoever moves things back has waited for that.
    let journal = fs::File::open(place.path(MOVED_JOURNAL)).unwrap();
    rustix::fs::flock(&journal, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(processes(&format!("sleep\0{mark}\0")), Vec::<String>::new());
}

#[test]
fn an_init_that_was_killed_leaves_nothing() {
    let Some(place) = place() else { return };
    let mark = format!("8{}", std::process::id());
    let script = format!("(setsid sleep {mark} &); echo started; sleep {mark}");
    let mut child = runner(&place, "run", &place.spec_on_tree(&script))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    lines.read_line(&mut String::new()).unwrap();
    rustix::process::kill_process(init_of(child.id()), rustix::process::Signal::KILL).unwrap();
    let ran = Ran::of(Rung::Root, child.wait_with_output().unwrap());
    assert_eq!(ran.result, Err(RunError::InitDied));
    assert_eq!(processes(&format!("sleep\0{mark}\0")), Vec::<String>::new());
}

#[test]
fn nothing_of_the_callers_leaks() {
    let Some(place) = place() else { return };
    let secret = place.file_at("secret", "open and inheritable");
    // Without a /proc, a shell tells which descriptors are open by duplicating them.
    let script =
        "for n in 3 4 5 6 7 8 9; do (eval \"exec 1>&$n\") 2> /dev/null && echo $n; done; env | grep -c LEAK";
    let spec = place.write("spec.json", &place.spec_on_tree(script));
    let inner = format!("exec 7<{}; LEAK=1 exec {} run {spec}", secret.display(), place.program().display());
    let mut command = Command::new("sh");
    let ran = Ran::of(Rung::Root, output(command.env("KILN_TEST_CHROOT", "1").args(["-c", &inner])));
    assert_eq!((ran.stdout.as_str(), &ran.result), ("0\n", &Ok(ExitStatus::Code(1))), "{ran:?}");
}

#[test]
fn what_needs_namespaces_is_refused() {
    let Some(place) = place() else { return };
    let base = place.spec_on_tree("true");
    let cases = [
        (RunSpec { network: NetworkMode::None, ..base.clone() }, "--network=none"),
        (RunSpec { security: Security::Insecure, ..base.clone() }, "--security=insecure"),
        (RunSpec { read_only: true, ..base.clone() }, "a read-only root file system"),
        (place.spec("true"), "a merged root file system"),
    ];
    for (spec, what) in cases {
        let refused = RunError::NeedsNamespaces { what: what.to_owned() };
        assert_eq!(run_as(&place, "run", &spec).result, Err(refused));
    }
}

/// With docker's default capabilities there is no filter, so that nobody could be asked; with all of root's there is one.
#[test]
fn another_order_of_directories_takes_the_right_to_filter() {
    // What a step leaves in its place is the store's to take out.
    let listed = |order: Option<DirectoryOrder>| -> Option<Vec<String>> {
        let place = place()?;
        for number in 0..20 {
            place.file_at(&format!("root/home/{number}"), "");
        }
        let spec = RunSpec { directory_order: order, ..place.spec_on_tree("find /home") };
        if order.is_some() {
            let refused = run_as(&place, "run", &spec);
            let says = |error: &RunError| error.to_string().contains("CAP_SYS_ADMIN");
            assert!(refused.result.as_ref().is_err_and(says), "{refused:?}");
        }
        let spec = place.write("spec.json", &spec);
        let ran = Ran::of(Rung::Root, output(place.runner(&["run", &spec]).env("KILN_TEST_CHROOT", "1")));
        Some(ran.ok().lines().skip(1).map(str::to_owned).collect())
    };
    let (Some(plain), Some(mut reversed)) = (listed(None), listed(Some(DirectoryOrder::Reversed))) else {
        return;
    };
    assert_eq!(plain.len(), 20);
    reversed.reverse();
    assert_eq!(plain, reversed);
}
