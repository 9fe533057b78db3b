//! The kiln command.

mod args;
mod commands;
mod config;
mod context_hints;
mod docker_flags;
mod hints;
mod template;
mod ui;

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

fn main() -> ExitCode {
    // A re-executed child (the init of a step, a library's engine) never comes back from here.
    kiln::init();
    // With `ulimit -f`, a write that would make a file too large fails as it does on a full disk, and does not end kiln without a word. A
    // handler and not "ignored", which steps would inherit: signal(7).
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, std::sync::Arc::default());
    match parse().and_then(commands::run) {
        Ok(code) => code,
        Err(failure) => {
            ui::show_failure(&failure);
            failure.exit_code()
        }
    }
}

/// Reads the command line. Help, version and mistakes are clap's to show, but for flags that only docker has.
fn parse() -> Result<args::Cli, hints::Failure> {
    args::Cli::try_parse().map_err(|error| {
        let flag = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(flag)) if error.kind() == ErrorKind::UnknownArgument => flag,
            _ => error.exit(),
        };
        let flag = flag.split('=').next().unwrap_or_default();
        match docker_flags::reason(flag) {
            Some(reason) => hints::Failure::usage(format!("{flag}: {reason}")),
            None => error.exit(),
        }
    })
}
