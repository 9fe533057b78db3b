//! The example of docs/embedding.md, built by cargo beside this test and run as an ordinary user.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Output};

use kiln_testkit::tools::as_user;

/// A user id that has no entry anywhere.
const NOBODY_SPECIAL: u32 = 54_330;

struct Place {
    dir: tempfile::TempDir,
    root: bool,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        let this = Self { dir, root: rustix::process::geteuid().is_root() };
        let tests = std::env::current_exe().expect("this test");
        let built = tests.parent().expect("a directory").with_file_name("examples").join("embed");
        // Not fs::copy: a process forked meanwhile by the other test would hold the copy open for writing, and then it
        // cannot be executed.
        let copied = Command::new("cp").arg(&built).arg(this.dir.path().join("embed")).status().expect("cp");
        assert!(copied.success(), "`cargo test` builds the example, unless --test selects targets");
        fs::create_dir(this.dir.path().join("context")).expect("a directory");
        fs::copy("/bin/busybox", this.dir.path().join("context/busybox"))
            .expect("busybox-static is installed");
        for name in ["", "context", "context/busybox"] {
            this.give(&this.dir.path().join(name));
        }
        this
    }

    fn give(&self, path: &Path) {
        if self.root {
            chown(path, Some(NOBODY_SPECIAL), Some(NOBODY_SPECIAL)).expect("root may");
        }
    }

    fn embed(&self, dockerfile: &str) -> Output {
        self.embed_with(dockerfile, &[])
    }

    fn embed_with(&self, dockerfile: &str, more: &[&str]) -> Output {
        fs::write(self.dir.path().join("context/Dockerfile"), dockerfile).expect("writing");
        let mut command = if self.root {
            as_user((NOBODY_SPECIAL, NOBODY_SPECIAL), self.dir.path().join("embed"))
        } else {
            Command::new(self.dir.path().join("embed"))
        };
        command
            .current_dir(self.dir.path())
            .args(["context", "store"])
            .args(more)
            .output()
            .expect("it starts")
    }
}

const BASE: &str = "FROM scratch\nCOPY busybox /bin/sh\n";

#[test]
fn a_program_with_threads_gets_events_and_an_outcome() {
    let place = Place::new();
    let dockerfile = format!("{BASE}RUN --mount=type=cache,target=/c echo hello from the step\n");
    let first = place.embed(&dockerfile);
    let out = String::from_utf8_lossy(&first.stdout);
    assert!(first.status.success(), "{first:?}");
    for words in ["started", "says hello from the step", "cache /c", "built sha256:", " ran\n"] {
        assert!(out.contains(words), "no {words:?} in {out}");
    }
    let second = place.embed(&dockerfile);
    let out = String::from_utf8_lossy(&second.stdout);
    assert!(second.status.success() && out.contains(" was there") && !out.contains("says hello"), "{out}");
}

#[test]
fn a_failure_arrives_as_the_type_that_left() {
    let place = Place::new();
    let ran = place.embed(&format!("{BASE}RUN echo last words; exit 3\n"));
    let err = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    // The example prints this for Error::StepFailed only.
    assert!(err.contains("failed with exit code 3; it said:\nlast words"), "{err}");
}

#[test]
fn isolation_is_the_programs_to_choose() {
    let place = Place::new();
    let dockerfile = format!("{BASE}RUN test -e /proc/self/status && echo namespaces || echo chroot\n");
    let out = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let ran = place.embed_with(&dockerfile, &["namespaces"]);
    assert!(out(&ran).contains("says namespaces\n"), "{ran:?}");
    // An ordinary user may not: chroot(2) takes root.
    let ran = place.embed_with(&format!("{dockerfile}RUN true\n"), &["chroot"]);
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    assert!(String::from_utf8_lossy(&ran.stderr).contains("chroot"), "{ran:?}");
    if place.root {
        let store = place.dir.path().join("of-root");
        let mut command = Command::new(place.dir.path().join("embed"));
        let ran = command.current_dir(place.dir.path()).arg("context").arg(store).arg("chroot").output();
        let ran = ran.expect("it starts");
        assert!(out(&ran).contains("says chroot\n"), "{ran:?}");
    }
}
