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

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser as _};

fn main() -> ExitCode {
    // A re-executed child (the init of a step, a library's engine) never comes back from here.
    kiln::init();
    // With `ulimit -f`, a write that would make a file too large fails as it does on a full disk, and does not end kiln without a word. A
    // handler and not "ignored", which steps would inherit: signal(7).
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, std::sync::Arc::default());
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misread(&error),
    };
    commands::run(cli).unwrap_or_else(|failure| {
        ui::show_failure(&failure);
        failure.exit_code()
    })
}

/// Shows what is wrong with a command line, or the help or version asked for: clap does, but for flags that only docker has.
fn misread(error: &clap::Error) -> ExitCode {
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) if error.kind() == ErrorKind::UnknownArgument => flag.as_str(),
        _ => "",
    };
    let flag = flag.split('=').next().unwrap_or_default();
    match docker_flags::reason(flag) {
        Some(reason) => ui::show_failure(&hints::Failure::usage(format!("{flag}: {reason}"))),
        // Nothing is left to say that on.
        None => drop(error.print()),
    }
    // `kiln run`'s other numbers are its process's.
    let is_run = || {
        let lenient = args::Cli::command().ignore_errors(true).try_get_matches();
        lenient.is_ok_and(|matches| matches.subcommand_name() == Some("run"))
    };
    match u8::try_from(error.exit_code()).unwrap_or(2) {
        0 => ExitCode::SUCCESS,
        _ if is_run() => ExitCode::from(125),
        code => ExitCode::from(code),
    }
}
