//! `kiln du`, `kiln prune`.

use std::process::ExitCode;

use kiln::{PruneRequest, PrunedKind};

use super::start;
use crate::args::{DuArgs, Global, PruneArgs};
use crate::hints::Failure;
use crate::ui::{self, Table};

/// Says what the store holds.
pub(crate) fn du(global: Global, args: &DuArgs) -> Result<ExitCode, Failure> {
    let usage = start(global)?.usage()?;
    if args.json {
        ui::print(serde_json::to_string_pretty(&usage).unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(["KIND", "SIZE"]);
    let rows = [
        ("layers", usage.layers),
        ("failed steps", usage.failed),
        ("blobs", usage.blobs),
        ("sources", usage.sources),
        ("records", usage.records),
        ("cache mounts", usage.caches),
        ("other", usage.other),
        ("total", usage.total()),
    ];
    for (kind, bytes) in rows {
        table.row([kind.to_owned(), ui::bytes(bytes)]);
    }
    ui::print(table);
    Ok(ExitCode::SUCCESS)
}

/// Removes what no image needs.
pub(crate) fn prune(global: Global, args: &PruneArgs) -> Result<ExitCode, Failure> {
    let unused_for = match &args.filter {
        Some(filter) => Some(age(filter)?),
        None => None,
    };
    let request =
        PruneRequest { all: args.all, cache_mounts: args.cache_mounts, unused_for, dry_run: args.dry_run };
    let report = start(global)?.prune(&request)?;
    if args.verbose {
        for thing in &report.removed {
            ui::note(format_args!("{} {}, {}", kind(thing.kind).0, thing.name, ui::bytes(thing.bytes)));
        }
    }
    let mut table = Table::new(["KIND", "COUNT", "SIZE"]);
    let kinds = [
        PrunedKind::Layer,
        PrunedKind::FailedStep,
        PrunedKind::Blob,
        PrunedKind::Source,
        PrunedKind::Record,
        PrunedKind::CacheMount,
    ];
    for which in kinds {
        let things = || report.removed.iter().filter(|thing| thing.kind == which);
        let bytes = things().map(|thing| thing.bytes).sum();
        if things().next().is_none() {
            continue;
        }
        table.row([kind(which).1.to_owned(), things().count().to_string(), ui::bytes(bytes)]);
    }
    if !report.removed.is_empty() {
        ui::print(table);
    }
    let would = if args.dry_run { "would be freed" } else { "freed" };
    ui::print(format_args!("{} {would}", ui::bytes(report.bytes)));
    if report.removed.is_empty() && !args.all {
        ui::note("what builds would still hit was kept; `kiln prune --all` removes that too");
    }
    Ok(ExitCode::SUCCESS)
}

/// What one and several of a kind are called.
fn kind(kind: PrunedKind) -> (&'static str, &'static str) {
    match kind {
        PrunedKind::Layer => ("layer", "layers"),
        PrunedKind::FailedStep => ("failed step", "failed steps"),
        PrunedKind::Blob => ("blob", "blobs"),
        PrunedKind::Source => ("source", "sources"),
        PrunedKind::Record => ("record", "records"),
        PrunedKind::CacheMount => ("cache mount", "cache mounts"),
    }
}

/// `until=24h` -> seconds.
pub(super) fn age(filter: &str) -> Result<u64, Failure> {
    let bad = || Failure::usage(format!("--filter {filter}: write until=AGE, such as until=24h or until=7d"));
    let text = filter.strip_prefix("until=").ok_or_else(bad)?;
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (count, unit) = text.split_at(split);
    let count: u64 = count.parse().map_err(|_| bad())?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(bad()),
    };
    count.checked_mul(unit).ok_or_else(bad)
}
