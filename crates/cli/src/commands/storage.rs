//! `kiln du`, `kiln prune`.

use std::process::ExitCode;

use kiln::{NextToGo, PruneRequest, PrunedKind, StoreBound};

use super::{caches, machine_flags, resource_flags, start, start_with_caches};
use crate::args::{BoundArgs, DuArgs, Global, PruneArgs};
use crate::config;
use crate::hints::Failure;
use crate::ui::{self, Table};

/// Says what the store holds, and what would go next.
pub(crate) fn du(global: Global, args: &DuArgs) -> Result<ExitCode, Failure> {
    #[derive(serde::Serialize)]
    struct Said {
        #[serde(flatten)]
        usage: kiln::Usage,
        total: u64,
        max_store: Option<u64>,
        max_cache_mounts: Option<u64>,
        next: Vec<NextToGo>,
    }
    let bound = bound(&args.bound)?;
    let engine = start_with_caches(global)?;
    let (usage, next) = (engine.usage()?, engine.next_to_go(&bound, args.next)?);
    if args.json {
        let said = Said {
            usage,
            total: usage.total(),
            max_store: bound.store,
            max_cache_mounts: bound.caches(),
            next,
        };
        ui::print(serde_json::to_string_pretty(&said).unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(["KIND", "SIZE"]);
    let most = |most: Option<u64>| most.map_or(String::new(), |most| format!(" of {}", ui::bytes(most)));
    let rows = [
        ("layers", usage.layers, None),
        ("failed steps", usage.failed, None),
        ("blobs", usage.blobs, None),
        ("sources", usage.sources, None),
        ("records", usage.records, None),
        ("cache mounts", usage.caches, bound.caches()),
        ("other", usage.other, None),
        ("total", usage.total(), bound.store),
    ];
    for (kind, bytes, limit) in rows {
        table.row([kind.to_owned(), ui::bytes(bytes) + &most(limit)]);
    }
    ui::print(table);
    if usage.unread > 0 {
        let closed = usage.unread;
        ui::note(format_args!(
            "cache mounts have directories that may not be read ({closed}): what is in them is not counted"
        ));
    }
    if next.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    ui::print("\nnext to go, if room is needed:");
    let now = config::now();
    let mut table = Table::new(["KIND", "SIZE", "LAST USED", "ID", "WHY"]);
    for thing in next {
        let id = match thing.kind {
            PrunedKind::CacheMount => caches::short(&thing.name),
            _ => {
                let id = thing.name.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
                id.chars().take(12).collect()
            }
        };
        let (used, size) = (ui::age(now, thing.used), ui::bytes(thing.bytes));
        table.row([kind(thing.kind).0.to_owned(), size, used, id, thing.why]);
    }
    ui::print(table);
    Ok(ExitCode::SUCCESS)
}

/// Reads how large the store may be: what was typed, else what the configuration file says.
pub(super) fn bound(args: &BoundArgs) -> Result<StoreBound, Failure> {
    let (store, caches) = config::bound()?;
    let read = |flag: &str, key: &str, asked: &Option<String>, set: Option<String>| {
        let (what, text) = match (asked, set) {
            (Some(text), _) => (flag.to_owned(), text.clone()),
            (None, Some(text)) => (format!("{key} in the configuration file:"), text),
            (None, None) => return Ok(None),
        };
        size(&what, &text).map(Some)
    };
    Ok(StoreBound {
        store: read("--max-store", "max_store", &args.max_store, store)?,
        cache_mounts: read("--max-cache-mounts", "max_cache_mounts", &args.max_cache_mounts, caches)?,
    })
}

/// Reads `--lock-timeout`, to seconds: a part of one counts as a whole.
pub(super) fn lock_timeout(text: Option<&str>) -> Result<Option<u64>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let ms = resource_flags::timeout(text)
        .map_err(|reason| Failure::usage(format!("--lock-timeout {text}: {reason}")))?;
    Ok(ms.map(|ms| ms.div_ceil(1000)))
}

/// Reads a size as docker has them.
fn size(flag: &str, text: &str) -> Result<u64, Failure> {
    let wrong = |reason: &str| Failure::usage(format!("{flag} {text}: {reason}"));
    match machine_flags::size(text).map_err(|reason| wrong(&reason))? {
        Some(bytes) => Ok(bytes),
        None => Err(wrong("a store of no size holds nothing")),
    }
}

/// Removes what no image needs.
pub(crate) fn prune(global: Global, args: &PruneArgs) -> Result<ExitCode, Failure> {
    let (mut unused_for, mut ids) = (None, Vec::new());
    for filter in &args.filter {
        match filter.strip_prefix("id=") {
            Some("") => return Err(Failure::usage("--filter id=: which id?")),
            Some(id) => ids.push(id.to_owned()),
            None if filter.starts_with("until=") => unused_for = Some(age(filter)?),
            None => {
                let message = format!("--filter {filter}: write until=AGE, such as until=24h, or id=ID");
                return Err(Failure::usage(message));
            }
        }
    }
    if args.cache_mounts && !ids.is_empty() {
        return Err(Failure::usage(
            "--filter id= is for layers, blobs and records; `kiln cache rm ID` removes a cache mount",
        ));
    }
    let space = |flag: &str, text: &Option<String>| text.as_deref().map(|text| size(flag, text)).transpose();
    let request = PruneRequest {
        // What is named is meant, whatever needs it.
        all: args.all || !ids.is_empty(),
        cache_mounts: args.cache_mounts,
        unused_for,
        ids,
        keep_bytes: space("--max-used-space", &args.max_used_space)?,
        free_bytes: space("--min-free-space", &args.min_free_space)?,
        dry_run: args.dry_run,
    };
    let report = start(global)?.prune(&request)?;
    if args.json {
        ui::print(serde_json::to_string_pretty(&report).unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    if args.verbose || args.dry_run {
        for thing in &report.removed {
            let name = ui::clean(&thing.name);
            ui::note(format_args!("{} {name}, {}", kind(thing.kind).0, ui::bytes(thing.bytes)));
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
    caches::kept(&report.held);
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
    let bad = || {
        Failure::usage(format!(
            "--filter {filter}: write until=AGE, such as until=24h, until=1h30m or until=7d"
        ))
    };
    let text = filter.strip_prefix("until=").ok_or_else(bad)?;
    seconds(text).ok_or_else(bad)
}

/// `24h`, `7d`, `1h30m` -> seconds.
pub(super) fn seconds(text: &str) -> Option<u64> {
    let mut sum = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let (count, units) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let unit = match units.as_bytes()[0] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            _ => return None,
        };
        sum = sum.checked_add(count.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = &units[1..];
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::{age, seconds};

    #[test]
    fn ages_as_docker_takes_them_and_days() {
        let rows = [
            ("24h", Some(86_400)),
            ("7d", Some(604_800)),
            ("1h30m", Some(5400)),
            ("90s", Some(90)),
            ("0s", Some(0)),
        ];
        for (text, expected) in rows {
            assert_eq!(seconds(text), expected, "{text}");
        }
        for text in [
            "",
            "24",
            "h",
            "1w",
            "1h30",
            "-1h",
            "1.5h",
            "99999999999999999999h",
            "9999999999999999999d",
            "1hß",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
        let error = age("until=2026-11-22T00:00:00").unwrap_err();
        assert!(matches!(error, crate::hints::Failure::Usage(text) if text.contains("until=24h")));
    }
}
