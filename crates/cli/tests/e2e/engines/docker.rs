//! dockerd.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::place::{Place, Ran};
use crate::user::{User, skip};

/// A daemon of a test's own, with an image `base:1` of the place's busybox. It ends with the test.
pub(crate) struct Docker<'a> {
    place: &'a Place,
    daemon: Child,
}

impl<'a> Docker<'a> {
    /// None, with a word why, where dockerd cannot run.
    pub(crate) fn start(place: &'a Place) -> Option<Self> {
        if place.user != User::Root {
            skip("docker run: dockerd needs root");
            return None;
        }
        for program in ["dockerd", "runc"] {
            kiln_testkit::tools::tool(program)?;
        }
        // What it mounts is in a mount namespace of its own, and goes with it; it ends when the test does.
        let mut command = Command::new("setpriv");
        command.args([
            "--pdeathsig",
            "TERM",
            "unshare",
            "--mount",
            "dockerd",
            "--bridge=none",
            "--iptables=false",
        ]);
        command.args(["--ip6tables=false", "-H", &address(place), "--data-root", &place.text("docker/data")]);
        command.args(["--exec-root", &place.text("docker/exec"), "--pidfile", &place.text("docker/pid")]);
        command.env("HOME", place.path("home")).stdout(Stdio::null()).stderr(Stdio::piped());
        fs::create_dir(place.path("docker")).expect("a directory");
        let mut daemon = command.spawn().expect("setpriv starts");
        let mut log = BufReader::new(daemon.stderr.take().expect("it is piped")).lines();
        let ready = log.by_ref().map_while(Result::ok).any(|line| line.contains("API listen on"));
        // Its pipe must not run full.
        std::thread::spawn(move || log.map_while(Result::ok).for_each(drop));
        let this = Self { place, daemon };
        assert!(ready, "dockerd ended");
        let mut pack = place.as_user("tar", "store", &["-C", "context", "-c", "bin"]);
        let mut pack = pack.stdout(Stdio::piped()).spawn().expect("tar");
        let image = pack.stdout.take().expect("it is piped");
        Ran::of(this.command().args(["import", "-", "base:1"]).stdin(image)).ok();
        assert!(pack.wait().is_ok_and(|status| status.success()), "tar");
        Some(this)
    }

    /// Its client.
    pub(crate) fn command(&self) -> Command {
        // Another docker may be found first, and that one may be too new for this daemon.
        let client =
            if fs::exists("/usr/bin/docker").unwrap_or(false) { "/usr/bin/docker" } else { "docker" };
        let mut command = Command::new(client);
        command.args(["-H", &address(self.place)]).env("HOME", self.place.path("home"));
        command
    }

    /// `docker ARGS`, which must do it.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        Ran::of(self.command().args(args)).ok().out().trim().to_owned()
    }

    /// Where it is reached: `DOCKER_HOST`.
    pub(crate) fn host(&self) -> String {
        address(self.place)
    }

    /// `docker run` with this place as /here.
    pub(crate) fn run(&self, options: &[&str]) -> Command {
        let mut command = self.command();
        let volume = format!("{}:/here", self.place.here());
        command
            .args(["run", "--rm", "--network=none", "-v", &volume, "-w", "/here"])
            .args(options)
            .arg("base:1");
        command.stdin(Stdio::null());
        command
    }
}

fn address(place: &Place) -> String {
    format!("unix://{}", place.text("docker/socket"))
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.daemon), Signal::TERM);
        let _ = self.daemon.wait();
    }
}
