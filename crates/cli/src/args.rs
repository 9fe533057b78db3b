//! What was typed. Names and meanings are docker's where docker has them.

mod debug;
mod sandbox;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use debug::{DebugCommand, DiffFormat, GraphArgs, PlanArgs, ShellArgs};
pub(crate) use sandbox::{NetworkFlag, SandboxArgs};

use crate::commands::Call;

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
    /// Run a command in an image, to look into it
    Run(Box<RunArgs>),
    /// List images
    Images(ImagesArgs),
    /// Remove images
    Rmi(RmiArgs),
    /// See and remove cache mounts
    #[command(subcommand, after_help = CACHE_EXAMPLES)]
    Cache(CacheCommand),
    /// See what a build sees of its context
    #[command(subcommand, after_help = CONTEXT_EXAMPLES)]
    Context(ContextCommand),
    /// Show what the store holds and how big it is
    Du(DuArgs),
    /// Remove what no image needs, least recently used first
    Prune(PruneArgs),
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

#[derive(Debug, Args)]
#[command(after_help = BUILD_EXAMPLES)]
pub(crate) struct BuildArgs {
    /// Files that COPY may use: a directory, a tar (compressed or not), an http URL of one, or a git URL; or `-`, a tar or a
    /// Dockerfile on standard input
    #[arg(value_name = "CONTEXT")]
    pub(crate) context: Option<PathBuf>,
    /// Dockerfile; `-` reads it from standard input. With a CONTEXT that is no directory a relative path is one inside
    /// [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Build nothing; say what the checks find (the same as --call=check)
    #[arg(long, conflicts_with = "call")]
    pub(crate) check: bool,
    /// With --check: rewrite the Dockerfile where a finding can be mended mechanically; one from standard input goes to
    /// standard output
    #[arg(long)]
    pub(crate) fix: bool,
    /// Build nothing; print what is asked: check (also format=sarif), outline (what the target takes) or targets
    #[arg(long, value_name = "METHOD[,format=json]", default_value = "build", hide_default_value = true)]
    pub(crate) call: Call,
    /// Name of the image, with optional tag; may be repeated
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub(crate) tag: Vec<String>,
    /// Set a build argument; without a value it is taken from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(crate) build_arg: Vec<String>,
    /// Give steps a secret, for RUN --mount=type=secret: id=ID[,src=FILE|,env=NAME]; may be repeated
    /// [default: the variable named ID, else the file]
    #[arg(long, value_name = "SECRET")]
    pub(crate) secret: Vec<String>,
    /// Set a label of the image
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Platforms to build for, separated by commas [default: this machine's]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
    /// Let steps use an ssh agent or keys, for RUN --mount=type=ssh: ID[=SOCKET|KEY[,KEY]]; may be repeated
    /// [default socket: $SSH_AUTH_SOCK]
    #[arg(long, value_name = "ID[=SOCKET]")]
    pub(crate) ssh: Vec<String>,
    /// Run every step again; cache mounts keep what they hold
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Run the steps of these stages again, separated by commas
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    /// What becomes of what a failed step left
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    pub(crate) on_error: OnErrorMode,
    /// Keep what a step leaves even if a secret is in it
    #[arg(long)]
    pub(crate) allow_secret_leak: bool,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// What steps may do besides: security.insecure, network.host, device
    #[arg(long, value_name = "ENTITLEMENT")]
    pub(crate) allow: Vec<String>,
    /// A further context: a directory, a tar, an http or git URL, oci-layout://PATH[:TAG][@DIGEST], or docker-image://REF
    #[arg(long, value_name = "NAME=SOURCE")]
    pub(crate) build_context: Vec<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Where the result goes, such as type=oci,dest=image.tar; may be repeated
    /// [types: image, oci, docker, local, tar; default: image]
    #[arg(short, long, value_name = "DEST")]
    pub(crate) output: Vec<String>,
    /// How to show what happens
    #[arg(long, value_enum, default_value_t, env = "KILN_PROGRESS", hide_env_values = true)]
    pub(crate) progress: ProgressMode,
    /// Print only the image's digest
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Look tags of base images up at their registry, even if the local image store has them
    #[arg(long)]
    pub(crate) pull: bool,
    /// Keep the image in the local image store, also beside other outputs
    #[arg(long)]
    pub(crate) load: bool,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
    /// Accepted as docker's if false: kiln writes no attestations yet
    #[arg(long, value_name = "false", hide = true)]
    pub(crate) provenance: Option<String>,
    /// Accepted as docker's if false: kiln writes no attestations yet
    #[arg(long, value_name = "false", hide = true)]
    pub(crate) sbom: Option<String>,
    /// Accepted as docker's: there are no containers to remove
    #[arg(long, alias = "force-rm", hide = true)]
    pub(crate) rm: bool,
    /// Write the image's id (its configuration's digest, as docker has it) to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// Steps that run at once [default: number of processors]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<std::num::NonZeroUsize>,
}

const BUILD_EXAMPLES: &str = "\
Examples:
  kiln build -t demo .
  kiln build -f app.Dockerfile --target test --build-arg VERSION=2 .
  kiln build -o type=oci,dest=image.tar -o type=local,dest=rootfs .
  kiln build --build-context base=oci-layout://./base -t app .
  kiln build - < Dockerfile                           no files: only what the Dockerfile says
  tar c . | kiln build -f docker/Dockerfile -         files of a tar, the Dockerfile among them
  kiln build context.tar.zst
  kiln build https://127.0.0.1/project.git#v1.2:app   directory app of tag v1.2
  kiln build -f - . < Dockerfile                      files of this directory
  kiln build --registry-mirror docker.io=http://127.0.0.1:5000 -t app .
  kiln build --network=host --ssh default=key .       steps reach this machine's 127.0.0.1; a key signs for them
  kiln build --memory=2g --pids-limit=500 --step-timeout=10m .";

#[derive(Debug, Default, Args)]
pub(crate) struct RegistryArgs {
    /// Try this registry before HOST's own; may be repeated
    #[arg(long, value_name = "HOST=URL")]
    pub(crate) registry_mirror: Vec<String>,
    /// Registry that is reached by plain http; may be repeated
    #[arg(long, value_name = "HOST")]
    pub(crate) insecure_registry: Vec<String>,
}

/// The machine that RUN steps see.
#[derive(Debug, Args)]
pub(crate) struct MachineArgs {
    /// Add a line to the /etc/hosts of RUN steps; may be repeated
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub(crate) add_host: Vec<String>,
    /// Size of /dev/shm in RUN steps [default: 64m]
    #[arg(long, value_name = "SIZE")]
    pub(crate) shm_size: Option<String>,
    /// Limit RUN steps, such as nofile=1024:4096; may be repeated
    #[arg(long, value_name = "TYPE=SOFT[:HARD]")]
    pub(crate) ulimit: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnErrorMode {
    /// It stays in the store: `kiln debug shell` enters it
    #[default]
    Keep,
    /// It stays, and a shell in it is opened at once
    Shell,
    /// It goes
    Discard,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// A live list on a terminal, lines elsewhere
    #[default]
    Auto,
    /// A live list
    Tty,
    /// Lines
    Plain,
    /// One JSON object a line (docs/events.md)
    #[value(alias = "rawjson")]
    Json,
    /// Nothing but the digest
    Quiet,
}

impl ProgressMode {
    /// Whether somebody reads it, and not a program.
    pub(crate) fn is_for_people(self) -> bool {
        matches!(self, Self::Auto | Self::Tty | Self::Plain)
    }
}

const RUN_EXAMPLES: &str = "\
Examples:
  kiln run --rm demo                                  what the image is made to run
  kiln run --rm -it demo sh                           a shell in it
  kiln run --rm demo ls -l /pip-packages              look at its files
  kiln run --rm $(kiln build -q .) env                an image without a name, by its id";

const PRUNE_EXAMPLES: &str = "\
Examples:
  kiln prune                                          what nothing refers to any more
  kiln prune --all --filter until=7d                  all that no image needs and nothing used for a week
  kiln prune --all --cache-mounts --dry-run           what a clean sweep would free";

const CACHE_EXAMPLES: &str = "\
Examples:
  kiln cache ls
  kiln cache rm /root/.cache/pip                      the next build fills it again
  kiln cache rm --all";

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    /// Accepted as docker's; nothing is ever kept of a run
    #[arg(long)]
    pub(crate) rm: bool,
    /// Pass standard input on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set an environment variable; without a value it is taken from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User inside
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Platform of the image, of those that it has [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Replace the image's entrypoint
    #[arg(long, value_name = "COMMAND")]
    pub(crate) entrypoint: Option<String>,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Image to run
    pub(crate) image: String,
    /// Command and its arguments [default: the image's]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Print digests only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Also images without a name
    #[arg(short, long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RmiArgs {
    /// Names to remove; an id removes all names of its image
    #[arg(required = true)]
    pub(crate) image: Vec<String>,
    /// Accepted as docker's
    #[arg(short, long, hide = true)]
    pub(crate) force: bool,
}

const CONTEXT_EXAMPLES: &str = "\
Examples:
  kiln context ls                                     what COPY . . would copy, biggest first
  kiln context ls --depth 2                           one level deeper
  kiln context ls --why node_modules                  which line of .dockerignore keeps it out";

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List what is sent of a context, and which line of .dockerignore leaves out what
    #[command(alias = "list", after_help = CONTEXT_EXAMPLES)]
    Ls(ContextLsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ContextLsArgs {
    /// The context, as for `kiln build`
    #[arg(default_value = ".")]
    pub(crate) context: PathBuf,
    /// Dockerfile, whose own ignore file counts [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Secret for a context that needs credentials, as for `kiln build`
    #[arg(long, value_name = "id=ID[,src=FILE|,env=NAME]")]
    pub(crate) secret: Vec<String>,
    /// Say which line decides about a path; may be repeated. Exit code 1 if one is excluded, 2 if one is not there
    #[arg(long, value_name = "PATH")]
    pub(crate) why: Vec<String>,
    /// Levels of directories to list, deeper ones summed up
    #[arg(long, value_name = "N", default_value = "1", conflicts_with_all = ["all", "why"])]
    pub(crate) depth: std::num::NonZeroUsize,
    /// List each file
    #[arg(short, long, conflicts_with = "why")]
    pub(crate) all: bool,
    /// What comes first
    #[arg(long, value_enum, default_value_t, conflicts_with = "why")]
    pub(crate) sort: ContextSort,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContextSort {
    /// The biggest
    #[default]
    Size,
    /// The first in the alphabet
    Name,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// List cache mounts
    #[command(alias = "list")]
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Empty and remove cache mounts
    #[command(alias = "remove")]
    Rm {
        /// Ids to remove
        #[arg(required_unless_present = "all")]
        id: Vec<String>,
        /// Only in this scope, such as linux/amd64
        #[arg(long)]
        scope: Option<String>,
        /// All of them
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DuArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = PRUNE_EXAMPLES)]
pub(crate) struct PruneArgs {
    /// Also what images need not but builds would still hit
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Also cache mounts
    #[arg(long)]
    pub(crate) cache_mounts: bool,
    /// Only what was not used for so long, such as until=24h
    #[arg(long, value_name = "until=AGE")]
    pub(crate) filter: Option<String>,
    /// Only say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// List each thing, not only how many there were of each kind
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Accepted as docker's; kiln never asks
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
