//! `kiln cache export`, `kiln cache import`, and what `kiln build` says of caches that it restored and saved.

use std::process::ExitCode;

use kiln::{
    Cancel, CarriedCache, CarryExport, CarryExportRequest, CarryImport, CarryImportRequest, CarryLimits,
    CarryPlace, CarryReport, CarrySource, CarryTarget, Engine, Error, EventSink,
};

use super::{cancel_on_signal, csv, machine_flags, start_patient, storage};
use crate::args::{CacheExportArgs, CacheImportArgs, Global, ShowArgs, WaitArgs};
use crate::config;
use crate::hints::Failure;
use crate::ui::{self, Progress};

/// Exports.
pub(super) fn export(global: Global, args: &CacheExportArgs) -> Result<ExitCode, Failure> {
    let place: CarryPlace = args.to.parse().map_err(Failure::from_usage)?;
    let to_stdout = matches!(place, CarryPlace::Archive { path: None, .. });
    if to_stdout && config::results_on_terminal() {
        return Err(Failure::usage(
            "the export would go to the terminal: add --to PLACE, or write to a pipe",
        ));
    }
    if to_stdout && args.json {
        return Err(Failure::usage("--json: the export itself goes to standard output; add --to PLACE"));
    }
    let mut limits = CarryLimits::default();
    for (key, value) in [
        ("max-size", &args.max_size),
        ("max-age", &args.max_age),
        ("keep", &args.keep),
        ("level", &args.level),
    ] {
        if let Some(value) = value {
            limit(&mut limits, key, value).map_err(|reason| Failure::usage(format!("--{key}: {reason}")))?;
        }
    }
    let registry = config::registry(&args.registry)?;
    let (ids, scope) = (args.id.clone(), args.scope.clone());
    let request = CarryExportRequest { ids, scope, place, limits, registry };
    let done = shown(global, &args.wait, &args.show, |engine, events, cancel| {
        engine.export_caches(&request, events, cancel)
    })?;
    if args.json {
        ui::print(serde_json::to_string_pretty(&done).unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    done.notes.iter().for_each(|note| ui::note(format!("warning: {note}")));
    ui::note(exported(&done));
    if let Some(generation) = done.generation.filter(|_| !to_stdout) {
        ui::print(generation);
    }
    Ok(ExitCode::SUCCESS)
}

/// Imports.
pub(super) fn import(global: Global, args: &CacheImportArgs) -> Result<ExitCode, Failure> {
    let request = CarryImportRequest {
        ids: args.id.clone(),
        scope: args.scope.clone(),
        place: args.from.parse().map_err(Failure::from_usage)?,
        strategy: args
            .strategy
            .parse()
            .map_err(|reason: String| Failure::usage(format!("--strategy: {reason}")))?,
        replace: args.replace,
        registry: config::registry(&args.registry)?,
    };
    let done = shown(global, &args.wait, &args.show, |engine, events, cancel| {
        engine.import_caches(&request, events, cancel)
    })?;
    if args.json {
        ui::print(serde_json::to_string_pretty(&done).unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    done.notes.iter().for_each(|note| ui::note(format!("warning: {note}")));
    ui::note(imported(&done));
    Ok(ExitCode::SUCCESS)
}

/// Does something with caches, also those in directories of the user's, with a display.
fn shown<T>(
    global: Global,
    wait: &WaitArgs,
    show: &ShowArgs,
    work: impl FnOnce(&Engine, &dyn EventSink, &Cancel) -> Result<T, Error>,
) -> Result<T, Failure> {
    let engine = start_patient(global, wait)?;
    let cancel = cancel_on_signal()?;
    let progress = Progress::new(show.mode());
    let result = work(&engine, &progress, &cancel);
    progress.finish();
    Ok(result?)
}

/// Reads a `--cache-mounts-from`.
pub(super) fn source(text: &str) -> Result<CarrySource, Failure> {
    let fail = |reason: String| Failure::usage(format!("--cache-mounts-from {text}: {reason}"));
    let (place, options) = fields(text).map_err(fail)?;
    let mut source = CarrySource { place, ids: Vec::new(), strategy: Default::default() };
    for (key, value) in options {
        match key.as_str() {
            "id" => source.ids.push(value),
            "strategy" => source.strategy = value.parse().map_err(fail)?,
            _ => return Err(fail(format!("there is no {key}; there are id and strategy"))),
        }
    }
    Ok(source)
}

/// Reads a `--cache-mounts-to`.
pub(super) fn target(text: &str) -> Result<CarryTarget, Failure> {
    let fail = |reason: String| Failure::usage(format!("--cache-mounts-to {text}: {reason}"));
    let (place, options) = fields(text).map_err(fail)?;
    if matches!(place, CarryPlace::Archive { path: None, .. }) {
        return Err(fail("standard output is the image's; name a file".to_owned()));
    }
    let mut target = CarryTarget { place, ids: Vec::new(), limits: CarryLimits::default() };
    for (key, value) in options {
        match key.as_str() {
            "id" => target.ids.push(value),
            key => {
                limit(&mut target.limits, key, &value).map_err(|reason| fail(format!("{key}: {reason}")))?
            }
        }
    }
    Ok(target)
}

/// The place, and `key=value` after it.
fn fields(text: &str) -> Result<(CarryPlace, Vec<(String, String)>), String> {
    let mut fields = csv::fields(text)?.into_iter();
    let place = fields.next().unwrap_or_default();
    let place = place.parse().map_err(|error: kiln::PlaceError| error.reason)?;
    let option = |field: String| {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("{field:?} is not KEY=VALUE"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    Ok((place, fields.map(option).collect::<Result<_, String>>()?))
}

fn limit(limits: &mut CarryLimits, key: &str, value: &str) -> Result<(), String> {
    match key {
        "max-size" => limits.max_size = Some(machine_flags::size(value)?.ok_or("write a size, such as 2g")?),
        "max-age" => {
            limits.max_age = Some(storage::seconds(value).ok_or("write an age, such as 30d or 12h")?)
        }
        "keep" => {
            let keep = value.parse().ok().filter(|keep| (1..=100).contains(keep));
            limits.keep = keep.ok_or("write a number from 1 to 100")?;
        }
        "level" => {
            let level = value.parse().ok().filter(|level| (1..=19).contains(level));
            limits.level = level.ok_or("write a number from 1 to 19")?;
        }
        _ => {
            return Err("there is no such option; there are id, max-size, max-age, keep and level".to_owned());
        }
    }
    Ok(())
}

/// Says what a build restored and saved, and whether it was worth it.
pub(super) fn report(report: &CarryReport) {
    for import in &report.restored {
        ui::note(imported(import));
        if let Some(worth) = worth(import) {
            ui::note(worth);
        }
    }
    for export in &report.saved {
        ui::note(exported(export));
    }
}

fn exported(done: &CarryExport) -> String {
    let seconds = seconds(done.duration_us);
    let (files, bytes) = sums(&done.caches);
    let left = match done.left_behind {
        (0, _) => String::new(),
        (files, bytes) => format!("; {}, {} stayed behind", ui::counted(files, "file"), ui::bytes(bytes)),
    };
    match done.generation {
        None => format!("cache mounts are at {} as they are: nothing to export, {seconds}{left}", done.place),
        Some(_) => format!(
            "exported {} to {}: {}, {}; moved {} in {seconds}{left}",
            names(&done.caches),
            done.place,
            ui::counted(files, "file"),
            ui::bytes(bytes),
            ui::bytes(done.moved)
        ),
    }
}

fn imported(done: &CarryImport) -> String {
    let (files, bytes) = sums(&done.caches);
    format!(
        "restored {} from {}: {}, {}; moved {} in {}",
        names(&done.caches),
        done.place,
        ui::counted(files, "file"),
        ui::bytes(bytes),
        ui::bytes(done.moved),
        seconds(done.duration_us)
    )
}

/// Steps that read nothing had no use for it; if they read little, a smaller export would do.
fn worth(import: &CarryImport) -> Option<String> {
    let (_, all) = sums(&import.caches);
    let known: Vec<u64> = import.caches.iter().filter_map(|cache| cache.used).collect();
    if known.is_empty() || all == 0 {
        return None;
    }
    let used: u64 = known.iter().sum();
    let share = used * 100 / all;
    let what = format!("steps read {} of it, {share} %", ui::bytes(used));
    Some(match share {
        0 => format!("{what}: restoring it took {} for nothing", seconds(import.duration_us)),
        1..20 => format!("{what}: --cache-mounts-to PLACE,max-age=AGE would leave the rest behind"),
        _ => what,
    })
}

fn names(caches: &[CarriedCache]) -> String {
    match caches {
        [only] => format!("cache mount {}", only.id),
        all => format!("{} cache mounts", all.len()),
    }
}

fn sums(caches: &[CarriedCache]) -> (u64, u64) {
    caches.iter().fold((0, 0), |(files, bytes), cache| (files + cache.files, bytes + cache.bytes))
}

fn seconds(us: u64) -> String {
    format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_a_place_and_options() {
        let source = source("oci:a:b,id=pip,id=/root/.cache/uv,strategy=newest").unwrap();
        assert_eq!(source.ids, ["pip", "/root/.cache/uv"]);
        assert_eq!(source.strategy, kiln::Strategy::Newest);
        let target = target("127.0.0.1:5/a:b,max-size=2g,max-age=30d,keep=2,level=1").unwrap();
        let limits = CarryLimits { max_size: Some(2 << 30), max_age: Some(30 * 86400), keep: 2, level: 1 };
        assert_eq!(target.limits, limits);
        for wrong in ["", "a", "oci:a,b", "oci:a,x=1", "oci:a,strategy=old"] {
            assert!(super::source(wrong).is_err(), "{wrong}");
        }
        for wrong in
            ["-", "oci:a,keep=0", "oci:a,level=20", "oci:a,max-age=soon", "oci:a,max-size=", "oci:a,type=x"]
        {
            assert!(super::target(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_restore_is_judged_by_what_steps_read() {
        let import = |used| {
            let cache =
                CarriedCache { id: "pip".into(), scope: "global".into(), files: 2, bytes: 1000, used };
            CarryImport {
                place: "oci:a".into(),
                caches: vec![cache],
                moved: 9,
                duration_us: 1_230_000,
                notes: vec![],
            }
        };
        assert_eq!(worth(&import(None)), None);
        assert!(worth(&import(Some(0))).unwrap().contains("took 1.23 s for nothing"));
        assert!(worth(&import(Some(100))).unwrap().contains("max-age"));
        assert_eq!(worth(&import(Some(900))).unwrap(), "steps read 900 B of it, 90 %");
    }
}
