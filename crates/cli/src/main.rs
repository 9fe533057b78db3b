//! The kiln command.

mod args;
mod commands;
mod config;
mod hints;
mod ui;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    // A re-executed child (the init of a step, a library's engine) never comes back from here.
    kiln::init();
    let cli = args::Cli::parse();
    match commands::run(cli) {
        Ok(code) => code,
        Err(failure) => {
            ui::show_failure(&failure);
            failure.exit_code()
        }
    }
}
