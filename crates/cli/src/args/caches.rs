//! `kiln cache`.

use clap::{Args, Subcommand};

use super::images::FORMAT;
use super::{CacheExportArgs, CacheImportArgs, WaitArgs};

pub(super) const CACHE_EXAMPLES: &str = "\
Examples:
  kiln cache ls
  kiln cache ls --filter 'id=*pip*' --format '{{.ID}} {{.Size}} {{.Path}}'
  kiln cache inspect pip                              what is in it, and what it was worth
  kiln cache shell pip                                a shell in it; steps wait meanwhile
  kiln cache shell apt -- rm -rf archives/partial     or one command
  du -sh $(kiln cache path pip)
  kiln cache rm /root/.cache/pip                      the next build fills it again
  kiln cache export --all --to docker://registry.example/team/caches:main
  kiln cache import --from oci-archive:caches.tar
  kiln cache prune --filter until=7d
  kiln cache prune --max-used-space 10g               least recently used first

A cache is kept where you want it by `kiln build --cache-mount id=ID,path=DIR`, or for all builds by `cache_mounts` in the
configuration file.";

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// List cache mounts; sizes are as they were last counted, and nothing is walked
    #[command(alias = "list")]
    Ls {
        #[command(flatten)]
        filter: CacheFilterArgs,
        /// Print by a Go template, or `json`
        #[arg(long, value_name = "TEMPLATE", conflicts_with_all = ["json", "quiet"], long_help = format!("Print by a Go template, or `json`. {FORMAT}"))]
        format: Option<String>,
        /// Print ids only
        #[arg(short, long, conflicts_with = "json")]
        quiet: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print all that is known of cache mounts, and what is in them
    Inspect {
        /// Ids
        #[arg(required = true)]
        id: Vec<String>,
        /// In this scope: global, or a platform such as linux/amd64
        #[arg(long)]
        scope: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Export cache mounts to a registry, a directory, a file or standard output
    Export(CacheExportArgs),
    /// Import cache mounts that were exported
    Import(CacheImportArgs),
    /// Open a shell in a cache mount, or run a command there; no step uses it meanwhile
    Shell {
        /// Its id
        id: String,
        /// In this scope: global, or a platform such as linux/amd64
        #[arg(long)]
        scope: Option<String>,
        #[command(flatten)]
        wait: WaitArgs,
        /// Command and arguments [default: $SHELL, else /bin/sh]
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Print where a cache mount is
    Path {
        /// Its id
        id: String,
        /// In this scope: global, or a platform such as linux/amd64
        #[arg(long)]
        scope: Option<String>,
    },
    /// Count how much room cache mounts take
    Du {
        #[command(flatten)]
        filter: CacheFilterArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove cache mounts with what they hold; a directory of yours keeps its files
    #[command(alias = "remove")]
    Rm {
        /// Ids to remove
        #[arg(required_unless_present = "all")]
        id: Vec<String>,
        /// Only in this scope, such as linux/amd64
        #[arg(long)]
        scope: Option<String>,
        /// All of them
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
    /// Remove cache mounts that nobody uses, least recently used first
    Prune(CachePruneArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CacheFilterArgs {
    /// Only those that are so: id=PATTERN, scope=PATTERN, until=AGE (unused for so long), placed=true|false, held=true|false;
    /// may be repeated
    #[arg(short, long, value_name = "WHAT=HOW")]
    pub(crate) filter: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CachePruneArgs {
    /// Only those that are so: id=PATTERN, scope=PATTERN, until=AGE (unused for so long), placed=true|false; may be repeated
    #[arg(long, value_name = "WHAT=HOW")]
    pub(crate) filter: Vec<String>,
    /// Only until all caches together take no more than that, such as 10g
    #[arg(long, visible_alias = "keep-storage", value_name = "SIZE")]
    pub(crate) max_used_space: Option<String>,
    /// All of them
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only say what would go
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Accepted as docker's; kiln never asks
    #[arg(short, long)]
    pub(crate) force: bool,
}
