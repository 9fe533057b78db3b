//! Room: `kiln cache`, `kiln du`, `kiln prune`.

use clap::{Args, Subcommand};

const PRUNE_EXAMPLES: &str = "\
Examples:
  kiln prune                                          what nothing refers to any more
  kiln prune --all --filter until=7d                  all that no image needs and nothing used for a week
  kiln prune --all --cache-mounts --dry-run           what a clean sweep would free";

pub(super) const CACHE_EXAMPLES: &str = "\
Examples:
  kiln cache ls
  kiln cache rm /root/.cache/pip                      the next build fills it again
  kiln cache rm --all";

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
