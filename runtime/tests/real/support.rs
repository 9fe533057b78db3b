//! A busybox root, a spec to start from, and the runner as each kind of user.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use kiln_core::{ExitStatus, Machine, MountSpec, MountSpecKind, NetworkMode, Rootfs, RunSpec, Security};
use kiln_runtime::RunError;
use kiln_testkit::tools::as_user;
pub(crate) use kiln_testkit::tools::skip;
use tempfile::TempDir;

/// A user id that has no entry anywhere.
const NOBODY_SPECIAL: u32 = 54_329;

/// Made by useradd, which gives it subordinate ids.
const SUBORDINATE_USER: &str = "kiln-test-sub";

/// Who runs kiln.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rung {
    Root,
    Subordinate,
    Single,
    /// Whoever runs the tests, where that is not root.
    Caller,
}

/// The rungs that can be tried here. The others are named, and fail the run under CI.
pub(crate) fn rungs() -> &'static [Rung] {
    static RUNGS: OnceLock<Vec<Rung>> = OnceLock::new();
    RUNGS.get_or_init(|| {
        if !rustix::process::geteuid().is_root() {
            skip("root and other users: the tests do not run as root");
            return vec![Rung::Caller];
        }
        let mut rungs = vec![Rung::Root, Rung::Single];
        if make_subordinate_user() {
            rungs.push(Rung::Subordinate);
        } else {
            skip("a user with subordinate ids: useradd, newuidmap or /etc/subuid is missing");
        }
        rungs
    })
}

fn make_subordinate_user() -> bool {
    // Each test may be a process of its own, and two that make the same user are one too many: useradd(8) refuses it.
    let lock = fs::File::create(std::env::temp_dir().join(format!("{SUBORDINATE_USER}.lock"))).unwrap();
    lock.lock().unwrap();
    let run = |program: &str, args: &[&str]| {
        Command::new(program).args(args).output().is_ok_and(|o| o.status.success())
    };
    let known = run("id", &[SUBORDINATE_USER]) || run("useradd", &["--no-create-home", SUBORDINATE_USER]);
    let has_ids = |file| fs::read_to_string(file).unwrap_or_default().contains(SUBORDINATE_USER);
    if known && !has_ids("/etc/subuid") {
        let ids = ["--add-subuids", "700000-765535", "--add-subgids", "700000-765535", SUBORDINATE_USER];
        run("usermod", &ids);
    }
    known && has_ids("/etc/subuid") && has_ids("/etc/subgid") && Path::new("/usr/bin/newuidmap").exists()
}

impl Rung {
    pub(crate) fn ids(self) -> (u32, u32) {
        match self {
            Self::Root => (0, 0),
            Self::Single => (NOBODY_SPECIAL, NOBODY_SPECIAL),
            Self::Caller => (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            Self::Subordinate => {
                let id = |flag| {
                    let output = Command::new("id").args([flag, SUBORDINATE_USER]).output().unwrap();
                    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
                };
                (id("-u"), id("-g"))
            }
        }
    }

    /// Whether steps may have users other than root.
    pub(crate) fn has_range(self) -> bool {
        match self {
            Self::Root | Self::Subordinate => true,
            Self::Single => false,
            Self::Caller => {
                static IDS: OnceLock<String> = OnceLock::new();
                let ask = || {
                    let output = Place::new(self).runner(&["ids"]).output().unwrap();
                    String::from_utf8(output.stdout).unwrap()
                };
                !IDS.get_or_init(ask).contains("Single")
            }
        }
    }

    /// A command that this user runs.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Command {
        if matches!(self, Self::Root | Self::Caller) {
            return Command::new(program);
        }
        as_user(self.ids(), program)
    }
}

/// A place of a rung's own with a root file system.
pub(crate) struct Place {
    pub(crate) rung: Rung,
    dir: TempDir,
}

impl Place {
    pub(crate) fn new(rung: Rung) -> Self {
        let dir = TempDir::new().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let this = Self { rung, dir };
        this.own("");
        for name in ["root", "upper", "work"] {
            this.dir_at(name);
        }
        this.fill_root();
        this
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a directory that belongs to the rung's user.
    pub(crate) fn dir_at(&self, name: &str) -> PathBuf {
        fs::create_dir_all(self.path(name)).unwrap();
        self.own(name)
    }

    /// Makes a file that belongs to the rung's user.
    pub(crate) fn file_at(&self, name: &str, content: &str) -> PathBuf {
        fs::write(self.path(name), content).unwrap();
        self.own(name)
    }

    fn own(&self, name: &str) -> PathBuf {
        let (uid, gid) = self.rung.ids();
        chown(self.path(name), Some(uid), Some(gid)).unwrap();
        self.path(name)
    }

    fn fill_root(&self) {
        for name in ["root/bin", "root/etc", "root/tmp", "root/home"] {
            self.dir_at(name);
        }
        fs::copy("/bin/busybox", self.path("root/bin/busybox"))
            .expect("busybox-static is needed at /bin/busybox");
        let applets = [
            "sh", "true", "false", "ls", "cat", "id", "env", "sleep", "mount", "ps", "rm", "mkdir", "touch",
            "echo", "tty", "kill", "grep", "wc", "find", "stat", "hostname", "dd", "head", "ip", "pwd",
            "setsid", "nohup", "readlink", "seq", "stty", "umask", "chown", "chmod", "mknod", "ln", "sort",
            "cut", "mv",
        ];
        for applet in applets {
            symlink("busybox", self.path("root/bin").join(applet)).unwrap();
        }
        self.file_at("root/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001:Ann:/home:/bin/sh\n");
        self.file_at("root/etc/group", "root:x:0:\nann:x:1001:\nextra:x:77:ann\n");
        // Old times, so that a change shows.
        for name in ["root/etc", "root/home", "root/tmp", "root/bin", "root"] {
            let old = fs::File::open(self.path(name)).unwrap();
            old.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).unwrap();
        }
    }

