//! Floods, kills and crowds.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use kiln_core::{ExitStatus, Rootfs};
use kiln_runtime::RunError;

use crate::support::{Place, bind, rungs};

/// Processes of this machine whose command line has `mark` in it.
pub(crate) fn processes(mark: &str) -> Vec<String> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let line = String::from_utf8_lossy(&fs::read(path.join("cmdline")).ok()?).into_owned();
            line.contains(mark).then_some(line)
        })
        .collect()
}

#[test]
fn flood_is_not_lost() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let script = "dd if=/dev/zero bs=1M count=100 2>/dev/null & dd if=/dev/zero bs=1M count=20 >&2 2>/dev/null; wait";
        let spec = place.write("spec.json", &place.spec(script));
        let mut child =
            place.runner(&["run", &spec]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let errors = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            err.read_to_end(&mut bytes).map(|_| bytes.iter().filter(|&&byte| byte == 0).count()).unwrap()
        });
        assert_eq!(std::io::copy(&mut out, &mut std::io::sink()).unwrap(), 100 << 20, "{rung:?}");
        assert_eq!(errors.join().unwrap(), 20 << 20, "{rung:?}");
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn orphans_are_reaped_and_killed() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let mark = format!("2{}", std::process::id());
        // An orphan that ends is reaped: no zombie is left. One that does not end, and holds the pipe, is killed.
        let script = format!(
            "(sh -c 'echo $$ > /pid' &); until test -s /pid; do :; done; n=0; \
             while test -e /proc/$(cat /pid); do n=$((n+1)); test $n -gt 100000 && echo zombie && break; done; \
             (setsid nohup sleep {mark} &); (trap '' TERM HUP; sleep {mark} &); echo done"
        );
        assert_eq!(place.run(&place.spec(&script)).ok(), "done\n", "{rung:?}");
        assert_eq!(processes(&format!("sleep\0{mark}\0")), Vec::<String>::new(), "{rung:?}");
    }
}

#[test]
fn cancel_ends_everything() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let mark = format!("3{}", std::process::id());
        let cache = place.dir_at("cache");
        let mut spec = place.spec(&format!("trap '' TERM INT; sleep {mark} & echo started; sleep {mark}"));
        spec.mounts = vec![bind("/cache", &cache, false)];
        let ran = place.run_as("cancel", &spec);
        assert_eq!(ran.result, Err(RunError::Cancelled), "{rung:?}");
        assert_eq!(processes(&format!("sleep\0{mark}\0")), Vec::<String>::new());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(place.path("").to_str().unwrap()), "{mounts}");
    }
}

#[test]
fn killed_kiln_takes_the_step_along() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let mark = format!("4{}", std::process::id());
        let spec = place.write(
            "spec.json",
            &place.spec(&format!("trap '' TERM HUP; echo started; sleep {mark}; echo late")),
        );
        let mut child =
            place.runner(&["run", &spec]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, "started\n");
        let witness = witness(&mark);
        child.kill().unwrap();
        child.wait().unwrap();
        // Readable when the process is gone; the test hangs if it never goes.
        rustix::event::poll(&mut [rustix::event::PollFd::new(&witness, rustix::event::PollFlags::IN)], None)
            .unwrap();
        assert_eq!(processes(&format!("sleep\0{mark}\0")), Vec::<String>::new(), "{rung:?}");
    }
}

/// A descriptor for the step's sleeping process.
pub(crate) fn witness(mark: &str) -> std::os::fd::OwnedFd {
    loop {
        for entry in fs::read_dir("/proc").unwrap() {
            let path = entry.unwrap().path();
            let is_it = fs::read(path.join("cmdline"))
                .is_ok_and(|line| line == format!("sleep\0{mark}\0").as_bytes());
            if let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse().ok()).filter(|_| is_it)
            {
                let pid = rustix::process::Pid::from_raw(pid).unwrap();
                return rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
            }
        }
    }
}

/// setpriv executes the runner, so that the child is kiln; below it there is the nursery, and below that, init.
pub(crate) fn init_of(kiln: u32) -> rustix::process::Pid {
    child_of(child_of(kiln).as_raw_pid().cast_unsigned())
}

fn child_of(pid: u32) -> rustix::process::Pid {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    rustix::process::Pid::from_raw(children.trim().parse().unwrap()).unwrap()
}

#[test]
fn init_killed_from_outside_is_an_error() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let spec = place.write("spec.json", &place.spec("echo started; sleep 1000"));
        let mut child =
            place.runner(&["run", &spec]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        lines.read_line(&mut String::new()).unwrap();
        let init = init_of(child.id());
        rustix::process::kill_process(init, rustix::process::Signal::KILL).unwrap();
        let ran = crate::support::Ran::of(rung, child.wait_with_output().unwrap());
        assert_eq!(ran.result, Err(RunError::InitDied), "{rung:?}");
    }
}

#[test]
fn signals_are_passed_on() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let spec = place.write(
            "spec.json",
            &place.spec("trap 'echo got; exit 5' TERM; echo started; while :; do sleep 1; done"),
        );
        let mut child =
            place.runner(&["run", &spec]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        lines.read_line(&mut String::new()).unwrap();
        let init = init_of(child.id());
        rustix::process::kill_process(init, rustix::process::Signal::TERM).unwrap();
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        let ran = crate::support::Ran::of(rung, child.wait_with_output().unwrap());
        assert_eq!((rest.as_str(), ran.result), ("got\n", Ok(ExitStatus::Code(5))), "{rung:?}");
    }
}

