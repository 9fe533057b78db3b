//! `kiln cache`.

use std::process::{Command, ExitCode};

use kiln::{CacheFilter, CachePruneRequest, CacheSummary, Engine};
use serde_json::{Value, json};

use super::{cancel_on_signal, carry, format_flag, machine_flags, start_patient, start_with_caches, storage};
use crate::args::{CacheCommand, CachePruneArgs, Global};
use crate::config;
use crate::hints::Failure;
use crate::ui::{self, Table};

/// Runs a cache command.
pub(crate) fn run(global: Global, command: CacheCommand) -> Result<ExitCode, Failure> {
    match command {
        CacheCommand::Export(args) => return carry::export(global, &args),
        CacheCommand::Import(args) => return carry::import(global, &args),
        CacheCommand::Ls { filter, format, quiet, json } => {
            let template = format_flag::read(format.as_deref())?;
            let filter = read_filter(&filter.filter)?;
            let caches = start_with_caches(global)?.caches_like(&filter)?;
            let now = config::now();
            if json {
                ui::print(serde_json::to_string_pretty(&caches).unwrap_or_default());
            } else if quiet {
                // A line each, whatever an id holds; --json has it as it is.
                caches.iter().for_each(|cache| ui::print(ui::clean(&cache.id)));
            } else if let Some(template) = template {
                let rows: Vec<Value> = caches.iter().map(|cache| row(cache, now)).collect();
                format_flag::print(&template, &rows)?;
            } else {
                list(&caches, now);
            }
        }
        CacheCommand::Inspect { id, scope, json } => {
            let engine = start_with_caches(global)?;
            let find =
                || id.iter().map(|id| engine.cache(id, scope.as_deref())).collect::<Result<Vec<_>, _>>();
            let mut found = find()?;
            if found.iter().any(|cache| !cache.counted) {
                // They are walked anyway: so that there is one number.
                engine.count_caches()?;
                found = find()?;
            }
            let mut values = Vec::new();
            for cache in &found {
                match inspect(&engine, cache, json)? {
                    Some(value) => values.push(value),
                    None if found.len() > 1 => ui::print(""),
                    None => {}
                }
            }
            if json {
                ui::print(serde_json::to_string_pretty(&values).unwrap_or_default());
            }
        }
        CacheCommand::Shell { id, scope, wait, command } => {
            let engine = start_patient(global, &wait)?;
            return shell(&engine, &engine.cache(&id, scope.as_deref())?, &command);
        }
        CacheCommand::Path { id, scope } => {
            let cache = start_with_caches(global)?.cache(&id, scope.as_deref())?;
            if cache.missing {
                return Err(Failure::usage(format!("{} is not there any more", cache.path.display())));
            }
            // Whatever its bytes: it is for scripts.
            ui::print_bytes(cache.path.as_os_str().as_encoded_bytes());
            ui::print("");
        }
        CacheCommand::Du { filter, json } => {
            let filter = read_filter(&filter.filter)?;
            let engine = start_with_caches(global)?;
            engine.count_caches()?;
            room(&engine.caches_like(&filter)?, json);
        }
        CacheCommand::Rm { id, scope, all } => {
            let ids = if all { None } else { Some(id.as_slice()) };
            for cache in start_with_caches(global)?.remove_caches(ids, scope.as_deref())? {
                removed(&cache, "removed", "forgot");
            }
        }
        CacheCommand::Prune(args) => prune(global, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(caches: &[CacheSummary], now: u64) {
    if caches.is_empty() {
        ui::note("no cache mounts; `RUN --mount=type=cache,target=DIR` makes one");
        return;
    }
    let heading = ["ID", "SCOPE", "SIZE", "FILES", "COUNTED", "CREATED", "LAST USED", "PATH", "HELD BY"];
    let mut table = Table::new(heading);
    for cache in caches {
        table.row([
            short(&cache.id),
            cache.scope.clone(),
            size(cache),
            cache.files.to_string(),
            counted(cache, now),
            ago(now, cache.created),
            ago(now, cache.last_used),
            path(cache),
            cache.held_by.as_deref().map_or_else(|| "-".to_owned(), short),
        ]);
    }
    let usual = caches.iter().all(|cache| !cache.placed && !cache.missing);
    ui::print(if usual { table.without("PATH") } else { table });
    let old = caches.iter().any(|cache| !cache.counted);
    if old {
        ui::note("~: used since it was counted; `kiln cache du` counts it again");
    }
}

/// A step's command may be long, and so may an id: `inspect` and --json show them whole.
pub(super) fn short(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST).chain("...".chars()).collect()
}

/// What templates see.
fn row(cache: &CacheSummary, now: u64) -> Value {
    let figures = &cache.figures;
    json!({
        "ID": cache.id,
        "Scope": cache.scope,
        "Path": cache.path.to_string_lossy(),
        "Placed": cache.placed,
        "Size": size(cache),
        "Bytes": cache.size,
        "Files": cache.files,
        "Counted": counted(cache, now),
        "CreatedAt": config::rfc3339(cache.created),
        "CreatedSince": ago(now, cache.created),
        "LastUsedAt": config::rfc3339(cache.last_used),
        "LastUsedSince": ago(now, cache.last_used),
        "LastUser": cache.last_user,
        "Targets": cache.targets,
        "UsageCount": figures.uses,
        "Hits": figures.warm,
        "Found": ui::bytes(figures.found_bytes),
        "Added": ui::bytes(figures.added_bytes),
        "Removed": ui::bytes(figures.removed_bytes),
        "HeldBy": cache.held_by,
    })
}

fn size(cache: &CacheSummary) -> String {
    format!("{}{}", if cache.counted { "" } else { "~" }, ui::bytes(cache.size))
}

fn counted(cache: &CacheSummary, now: u64) -> String {
    if cache.counted_at == 0 { "never".to_owned() } else { ui::age(now, cache.counted_at) }
}

fn ago(now: u64, then: u64) -> String {
    if then == 0 { "-".to_owned() } else { ui::age(now, then) }
}

/// Of those in the store it is long, and always the same.
fn path(cache: &CacheSummary) -> String {
    match (cache.placed, cache.missing) {
        (_, true) => format!("{} (not there)", cache.path.display()),
        (true, false) => cache.path.display().to_string(),
        (false, false) => "-".to_owned(),
    }
}

/// Shows one cache; for JSON, returns it.
fn inspect(engine: &Engine, cache: &CacheSummary, as_json: bool) -> Result<Option<Value>, Failure> {
    let parts = if cache.missing { Vec::new() } else { engine.cache_parts(cache)? };
    if as_json {
        let mut value = json!(cache);
        value["parts"] = json!(parts);
        return Ok(Some(value));
    }
    let now = config::now();
    let figures = &cache.figures;
    let mut rows = vec![
        ("id", cache.id.clone()),
        ("scope", cache.scope.clone()),
        ("path", format!("{}{}", cache.path.display(), if cache.missing { " (not there)" } else { "" })),
        ("kept", if cache.placed { "in a directory of yours" } else { "in the store" }.to_owned()),
        ("size", format!("{} in {}", size(cache), ui::counted(cache.files, "file"))),
        ("targets", cache.targets.join(", ")),
        ("created", ago(now, cache.created)),
        ("last used", ago(now, cache.last_used)),
        ("by", cache.last_user.clone()),
        ("held by", cache.held_by.clone().unwrap_or_else(|| "-".to_owned())),
        ("uses", format!("{}, {} of them found something", figures.uses, figures.warm)),
    ];
    if figures.uses > 0 {
        rows.push((
            "last use",
            format!(
                "found {} in {}",
                ui::bytes(figures.found_bytes),
                ui::counted(figures.found_files, "file")
            ),
        ));
        let (added, gone) = (ui::bytes(figures.added_bytes), ui::bytes(figures.removed_bytes));
        rows.push(("all uses", format!("added {added}, removed {gone} (differences between counts)")));
    }
    let mut about = Table::new(["CACHE", ""]);
    for (what, value) in rows {
        about.row([what.to_owned(), value]);
    }
    ui::print(about);
    if !parts.is_empty() {
        /// Rows that fit a screen.
        const MOST: usize = 20;
        let mut table = Table::new(["SIZE", "FILES", "IN IT"]);
        for part in parts.iter().take(MOST) {
            let name = format!("{}{}", part.name, if part.directory { "/" } else { "" });
            table.row([ui::bytes(part.size), part.files.to_string(), name]);
        }
        let rest = parts.get(MOST..).unwrap_or_default();
        if !rest.is_empty() {
            let (size, files) =
                rest.iter().fold((0, 0), |(size, files), part| (size + part.size, files + part.files));
            table.row([
                ui::bytes(size),
                files.to_string(),
                format!("({} more; --json has each)", rest.len()),
            ]);
        }
        ui::print("");
        ui::print(table);
    }
    Ok(None)
}

/// Runs a program of this machine in a cache, as the user that steps are: in kiln's user namespace, so that it may read, change
/// and remove whatever they left. Its exit status is kiln's.
fn shell(engine: &Engine, cache: &CacheSummary, command: &[String]) -> Result<ExitCode, Failure> {
    if cache.missing {
        return Err(Failure::usage(format!("{} is not there any more", cache.path.display())));
    }
    let cancel = cancel_on_signal()?;
    let who = format!("process {}, kiln cache shell", std::process::id());
    let mut on_wait =
        |holder: &str| ui::note(format_args!("waiting for cache mount {:?}, which {holder} holds", cache.id));
    let hold = engine.hold_cache(cache, &who, &mut on_wait, &cancel)?;
    // From here an interrupt is the program's, which gets it from the terminal as well. It shall not end what holds the lock.
    let path = hold.path();
    let own = [config::shell()];
    let (program, arguments) = match command {
        [] => {
            ui::note(format_args!("{} (steps wait for you; leave with `exit`)", path.display()));
            (own[0].as_str(), &own[1..])
        }
        [program, arguments @ ..] => (program.as_str(), arguments),
    };
    let status = Command::new(program).args(arguments).current_dir(&path).status();
    hold.changed().map_err(kiln::Error::from)?;
    let status = status.map_err(|error| Failure::usage(format!("cannot run {program}: {error}")))?;
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let code = status.code().or(signal.map(|signal| 128 + signal)).unwrap_or(255);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(255)))
}

