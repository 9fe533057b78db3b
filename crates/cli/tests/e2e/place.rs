//! A temporary directory of a user's own, with kiln, a store and a build context; and what a run of kiln gave.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kiln_testkit::image::TestImage;
use tempfile::TempDir;

use crate::user::User;

/// How every Dockerfile here begins: busybox and its names, one layer.
pub(crate) const BASE: &str = "FROM scratch\nCOPY bin /bin\n";

const APPLETS: &str = "sh cat md5sum chmod chown cp date echo env false find flock grep head hostname id ln ls mkdir mkfifo mount mv \
                       nproc printf ps pwd readlink rm rmdir seq setsid sleep sort stat sync tail tar test touch tr true \
                       umount uname wc dd kill basename dirname timeout";

/// The directory; everything in it is the user's.
pub(crate) struct Place {
    pub(crate) user: User,
    dir: TempDir,
}

/// A run of kiln that came to its end.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Place {
    /// Makes one with the base's files in the context.
    pub(crate) fn new(user: User) -> Self {
        // Not /tmp, which may be a tmpfs.
        let dir = tempfile::Builder::new().prefix("kiln-e2e-").tempdir_in("/var/tmp").expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        let place = Self { user, dir };
        // The build directory may be closed to other users; a second name costs nothing.
        let kiln = Path::new(env!("CARGO_BIN_EXE_kiln"));
        if fs::hard_link(kiln, place.kiln_path()).is_err() {
            // Not fs::copy: a process forked meanwhile by another test would hold the copy open for writing.
            let copied = Command::new("cp").arg(kiln).arg(place.kiln_path()).status().expect("cp");
            assert!(copied.success(), "copying kiln");
        }
        place.own("");
        place.directory("home");
        place.directory("context/bin");
        fs::copy("/bin/busybox", place.path("context/bin/busybox")).expect("busybox-static is installed");
        place.own("context/bin/busybox");
        for name in APPLETS.split_whitespace() {
            place.link(&format!("context/bin/{name}"), "busybox");
        }
        place
    }

    /// Makes one with a Dockerfile that begins with [`BASE`].
    pub(crate) fn with(user: User, dockerfile: &str) -> Self {
        let place = Self::new(user);
        place.base(dockerfile);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        let path = self.path(name);
        path.to_str().expect("it is made of ASCII").to_owned()
    }

    /// The directory itself.
    pub(crate) fn here(&self) -> String {
        self.text("").trim_end_matches('/').to_owned()
    }

    fn kiln_path(&self) -> PathBuf {
        self.path("kiln")
    }

    pub(crate) fn own(&self, name: &str) {
        let (uid, gid) = self.user.ids();
        lchown(self.path(name), Some(uid), Some(gid)).expect("root may");
    }

    /// Makes a directory and those above it.
    pub(crate) fn directory(&self, name: &str) {
        let mut made = String::new();
        for part in name.split('/') {
            made = if made.is_empty() { part.to_owned() } else { format!("{made}/{part}") };
            if !self.path(&made).exists() {
                fs::create_dir(self.path(&made)).expect("a directory");
                self.own(&made);
            }
        }
    }

    /// Writes a file, with the directories above it.
    pub(crate) fn file(&self, name: &str, content: &str) {
        self.mode(name, content, 0o644);
    }

    pub(crate) fn mode(&self, name: &str, content: &str, mode: u32) {
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.directory(parent);
        }
        fs::write(self.path(name), content).expect("writing a file");
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("it is ours");
        let (uid, gid) = self.user.ids();
        chown(self.path(name), Some(uid), Some(gid)).expect("root may");
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("chown drops setuid");
    }

    pub(crate) fn link(&self, name: &str, target: &str) {
        symlink(target, self.path(name)).expect("a link");
        self.own(name);
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Writes context/Dockerfile.
    pub(crate) fn dockerfile(&self, text: &str) {
        self.file("context/Dockerfile", text);
    }

    /// The same, behind [`BASE`].
    pub(crate) fn base(&self, text: &str) {
        self.dockerfile(&format!("{BASE}{text}"));
    }

    /// Prepares kiln on this place's store; the working directory is the place's.
    pub(crate) fn command<S: AsRef<str>>(&self, args: &[S]) -> Command {
        self.command_on("store", args)
    }

    /// The same on another store of this place.
    pub(crate) fn command_on<S: AsRef<str>>(&self, store: &str, args: &[S]) -> Command {
        self.as_user(self.kiln_path(), store, args)
    }

    /// Prepares a program as the user, in a clean environment.
    pub(crate) fn as_user<S: AsRef<str>>(
        &self,
        program: impl AsRef<std::ffi::OsStr>,
        store: &str,
        args: &[S],
    ) -> Command {
        let mut command = self.user.command(program);
        command
            .args(args.iter().map(AsRef::as_ref))
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.path("home"))
            .env("KILN_ROOT", self.path(store))
            .env("RUST_BACKTRACE", "1")
            // What `default` is depends on the machine: tests/e2e/network.rs asks for it by name.
            .env("KILN_NETWORK", "host")
            // So that all cases can be tried without overlay, too.
            .envs(std::env::var_os("KILN_SNAPSHOTTER").map(|which| ("KILN_SNAPSHOTTER", which)))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn kiln<S: AsRef<str>>(&self, args: &[S]) -> Ran {
        Ran::of(&mut self.command(args))
    }

    /// `kiln build ARGS context`.
    pub(crate) fn build(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.build_command("store", args))
    }

    pub(crate) fn build_command(&self, store: &str, args: &[&str]) -> Command {
        let args: Vec<&str> =
            ["build", "--progress=plain"].iter().chain(args).chain(&["context"]).copied().collect();
        let mut command = self.command_on(store, &args);
        command.env("SOURCE_DATE_EPOCH", "1000000000");
        command
    }

    /// Starts `kiln build ARGS context` and goes on.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        self.start_with(args, &[])
    }

    /// The same with further variables.
    pub(crate) fn start_with(&self, args: &[&str], env: &[(&str, &str)]) -> Running {
        self.spawn(self.build_command("store", args).envs(env.iter().copied()))
    }

    /// Starts a command and goes on.
    pub(crate) fn spawn(&self, command: &mut Command) -> Running {
        Running::new(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("kiln starts"))
    }

    /// What a command prints in an image.
    pub(crate) fn run(&self, image: &str, script: &str) -> String {
        self.kiln(&["run", "--rm", image, "/bin/sh", "-c", script]).ok().out()
    }

    /// Builds a Dockerfile behind the base.
    pub(crate) fn builds(&self, dockerfile: &str) -> Ran {
        self.base(dockerfile);
        self.build(&[]).ok()
    }

    /// Checks that nothing is wrong with the store.
    pub(crate) fn fsck(&self) {
        let ran = self.kiln(&["debug", "fsck"]);
        assert!(ran.code == Some(0) && ran.out().trim().is_empty(), "{ran}");
        assert!(ran.stderr.contains("0 problems"), "{ran}");
    }

    /// Checks that no process and no mount anywhere knows this place. What is being killed is waited for.
    pub(crate) fn is_quiet(&self) {
        loop {
            let found = self.alive(|_| true);
            if !found.iter().any(|(pid, _)| is_dying(*pid)) {
                assert!(found.is_empty(), "left behind: {found:#?}");
                return;
            }
            std::thread::yield_now();
        }
    }

    /// Waits until nothing is left of a kiln that was killed: its steps end after it, each by the end of what is above.
    pub(crate) fn wait_until_quiet(&self) {
        // Other kilns may go on; what they have started is waited for, too.
        while !self.alive(|command| command.starts_with("kiln-init") || !command.contains("kiln")).is_empty()
        {
            std::thread::yield_now();
        }
    }

    /// Processes that know this place, with their command lines.
    fn alive(&self, counts: impl Fn(&str) -> bool) -> Vec<(u32, String)> {
        let here = self.dir.path().to_str().expect("it is made of ASCII");
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let process = entry.path();
            let read = |file: &str| {
                let bytes = fs::read(process.join(file)).unwrap_or_default();
                String::from_utf8_lossy(&bytes).into_owned()
            };
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            // In a chroot neither of the others has it.
            let root = fs::read_link(process.join("root")).is_ok_and(|root| root.starts_with(here));
            let knows = root || read("mountinfo").contains(here) || read("cmdline").contains(here);
            if knows && counts(&read("cmdline")) {
                found.push((pid, read("cmdline").replace('\0', " ")));
            }
        }
        found
    }

    /// Returns the names in the store's `tmp/`.
    pub(crate) fn half_made(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("store/tmp")) else { return Vec::new() };
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

