//! podman, and buildah on the same storage.

use std::fs;
use std::process::{Child, Command, Stdio};

use crate::place::{Place, Ran};

/// podman of the place's user.
pub(crate) struct Podman<'a> {
    place: &'a Place,
}

/// podman answering as docker would, on a socket.
pub(crate) struct Service {
    child: Child,
    /// `DOCKER_HOST`.
    pub(crate) host: String,
}

impl<'a> Podman<'a> {
    pub(crate) fn new(place: &'a Place) -> Self {
        place.directory("run");
        Self { place }
    }

    /// The same with an image `base:1` of the place's busybox.
    pub(crate) fn with_base(place: &'a Place) -> Self {
        let this = Self::new(place);
        let packed = place.as_user("tar", "store", &["-C", "context", "-cf", "image.tar", "bin"]).output();
        assert!(packed.is_ok_and(|packed| packed.status.success()), "tar");
        Ran::of(this.command().args(["import", "image.tar", "base:1"])).ok();
        this
    }

    /// `runc`, as `crun` wants control groups of the second version.
    pub(crate) fn command(&self) -> Command {
        let mut command = self.program("podman");
        command.args(["--runtime", "/usr/sbin/runc", "--cgroup-manager=cgroupfs"]);
        command
    }

    pub(crate) fn buildah(&self) -> Command {
        self.program("buildah")
    }

    fn program(&self, name: &str) -> Command {
        let (root, run) = (self.place.text("containers"), self.place.text("run"));
        let args = ["--root", &root, "--runroot", &run, "--storage-driver=vfs"];
        let mut command = self.place.as_user(name, "store", &args);
        command.env("XDG_RUNTIME_DIR", &run);
        command
    }

    /// `podman ARGS`, which must do it.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        Ran::of(self.command().args(args)).ok().out().trim().to_owned()
    }

    /// `podman run`, with limits within those of whoever runs the tests: raising one may be forbidden.
    pub(crate) fn start(&self, options: &[&str]) -> Command {
        let mut command = self.command();
        command.args(["run", "--rm", "--network=none", "--ulimit=nofile=1024:1024"]);
        command.arg("--ulimit=nproc=1000:1000").args(options);
        command
    }

    /// What an image prints. Read from the log: podman that runs attached was seen to lose all of a short one's output.
    #[track_caller]
    pub(crate) fn output(&self, image: &str) -> String {
        let mut command = self.start(&["--rm=false", "--name=printing", "--log-driver=k8s-file", image]);
        Ran::of(&mut command).ok();
        let out = Ran::of(self.command().args(["logs", "printing"])).ok().out();
        self.ok(&["rm", "printing"]);
        out
    }

    /// The same with this place as /here, in the base image.
    pub(crate) fn run(&self, options: &[&str]) -> Command {
        let mut command = self.start(&["-v", &format!("{}:/here", self.place.here())]);
        command.args(options).arg("base:1");
        command
    }

    /// Starts the service, and waits until it answers.
    pub(crate) fn service(&self) -> Service {
        let socket = self.place.text("run/podman.sock");
        let host = format!("unix://{socket}");
        let mut command = self.command();
        command.args(["system", "service", "--time=0", &host]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("podman starts");
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            assert!(child.try_wait().is_ok_and(|ended| ended.is_none()), "podman system service ended");
            std::thread::yield_now();
        }
        Service { child, host }
    }
}

impl Drop for Service {
    /// Without root it is two processes, and the first passes on to the second what it can, if it lives that long. Both have the
    /// socket of this very test in their arguments.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let own = |pid: &i32| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.split(|byte| *byte == 0).any(|argument| argument == self.host.as_bytes())
        };
        let processes = fs::read_dir("/proc").expect("/proc").flatten();
        let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        for pid in ids.filter(own).filter_map(rustix::process::Pid::from_raw).collect::<Vec<_>>() {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            // It is nobody's child any more; it is gone when its directory is.
            while fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))
                .is_ok_and(|line| !line.is_empty())
            {
                std::thread::yield_now();
            }
        }
    }
}

impl Drop for Podman<'_> {
    /// Without root, podman leaves a process that keeps its namespaces.
    fn drop(&mut self) {
        // What it unpacked belongs to its users.
        let mut remove = self.place.as_user("podman", "store", &["unshare", "rm", "-rf", "containers"]);
        let _ = remove.env("XDG_RUNTIME_DIR", self.place.text("run")).output();
        // Last, as each command of podman's makes another.
        let pid = fs::read_to_string(self.place.path("run/libpod/tmp/pause.pid")).unwrap_or_default();
        if let Some(pid) = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
