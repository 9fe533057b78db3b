//! `kiln doctor`.

use std::process::ExitCode;

use crate::args::{DoctorArgs, Global};
use crate::config;
use crate::hints::Failure;
use crate::ui;

/// Prints each rung of the ladder: what is used, why, and the one command that would raise it.
pub(crate) fn doctor(global: Global, args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let root = config::store_root(global.root)?;
    let rungs = kiln::doctor(&root, &config::emulators())?;
    if args.json {
        ui::print(serde_json::to_string_pretty(&rungs).unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    let width = rungs.iter().map(|rung| rung.what.len()).max().unwrap_or(0);
    for rung in rungs {
        let chosen = rung.chosen.as_deref().unwrap_or("does not work here");
        ui::print(format_args!("{:width$}  {chosen}", rung.what));
        ui::print(format_args!("{:width$}    {}", "", rung.reason));
        if let Some(raise) = rung.raise {
            ui::print(format_args!("{:width$}    better with: {raise}", ""));
        }
    }
    Ok(ExitCode::SUCCESS)
}
