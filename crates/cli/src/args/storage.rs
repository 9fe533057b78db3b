//! Room: `kiln du`, `kiln prune`, docker's longer names of these, and the bound that `kiln build` keeps.

use clap::{Args, Subcommand};

const DU_EXAMPLES: &str = "\
Examples:
  kiln du                                             what takes the room, and what would go next
  kiln du --next 50
  kiln du --json";

const PRUNE_EXAMPLES: &str = "\
Examples:
  kiln prune                                          what nothing refers to any more
  kiln prune --all --filter until=7d                  all that no named image needs and nothing used for a week
  kiln prune --max-used-space 20G                     least recently used first, until the store has no more
  kiln prune --all --cache-mounts --dry-run           what a clean sweep would free";

pub(super) const SYSTEM_EXAMPLES: &str = "\
Examples:
  kiln system df                                      the same as kiln du
  kiln system prune -a                                the same as kiln prune --all: images with names stay
  kiln image prune -a                                 those go with this one";

/// docker's names.
#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    /// The same as `kiln du`
    Df(DuArgs),
    /// The same as `kiln prune`
    Prune(PruneArgs),
}

#[derive(Debug, Args)]
#[command(after_help = DU_EXAMPLES)]
pub(crate) struct DuArgs {
    /// How many of the things are shown that would go next
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) next: usize,
    #[command(flatten)]
    pub(crate) bound: BoundArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How long to wait for others.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// How long to wait for what another kiln holds, such as 10m: a cache mount, or what it fetches [default: as long as it takes]
    #[arg(long, value_name = "TIME")]
    pub(crate) lock_timeout: Option<String>,
}

/// How large the store may be.
#[derive(Debug, Args)]
pub(crate) struct BoundArgs {
    /// Keep the store no larger than this, such as 20G: least recently used results go, images with names stay
    /// [default: max_store of the configuration file, else without a bound]
    #[arg(
        long,
        value_name = "SIZE",
        env = "KILN_MAX_STORE",
        hide_env_values = true,
        help_heading = "Limits"
    )]
    pub(crate) max_store: Option<String>,
    /// Keep all cache mounts in the store no larger than this
    /// [default: max_cache_mounts of the configuration file, else half of the store]
    #[arg(
        long,
        value_name = "SIZE",
        env = "KILN_MAX_CACHE_MOUNTS",
        hide_env_values = true,
        help_heading = "Limits"
    )]
    pub(crate) max_cache_mounts: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = PRUNE_EXAMPLES)]
pub(crate) struct PruneArgs {
    /// Also what no named image needs but builds would still hit
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Also cache mounts
    #[arg(long)]
    pub(crate) cache_mounts: bool,
    /// Only what was not used for so long, such as until=24h; only what an id begins with, and what needs it: id=ID; may be repeated
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// Least recently used first, only until the whole store has no more than this, such as 20G; says --all
    #[arg(long, alias = "keep-storage", value_name = "SIZE")]
    pub(crate) max_used_space: Option<String>,
    /// Least recently used first, only until the file system has so much free; says --all
    #[arg(long, value_name = "SIZE")]
    pub(crate) min_free_space: Option<String>,
    /// Only say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// List each thing, not only how many there were of each kind
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Accepted as docker's; kiln never asks
    #[arg(short, long)]
    pub(crate) force: bool,
}
