//! What can go wrong, as types that cross process boundaries.

use std::io;
use std::path::{Path, PathBuf};

use kiln_core::IoError;
use serde::{Deserialize, Serialize};

use crate::mounts::Said;

/// Why this machine, or this process, cannot enter a user namespace of its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum EnterError {
    /// The process has threads; a namespace can only be entered before.
    #[error("the process has {threads} threads; user namespaces can only be entered before any is started")]
    Threads {
        /// How many there are.
        threads: usize,
    },
    /// A chroot was asked for by somebody who cannot make one.
    #[error("a chroot needs root with the capabilities that docker leaves it by default")]
    NoChroot,
    /// The kernel refuses user namespaces to this process.
    #[error("user namespaces are not available here ({message}): {obstacle}")]
    NoUserNamespaces {
        /// The system's words.
        message: String,
        /// What stands in the way, as far as can be told.
        obstacle: Obstacle,
    },
    /// A system call or a file failed.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// What keeps user namespaces from this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Obstacle {
    /// A setting of the kernel's, under /proc/sys.
    Sysctl {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
        /// The value that allows user namespaces.
        want: String,
    },
    /// A seccomp filter, as containers have.
    Seccomp,
    /// The process is root of a namespace without root's capabilities, and nobody may map that root.
    RootWithoutCapabilities,
    /// Nothing that could be found out.
    Unknown,
}

impl Obstacle {
    /// Returns the command that removes the obstacle, if there is one.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Sysctl { name, want, .. } => Some(format!("sudo sysctl -w {name}={want}")),
            Self::Seccomp => Some("docker run --security-opt seccomp=unconfined ...".to_owned()),
            Self::RootWithoutCapabilities | Self::Unknown => None,
        }
    }
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sysctl { name, value, want } => write!(
                f,
                "the kernel is set to {name}={value}; `sudo sysctl -w {name}={want}` allows them, or run kiln as root"
            ),
            Self::Seccomp => f.write_str(
                "a seccomp filter is in force, as in a container; start the container with \
                 `--security-opt seccomp=unconfined` or a profile that allows unshare and mount",
            ),
            Self::RootWithoutCapabilities => f.write_str(
                "kiln runs as root without root's capabilities, as in `bwrap --uid 0`; run it there as an ordinary user",
            ),
            Self::Unknown => f.write_str(
                "the kernel may be built without CONFIG_USER_NS, a security module may forbid them, or the process \
                 is in a chroot; run kiln as root",
            ),
        }
    }
}

/// Why a process did not run to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum RunError {
    /// It was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// Its world could not be made.
    #[error(transparent)]
    Init(#[from] InitFailure),
    /// Its user cannot be had.
    #[error(transparent)]
    User(#[from] UserError),
    /// The program could not be started: not found in PATH, not executable, or of another machine.
    #[error("cannot run {program}: {message}")]
    Program {
        /// The first argument.
        program: String,
        /// The errno.
        errno: i32,
        /// What it means here.
        message: String,
    },
    /// The emulator of a foreign architecture could not be put to use.
    #[error("{} cannot emulate {architecture}: {stage}: {message}", program.display())]
    Emulator {
        /// The architecture.
        architecture: String,
        /// The emulator.
        program: PathBuf,
        /// What failed.
        stage: EmulatorStage,
        /// The system's words.
        message: String,
    },
    /// It asks for what only namespaces give, and steps run in a chroot.
    #[error("{what} needs namespaces, and steps run in a chroot here; `kiln doctor` says why")]
    NeedsNamespaces {
        /// What it asks for.
        what: String,
    },
    /// The network that it wants cannot be had, or ended while it ran.
    #[error(transparent)]
    Network(#[from] crate::network::NetworkError),
    /// The namespace's first process, kiln's own, ended before the step's did: killed from outside or for want of
    /// memory.
    #[error("the step's init process was killed, from outside or because memory ran out")]
    InitDied,
    /// Something failed on this side.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// What is done, in this order, before an emulator works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EmulatorStage {
    /// Entering a user namespace.
    Namespace,
    /// Mounting a binfmt_misc there.
    Mount,
    /// Registering the emulator in it.
    Register,
    /// Running a small program.
    Trial,
}

impl EmulatorStage {
    /// All, in order.
    pub(crate) const ALL: [Self; 4] = [Self::Namespace, Self::Mount, Self::Register, Self::Trial];
}

impl std::fmt::Display for EmulatorStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Namespace => "a user namespace for its steps is refused",
            Self::Mount => "binfmt_misc cannot be mounted in a user namespace",
            Self::Register => "the kernel does not register it",
            Self::Trial => "a program does not run with it",
        })
    }
}