fn room(caches: &[CacheSummary], as_json: bool) {
    let stored = |cache: &&CacheSummary| !cache.placed;
    let total: u64 = caches.iter().filter(stored).map(|cache| cache.size).sum();
    if as_json {
        let rows: Vec<Value> = caches
            .iter()
            .map(|c| json!({"id": c.id, "scope": c.scope, "path": c.path, "placed": c.placed, "size": c.size, "files": c.files, "counted": c.counted}))
            .collect();
        ui::print(serde_json::to_string_pretty(&json!({"caches": rows, "total": total})).unwrap_or_default());
        return;
    }
    let mut sorted: Vec<&CacheSummary> = caches.iter().collect();
    sorted.sort_by_key(|cache| std::cmp::Reverse(cache.size));
    let mut table = Table::new(["SIZE", "FILES", "ID", "SCOPE", "PATH"]);
    for cache in sorted {
        table.row([size(cache), cache.files.to_string(), short(&cache.id), cache.scope.clone(), path(cache)]);
    }
    let files = caches.iter().filter(stored).map(|cache| cache.files).sum::<u64>();
    table.row([
        ui::bytes(total),
        files.to_string(),
        "(all in the store)".to_owned(),
        String::new(),
        String::new(),
    ]);
    ui::print(table);
}

