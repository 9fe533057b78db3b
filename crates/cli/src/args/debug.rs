//! `kiln graph`, `kiln debug`: looking at Dockerfiles without building.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::WaitArgs;

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

const SHELL_EXAMPLES: &str = "\
Examples:
  kiln debug shell                                    what the step that failed last left
  kiln debug shell last -- ls -la /src                a command instead of a shell
  kiln debug shell --before Dockerfile:12             what the step of line 12 started from
  kiln debug shell --secret id=token,src=token.txt    with a secret that the step had";

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DiffFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    /// Which: `last` is the one that failed last. Otherwise a name that `kiln debug ls` has, or of the last build a number in
    /// its title (2, 2/5, build 2) or a line (Dockerfile:12, :12)
    #[arg(value_name = "STEP", default_value = "last")]
    pub(crate) step: String,
    /// The files that the step started from, not those that it left
    #[arg(long)]
    pub(crate) before: bool,
    /// kiln's own small shell, also if the image has one
    #[arg(long)]
    pub(crate) builtin: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    /// Set an environment variable; without a value it is taken from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Another user than the step's
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Another directory than the step's
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Secret for a mount of the step's, as for `kiln build`
    #[arg(long, value_name = "id=ID[,src=FILE|,env=NAME]")]
    pub(crate) secret: Vec<String>,
    /// ssh agent for a mount of the step's, as for `kiln build`
    #[arg(long, value_name = "ID[=SOCKET]")]
    pub(crate) ssh: Vec<String>,
    /// Say nothing of the step before
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Command and its arguments, instead of a shell
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
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
    /// List steps that can be looked at: failed ones, and those of the last build
    #[command(alias = "list")]
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List what a step changed: A added, C changed, D deleted
    Diff {
        /// Which, as for `kiln debug shell`
        #[arg(value_name = "STEP", default_value = "last")]
        step: String,
        /// A line a file, or one JSON array
        #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
        format: DiffFormat,
    },
    /// Open a shell where a step was: its files, mounts, environment, user and directory
    #[command(alias = "exec", after_help = SHELL_EXAMPLES)]
    Shell(Box<ShellArgs>),
}
