//! Between places: `kiln pull`, `kiln push`, `kiln copy`.

use clap::Args;

use super::{ProgressMode, RegistryArgs};

const PULL_EXAMPLES: &str = "\
Examples:
  kiln pull alpine:3.20                               this machine's image, kept as alpine:3.20
  kiln pull --platform linux/arm64 alpine:3.20
  kiln pull --all-platforms alpine:3.20               the whole index, attestations too";

#[derive(Debug, Args)]
#[command(after_help = PULL_EXAMPLES)]
pub(crate) struct PullArgs {
    #[command(flatten)]
    pub(crate) which: WhichArgs,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Image, as FROM takes it; or a place, as `kiln copy` takes it
    #[arg(value_name = "REF")]
    pub(crate) image: String,
}

const PUSH_EXAMPLES: &str = "\
Examples:
  kiln push 127.0.0.1:5000/team/demo:1                to the registry that the name says
  kiln push demo 127.0.0.1:5000/team/demo:1           under another name
  kiln push --platform linux/amd64 demo 127.0.0.1:5000/demo:amd64";

#[derive(Debug, Args)]
#[command(after_help = PUSH_EXAMPLES)]
pub(crate) struct PushArgs {
    #[command(flatten)]
    pub(crate) which: WhichArgs,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Image of the local image store, by name or id
    #[arg(value_name = "NAME")]
    pub(crate) image: String,
    /// Where it goes: a name at a registry, or a place as `kiln copy` takes it [default: NAME]
    #[arg(value_name = "DESTINATION")]
    pub(crate) destination: Option<String>,
}

const COPY_EXAMPLES: &str = "\
Examples:
  kiln copy docker://alpine:3.20 oci:alpine:3.20      a registry's image into a layout directory
  kiln copy --all docker://alpine:3.20 docker://127.0.0.1:5000/alpine:3.20
  kiln copy --all --referrers docker://alpine:3.20 docker://127.0.0.1:5000/alpine:3.20
                                                      with its signatures and attestations
  kiln copy demo oci-archive:demo.tar                 out of kiln's image store
  kiln copy docker-daemon:demo:1 demo:1               from docker into kiln's image store

Places:
  NAME                       kiln's image store
  docker://REF               a registry
  oci:DIR[:TAG]              an OCI layout
  oci-archive:FILE[:TAG]     a tar of one; FILE may be -
  docker-archive:FILE[:REF]  what `docker save` writes; FILE may be -
  docker-daemon:REF          a running docker or podman";

#[derive(Debug, Args)]
#[command(after_help = COPY_EXAMPLES)]
pub(crate) struct CopyArgs {
    /// The whole index, not one image of it
    #[arg(short, long, conflicts_with = "platform")]
    pub(crate) all: bool,
    /// Platform of the image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Fail where the digest cannot be kept: in docker's own archive and in a running engine
    #[arg(long)]
    pub(crate) preserve_digests: bool,
    /// Also what is about the image, and about that: signatures, attestations, lists of packages
    #[arg(long, visible_alias = "recursive")]
    pub(crate) referrers: bool,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Place of the image
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// Place that it is copied to
    #[arg(value_name = "DESTINATION")]
    pub(crate) destination: String,
}

/// Which images of an index.
#[derive(Debug, Args)]
pub(crate) struct WhichArgs {
    /// Only the image for this platform [default of pull: this machine's]
    #[arg(long, value_name = "OS/ARCH", conflicts_with = "all_platforms")]
    pub(crate) platform: Option<String>,
    /// The whole index [the default of push]
    #[arg(long)]
    pub(crate) all_platforms: bool,
}

/// How work that takes its time is shown.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// How to show what happens
    #[arg(long, value_enum, default_value_t, env = "KILN_PROGRESS", hide_env_values = true)]
    pub(crate) progress: ProgressMode,
    /// Print only the result
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

impl ShowArgs {
    pub(crate) fn mode(&self) -> ProgressMode {
        if self.quiet { ProgressMode::Quiet } else { self.progress }
    }
}
