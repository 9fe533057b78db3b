//! `kiln verify`.

use clap::Args;

use super::BuildArgs;

pub(super) const VERIFY_EXAMPLES: &str = "\
Examples:
  kiln verify .                                       is the image the same when it is built again?
  kiln verify --source-date-epoch=git .               with the time of the last commit
  kiln verify --runs 5 --target app .                 more builds find what seldom differs
  kiln verify --json . | jq .difference               for a program";

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// How many builds are compared
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) runs: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) build: BuildArgs,
}
