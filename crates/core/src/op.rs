//! What a step does: the closed set of operations, with their canonical encoding.
//!
//! An operation names its inputs by [`StepId`], so a step's identity is the hash of its operation alone, and a
//! cycle cannot be written down. No tags, no host paths, no clocks.

use serde::{Deserialize, Serialize};

use crate::{Canonical, Digest, Env, Platform, Purpose, StepId};

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Brings in a base image's files.
    Image(ImageOp),
    /// Stands for a build context. Never executed: its users select files from it.
    Context(ContextOp),
    /// Runs a process.
    Run(RunOp),
    /// Copies files.
    Copy(CopyOp),
    /// Makes the working directory.
    Workdir(WorkdirOp),
}

/// A base image, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOp {
    /// Digest of the platform's own manifest, not of an index.
    pub manifest: Digest,
}

/// A build context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextOp {
    /// Empty for the main context, else the name given with `--build-context`.
    pub name: String,
}

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
    /// Mounts in order of the instruction.
    pub mounts: Vec<Mount>,
    /// Heredoc scripts that appear read-only under /dev/pipes/.
    pub files: Vec<InlineFile>,
    /// What the step's programs are compiled for.
    pub platform: Platform,
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

/// `RUN --mount`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute, cleaned; never `/`.
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

/// A file whose content stands in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InlineFile {
    /// Its file name.
    pub name: String,
    /// Its content.
    pub content: String,
    /// Permission bits.
    pub mode: u32,
}

/// `COPY`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOp {
    /// The root file system that is copied into; none for scratch.
    pub root: Option<StepId>,
    /// What is copied, in order.
    pub sources: Vec<CopySource>,
    /// Absolute, cleaned destination, without trailing slash (but `/`).
    pub dest: String,
    /// Whether the destination was written as a directory (a trailing slash, or `.`).
    pub dest_is_dir: bool,
    /// `--chown` as written: `user[:group]`, names or numbers; looked up in the destination.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<Chmod>,
}

/// `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Chmod {
    /// `0755`: replaces the permission bits of files and directories.
    Octal(u32),
    /// `u=rwX,go=rX`, as written and already validated.
    Symbolic(String),
}

/// One source of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopySource {
    /// Files of a context, stage or image.
    From(CopyFrom),
    /// A heredoc.
    Inline(InlineFile),
}

/// Files of a context, stage or image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyFrom {
    /// Where from.
    pub step: StepId,
    /// Which of them.
    pub selection: Selection,
}

/// Which files of a source are meant: the part of a copy that decides what is hashed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Selection {
    /// A path or wildcard relative to the source's root, cleaned, without leading slash; empty for the root
    /// itself. Wildcards follow Go's filepath.Match.
    pub path: String,
    /// Whether `path` may be a wildcard; bind mounts name paths literally.
    pub wildcard: bool,
}

/// `WORKDIR`: makes the directory if it is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkdirOp {
    /// The root file system; none for scratch.
    pub root: Option<StepId>,
    /// Absolute, cleaned.
    pub path: String,
    /// USER in effect, empty for root: owns what is made.
    pub user: String,
}

impl Op {
    /// Returns the root file system input.
    pub fn root(&self) -> Option<StepId> {
        match self {
            Self::Image(_) | Self::Context(_) => None,
            Self::Run(op) => op.root,
            Self::Copy(op) => op.root,
            Self::Workdir(op) => op.root,
        }
    }

    /// Returns each step that files are taken from, with what is taken, in the order of the operation. These are
    /// the inputs that count by content. A cache mount's seed is none of them: it decides nothing about the result.
    pub fn sources(&self) -> Vec<(StepId, Selection)> {
        match self {
            Self::Image(_) | Self::Context(_) | Self::Workdir(_) => Vec::new(),
            Self::Run(op) => op.mounts.iter().filter_map(Mount::source).collect(),
            Self::Copy(op) => op
                .sources
                .iter()
                .filter_map(|source| match source {
                    CopySource::From(from) => Some((from.step, from.selection.clone())),
                    CopySource::Inline(_) => None,
                })
                .collect(),
        }
    }

    /// Returns the steps that seed cache mounts.
    pub fn seeds(&self) -> Vec<(StepId, String)> {
        let Self::Run(op) = self else { return Vec::new() };
        let seed = |mount: &Mount| match &mount.kind {
            MountKind::Cache(cache) => cache.seed.clone(),
            MountKind::Bind(_) | MountKind::Tmpfs(_) => None,
        };
        op.mounts.iter().filter_map(seed).collect()
    }

    /// Returns all steps that must be known before this one: root, sources, seeds.
    pub fn inputs(&self) -> Vec<StepId> {
        let sources = self.sources().into_iter().map(|(id, _)| id);
        let seeds = self.seeds().into_iter().map(|(id, _)| id);
        self.root().into_iter().chain(sources).chain(seeds).collect()
    }

    /// Appends the operation without its inputs: for a key, the inputs' keys and digests follow it.
    pub fn encode(&self, purpose: Purpose, out: &mut Canonical) {
        match self {
            Self::Image(op) => {
                out.u64(1).digest(&op.manifest);
            }
            Self::Context(op) => {
                out.u64(2).str(&op.name);
            }
            Self::Run(op) => op.encode(purpose, out),
            Self::Copy(op) => op.encode(out),
            Self::Workdir(op) => {
                out.u64(5).str(&op.path).str(&op.user);
            }
        }
    }
}

impl Mount {
    fn source(&self) -> Option<(StepId, Selection)> {
        match &self.kind {
            MountKind::Bind(bind) => {
                let path = bind.path.trim_start_matches('/').to_owned();
                Some((bind.from, Selection { path, wildcard: false }))
            }
            MountKind::Cache(_) | MountKind::Tmpfs(_) => None,
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
        }
    }
}

impl RunOp {
    fn encode(&self, purpose: Purpose, out: &mut Canonical) {
        out.u64(3);
        out.list(&self.args, |arg, out| {
            out.str(arg);
        });
        out.value(&self.env);
        out.str(&self.cwd).str(&self.user).u64(self.network.number());
        out.list(&self.mounts, |mount, out| mount.encode(purpose, out));
        out.list(&self.files, InlineFile::encode);
        out.value(&self.platform);
    }
}

impl CopyOp {
    fn encode(&self, out: &mut Canonical) {
        out.u64(4);
        out.list(&self.sources, |source, out| match source {
            // Which files is said by the selection (in an id) or by their digest (in a content key); only the
            // name that a file arrives under matters besides: renaming a parent directory changes nothing.
            CopySource::From(from) => {
                out.u64(1).bool(from.selection.wildcard);
            }
            CopySource::Inline(file) => {
                out.u64(2);
                file.encode(out);
            }
        });
        out.str(&self.dest).bool(self.dest_is_dir);
        out.option(self.chown.as_ref(), |chown, out| {
            out.str(chown);
        });
        out.option(self.chmod.as_ref(), |chmod, out| match chmod {
            Chmod::Octal(mode) => {
                out.u64(1).u64(u64::from(*mode));
            }
            Chmod::Symbolic(text) => {
                out.u64(2).str(text);
            }
        });
    }
}

impl InlineFile {
    fn encode(&self, out: &mut Canonical) {
        out.str(&self.name).str(&self.content).u64(u64::from(self.mode));
    }
}

impl Selection {
    /// Appends the selection.
    pub fn encode(&self, out: &mut Canonical) {
        out.str(&self.path).bool(self.wildcard);
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
