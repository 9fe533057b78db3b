//! kiln in `podman run`, rootless and as root.

use std::fs;
use std::process::Command;

use super::{BUILD, builds_in, here};
use crate::place::{Place, Ran};
use crate::user::{User, skip, users};

/// podman with all its files in a place, and an image of the place's busybox.
struct Podman<'a> {
    place: &'a Place,
}

impl<'a> Podman<'a> {
    fn new(place: &'a Place) -> Self {
        place.directory("run");
        let this = Self { place };
        let packed = place.as_user("tar", "store", &["-C", "context", "-cf", "image.tar", "bin"]).output();
        assert!(packed.is_ok_and(|packed| packed.status.success()), "tar");
        Ran::of(this.command().args(["import", "image.tar", "base:1"])).ok();
        this
    }

    /// `runc`, as `crun` wants control groups of the second version.
    fn command(&self) -> Command {
        let (root, run) = (self.place.text("containers"), self.place.text("run"));
        let args =
            ["--root", &root, "--runroot", &run, "--runtime", "/usr/sbin/runc", "--storage-driver=vfs"];
        let mut command = self.place.as_user("podman", "store", &args);
        command.arg("--cgroup-manager=cgroupfs").env("XDG_RUNTIME_DIR", &run);
        command
    }

    /// Limits within those of whoever runs the tests: raising one may be forbidden.
    fn run(&self, options: &[&str]) -> Command {
        let mut command = self.command();
        let volume = format!("{}:/here", here(self.place));
        command.args([
            "run",
            "--rm",
            "--network=none",
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1000:1000",
        ]);
        command.args(["-v", &volume]).args(options).arg("base:1");
        command
    }
}

impl Drop for Podman<'_> {
    /// Without root, podman leaves a process that keeps its namespaces.
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.place.path("run/libpod/tmp/pause.pid")).unwrap_or_default();
        if let Some(pid) = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        // What it unpacked belongs to its users.
        let mut remove = self.place.as_user("podman", "store", &["unshare", "rm", "-rf", "containers"]);
        let _ = remove.env("XDG_RUNTIME_DIR", self.place.text("run")).output();
    }
}

#[test]
fn in_podman() {
    if kiln_testkit::tools::tool("podman").is_none() || kiln_testkit::tools::tool("runc").is_none() {
        return;
    }
    for user in [User::Root, User::Sub] {
        if !users().contains(&user) {
            skip(&format!("podman run as {}", user.name()));
            continue;
        }
        let place = Place::new(user);
        place.dockerfile(BUILD);
        let podman = Podman::new(&place);
        builds_in(&place, "/here", "/here/store", &|| podman.run(&[]));
    }
}
