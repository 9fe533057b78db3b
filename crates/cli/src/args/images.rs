//! Images: `kiln images`, `kiln rmi`, `kiln inspect`, `kiln history`, `kiln image`.

use clap::{Args, Subcommand};

use super::{Command, ImportArgs, LoadArgs, PullArgs, PushArgs, SaveArgs, TagArgs};

/// The end of each `--format` help.
pub(super) const FORMAT: &str = "\
Templates: fields ({{.Size}}, {{json .}}), functions (json, join, index, len, eq, ...), pipes, {{range}}, {{if}}, \"table ...\", \"json\".";

const IMAGES_EXAMPLES: &str = "\
Examples:
  kiln images
  kiln images --all --filter dangling=true            images that lost their name
  kiln images --filter label=team=web --filter since=base:1
  kiln images --format 'table {{.Repository}}\\t{{.Tag}}\\t{{.SharedSize}}'
  kiln rmi $(kiln images -q --filter reference='test/*')";

#[derive(Debug, Args)]
#[command(after_help = IMAGES_EXAMPLES)]
pub(crate) struct ImagesArgs {
    /// Only images of this name; may have wildcards
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) name: Option<String>,
    /// Also images without a name
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Also a column with whole digests
    #[arg(long)]
    pub(crate) digests: bool,
    /// Only images that are so: dangling=true|false, reference=PATTERN, label=NAME[=VALUE], before=IMAGE, since=IMAGE;
    /// may be repeated
    #[arg(short, long, value_name = "WHAT=HOW")]
    pub(crate) filter: Vec<String>,
    /// Print by a Go template, or `json`
    #[arg(long, value_name = "TEMPLATE", conflicts_with_all = ["json", "quiet"], long_help = format!("Print by a Go template, or `json`. {FORMAT}"))]
    pub(crate) format: Option<String>,
    /// Do not shorten ids
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print digests only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const RMI_EXAMPLES: &str = "\
Examples:
  kiln rmi demo:1 demo:2
  kiln rmi 87fcfc688975                               by id: the image with its name
  kiln rmi --force $(kiln images -q)                  all images, whatever names they have";

#[derive(Debug, Args)]
#[command(after_help = RMI_EXAMPLES)]
pub(crate) struct RmiArgs {
    /// Names to remove; an id removes the image with its name
    #[arg(required = true)]
    pub(crate) image: Vec<String>,
    /// By an id, also if the image has several names; and what is not there is no failure
    #[arg(short, long)]
    pub(crate) force: bool,
}

const INSPECT_EXAMPLES: &str = "\
Examples:
  kiln inspect demo
  kiln inspect --format '{{.Config.Env}}' demo
  kiln inspect --format '{{index .RepoDigests 0}}' demo
  kiln inspect --raw demo | sha256sum                 the manifest or index, byte for byte
  kiln inspect --raw --platform linux/arm64 demo      the manifest of one platform";

#[derive(Debug, Args)]
#[command(after_help = INSPECT_EXAMPLES)]
pub(crate) struct InspectArgs {
    /// Names or ids
    #[arg(required = true)]
    pub(crate) image: Vec<String>,
    /// Print the manifest or index as it is
    #[arg(long, conflicts_with = "format")]
    pub(crate) raw: bool,
    /// With --raw: print the configuration as it is
    #[arg(long, requires = "raw")]
    pub(crate) config: bool,
    /// Print by a Go template, or `json`
    #[arg(short, long, value_name = "TEMPLATE", long_help = format!("Print by a Go template, or `json`. {FORMAT}"))]
    pub(crate) format: Option<String>,
    /// Platform, of those that the image has [default: this machine's, else the first]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
}

const HISTORY_EXAMPLES: &str = "\
Examples:
  kiln history demo                                   the newest step first, base image included
  kiln history --no-trunc --format '{{.CreatedBy}}' demo";

#[derive(Debug, Args)]
#[command(after_help = HISTORY_EXAMPLES)]
pub(crate) struct HistoryArgs {
    /// Name or id
    pub(crate) image: String,
    /// Do not shorten commands and digests
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print sizes and dates for people; --human=false for programs
    #[arg(short = 'H', long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    pub(crate) human: bool,
    /// Print digests of layers only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print by a Go template, or `json`
    #[arg(long, value_name = "TEMPLATE", conflicts_with_all = ["json", "quiet"], long_help = format!("Print by a Go template, or `json`. {FORMAT}"))]
    pub(crate) format: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Platform, of those that the image has [default: this machine's, else the first]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
}

const IMAGE_PRUNE_EXAMPLES: &str = "\
Examples:
  kiln image prune                                    images without a name
  kiln image prune --all --filter until=7d            all that was neither named nor used for a week";

#[derive(Debug, Args)]
#[command(after_help = IMAGE_PRUNE_EXAMPLES)]
pub(crate) struct ImagePruneArgs {
    /// Also images with a name: there are no containers that could need one, so without a filter all of them
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only images that are so: until=AGE (neither named nor used for so long), label=NAME[=VALUE]; may be repeated
    #[arg(long, value_name = "WHAT=HOW")]
    pub(crate) filter: Vec<String>,
    /// Needed for --all without a filter; kiln never asks
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// `kiln image`.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Remove images without a name, or all that were not used for long
    Prune(ImagePruneArgs),
    #[command(flatten)]
    Same(SameCommand),
}

/// docker's longer names of other commands.
#[derive(Debug, Subcommand)]
pub(crate) enum SameCommand {
    /// The same as `kiln images`
    #[command(alias = "list")]
    Ls(ImagesArgs),
    /// The same as `kiln rmi`
    #[command(alias = "remove")]
    Rm(RmiArgs),
    /// The same as `kiln inspect`
    Inspect(InspectArgs),
    /// The same as `kiln history`
    History(HistoryArgs),
    /// The same as `kiln tag`
    Tag(TagArgs),
    /// The same as `kiln pull`
    Pull(PullArgs),
    /// The same as `kiln push`
    Push(PushArgs),
    /// The same as `kiln save`
    Save(SaveArgs),
    /// The same as `kiln load`
    Load(LoadArgs),
    /// The same as `kiln import`
    Import(ImportArgs),
}

impl From<SameCommand> for Command {
    fn from(command: SameCommand) -> Self {
        match command {
            SameCommand::Ls(args) => Self::Images(args),
            SameCommand::Rm(args) => Self::Rmi(args),
            SameCommand::Inspect(args) => Self::Inspect(args),
            SameCommand::History(args) => Self::History(args),
            SameCommand::Tag(args) => Self::Tag(args),
            SameCommand::Pull(args) => Self::Pull(args),
            SameCommand::Push(args) => Self::Push(args),
            SameCommand::Save(args) => Self::Save(args),
            SameCommand::Load(args) => Self::Load(args),
            SameCommand::Import(args) => Self::Import(args),
        }
    }
}
