//! `kiln explain`.

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExplainArgs {
    /// Which build: an id of --list, or the beginning of one [default: the last]
    #[arg(value_name = "BUILD")]
    pub(crate) build: Option<String>,
    /// Only this step: its number (2, or `build 2/5`), a line (:12), or words of its title
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// List the builds that are remembered, the last first
    #[arg(short, long, conflicts_with_all = ["build", "step"])]
    pub(crate) list: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
Examples:
  kiln explain                   why the steps of the last build ran
  kiln explain 2/5               one of them
  kiln explain :12               the one of line 12
  kiln explain --list
  kiln explain 1f2e3d4c 'RUN make'
  kiln build --explain .         the same while it goes on";
