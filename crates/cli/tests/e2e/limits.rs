//! What keeps a step from taking the machine: by control groups where kiln may make them, as root mostly, else by its watchdog.

use crate::place::{Place, Ran};
use crate::user::for_each_user;

#[test]
fn memory_is_limited() {
    for_each_user(|user| {
        // It ends by being killed only.
        let place = Place::with(user, "RUN dd if=/dev/zero of=/dev/null bs=256M 2>&1\n");
        place.build(&["--memory=64m"]).code(1).says(&["it used more than --memory 64m"]);
        // By a child of the step's process, which says so by its status.
        place.base("RUN (dd if=/dev/zero of=/dev/null bs=256M; exit 9) & wait $!\n");
        place.build(&["-m", "64m", "--memory-swap=64m"]).code(1).says(&["it used more than --memory 64m"]);
        place.is_quiet();
        place.base("RUN dd if=/dev/zero of=/file bs=1M count=40\n");
        place.build(&["--memory=64m"]).ok();
        // They say how much a step may take, not what it makes.
        assert_eq!(place.build(&[]).ok().count("CACHED"), 2);
        place.build(&["--memory=1m"]).code(2).says(&["--memory 1m: the least is 6m"]);
    });
}

#[test]
fn memory_that_processes_share_counts_once() {
    for_each_user(|user| {
        // Each of ten has a copy of the shell's 24 MB, to which nobody has written since the fork.
        let place = Place::with(
            user,
            "RUN x=$(dd if=/dev/zero bs=1M count=24 | tr '\\0' x); for i in $(seq 10); do (sleep 0.2; true) & done; wait; \
             echo ${#x}\n",
        );
        place.build(&["--memory=160m"]).ok().prints(&["25165824"]);
    });
}

#[test]
fn processes_are_limited() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN for i in $(seq 200); do sleep 1000 & done; wait\n");
        place.build(&["--pids-limit=50"]).code(1).says(&["more processes than --pids-limit 50"]);
        place.base("RUN for i in $(seq 20); do true & done; wait\n");
        place.build(&["--pids-limit=50"]).ok();
        // The control group's fork bomb goes on at its limit, until its time is over.
        place.base("RUN b() { b | b & }; b; while :; do :; done\n");
        let ran = place.build(&["--pids-limit=50", "--step-timeout=3s"]).code(1);
        assert!(ran.stderr.contains("--pids-limit 50") || ran.stderr.contains("--step-timeout 3s"), "{ran}");
        place.is_quiet();
        place.fsck();
    });
}

#[test]
fn time_is_limited() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN trap '' TERM; setsid sleep 1000 & sleep 1000; true\n");
        let ran = place.build(&["--step-timeout=300ms"]).code(1);
        ran.says(&["it took longer than --step-timeout 300ms", "signal 9"]);
        place.is_quiet();
        assert_eq!(place.half_made(), Vec::<String>::new());
        place.base("RUN true\n");
        place.build(&["--step-timeout=1h", "-t", "a"]).ok();
        place.build(&["--step-timeout=10"]).code(2).says(&["--step-timeout 10: write a duration"]);
        let ran = place.kiln(&["run", "--step-timeout=300ms", "a", "sleep", "1000"]);
        assert_eq!(ran.code, Some(137), "{ran}");
    });
}

#[test]
fn processors_are_limited() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN nproc; grep Cpus_allowed_list /proc/self/status\n");
        place.build(&["--cpuset-cpus=0"]).ok().prints(&["1", "Cpus_allowed_list:\t0"]);
        place.build(&["--cpuset-cpus=1000", "--no-cache"]).code(3).says(&["set the limit the processors"]);
        place.base("RUN true\n");
        for flags in [&["--cpus=0.5"][..], &["--cpu-quota=50000", "--cpu-period=100000"]] {
            place.build(&[flags, &["--no-cache"]].concat()).ok();
        }
    });
}

#[test]
fn what_limits_are_kept_by_is_told() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN true\n");
        let doctor = place.kiln(&["doctor"]).ok().out();
        let ran = place.build(&["--memory=64m"]).ok();
        let watched = doctor.contains("watchdog");
        assert_eq!(ran.stderr.contains("limits are kept by watching processes"), watched, "{ran}\n{doctor}");
        assert!(watched || doctor.contains("control groups"), "{doctor}");
        // One line for the whole build, and none without limits.
        place.build(&["--no-cache"]).ok().lacks(&["limits are kept"]);
    });
}

#[test]
fn what_a_step_used_is_in_the_events() {
    for_each_user(|user| {
        let place = Place::with(user, "RUN dd if=/dev/zero of=/file bs=1M count=8\n");
        let ran = Ran::of(&mut place.command(&["build", "--progress=json", "context"])).ok();
        let usage = |line: &str| {
            let event: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
            event.get("usage").cloned()
        };
        let usages: Vec<serde_json::Value> = ran.stderr.lines().filter_map(usage).collect();
        let [usage] = &usages[..] else { panic!("{ran}") };
        let number = |name: &str| usage[name].as_u64().unwrap_or_else(|| panic!("no {name} in {ran}"));
        assert!(number("read_bytes") >= 8 << 20 && number("written_bytes") >= 8 << 20, "{ran}");
        assert!(number("written_bytes") < 9 << 20, "kiln's own is not the step's: {ran}");
        assert!(number("wall_us") > 0 && number("peak_rss_kib") >= 1024, "{ran}");
        assert!(number("disk_written_bytes") + number("disk_read_bytes") < u64::MAX, "{ran}");
    });
}