/// Whether a process has been killed and is not gone yet, or will be with one above it: an init's processes are killed when the
/// init is, and the init when its parent is. See proc_pid_stat(5) and proc_pid_status(5).
fn is_dying(mut pid: u32) -> bool {
    const PF_EXITING: u64 = 4;
    while pid > 1 {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        let (Ok(stat), Ok(status)) = (read("stat"), read("status")) else { return true };
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let (Some(parent), Some(flags)) = (number(1), number(6)) else { return true };
        let killed = status.lines().any(|line| {
            let pending = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"));
            let kill = 1_u64 << (rustix::process::Signal::KILL.as_raw() - 1);
            pending.is_some_and(|set| u64::from_str_radix(set.trim(), 16).is_ok_and(|set| set & kill != 0))
        });
        if killed || flags & PF_EXITING != 0 {
            return true;
        }
        pid = u32::try_from(parent).expect("a process id");
    }
    false
}

/// Puts an image of text files where a test wants it.
pub(crate) fn text_image(files: &[(&str, &str)]) -> TestImage {
    TestImage::new("linux/amd64", kiln_oci::MediaTypes::Oci, &[files])
}

impl Ran {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().expect("the program starts");
        Self {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.code(0)
    }

    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Checks that standard error has all of these.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        for words in words {
            assert!(self.stderr.contains(words), "no {words:?} in {self}");
        }
        self
    }

    /// Checks that steps printed these lines; a title that holds the same words does not count.
    #[track_caller]
    pub(crate) fn prints(self, lines: &[&str]) -> Self {
        let printed = |line: &str| {
            let mut parts = self.stderr.lines().map(|shown| shown.splitn(3, ' '));
            parts.any(|mut parts| {
                let (step, seconds, rest) = (parts.next(), parts.next(), parts.next());
                step.is_some_and(|s| s.starts_with('#'))
                    && seconds.is_some_and(|s| s.parse::<f64>().is_ok())
                    && rest == Some(line)
            })
        };
        for line in lines {
            assert!(printed(line), "no step printed {line:?}: {self}");
        }
        self
    }

    #[track_caller]
    pub(crate) fn lacks(self, words: &[&str]) -> Self {
        for words in words {
            assert!(!self.stderr.contains(words), "{words:?} is in {self}");
        }
        self
    }

    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The image's digest, which is all that `build` prints.
    #[track_caller]
    pub(crate) fn digest(&self) -> String {
        let out = self.out().trim().to_owned();
        assert!(out.starts_with("sha256:") && out.len() == 71, "no digest: {self}");
        out
    }

    /// How many steps did `what`: `CACHED`, `DONE`.
    pub(crate) fn count(&self, what: &str) -> usize {
        self.stderr.lines().filter(|line| line.split(' ').nth(1).is_some_and(|w| w == what)).count()
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {:?}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.out(), self.stderr)
    }
}

