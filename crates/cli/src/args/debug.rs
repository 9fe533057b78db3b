//! `kiln graph`, `kiln debug`: looking at Dockerfiles without building.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct GraphArgs {
    #[command(flatten)]
    pub(crate) plan: PlanArgs,
    /// Directory that holds the Dockerfile
    #[arg(default_value = ".")]
    pub(crate) context: PathBuf,
    /// Dockerfile [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,
    /// Set a build argument
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_arg: Vec<String>,
    /// Platforms, separated by commas [default: this machine's]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',')]
    pub(crate) platform: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DebugCommand {
    /// Print what the parser reads, an instruction a line
    Parse {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// Dockerfile; `-` is standard input
        file: PathBuf,
    },
    /// Print the step graph; needs no network, base image or context
    Plan {
        #[command(flatten)]
        plan: PlanArgs,
        /// Dockerfile; `-` is standard input
        file: PathBuf,
    },
    /// Print what the checks find, `RuleName:LINE` a line; needs no network or base image
    Check {
        #[command(flatten)]
        plan: PlanArgs,
        /// Dockerfile; its directory's .dockerignore counts; `-` is standard input
        file: PathBuf,
    },
    /// Expand a word as the builder would
    Expand {
        /// Split into words after expansion
        #[arg(long)]
        words: bool,
        /// A variable; may be repeated
        #[arg(long, value_name = "K=V")]
        env: Vec<String>,
        /// The word
        #[arg(allow_hyphen_values = true)]
        word: String,
    },
    /// Say whether .dockerignore patterns match a path; the last match wins
    Match {
        /// A pattern; may be repeated
        #[arg(long, required = true, value_name = "P", allow_hyphen_values = true)]
        pattern: Vec<String>,
        /// The path
        path: String,
    },
    /// Print the cleaned patterns of a .dockerignore file, one a line
    Ignorefile {
        /// The file
        file: PathBuf,
    },
    /// Check the store
    Fsck,
}
