//! `kiln images`, `kiln rmi`.

use std::process::ExitCode;

use super::start;
use crate::args::{Global, ImagesArgs, RmiArgs};
use crate::config;
use crate::hints::Failure;
use crate::ui::{self, Table};

/// Lists images, newest first.
pub(crate) fn list(global: Global, args: &ImagesArgs) -> Result<ExitCode, Failure> {
    let images = start(global)?.images(args.all)?;
    if args.json {
        ui::print(serde_json::to_string_pretty(&images).unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    if args.quiet {
        // A digest with two names is one image.
        let mut shown = std::collections::HashSet::new();
        images.iter().filter(|image| shown.insert(image.digest)).for_each(|image| ui::print(image.digest));
        return Ok(ExitCode::SUCCESS);
    }
    if images.is_empty() {
        ui::note("no images yet; `kiln build -t NAME .` makes one");
    }
    let now = config::now();
    let mut table = Table::new(["NAME", "DIGEST", "PLATFORMS", "SIZE", "TAGGED"]);
    for image in images {
        let platforms: Vec<String> = image.platforms.iter().map(ToString::to_string).collect();
        table.row([
            image.name.map_or_else(|| "<none>".to_owned(), |name| name.familiar()),
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
        let untagged = engine.remove_image(&name)?;
        for name in &untagged {
            ui::print(format_args!("untagged {}", name.familiar()));
        }
        if untagged.is_empty() {
            ui::print(format_args!("forgot {}", name.familiar()));
        }
    }
    Ok(ExitCode::SUCCESS)
}
