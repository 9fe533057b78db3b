//! Against directories that look like control groups; the real ones are tried in tests/real and end to end.

use tempfile::TempDir;

use super::*;

fn write(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn mount(dir: &TempDir, kind: &str, options: &str) -> String {
    format!("30 25 0:27 / {} rw,nosuid - {kind} cgroup rw,{options}\n", dir.path().display())
}

fn v2(files: &[(&str, &str)]) -> (TempDir, Result<Groups, String>) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), files);
    let found = Groups::among("0::/user/app/scope\n", &mount(&dir, "cgroup2", "nsdelegate"));
    (dir, found)
}

#[test]
fn the_nearest_group_that_hands_controllers_down_is_taken() {
    let (dir, found) = v2(&[
        ("cgroup.subtree_control", "cpu memory pids"),
        ("user/cgroup.subtree_control", "cpu io memory pids\n"),
        ("user/cgroup.procs", ""),
        ("user/app/cgroup.subtree_control", "\n"),
        ("user/app/memory.max", "max\n"),
        ("user/app/cpu.max", "max 100000\n"),
        ("user/app/scope/cgroup.subtree_control", "\n"),
    ]);
    assert_eq!(found, Ok(Groups::V2 { base: dir.path().join("user"), cpu: true }));
}

#[test]
fn a_limit_on_the_way_is_not_escaped() {
    let (_dir, found) = v2(&[
        ("user/cgroup.subtree_control", "memory pids\n"),
        ("user/cgroup.procs", ""),
        ("user/app/scope/memory.max", "1073741824\n"),
    ]);
    assert!(found.unwrap_err().ends_with("user/app/scope/memory.max has a limit of its own"));
}

#[test]
fn without_controllers_there_are_none() {
    let (_dir, found) = v2(&[("user/cgroup.subtree_control", "pids\n")]);
    assert_eq!(found, Err("no control group here has the memory and pids controllers".to_owned()));
    assert_eq!(Groups::among("0::/\n", ""), Err("no control groups are mounted".to_owned()));
}

#[test]
fn version_one_has_a_directory_for_each() {
    let dirs = ["memory", "pids", "cpu,cpuacct"].map(|name| (name, tempfile::tempdir().unwrap()));
    let mut mounts = String::new();
    for (name, dir) in &dirs {
        write(dir.path(), &[("own/cgroup.procs", "")]);
        mounts.push_str(&mount(dir, "cgroup", name));
    }
    let own = "4:memory:/own\n3:pids:/own\n2:cpu,cpuacct:/own\n0::/\n";
    let [memory, pids, cpu] = dirs.each_ref().map(|(_, dir)| dir.path().join("own"));
    assert_eq!(Groups::among(own, &mounts), Ok(Groups::V1 { memory, pids, cpu }));
}

#[test]
fn what_the_kernel_counted_is_read() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        &[
            ("g/memory.events", "low 0\noom 2\noom_kill 1\noom_group_kill 0\n"),
            ("g/pids.events", "max 0\n"),
            ("g/memory.peak", "1048576\n"),
            ("g/cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\n"),
        ],
    );
    let group = Group { dirs: vec![dir.path().join("g")], v2: true, cpu: true };
    assert!(group.ran_out_of_memory() && !group.ran_out_of_processes());
    let mut usage = StepUsage::default();
    group.improve(&mut usage);
    assert_eq!((usage.peak_rss_kib, usage.user_us, usage.system_us), (1024, 3, 2));
}