/// What was being done to a step's world when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Reading what to run.
    ReadSpec,
    /// Mounting the root file system.
    MountRoot,
    /// Mounting /proc, /sys, /dev and what is in them.
    MountSystem,
    /// One of the step's own mounts.
    Mount,
    /// Making or finding a mount point.
    MountPoint,
    /// Hiding what belongs to the whole machine.
    Mask,
    /// Leaving the host's file system.
    PivotRoot,
    /// Host name and loopback.
    Network,
    /// A new terminal.
    Terminal,
    /// The working directory.
    WorkingDirectory,
    /// User, groups, capabilities, limits.
    Credentials,
    /// A limit that was asked for.
    Limit,
    /// Starting the process.
    Start,
    /// Waiting for it.
    Wait,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ReadSpec => "read what to run from",
            Self::MountRoot => "mount the root file system from",
            Self::MountSystem | Self::Mount => "mount",
            Self::MountPoint => "make the mount point",
            Self::Mask => "hide",
            Self::PivotRoot => "change the root directory to",
            Self::Network => "set up the network at",
            Self::Terminal => "open a terminal at",
            Self::WorkingDirectory => "enter the working directory",
            Self::Credentials => "give up privileges at",
            Self::Limit => "set the limit",
            Self::Start => "start",
            Self::Wait => "wait for",
        })
    }
}

/// A failure in the init process, as it left there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("cannot {stage} {}: {message}{}", path.display(), detail.as_deref().map(|d| format!(" ({d})")).unwrap_or_default())]
pub struct InitFailure {
    /// What was being done.
    pub stage: Stage,
    /// To what: a path inside the root, or a host path where the host's file system was concerned.
    pub path: PathBuf,
    /// The errno, where the system gave one.
    pub errno: Option<i32>,
    /// The system's words.
    pub message: String,
    /// What the kernel's file system said besides.
    pub detail: Option<String>,
}

impl InitFailure {
    pub(crate) fn new(stage: Stage, path: impl AsRef<Path>, source: &io::Error) -> Self {
        let said = source.get_ref().and_then(|inner| inner.downcast_ref::<Said>());
        let IoError { path, errno, message, .. } =
            IoError::new("", path, said.map_or(source, |said| &said.error));
        Self { stage, path, errno, message, detail: said.map(|said| said.said.clone()) }
    }
}

/// Gives a result its stage and path.
pub(crate) trait StageExt<T> {
    fn stage(self, stage: Stage, path: impl AsRef<Path>) -> Result<T, InitFailure>;
}

impl<T, E: Into<io::Error>> StageExt<T> for Result<T, E> {
    fn stage(self, stage: Stage, path: impl AsRef<Path>) -> Result<T, InitFailure> {
        self.map_err(|error| InitFailure::new(stage, path, &error.into()))
    }
}

/// Why a step cannot run as the user it names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum UserError {
    /// No such name.
    #[error("user {name} is not in the image's /etc/passwd")]
    UnknownUser {
        /// As written.
        name: String,
    },
    /// No such name.
    #[error("group {name} is not in the image's /etc/group")]
    UnknownGroup {
        /// As written.
        name: String,
    },
    /// Only one id is mapped here.
    #[error(
        "user {user} is id {uid}:{gid}, but only a single id can be used here, which is root inside; `kiln doctor` \
         says what gives it a range of ids"
    )]
    SingleId {
        /// As written.
        user: String,
        /// What it means.
        uid: u32,
        /// What it means.
        gid: u32,
    },
    /// The id is outside the mapped range.
    #[error(
        "user {user} is id {uid}:{gid}, which is outside the range of ids mapped here; see `kiln doctor`"
    )]
    OutOfRange {
        /// As written.
        user: String,
        /// What it means.
        uid: u32,
        /// What it means.
        gid: u32,
    },
}
