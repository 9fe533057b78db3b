//! `kiln context`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

pub(super) const CONTEXT_EXAMPLES: &str = "\
Examples:
  kiln context ls                                     what COPY . . would copy, biggest first
  kiln context ls --depth 2                           one level deeper
  kiln context ls --why node_modules                  which line of .dockerignore keeps it out";

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List what is sent of a context, and which line of .dockerignore leaves out what
    #[command(alias = "list", after_help = CONTEXT_EXAMPLES)]
    Ls(ContextLsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ContextLsArgs {
    /// The context, as for `kiln build`
    #[arg(default_value = ".")]
    pub(crate) context: PathBuf,
    /// Dockerfile, whose own ignore file counts [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Secret for a context that needs credentials, as for `kiln build`
    #[arg(long, value_name = "id=ID[,src=FILE|,env=NAME]")]
    pub(crate) secret: Vec<String>,
    /// Say which line decides about a path; may be repeated. Exit code 1 if one is excluded, 2 if one is not there
    #[arg(long, value_name = "PATH")]
    pub(crate) why: Vec<String>,
    /// Levels of directories to list, deeper ones summed up
    #[arg(long, value_name = "N", default_value = "1", conflicts_with_all = ["all", "why"])]
    pub(crate) depth: std::num::NonZeroUsize,
    /// List each file
    #[arg(short, long, conflicts_with = "why")]
    pub(crate) all: bool,
    /// What comes first
    #[arg(long, value_enum, default_value_t, conflicts_with = "why")]
    pub(crate) sort: ContextSort,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContextSort {
    /// The biggest
    #[default]
    Size,
    /// The first in the alphabet
    Name,
}
