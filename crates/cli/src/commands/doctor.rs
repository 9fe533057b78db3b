//! `kiln doctor`.

use std::process::ExitCode;

use crate::args::{DoctorArgs, DoctorCommand, Global};
use crate::config;
use crate::hints::Failure;
use crate::ui;

/// Prints each rung of the ladder: what is used, why, and the one command that would raise it. Tells with its exit code
/// whether kiln can build here.
pub(crate) fn doctor(global: Global, args: &DoctorArgs) -> Result<ExitCode, Failure> {
    if let Some(DoctorCommand::Registry(args)) = &args.about {
        return super::doctor_registry::registry(args);
    }
    let root = config::store_root(global.root)?;
    let rungs = kiln::doctor(&root, &config::emulators(), global.isolation.map(Into::into))?;
    // This machine cannot. What only some builds need is not asked for.
    let needed = |rung: &&kiln::Rung| ["user ids", "isolation", "file system"].contains(&rung.what.as_str());
    let builds = rungs.iter().filter(needed).all(|rung| rung.chosen.is_some());
    let code = ExitCode::from(if builds { 0 } else { 3 });
    if args.json {
        ui::print(serde_json::to_string_pretty(&rungs).unwrap_or_default());
        return Ok(code);
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
    Ok(code)
}
