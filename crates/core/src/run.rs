//! What the runner is told: one process in one prepared world, as plain data.
//!
//! Mounts are data until the last moment; nothing but a [`RunSpec`] decides what a step's process sees.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Machine, Resolver, Resources, Secret, Security};

/// One process to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// The root file system.
    pub rootfs: Rootfs,
    /// Owners of symbolic links, fifos and sockets in it that its file system cannot say, by path inside it. Only looked at
    /// where there is a single id.
    pub link_owners: BTreeMap<PathBuf, (u32, u32)>,
    /// Mounts over it, in order.
    pub mounts: Vec<MountSpec>,
    /// Argument vector; the first is looked up in the environment's PATH inside the root.
    pub args: Vec<String>,
    /// The whole environment. HOME is added from the user's passwd entry if missing.
    pub env: Vec<(String, String)>,
    /// Variables besides, which replace those of the same names.
    pub secret_env: Vec<(String, Secret)>,
    /// Absolute working directory inside the root; made if missing.
    pub cwd: String,
    /// `user[:group]`, names or numbers, looked up inside the root; empty for root.
    pub user: String,
    /// UTS host name.
    pub hostname: String,
    /// In which order it sees the entries of directories; the kernel's, if not given.
    pub directory_order: Option<DirectoryOrder>,
    /// The machine it sees, besides its name.
    pub machine: Machine,
    /// How much it may do.
    pub security: Security,
    /// What runs programs of the root file system's architecture; none if this machine does.
    pub emulator: Option<Emulator>,
    /// Which network it is in.
    pub network: NetworkMode,
    /// What it may use at most.
    pub resources: Resources,
    /// How it looks names up.
    pub resolver: Resolver,
    /// Whether it gets a new terminal as its controlling terminal, instead of pipes.
    pub tty: bool,
    /// Whether the caller's standard input is passed on; otherwise it is /dev/null.
    pub stdin: bool,
    /// Whether the root file system is mounted read-only.
    pub read_only: bool,
}

/// An order in which directories of ordinary file systems are listed, other than the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectoryOrder {
    /// From the last to the first.
    Reversed,
    /// Any, which this decides.
    Shuffled {
        /// Another number gives another order.
        key: u64,
    },
}

/// A program that runs those of another architecture.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Emulator {
    /// In Go's words: `arm64`.
    pub architecture: String,
    /// Static, absolute, on this machine.
    pub program: PathBuf,
}

/// Which network a process is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// kiln's own.
    #[default]
    Host,
    /// One with only `lo`, for this process alone.
    None,
    /// One behind address translation in user space, which the steps of one kiln process share.
    Private,
}

impl NetworkMode {
    /// Returns whether it is another network than kiln's own.
    pub const fn is_isolated(self) -> bool {
        !matches!(self, Self::Host)
    }
}

/// A root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// Layers, which the kernel's overlay merges.
    Overlay {
        /// Layer directories, lowest first. Empty for scratch.
        lower: Vec<PathBuf>,
        /// Receives what the process changes. Fresh and empty.
        upper: PathBuf,
        /// Overlay's work directory: on the same file system, empty.
        work: PathBuf,
    },
    /// A directory that is the root file system, and that the process may change.
    Tree {
        /// The directory. Nothing in it is anybody else's.
        path: PathBuf,
    },
}

impl Rootfs {
    /// Returns the directory that receives what the process changes.
    pub fn changes(&self) -> &Path {
        match self {
            Self::Overlay { upper, .. } => upper,
            Self::Tree { path } => path,
        }
    }
}

/// One mount inside the root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Absolute path inside the root, resolved there (symbolic links cannot lead out).
    pub target: String,
    /// What is mounted.
    pub kind: MountSpecKind,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSpecKind {
    /// A host directory or file.
    Bind {
        /// The directory or file. It may itself be a symbolic link's target only if resolved by the caller.
        source: PathBuf,
        /// Whether writing is refused.
        read_only: bool,
    },
    /// A directory inside a stack of layers; writes, if allowed, go to a throw-away upper directory.
    Layers {
        /// Layer directories, lowest first.
        lower: Vec<PathBuf>,
        /// Path inside them, absolute.
        path: String,
        /// For a writable mount: an upper and a work directory, fresh, on one file system, that the caller
        /// deletes afterwards.
        scratch: Option<(PathBuf, PathBuf)>,
    },
    /// A host directory whose changes are thrown away (`bind,rw` of a build context).
    Scratch {
        /// The directory.
        source: PathBuf,
        /// Upper and work directory, fresh, on one file system, that the caller deletes afterwards.
        scratch: (PathBuf, PathBuf),
    },
    /// Memory, empty, `nosuid`, mode 1777.
    Tmpfs {
        /// Bytes; the kernel's default if none.
        size: Option<u64>,
    },
    /// A small read-only file with this content.
    File {
        /// Content.
        content: String,
        /// Permission bits.
        mode: u32,
    },
    /// A read-only file in memory of its own, `nosuid`, and `noexec` unless the mode says otherwise.
    Secret {
        /// Content.
        content: Secret,
        /// Permission bits.
        mode: u32,
        /// Owner. With a single id it is root's whatever this says.
        uid: u32,
        /// Group, likewise.
        gid: u32,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// By exit(2).
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl ExitStatus {
    /// Returns whether it ended with exit code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// Returns what a shell would report: the code, or 128 + the signal.
    pub const fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// What a step used: its process and all that were waited for. What was still running when it ended is not in it, but
/// where a control group counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepUsage {
    /// From the start of its process to its end, microseconds.
    pub wall_us: u64,
    /// CPU time in user mode, microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, microseconds.
    pub system_us: u64,
    /// Peak resident memory of the largest process, KiB; of all together where a control group counted, with what the
    /// kernel keeps of their files.
    pub peak_rss_kib: u64,
    /// Bytes given by read(2) and its like, from files, pipes and all else.
    pub read_bytes: u64,
    /// Bytes taken by write(2) and its like.
    pub written_bytes: u64,
    /// Of these, what came from storage.
    pub disk_read_bytes: u64,
    /// And what went or will go to storage.
    pub disk_written_bytes: u64,
}
