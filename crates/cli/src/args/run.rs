//! `kiln run`.

use std::path::PathBuf;

use clap::Args;

use super::{MachineArgs, RegistryArgs, SandboxArgs, WaitArgs};

const RUN_EXAMPLES: &str = "\
Examples:
  kiln run --rm demo                                  what the image is made to run
  kiln run --rm -it demo sh                           a shell in it
  kiln run --rm demo ls -l /pip-packages              look at its files
  kiln run --rm -v ./src:/src:ro -w /src demo make    with files of this machine
  kiln run --rm --read-only --tmpfs /tmp demo         nothing can be written but there
  kiln run --rm --mount type=cache,id=npm,target=/root/.npm demo npm ci
  kiln run --rm $(kiln build -q .) env                an image without a name, by its id

The exit status is that of the process, 128 and the signal's number if one ended it; 127 if there is no such program, 126
if it cannot be started, 125 if kiln itself failed. SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on; a
second SIGINT ends the process at once.";

#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    /// Accepted as docker's; nothing is ever kept of a run
    #[arg(long)]
    pub(crate) rm: bool,
    /// Accepted as docker's; there is always a process that reaps
    #[arg(long)]
    pub(crate) init: bool,
    /// Pass standard input on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Set an environment variable; without a value it is taken from the environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Set the variables of a file, one a line; --env goes before
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User inside
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
    /// Host name inside [default: kiln]
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Platform of the image, of those that it has [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Replace the image's entrypoint
    #[arg(long, value_name = "COMMAND")]
    pub(crate) entrypoint: Option<String>,
    /// Mount a file or directory of this machine, which is made if it is not there; without HOST a fresh directory
    #[arg(short, long, value_name = "[HOST:]DIR[:ro]", help_heading = "Mounts")]
    pub(crate) volume: Vec<String>,
    /// Mount: type=bind,source=HOST,target=DIR[,readonly]; type=tmpfs,target=DIR[,tmpfs-size=SIZE];
    /// type=cache,target=DIR[,id=ID][,sharing=locked][,readonly]
    #[arg(long, value_name = "MOUNT", help_heading = "Mounts")]
    pub(crate) mount: Vec<String>,
    /// Mount memory
    #[arg(long, value_name = "DIR[:size=SIZE]", help_heading = "Mounts")]
    pub(crate) tmpfs: Vec<String>,
    /// Let nothing be written but to mounts and volumes
    #[arg(long, help_heading = "Mounts")]
    pub(crate) read_only: bool,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
    /// Image to run
    pub(crate) image: String,
    /// Command and its arguments [default: the image's]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}