#[test]
fn twenty_at_once() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let specs: Vec<String> = (0..20)
            .map(|number| {
                let mut spec = place.spec(&format!("echo {number} > /own; cat /own; ps | wc -l"));
                spec.rootfs = Rootfs::Overlay {
                    lower: vec![place.path("root")],
                    upper: place.dir_at(&format!("upper{number}")),
                    work: place.dir_at(&format!("work{number}")),
                };
                place.write(&format!("spec{number}.json"), &spec)
            })
            .collect();
        let mut args = vec!["parallel"];
        args.extend(specs.iter().map(String::as_str));
        let output = place.runner(&args).output().unwrap();
        let results = String::from_utf8(output.stderr).unwrap();
        assert_eq!(results, "{\"Code\":0}\n".repeat(20), "{rung:?}");
        for number in 0..20 {
            let own = fs::read_to_string(place.path(&format!("upper{number}/own"))).unwrap();
            assert_eq!(own, format!("{number}\n"));
        }
    }
}

#[test]
fn nothing_of_the_callers_leaks() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let secret = place.file_at("secret", "open and inheritable");
        let spec = place.write("spec.json", &place.spec("ls /proc/self/fd | wc -l; env | grep -c LEAK"));
        let inner =
            format!("exec 7<{}; LEAK=1 exec {} run {spec}", secret.display(), place.program().display());
        let output = rung.command("sh").args(["-c", &inner]).output().unwrap();
        let ran = crate::support::Ran::of(rung, output);
        // Three, and the one that ls reads with.
        assert_eq!((ran.stdout.as_str(), &ran.result), ("4\n0\n", &Ok(ExitStatus::Code(1))), "{ran:?}");
    }
}

#[test]
fn more_layers_than_overlay_takes() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let mut lower = vec![place.path("root")];
        place.dir_at("layers");
        for number in 0..700 {
            let layer = place.dir_at(&format!("layers/{number}"));
            place.dir_at(&format!("layers/{number}/d"));
            place.file_at(&format!("layers/{number}/d/f{number}"), "");
            place.file_at(&format!("layers/{number}/last"), &number.to_string());
            lower.push(layer);
        }
        // A layer high up replaces what one far below has.
        let _ = fs::remove_dir_all(place.path("layers/650/d"));
        place.dir_at("layers/650/d");
        place.file_at("layers/650/d/f3", "new");
        let mut spec = place.spec(
            "ls /d | wc -l; cat /last /d/f3; echo; rm /d/f5 /d/f600; echo x > /d/f7; ls /d | wc -l; cat /d/f7",
        );
        spec.rootfs =
            Rootfs::Overlay { lower: lower.clone(), upper: place.path("upper"), work: place.path("work") };
        assert_eq!(place.run(&spec).ok(), "699\n699new\n697\nx\n", "{rung:?}");
        // What it removed stays removed for those who come after.
        fs::rename(place.path("upper"), place.path("layers/701")).unwrap();
        lower.push(place.path("layers/701"));
        let layers: Vec<&str> = lower.iter().map(|path| path.to_str().unwrap()).collect();
        let output = place.runner(&[&["view"], &layers[..]].concat()).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("last \"699\""), "{rung:?}: {output:?}");
        // Twice as many are refused with a reason, not by a wrong tree.
        place.dir_at("upper");
        let more = lower.iter().chain(&lower[1..]).cloned().collect();
        spec.rootfs = Rootfs::Overlay { lower: more, upper: place.path("upper"), work: place.path("work") };
        let error = place.run(&spec).result.unwrap_err().to_string();
        assert!(error.contains("too many"), "{error}");
    }
}

#[test]
fn a_killed_nursery_ends_its_steps() {
    for &rung in rungs() {
        let place = Place::new(rung);
        let mark = format!("5{}", std::process::id());
        let spec =
            place.write("spec.json", &place.spec(&format!("trap '' TERM; echo started; sleep {mark}")));
        let mut child =
            place.runner(&["run", &spec]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        lines.read_line(&mut String::new()).unwrap();
        rustix::process::kill_process(child_of(child.id()), rustix::process::Signal::KILL).unwrap();
        let ran = crate::support::Ran::of(rung, child.wait_with_output().unwrap());
        assert_eq!(ran.result, Err(RunError::InitDied), "{rung:?}");
        assert_eq!(processes(&format!("sleep\0{mark}\0")), Vec::<String>::new(), "{rung:?}");
    }
}

#[test]
fn what_a_step_does_to_its_output_and_its_family_is_its_own_affair() {
    // Script, what it prints, and its code.
    let cases = [
        ("exec >&- 2>&-; echo lost; exit 3", "", 3),
        ("(setsid sh -c '(sleep 1000 &) ; (setsid sleep 1000 &)' &); echo done", "done\n", 0),
        ("i=0; while [ $i -lt 400 ]; do sleep 1000 & i=$((i+1)); done; echo spawned", "spawned\n", 0),
        (
            "f() { if [ $1 -gt 0 ]; then f $(($1-1)) & f $(($1-1)) & wait; fi; }; f 7; echo grown",
            "grown\n",
            0,
        ),
        ("(while :; do :; done) & (while :; do sleep 0 & wait; done) & echo busy; kill -9 $$", "busy\n", -9),
        ("(sleep 0; kill -CONT $$) & echo up", "up\n", 0),
    ];
    for &rung in rungs() {
        for (script, prints, code) in cases {
            let place = Place::new(rung);
            let ran = place.run(&place.spec(script));
            let status = if code < 0 { ExitStatus::Signal(-code) } else { ExitStatus::Code(code) };
            assert_eq!(
                (ran.stdout.as_str(), &ran.result),
                (prints, &Ok(status)),
                "{rung:?}: {script}: {ran:?}"
            );
        }
    }
}
