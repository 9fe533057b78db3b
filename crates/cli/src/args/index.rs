//! Names and indexes: `kiln tag`, `kiln index`.

use clap::{Args, Subcommand};

use super::{RegistryArgs, transfer::ShowArgs};

const TAG_EXAMPLES: &str = "\
Examples:
  kiln tag demo 127.0.0.1:5000/team/demo:1 127.0.0.1:5000/team/demo:latest
  kiln tag 87fcfc688975 demo:old                      an image by its id";

#[derive(Debug, Args)]
#[command(after_help = TAG_EXAMPLES)]
pub(crate) struct TagArgs {
    /// Image of the local image store, by name or id
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Names that it gets besides
    #[arg(required = true, value_name = "NAME[:TAG]")]
    pub(crate) names: Vec<String>,
}

pub(crate) const INDEX_EXAMPLES: &str = "\
Examples:
  kiln index create demo:1 demo:1-amd64 demo:1-arm64              in kiln's image store
  kiln index create docker://127.0.0.1:5000/demo:1 docker://127.0.0.1:5000/demo:1-amd64 oci-archive:arm64.tar
  kiln index create -t demo:1 -t demo:latest demo:1-amd64 demo:1-arm64   as buildx imagetools has it
  kiln index join demo:1 oci-archive:arm64.tar                    one machine after the other
  kiln index join --amend demo:1 demo:1-amd64                     a newer image for its platform";

#[derive(Debug, Subcommand)]
pub(crate) enum IndexCommand {
    /// Make an index of images; what the name meant before it means no more
    #[command(after_help = INDEX_EXAMPLES)]
    Create(IndexArgs),
    /// Add images to an index, which is made if it is not there
    #[command(visible_alias = "add", after_help = INDEX_EXAMPLES)]
    Join(IndexArgs),
}

#[derive(Debug, Args)]
pub(crate) struct IndexArgs {
    /// Let an image take the place of another one for its platform
    #[arg(short, long)]
    pub(crate) amend: bool,
    /// Annotate the index; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) annotation: Vec<String>,
    /// Annotate the entries of these images in the index; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) entry_annotation: Vec<String>,
    /// Name of the index, as buildx has it: then all that stands without a flag are images; may be repeated
    #[arg(short, long, value_name = "NAME")]
    pub(crate) tag: Vec<String>,
    /// Print what was made as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Name of the index, in kiln's image store; or docker://REF, in a registry. Not with --tag. Then images: of the local image
    /// store, else of their registry; or places as `kiln copy` takes them
    #[arg(required = true, value_name = "NAME REF")]
    pub(crate) names: Vec<String>,
}
