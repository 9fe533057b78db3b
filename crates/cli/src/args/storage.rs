//! Room: `kiln du`, `kiln prune`.

use clap::Args;

const PRUNE_EXAMPLES: &str = "\
Examples:
  kiln prune                                          what nothing refers to any more
  kiln prune --all --filter until=7d                  all that no image needs and nothing used for a week
  kiln prune --all --cache-mounts --dry-run           what a clean sweep would free";

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
