//! `kiln build`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{AttestArgs, BoundArgs, CarryArgs, RegistryArgs, SandboxArgs, SizeLimitArgs};
use crate::commands::Call;

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
    /// Keep a cache mount in a directory of yours: id=ID,path=DIR[,scope=SCOPE], the id being the target for a mount without
    /// one; may be repeated
    #[arg(long, value_name = "CACHE")]
    pub(crate) cache_mount: Vec<String>,
    /// Where results of steps are looked for that the store has not: NAME, type=registry,ref=NAME, type=local,src=DIR
    #[arg(long, value_name = "PLACE")]
    pub(crate) cache_from: Vec<String>,
    /// Where results of steps are left: type=registry,ref=NAME[,mode=max], type=local,dest=DIR, type=inline
    #[arg(long, value_name = "PLACE")]
    pub(crate) cache_to: Vec<String>,
    /// Run every step again; cache mounts keep what they hold
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Run the steps of these stages again, separated by commas
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(crate) no_cache_filter: Vec<String>,
    #[command(flatten)]
    pub(crate) carry: CarryArgs,
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
    /// How permission bits of the contexts' files count, in keys and in what is copied
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "HOW",
        env = "KILN_CONTEXT_MODES",
        hide_env_values = true
    )]
    pub(crate) context_modes: ContextModes,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Where the result goes, such as type=oci,dest=image.tar,compression=zstd; may be repeated
    /// [types: image, registry, oci, docker, local, tar, cacheonly; default: image]
    #[arg(short, long, value_name = "DEST")]
    pub(crate) output: Vec<String>,
    /// Push the image to the registries of its names: outputs of type=image, or a further one
    #[arg(long)]
    pub(crate) push: bool,
    /// Annotate the image in every output; PLACE is manifest, index, manifest-descriptor or index-descriptor, those of
    /// manifests with [OS/ARCH] if they are for one platform; may be repeated
    #[arg(long, value_name = "[PLACE:]KEY=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// Say of each step that runs why it does: what is not as it was in the nearest earlier run of its line
    #[arg(long)]
    pub(crate) explain: bool,
    /// How to show what happens
    #[arg(long, value_enum, default_value_t, env = "KILN_PROGRESS", hide_env_values = true)]
    pub(crate) progress: ProgressMode,
    /// Latest time that may be in the image: seconds since 1970, or `git`, the time of the commit that the context is a
    /// checkout of [default: $SOURCE_DATE_EPOCH, else none]
    #[arg(long, value_name = "N|git|commit")]
    pub(crate) source_date_epoch: Option<String>,
    /// Print only the image's digest
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Look tags of base images up at their registry, even if the local image store has them
    #[arg(long)]
    pub(crate) pull: bool,
    /// Load the image into a running docker or podman (DOCKER_HOST, or their usual sockets); kiln's own image store is
    /// -o type=image
    #[arg(long)]
    pub(crate) load: bool,
    #[command(flatten)]
    pub(crate) size_limits: SizeLimitArgs,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
    #[command(flatten)]
    pub(crate) attest: AttestArgs,
    /// Accepted as docker's: there are no containers to remove
    #[arg(long, alias = "force-rm", hide = true)]
    pub(crate) rm: bool,
    /// Write the image's id (its configuration's digest, as docker has it) to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,
    /// How long to wait for what another kiln holds, such as 10m: a cache mount, or a step that it runs, too
    /// [default: as long as it takes]
    #[arg(long, value_name = "TIME")]
    pub(crate) lock_timeout: Option<String>,
    #[command(flatten)]
    pub(crate) bound: BoundArgs,
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
  kiln build --explain .                              says why steps run; `kiln explain` says it afterwards
  kiln build --registry-mirror docker.io=http://127.0.0.1:5000 -t app .
  kiln build --network=host --ssh default=key .       steps reach this machine's 127.0.0.1; a key signs for them
  kiln build --cache-mount id=/root/.cache/pip,path=/ci/pip .   a volume that the next runner has as well
  kiln build --max-image-size=200m -t app .           fails if the image gets larger
  kiln build --sbom=true --provenance=mode=max -t app .    what is in it and where it comes from, beside the image
  kiln build --max-store=20G -t app .                 least recently used results go when the store has more
  kiln build --memory=2g --pids-limit=500 --step-timeout=10m .";

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
pub(crate) enum ContextModes {
    /// As they are
    #[default]
    AsIs,
    /// As git keeps them, whatever the umask of a checkout: 0755 for directories and what its owner may execute, else 0644
    Git,
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
