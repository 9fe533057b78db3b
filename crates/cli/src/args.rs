//! What was typed. Names and meanings are docker's where docker has them.

mod archive;
mod attest;
mod build;
mod caches;
mod carry;
mod context;
mod debug;
mod explain;
mod images;
mod index;
mod layers;
mod registry;
mod run;
mod sandbox;
mod sbom;
mod storage;
mod transfer;
mod verify;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use archive::{FormatArg, ImportArgs, LoadArgs, SaveArgs};
pub(crate) use attest::AttestArgs;
pub(crate) use build::{BuildArgs, ContextModes, MachineArgs, OnErrorMode, ProgressMode};
use caches::CACHE_EXAMPLES;
pub(crate) use caches::{CacheCommand, CachePruneArgs};
pub(crate) use carry::{CacheExportArgs, CacheImportArgs, CarryArgs};
use context::CONTEXT_EXAMPLES;
pub(crate) use context::{ContextCommand, ContextLsArgs, ContextSort};
pub(crate) use debug::{DebugCommand, DiffFormat, GraphArgs, PlanArgs, ShellArgs};
pub(crate) use explain::ExplainArgs;
pub(crate) use images::{HistoryArgs, ImageCommand, ImagePruneArgs, ImagesArgs, InspectArgs, RmiArgs};
use index::INDEX_EXAMPLES;
pub(crate) use index::{IndexArgs, IndexCommand, TagArgs};
pub(crate) use layers::{LayersArgs, SizeLimitArgs};
pub(crate) use registry::{
    DoctorArgs, DoctorCommand, DoctorRegistryArgs, LoginArgs, LogoutArgs, RegistryArgs,
};
pub(crate) use run::RunArgs;
pub(crate) use sandbox::{NetworkFlag, SandboxArgs};
pub(crate) use sbom::SbomArgs;
use storage::SYSTEM_EXAMPLES;
pub(crate) use storage::{BoundArgs, DuArgs, PruneArgs, SystemCommand, WaitArgs};
pub(crate) use transfer::{CopyArgs, PullArgs, PushArgs, ShowArgs};
use verify::VERIFY_EXAMPLES;
pub(crate) use verify::VerifyArgs;

/// Build container images from Dockerfiles: no daemon, no root, one binary.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, propagate_version = true, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  kiln build -t demo .                                build ./Dockerfile, keep the image as demo:latest
  kiln build -o type=oci,dest=demo.tar .              write an OCI archive
  kiln run --rm demo ls -l /                          look into it
  kiln cache ls                                       the cache mounts and what they hold
  kiln doctor                                         what this machine allows, and why";

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Directory that holds images, layers, caches and records
    /// [default: $XDG_DATA_HOME/kiln or ~/.local/share/kiln]
    #[arg(long, global = true, env = "KILN_ROOT", value_name = "DIR", hide_env_values = true)]
    pub(crate) root: Option<PathBuf>,
    /// How the layers of an image become a file tree
    /// [default: overlay, or where the kernel refuses it, copy]
    #[arg(
        long,
        global = true,
        env = "KILN_SNAPSHOTTER",
        value_enum,
        value_name = "WHICH",
        hide_env_values = true
    )]
    pub(crate) snapshotter: Option<SnapshotterArg>,
    /// What is put around a step
    /// [default: namespaces, or where there are none for root, a chroot]
    #[arg(
        long,
        global = true,
        env = "KILN_ISOLATION",
        value_enum,
        value_name = "WHICH",
        hide_env_values = true
    )]
    pub(crate) isolation: Option<IsolationArg>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IsolationArg {
    /// Namespaces of its own, or an error
    Namespaces,
    /// Only another root directory: it is no boundary. For root
    Chroot,
}

impl From<IsolationArg> for kiln::Isolation {
    fn from(arg: IsolationArg) -> Self {
        match arg {
            IsolationArg::Namespaces => Self::Namespaces,
            IsolationArg::Chroot => Self::Chroot,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SnapshotterArg {
    /// The kernel's overlay merges them
    Overlay,
    /// They are copied: slower, and works everywhere
    Copy,
}

impl From<SnapshotterArg> for kiln::Snapshotter {
    fn from(arg: SnapshotterArg) -> Self {
        match arg {
            SnapshotterArg::Overlay => Self::Overlay,
            SnapshotterArg::Copy => Self::Copy,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    Build(Box<BuildArgs>),
    /// Say why the steps of a build ran, and were not cached
    Explain(ExplainArgs),
    /// Build twice under other circumstances, and say what came out differently
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(Box<VerifyArgs>),
    /// Run a command in an image, to look into it
    Run(Box<RunArgs>),
    /// List images
    Images(ImagesArgs),
    /// Remove images
    Rmi(RmiArgs),
    /// Print all that is known of images
    Inspect(InspectArgs),
    /// Print the steps that an image was made by
    History(HistoryArgs),
    /// Show what each layer of an image adds, changes, deletes and wastes
    Layers(LayersArgs),
    /// docker's longer names of these, and pruning of images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Give an image further names
    Tag(TagArgs),
    /// Bring an image from a registry into the image store
    Pull(PullArgs),
    /// Send an image of the image store to a registry
    Push(PushArgs),
    /// Copy an image between registries, layouts, archives, engines and the image store
    Copy(CopyArgs),
    /// Write images to an archive
    Save(SaveArgs),
    /// Take the images of an archive into the image store
    Load(LoadArgs),
    /// Make an image of a tar of files
    Import(ImportArgs),
    /// Make one index of images for several platforms
    #[command(subcommand, alias = "manifest", alias = "imagetools", after_help = INDEX_EXAMPLES)]
    Index(IndexCommand),
    /// List the packages in an image: SPDX 2.3, read from dpkg, apk, rpm, pip, npm, cargo and go
    Sbom(SbomArgs),
    /// See, enter and remove cache mounts
    #[command(subcommand, after_help = CACHE_EXAMPLES)]
    Cache(CacheCommand),
    /// See what a build sees of its context
    #[command(subcommand, after_help = CONTEXT_EXAMPLES)]
    Context(ContextCommand),
    /// Show what the store holds and how big it is
    Du(DuArgs),
    /// Remove what no image needs, least recently used first
    Prune(PruneArgs),
    /// docker's longer names: system df, system prune
    #[command(subcommand, after_help = SYSTEM_EXAMPLES)]
    System(SystemCommand),
    /// Try a name and a password at a registry, and keep them where docker would
    Login(LoginArgs),
    /// Forget the credentials for a registry
    Logout(LogoutArgs),
    /// Say what this machine allows, and why
    Doctor(DoctorArgs),
    /// Print the step graph of a Dockerfile
    Graph(GraphArgs),
    /// Look at failed steps; and for teaching and for tests
    #[command(subcommand)]
    Debug(DebugCommand),
    /// Print a completion script
    Completion {
        /// Shell it is for
        shell: clap_complete::Shell,
    },
}