fn removed(cache: &CacheSummary, verb: &str, forgot: &str) {
    let (id, scope) = (ui::clean(&cache.id), ui::clean(&cache.scope));
    if cache.placed {
        let stay = if cache.missing { "is not there" } else { "keeps its files" };
        ui::print(format_args!("{forgot} {id} ({scope}); {} {stay}", cache.path.display()));
    } else {
        ui::print(format_args!("{verb} {id} ({scope}), {}", ui::bytes(cache.size)));
    }
}

/// Says which caches stay though they were meant.
pub(super) fn kept(caches: &[CacheSummary]) {
    for cache in caches {
        let holder = cache.held_by.as_deref().unwrap_or("a build that runs has used it, and may again");
        let uses = if cache.held_by.is_some() { " uses it" } else { "" };
        let (id, scope) = (ui::clean(&cache.id), ui::clean(&cache.scope));
        ui::note(format_args!("kept {id} ({scope}): {}{uses}", ui::clean(holder)));
    }
}

fn prune(global: Global, args: &CachePruneArgs) -> Result<(), Failure> {
    let size = |text: &String| {
        let read = machine_flags::size(text).map(|bytes| bytes.unwrap_or(0));
        read.map_err(|reason| Failure::usage(format!("--max-used-space {text}: {reason}")))
    };
    let keep_bytes = args.max_used_space.as_ref().map(size).transpose()?;
    if args.filter.is_empty() && keep_bytes.is_none() && !args.all {
        return Err(Failure::usage(
            "that would remove every cache mount: say which with --filter id=PATTERN or until=AGE, how much may stay with \
             --max-used-space SIZE, or --all",
        ));
    }
    let filter = read_filter(&args.filter)?;
    let request = CachePruneRequest { filter, keep_bytes, dry_run: args.dry_run };
    let report = start_with_caches(global)?.prune_caches(&request)?;
    let (verb, forgot) = if args.dry_run { ("would remove", "would forget") } else { ("removed", "forgot") };
    report.removed.iter().for_each(|cache| removed(cache, verb, forgot));
    kept(&report.held);
    ui::print(format_args!(
        "{}: {}",
        if args.dry_run { "Would reclaim" } else { "Total reclaimed space" },
        ui::bytes(report.bytes)
    ));
    Ok(())
}

/// Reads `--filter`. Patterns of one kind are alternatives; kinds must all be true.
fn read_filter(texts: &[String]) -> Result<CacheFilter, Failure> {
    let mut filter = CacheFilter::default();
    for text in texts {
        let wrong = |reason: &str| Failure::usage(format!("--filter {text}: {reason}"));
        let (what, how) = text.split_once('=').ok_or_else(|| wrong("write WHAT=HOW, such as id=pip*"))?;
        let truth = || match how {
            "true" | "1" => Ok(Some(true)),
            "false" | "0" => Ok(Some(false)),
            _ => Err(wrong("write true or false")),
        };
        match what {
            "id" | "name" => filter.ids.push(how.to_owned()),
            "scope" => filter.scopes.push(how.to_owned()),
            "until" | "unused-for" => filter.unused_for = Some(storage::age(&format!("until={how}"))?),
            "placed" => filter.placed = truth()?,
            "held" => filter.held = truth()?,
            _ => return Err(wrong("there are id, scope, until, placed and held")),
        }
    }
    Ok(filter)
}
