//! `kiln run`.

use clap::Args;

use super::{RegistryArgs, SandboxArgs};

const RUN_EXAMPLES: &str = "\
Examples:
  kiln run --rm demo                                  what the image is made to run
  kiln run --rm -it demo sh                           a shell in it
  kiln run --rm demo ls -l /pip-packages              look at its files
  kiln run --rm $(kiln build -q .) env                an image without a name, by its id";

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    /// Accepted as docker's; nothing is ever kept of a run
    #[arg(long)]
    pub(crate) rm: bool,
    /// Pass standard input on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set an environment variable; without a value it is taken from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User inside
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Platform of the image, of those that it has [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Replace the image's entrypoint
    #[arg(long, value_name = "COMMAND")]
    pub(crate) entrypoint: Option<String>,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Image to run
    pub(crate) image: String,
    /// Command and its arguments [default: the image's]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}