/// A build under way; it is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    lines: BufReader<std::process::ChildStderr>,
    pub(crate) seen: String,
}

impl Running {
    fn new(mut child: Child) -> Self {
        let lines = BufReader::new(child.stderr.take().expect("it is piped"));
        Self { child, lines, seen: String::new() }
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Whether it came to its end by itself.
    pub(crate) fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Reads to the line that has `words`; false if the output ended before.
    pub(crate) fn until(&mut self, words: &str) -> bool {
        let mut line = String::new();
        while self.lines.read_line(&mut line).is_ok_and(|n| n > 0) {
            let found = line.contains(words);
            self.seen.push_str(&line);
            line.clear();
            if found {
                return true;
            }
        }
        false
    }

    /// Reads so many lines; false if the output ended before.
    pub(crate) fn lines(&mut self, count: usize) -> bool {
        (0..count).all(|_| self.until("\n"))
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("it is ours");
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ran {
        let mut stderr = std::mem::take(&mut self.seen);
        let mut rest = Vec::new();
        self.lines.read_to_end(&mut rest).expect("a pipe can be read");
        stderr.push_str(&String::from_utf8_lossy(&rest));
        let code = self.child.wait().expect("it is ours").code();
        Ran { code, stdout: Vec::new(), stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has mostly ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
