//! kiln in `docker run`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{builds_in, here};
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
        command.args(["--ip6tables=false", "-H", &socket(place), "--data-root", &place.text("docker/data")]);
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

    fn command(&self) -> Command {
        // Another docker may be found first, and that one may be too new for this daemon.
        let client =
            if fs::exists("/usr/bin/docker").unwrap_or(false) { "/usr/bin/docker" } else { "docker" };
        let mut command = Command::new(client);
        command.args(["-H", &socket(self.place)]).env("HOME", self.place.path("home"));
        command
    }

    /// `docker run` with this place as /here.
    pub(crate) fn run(&self, options: &[&str]) -> Command {
        let mut command = self.command();
        let volume = format!("{}:/here", here(self.place));
        command
            .args(["run", "--rm", "--network=none", "-v", &volume, "-w", "/here"])
            .args(options)
            .arg("base:1");
        command.stdin(Stdio::null());
        command
    }
}

fn socket(place: &Place) -> String {
    format!("unix://{}", place.text("docker/socket"))
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.daemon), Signal::TERM);
        let _ = self.daemon.wait();
    }
}

#[test]
fn in_docker_without_its_filter() {
    let place = Place::new(User::Root);
    let Some(docker) = Docker::start(&place) else { return };
    builds_in(&place, "/here", "/here/store", &|| docker.run(&["--security-opt", "seccomp=unconfined"]));
    // A user of the container's.
    fs::create_dir(place.path("theirs")).expect("a directory");
    std::os::unix::fs::chown(place.path("theirs"), Some(1000), Some(1000)).expect("root may");
    let user = ["--security-opt", "seccomp=unconfined", "--user", "1000:1000"];
    builds_in(&place, "/here", "/here/theirs/store", &|| docker.run(&user));
    // It may mount, but not exchange its root.
    builds_in(&place, "/here", "/here/admin", &|| docker.run(&["--cap-add", "SYS_ADMIN"]));
    // The store on the container's own overlay, which kernel's overlay cannot lie on.
    let mut command = docker.run(&["--security-opt", "seccomp=unconfined"]);
    let ran = Ran::of(command.args(["/here/kiln", "build", "--root", "/store", "/here/context"])).ok();
    ran.says(&["no overlay here"]);
    doctor_says(
        docker.run(&["--security-opt", "seccomp=unconfined"]),
        &[("user ids", "mapped"), ("isolation", "namespaces"), ("file system", "copy")],
    );
}

/// docker's own filter, and what it leaves root: no namespaces, nothing can be mounted.
#[test]
fn in_docker_as_it_comes() {
    let place = Place::new(User::Root);
    let Some(docker) = Docker::start(&place) else { return };
    builds_in(&place, "/here", "/here/store", &|| docker.run(&[]));
    // The store in the container.
    let mut command = docker.run(&[]);
    let ran = Ran::of(command.args(["/here/kiln", "build", "--root", "/store", "/here/context"])).ok();
    ran.says(&["steps run in a chroot", "a seccomp filter is in force"]);
    doctor_says(
        docker.run(&[]),
        &[
            ("user ids", "root"),
            ("isolation", "chroot"),
            ("file system", "copy"),
            ("proc", "minimal"),
            ("network", "host"),
        ],
    );
    // An ordinary user of the container's has nothing to do it with, and is told what would help.
    fs::create_dir(place.path("theirs")).expect("a directory");
    std::os::unix::fs::chown(place.path("theirs"), Some(1000), Some(1000)).expect("root may");
    let mut command = docker.run(&["--user", "1000:1000"]);
    let ran = Ran::of(command.args(["/here/kiln", "build", "--root", "/here/theirs/store", "/here/context"]));
    ran.code(3).says(&["a seccomp filter is in force"]);
    // What comes out is what comes out everywhere.
    let here = place.build(&[]).ok().digest();
    let mut command = docker.run(&["-e", "SOURCE_DATE_EPOCH=1000000000"]);
    let there = Ran::of(command.args(["/here/kiln", "build", "--root", "/fresh", "/here/context"])).ok();
    assert_eq!(there.out().trim(), here);
}

#[track_caller]
fn doctor_says(mut command: Command, wanted: &[(&str, &str)]) {
    let ran = Ran::of(command.args(["/here/kiln", "--root", "/store", "doctor", "--json"])).ok();
    let rungs: serde_json::Value = serde_json::from_str(&ran.out()).expect("JSON");
    for (what, chosen) in wanted {
        let rung = rungs.as_array().expect("a list").iter().find(|rung| rung["what"] == **what);
        let found = rung.and_then(|rung| rung["chosen"].as_str()).unwrap_or_default();
        assert!(found.contains(chosen), "{what}: {found:?} is not {chosen:?}: {ran}");
    }
}

/// Images into docker and out of it; what it has is not sent again.
#[test]
fn images_go_into_docker_and_come_back() {
    let place = Place::new(User::Root);
    let Some(docker) = Docker::start(&place) else { return };
    place.base("RUN echo x > /file\nCMD [\"cat\", \"/file\"]\n");
    let host = socket(&place);
    let kiln = |args: &[&str]| Ran::of(place.command(args).env("DOCKER_HOST", &host));
    let mut build = place.build_command("store", &["-t", "demo:1", "--load", "--iidfile", "iid"]);
    Ran::of(build.env("DOCKER_HOST", &host)).ok();
    let inspect = |name: &str| {
        Ran::of(docker.command().args(["image", "inspect", "--format={{.Id}}", name]))
            .ok()
            .out()
            .trim()
            .to_owned()
    };
    assert_eq!(inspect("demo:1"), place.read("iid"));
    // It has the image: only a name is added.
    let mut build = place.build_command("store", &["-t", "demo:2", "--load"]);
    Ran::of(build.env("DOCKER_HOST", &host)).ok();
    assert_eq!(inspect("demo:2"), place.read("iid"));
    assert_eq!(Ran::of(docker.command().args(["run", "--rm", "--network=none", "demo:1"])).ok().out(), "x\n");
    // Out again, over the socket and through a pipe, with what kiln writes and docker writes.
    kiln(&["copy", "docker-daemon:demo:1", "back:1"]).ok();
    let saved = Ran::of(docker.command().args(["save", "demo:1", "demo:2", "base:1"])).ok().stdout;
    fs::write(place.path("saved.tar"), saved).expect("a file");
    let loaded = kiln(&["load", "-q", "-i", "saved.tar"]).ok().out();
    assert_eq!(loaded.lines().count(), 3, "{loaded}");
    for name in ["back:1", "demo:1", "demo:2"] {
        assert_eq!(place.kiln(&["run", "--rm", name]).ok().out(), "x\n", "{name}");
    }
    let built = place.build(&["-t", "piped:1", "-o", "type=docker"]).ok().stdout;
    fs::write(place.path("piped.tar"), built).expect("a file");
    let input = fs::File::open(place.path("piped.tar")).expect("a file");
    Ran::of(docker.command().arg("load").stdin(input)).ok();
    assert_eq!(inspect("piped:1"), place.read("iid"));
}
