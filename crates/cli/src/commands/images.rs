//! `kiln images`, `kiln rmi`.

use std::process::ExitCode;

use super::start;
use crate::args::{Global, ImagesArgs, RmiArgs};
use crate::config;
use crate::hints::Failure;
use crate::ui::{self, Table};

/// Lists images, newest first.
pub(crate) fn list(global: Global, args: &ImagesArgs) -> Result<ExitCode, Failure> {
    let images = start(global)?.images()?;
    if args.json {
        ui::print(serde_json::to_string_pretty(&images).unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    if args.quiet {
        for image in images {
            ui::print(image.digest);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let now = config::now();
    let mut table = Table::new(["NAME", "DIGEST", "PLATFORMS", "SIZE", "CREATED"]);
    for image in images {
        let platforms: Vec<String> = image.platforms.iter().map(ToString::to_string).collect();
        table.row([
            image.name.familiar(),
            image.digest.short(),
            platforms.join(","),
            ui::bytes(image.size),
            ui::age(now, image.tagged),
        ]);
    }
    ui::print(table);
    Ok(ExitCode::SUCCESS)
}

/// Removes names; what only they reached goes with the next prune.
pub(crate) fn remove(global: Global, args: &RmiArgs) -> Result<ExitCode, Failure> {
    let names = args
        .image
        .iter()
        .map(|name| name.parse())
        .collect::<Result<Vec<_>, _>>()
        .map_err(Failure::from_usage)?;
    let engine = start(global)?;
    for name in names {
        engine.remove_image(&name)?;
        ui::print(format_args!("untagged {}", name.familiar()));
    }
    Ok(ExitCode::SUCCESS)
}
