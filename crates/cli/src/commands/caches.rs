//! `kiln cache`.

use std::process::ExitCode;

use super::start;
use crate::args::{CacheCommand, Global};
use crate::config;
use crate::hints::Failure;
use crate::ui::{self, Table};

/// Lists or removes cache mounts.
pub(crate) fn run(global: Global, command: CacheCommand) -> Result<ExitCode, Failure> {
    let engine = start(global)?;
    match command {
        CacheCommand::Ls { json } => {
            let caches = engine.caches()?;
            if json {
                ui::print(serde_json::to_string_pretty(&caches).unwrap_or_default());
                return Ok(ExitCode::SUCCESS);
            }
            let now = config::now();
            let mut table = Table::new(["ID", "SCOPE", "SIZE", "FILES", "LAST USED", "HELD BY"]);
            for cache in caches {
                table.row([
                    cache.id,
                    cache.scope,
                    ui::bytes(cache.size),
                    cache.files.to_string(),
                    ui::age(now, cache.last_used),
                    cache.held_by.unwrap_or_else(|| "-".to_owned()),
                ]);
            }
            ui::print(table);
        }
        CacheCommand::Rm { id, scope, all } => {
            let ids = if all { None } else { Some(id.as_slice()) };
            for removed in engine.remove_caches(ids, scope.as_deref())? {
                ui::print(format_args!(
                    "removed {} ({}), {}",
                    removed.id,
                    removed.scope,
                    ui::bytes(removed.size)
                ));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
