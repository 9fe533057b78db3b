//! The step's own process, from the moment it parts from init until it executes its program.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;

use kiln_core::{Limit, RunSpec, Security};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::error::{InitFailure, RunError, Stage, StageExt, UserError};
use crate::ids::IdMode;
use crate::sys::{self, StringArray};
use crate::user::{self, User};
use crate::wire::{self, Said};
use crate::world;

const CAPABILITIES: &str = include_str!("../data/capabilities");

/// Where programs are looked for if the environment has no PATH: docker's default.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All that the child needs, made ready beforehand: between vfork and exec it shares memory with init.
pub(crate) struct Step<'a> {
    wanted_user: String,
    user: User,
    single_id: bool,
    /// Whether kiln answers for its ids: it is whoever it believes to be.
    any_id: bool,
    /// Where to hand over what its system calls arrive at, if kiln answers any.
    answered_at: Option<BorrowedFd<'a>>,
    cwd: String,
    program: String,
    /// Where the program may be, in the order of PATH.
    candidates: Vec<CString>,
    args: StringArray,
    env: StringArray,
    capabilities: CapabilitySet,
    limits: Vec<Limit>,
    /// Whether it may do all that kiln may, whatever its user.
    all: bool,
    /// Limits its system calls.
    filter: Option<&'a [libc::sock_filter]>,
    terminal: Option<OwnedFd>,
}

impl<'a> Step<'a> {
    /// Prepares. The process must be in the step's root already: user and group are looked up there.
    pub(crate) fn prepare(
        spec: &RunSpec,
        ids: &IdMode,
        any_id: bool,
        filter: Option<&'a [libc::sock_filter]>,
        answered_at: Option<BorrowedFd<'a>>,
    ) -> Result<Self, RunError> {
        let user = user::look_up(
            &spec.user,
            &user::read("/etc/passwd").unwrap_or_default(),
            &user::read("/etc/group").unwrap_or_default(),
        )?;
        if !any_id {
            user::check(&user, &spec.user, ids)?;
        }
        let mut make = std::fs::DirBuilder::new();
        make.recursive(true).mode(0o755).create(&spec.cwd).stage(Stage::WorkingDirectory, &spec.cwd)?;
        let get =
            |name: &str| spec.env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let sandboxed = spec.security == Security::Sandbox;
        let own = rustix::thread::capabilities(None).stage(Stage::Credentials, "the capabilities")?.permitted;
        // In a container that kiln makes no namespace in, not all of the default ones may be there.
        let capabilities = if sandboxed { default_capabilities() & own } else { own };
        let program = spec.args.first().cloned().unwrap_or_default();
        let mut env = environment(spec);
        if !env.iter().any(|line| line.starts_with(b"HOME=")) {
            env.push(format!("HOME={}", user.home).into_bytes());
        }
        Ok(Self {
            candidates: candidates(&program, get("PATH").unwrap_or(DEFAULT_PATH))
                .stage(Stage::Start, &program)?,
            args: StringArray::new(spec.args.iter().cloned()).stage(Stage::Start, &program)?,
            env: StringArray::new(env).stage(Stage::Start, &program)?,
            wanted_user: spec.user.clone(),
            user,
            single_id: *ids == IdMode::Single,
            any_id,
            answered_at,
            cwd: spec.cwd.clone(),
            program,
            capabilities,
            limits: spec.machine.limits.clone(),
            all: !sandboxed,
            filter: filter.filter(|_| sandboxed),
            terminal: None,
        })
    }

    /// Gives the process a terminal instead of init's standard streams.
    pub(crate) fn use_terminal(&mut self, terminal: OwnedFd) {
        self.terminal = Some(terminal);
    }