    /// A step that runs a shell script as root.
    pub(crate) fn spec(&self, script: &str) -> RunSpec {
        RunSpec {
            rootfs: Rootfs::Overlay {
                lower: vec![self.path("root")],
                upper: self.path("upper"),
                work: self.path("work"),
            },
            link_owners: std::collections::BTreeMap::new(),
            mounts: Vec::new(),
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec![("PATH".to_owned(), "/bin".to_owned())],
            secret_env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            hostname: "step".to_owned(),
            directory_order: None,
            machine: Machine::default(),
            security: Security::Sandbox,
            emulator: None,
            network: NetworkMode::Host,
            resources: Default::default(),
            resolver: Default::default(),
            tty: false,
            stdin: false,
            read_only: false,
        }
    }

    /// The same over the root directory itself.
    pub(crate) fn spec_on_tree(&self, script: &str) -> RunSpec {
        RunSpec { rootfs: Rootfs::Tree { path: self.path("root") }, ..self.spec(script) }
    }

    /// The example, where every user can execute it.
    pub(crate) fn program(&self) -> PathBuf {
        let program = self.path("runner");
        if !program.exists() {
            let tests = std::env::current_exe().unwrap();
            let built = tests.parent().unwrap().with_file_name("examples").join("runner");
            // Not fs::copy: a process forked meanwhile by another test would hold the copy open for writing, and then it
            // cannot be executed.
            let copied = |option: &str| {
                Command::new("cp").arg(option).arg(&built).arg(&program).status().unwrap().success()
            };
            assert!(copied("--link") || copied("--force"), "{}: `cargo test` builds it", built.display());
        }
        program
    }

    pub(crate) fn runner(&self, args: &[&str]) -> Command {
        let mut command = self.rung.command(self.program());
        command.args(args).current_dir("/").stdin(std::process::Stdio::null());
        command
    }

    pub(crate) fn write(&self, name: &str, spec: &RunSpec) -> String {
        let path = self.path(name);
        fs::write(&path, serde_json::to_vec(spec).unwrap()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn run(&self, spec: &RunSpec) -> Ran {
        self.run_as("run", spec)
    }

    pub(crate) fn run_as(&self, command: &str, spec: &RunSpec) -> Ran {
        let spec = self.write("spec.json", spec);
        Ran::of(self.rung, self.runner(&[command, &spec]).output().unwrap())
    }

    /// What the step left, as sorted paths inside the upper directory.
    pub(crate) fn upper(&self) -> Vec<String> {
        let output =
            Command::new("find").arg(self.path("upper")).args(["-mindepth", "1", "-printf", "%P\n"]).output();
        let mut lines: Vec<String> =
            String::from_utf8(output.unwrap().stdout).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Empties what the step left, for another.
    pub(crate) fn clear(&self) {
        self.open_up();
        for name in ["upper", "work"] {
            fs::remove_dir_all(self.path(name)).unwrap();
            self.dir_at(name);
        }
    }
}

impl Place {
    /// Overlay's work directory has mode 000: only root, or kiln inside its namespace, can remove it.
    fn open_up(&self) {
        Command::new("chmod").arg("-R").arg("u+rwX").arg(self.path("work")).output().unwrap();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open_up();
    }
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) rung: Rung,
    pub(crate) stdout: String,
    /// Without the runner's last line.
    pub(crate) stderr: String,
    pub(crate) result: Result<ExitStatus, RunError>,
}

impl Ran {
    pub(crate) fn of(rung: Rung, output: Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let (before, last) = stderr.trim_end().rsplit_once('\n').unwrap_or(("", stderr.trim_end()));
        let (before, last) = match last.find("{\"").filter(|&at| at > 0) {
            Some(at) => (format!("{before}\n{}", &last[..at]), &last[at..]),
            None => (before.to_owned(), last),
        };
        let result = serde_json::from_str(last)
            .map(Ok)
            .or_else(|_| serde_json::from_str(last).map(Err))
            .unwrap_or_else(|_| panic!("{rung:?}: no result in {stderr:?}"));
        Self { rung, stdout: String::from_utf8_lossy(&output.stdout).into_owned(), stderr: before, result }
    }

    /// Asserts that it ended with code 0, and gives what it wrote.
    #[track_caller]
    pub(crate) fn ok(&self) -> &str {
        assert_eq!(self.result, Ok(ExitStatus::Code(0)), "{self:?}");
        &self.stdout
    }
}

/// The layers of a step's root.
pub(crate) fn lower_of(spec: &mut RunSpec) -> &mut Vec<PathBuf> {
    match &mut spec.rootfs {
        Rootfs::Overlay { lower, .. } => lower,
        Rootfs::Tree { path } => panic!("{} is one tree", path.display()),
    }
}

/// One of the step's mounts.
pub(crate) fn mount(target: &str, kind: MountSpecKind) -> MountSpec {
    MountSpec { target: target.to_owned(), kind }
}

pub(crate) fn bind(target: &str, source: &Path, read_only: bool) -> MountSpec {
    mount(target, MountSpecKind::Bind { source: source.to_owned(), read_only })
}
