use std::fs;

use super::*;

/// The way for kernels before 6.7, which nobody would walk here otherwise. Mounting needs root; as another user the
/// same code runs inside a user namespace, which a test with threads cannot enter.
#[test]
#[expect(clippy::print_stderr, reason = "a skip is told to whoever runs the tests")]
fn one_option_string_mounts_the_same() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: mounting needs root");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "under CI nothing may be skipped");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let make = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let (low, high) = (make("low"), make("hi:gh,\\"));
    fs::write(low.join("same"), "low").unwrap();
    fs::write(high.join("same"), "high").unwrap();
    fs::write(low.join("low"), "").unwrap();
    let (upper, work) = (make("upper"), make("work"));
    let mounted = std::thread::scope(|scope| {
        let alone = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            make_all_private().unwrap();
            let names = Names::of(&[low.clone(), high.clone()], Some((&upper, &work))).unwrap();
            overlay_by_options(&names, NODEV).unwrap()
        };
        scope.spawn(alone).join().unwrap()
    });
    let file = |name, flags| openat(&mounted, name, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644));
    let mut text = String::new();
    fs::File::from(file("same", OFlags::RDONLY).unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "high");
    file("made", OFlags::CREATE | OFlags::WRONLY).unwrap();
    rustix::fs::unlinkat(&mounted, "low", rustix::fs::AtFlags::empty()).unwrap();
    let mut names: Vec<_> = fs::read_dir(&upper).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["low", "made"]);
    let seen = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!seen.contains(dir.path().to_str().unwrap()), "{seen}");
}

#[test]
fn what_the_kernel_said_is_kept() {
    let missing = overlay(&["/nowhere/at/all".into()], None, NODEV).unwrap_err();
    let raw = missing.raw_os_error().or_else(|| {
        missing
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Said>())
            .and_then(|said| said.error.raw_os_error())
    });
    // Not root: the kernel does not even look.
    assert!(matches!(raw, Some(libc::ENOENT | libc::EPERM)), "{missing:?}");
}