    /// The user's id, for what must belong to it.
    pub(crate) fn owner(&self) -> (Uid, Gid) {
        if self.any_id {
            // Whoever it believes to be.
            return (Uid::ROOT, Gid::ROOT);
        }
        (Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid))
    }

    /// Starts the process; returns its pid.
    pub(crate) fn start(&self) -> Result<nix::unistd::Pid, RunError> {
        let mut failure = None;
        let child = &mut || {
            failure = self.become_step().err();
            127
        };
        let (pid, _) = sys::vfork(0, child).stage(Stage::Start, &self.program)?;
        failure.map_or(Ok(pid), Err)
    }

    /// Returns only if it failed.
    fn become_step(&self) -> Result<std::convert::Infallible, RunError> {
        rustix::process::setsid().stage(Stage::Start, &self.program)?;
        if let Some(terminal) = &self.terminal {
            for number in 0..3 {
                sys::place(terminal.as_fd(), number).stage(Stage::Terminal, "/dev/pts")?;
            }
            rustix::process::ioctl_tiocsctty(terminal).stage(Stage::Terminal, "/dev/pts")?;
        }
        rustix::process::chdir(&self.cwd).stage(Stage::WorkingDirectory, &self.cwd)?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        // The machine's core pattern may name a file that would land in the image, or a program of the host's, which the
        // kernel starts whatever the limit is, but for 1: do_coredump() in
        // https://elixir.bootlin.com/linux/latest/source/fs/coredump.c. Whoever wants dumps asks for them by --ulimit.
        if !self.limits.iter().any(|limit| limit.name == "core") {
            let limit = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
            // The caller may have forbidden even that.
            rustix::process::setrlimit(Resource::Core, limit(1))
                .or_else(|_| rustix::process::setrlimit(Resource::Core, limit(0)))
                .stage(Stage::Credentials, "core dumps")?;
        }
        for Limit { name, soft, hard } in &self.limits {
            if self.any_id && name == "locks" {
                // No kernel looks at it, and it tells whose a process is.
                continue;
            }
            let limit = Rlimit { current: *soft, maximum: *hard };
            resource(name)
                .and_then(|resource| Ok(rustix::process::setrlimit(resource, limit)?))
                .stage(Stage::Limit, name)?;
        }
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let root = root.stage(Stage::Credentials, "/")?;
        if let Some(filter) = self.filter {
            // Before the right to do so is given up.
            let installed = match self.answered_at {
                None => sys::install_filter(filter),
                // From here on, kiln answers.
                Some(control) => sys::notify::install_filter_with_listener(filter).and_then(|listener| {
                    wire::hand_over(control, &Said::Calls, &[listener.as_fd(), root.as_fd()])
                }),
            };
            installed.stage(Stage::Credentials, "the system call filter")?;
        }
        self.change_credentials()?;
        sys::close_on_exec_from(3).stage(Stage::Start, &self.program)?;
        sys::unblock_signals();
        Err(self.execute())
    }

    /// Docker's order: what is left afterwards is what a container's root has there.
    fn change_credentials(&self) -> Result<(), RunError> {
        for number in 0..u64::BITS {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            if self.capabilities.contains(capability) {
                continue;
            }
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                // Past the kernel's last.
                Err(rustix::io::Errno::INVAL) => break,
                other => other.stage(Stage::Credentials, "the capability bounding set")?,
            }
        }
        let all = self.all;
        rustix::thread::set_keep_capabilities(all).stage(Stage::Credentials, "the capabilities")?;
        let groups: Vec<Gid> = self.user.groups.iter().copied().map(Gid::from_raw).collect();
        match rustix::thread::set_thread_groups(&groups) {
            // A user namespace with a single id has no groups to give, and no way to give the caller's up.
            Err(_) if self.single_id => {}
            Err(rustix::io::Errno::INVAL) => return Err(self.out_of_range()),
            other => other.stage(Stage::Credentials, "the groups")?,
        }
        let (uid, gid) = (Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid));
        match rustix::thread::set_thread_res_gid(gid, gid, gid)
            .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid))
        {
            Err(rustix::io::Errno::INVAL) => return Err(self.out_of_range()),
            other => other.stage(Stage::Credentials, "the user")?,
        }
        if uid.is_root() || all || self.any_id {
            let sets = CapabilitySets {
                effective: self.capabilities,
                permitted: self.capabilities,
                inheritable: if all { self.capabilities } else { CapabilitySet::empty() },
            };
            rustix::thread::set_capabilities(None, sets).stage(Stage::Credentials, "the capabilities")?;
        }
        if all {
            // So that other users keep them, too.
            for capability in self.capabilities.iter() {
                rustix::thread::configure_capability_in_ambient_set(capability, true)
                    .stage(Stage::Credentials, "the capabilities")?;
            }
        }
        Ok(())
    }

    fn out_of_range(&self) -> RunError {
        let (uid, gid) = (self.user.uid, self.user.gid);
        UserError::OutOfRange { user: self.wanted_user.clone(), uid, gid }.into()
    }

    /// Tries the candidates as execvp(3) does, except that a file without a known format is an error, as in docker.
    fn execute(&self) -> RunError {
        let mut refused = None;
        for candidate in &self.candidates {
            let error = sys::exec(candidate, &self.args, &self.env);
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::EACCES) => refused = Some(error),
                _ => {
                    refused = Some(error);
                    break;
                }
            }
        }
        let error = refused.unwrap_or_else(|| io::Error::from_raw_os_error(libc::ENOENT));
        let InitFailure { errno, message, .. } = InitFailure::new(Stage::Start, &self.program, &error);
        let message = match error.raw_os_error() {
            Some(libc::ENOENT) if !self.program.contains('/') => "not found in PATH".to_owned(),
            Some(libc::ENOEXEC) => "not a program of this machine's, nor a script with a #! line".to_owned(),
            _ => message,
        };
        RunError::Program { program: self.program.clone(), errno: errno.unwrap_or(0), message }
    }
}

/// docker's words for what setrlimit(2) limits.
fn resource(name: &str) -> io::Result<Resource> {
    Ok(match name {
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
    })
}

/// `NAME=VALUE`s. A secret takes the place of a variable of its name.
fn environment(spec: &RunSpec) -> Vec<Vec<u8>> {
    let is_secret = |name: &String| spec.secret_env.iter().any(|(secret, _)| secret == name);
    let plain = spec.env.iter().filter(|(name, _)| !is_secret(name));
    let line = |name: &str, value: &[u8]| [name.as_bytes(), b"=", value].concat();
    plain
        .map(|(name, value)| line(name, value.as_bytes()))
        .chain(spec.secret_env.iter().map(|(name, secret)| line(name, secret.bytes())))
        .collect()
}

fn candidates(program: &str, path: &str) -> io::Result<Vec<CString>> {
    let paths = if program.contains('/') {
        vec![program.to_owned()]
    } else {
        // An empty entry is the current directory: environ(7).
        path.split(':').map(|dir| format!("{}/{program}", if dir.is_empty() { "." } else { dir })).collect()
    };
    paths.into_iter().map(|path| Ok(CString::new(path)?)).collect()
}

fn default_capabilities() -> CapabilitySet {
    let numbers = world::entries(CAPABILITIES).filter_map(|number| number.parse::<u32>().ok());
    CapabilitySet::from_bits_retain(numbers.fold(0, |set, number| set | 1 << number))
}
