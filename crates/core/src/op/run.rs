//! `RUN`: what is executed, and what is mounted while it is.

use serde::{Deserialize, Serialize};

use crate::{Canonical, Env, InlineFile, Machine, Platform, Purpose, Selection, StepId};

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOp {
    /// The root file system; none for scratch.
    pub root: Option<StepId>,
    /// The argument vector, shell included.
    pub args: Vec<String>,
    /// Environment in effect, in order, names once.
    pub env: Env,
    /// Absolute working directory.
    pub cwd: String,
    /// USER as written, empty for root; resolved inside the root file system.
    pub user: String,
    /// Which network.
    pub network: Network,
    /// How much it may do.
    pub security: Security,
    /// Mounts in order of the instruction.
    pub mounts: Vec<Mount>,
    /// Heredoc scripts that appear read-only under /dev/pipes/.
    pub files: Vec<InlineFile>,
    /// What the step's programs are compiled for.
    pub platform: Platform,
    /// What the machine is called that it sees; the runner's own choice if none.
    pub hostname: Option<String>,
    /// The rest of that machine.
    pub machine: Box<Machine>,
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// What the build says.
    #[default]
    Default,
    /// Only an isolated `lo`.
    None,
    /// The host's.
    Host,
}

/// `RUN --security`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// The capabilities and system calls that docker gives a container.
    #[default]
    Sandbox,
    /// All that kiln itself may do.
    Insecure,
}

/// `RUN --mount`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute, cleaned; never `/`. Empty for a secret that is given in a variable only.
    pub target: String,
    /// What is mounted there.
    pub kind: MountKind,
}

/// The closed set of mount types.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A persistent directory.
    Cache(CacheMount),
    /// Files of a context, stage or image.
    Bind(Bind),
    /// Memory.
    Tmpfs(Tmpfs),
    /// A value that is in no layer, key or log.
    Secret(SecretMount),
    /// A socket to an ssh agent.
    Ssh(SshMount),
}

/// `type=cache`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheMount {
    /// Its name; the cleaned target if none was given.
    pub id: String,
    /// Who shares the id.
    pub scope: CacheScope,
    /// How concurrent steps use it.
    pub sharing: Sharing,
    /// Permission bits of the directory when it is made. Not identity.
    pub mode: u32,
    /// Owner when it is made. Not identity.
    pub uid: u32,
    /// Group when it is made. Not identity.
    pub gid: u32,
    /// What a new cache starts with: a directory of a stage, context or image.
    pub seed: Option<(StepId, String)>,
    /// Whether the step may only read it.
    pub read_only: bool,
}

/// Who shares a cache id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CacheScope {
    /// An explicit id: everyone who says it.
    Global,
    /// A defaulted id: steps of one architecture (buildkit#2598), as `linux/amd64`.
    Platform(String),
}

/// How concurrent steps use one cache (DESIGN section 7's table).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Several at once.
    #[default]
    Shared,
    /// One at a time.
    Locked,
    /// Each its own copy.
    Private,
}

/// `type=bind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Where the files come from.
    pub from: StepId,
    /// Path in it, absolute and cleaned; `/` for all.
    pub path: String,
    /// Whether the step may write; what it writes is thrown away.
    pub writable: bool,
}

/// `type=tmpfs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Bytes; unlimited if none.
    pub size: Option<u64>,
}

/// `type=secret`: a file on a tmpfs, a variable, or both. Not there if it was not given and is not required.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretMount {
    /// Which of those given with `--secret`.
    pub id: String,
    /// The variable that holds it.
    pub env: Option<String>,
    /// Whether the step fails without it.
    pub required: bool,
    /// Permission bits of the file.
    pub mode: u32,
    /// Owner of the file.
    pub uid: u32,
    /// Group of the file.
    pub gid: u32,
}

/// `type=ssh`: a socket; `SSH_AUTH_SOCK` names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshMount {
    /// Which of those given with `--ssh`.
    pub id: String,
    /// Whether the step fails without it.
    pub required: bool,
    /// Permission bits of the socket.
    pub mode: u32,
    /// Owner of the socket.
    pub uid: u32,
    /// Group of the socket.
    pub gid: u32,
}

impl RunOp {
    pub(super) fn encode(&self, purpose: Purpose, out: &mut Canonical) {
        // A name or machine of its own makes another kind of operation of it, so that all others keep their keys.
        match &self.hostname {
            _ if *self.machine != Machine::default() => {
                out.u64(10).option(self.hostname.as_ref(), |hostname, out| {
                    out.str(hostname);
                });
                self.machine.encode(out);
            }
            None => _ = out.u64(3),
            Some(hostname) => _ = out.u64(9).str(hostname),
        }
        out.list(&self.args, |arg, out| {
            out.str(arg);
        });
        out.value(&self.env);
        out.str(&self.cwd).str(&self.user).u64(self.network.number()).u64(self.security.number());
        out.list(&self.mounts, |mount, out| mount.encode(purpose, out));
        out.list(&self.files, InlineFile::encode);
        out.value(&self.platform);
    }
}

impl Mount {
    pub(super) fn source(&self) -> Option<(StepId, Selection)> {
        match &self.kind {
            MountKind::Bind(bind) => {
                let path = bind.path.trim_start_matches('/').to_owned();
                Some((bind.from, Selection::literal(path)))
            }
            MountKind::Cache(_) | MountKind::Tmpfs(_) | MountKind::Secret(_) | MountKind::Ssh(_) => None,
        }
    }

    fn encode(&self, purpose: Purpose, out: &mut Canonical) {
        out.str(&self.target);
        match &self.kind {
            MountKind::Cache(cache) => {
                out.u64(1);
                if purpose == Purpose::Id {
                    out.str(&cache.id).u64(cache.scope.number()).u64(cache.sharing.number());
                    out.u64(u64::from(cache.mode)).u64(u64::from(cache.uid)).u64(u64::from(cache.gid));
                    out.bool(cache.read_only);
                    out.option(cache.seed.as_ref(), |(step, path), out| {
                        out.digest(step.digest()).str(path);
                    });
                }
            }
            MountKind::Bind(bind) => {
                out.u64(2).bool(bind.writable);
            }
            MountKind::Tmpfs(tmpfs) => {
                out.u64(3).option(tmpfs.size.as_ref(), |size, out| {
                    out.u64(*size);
                });
            }
            // What a secret holds is in no key; whether the step may do without it decides nothing about what it
            // makes when it has it.
            MountKind::Secret(secret) => {
                out.u64(4).str(&secret.id).option(secret.env.as_ref(), |name, out| {
                    out.str(name);
                });
                if purpose == Purpose::Id {
                    out.bool(secret.required);
                    out.u64(u64::from(secret.mode)).u64(u64::from(secret.uid)).u64(u64::from(secret.gid));
                }
            }
            MountKind::Ssh(ssh) => {
                out.u64(5).str(&ssh.id);
                if purpose == Purpose::Id {
                    out.bool(ssh.required);
                    out.u64(u64::from(ssh.mode)).u64(u64::from(ssh.uid)).u64(u64::from(ssh.gid));
                }
            }
        }
    }
}

impl Network {
    const fn number(self) -> u64 {
        match self {
            Self::Default => 0,
            Self::None => 1,
            Self::Host => 2,
        }
    }
}

impl Security {
    const fn number(self) -> u64 {
        match self {
            Self::Sandbox => 0,
            Self::Insecure => 1,
        }
    }
}

impl Sharing {
    const fn number(self) -> u64 {
        match self {
            Self::Shared => 0,
            Self::Locked => 1,
            Self::Private => 2,
        }
    }
}

impl CacheScope {
    const fn number(&self) -> u64 {
        match self {
            Self::Global => 0,
            Self::Platform(_) => 1,
        }
    }
}
