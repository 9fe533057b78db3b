//! `kiln context ls`. Its formats are fixed in docs/contexts.md.

use std::collections::BTreeMap;
use std::process::ExitCode;

use kiln::{ContextListing, ContextSource, ContextView, ListedFile, Rule, RuleUse, Why};

use super::{cancel_on_signal, context_source, start};
use crate::args::{ContextCommand, ContextLsArgs, ContextSort, Global, ProgressMode, RegistryArgs};
use crate::context_hints;
use crate::hints::Failure;
use crate::ui::{self, Progress, Table};

/// Rows that fit a screen.
const MAX_ROWS: usize = 20;

/// Runs a context command.
pub(crate) fn run(global: Global, command: &ContextCommand) -> Result<ExitCode, Failure> {
    let ContextCommand::Ls(args) = command;
    let (source, dockerfile) = context_source::main(&args.context, args.file.as_deref())?;
    let view = match source {
        // Needs neither namespaces nor a store.
        ContextSource::Directory(dir) => ContextView::directory(&dir, &dockerfile)?,
        source => {
            let given = (source, dockerfile);
            let request = context_source::only(&global, given, &args.secret, &RegistryArgs::default())?;
            let engine = start(global)?;
            let cancel = cancel_on_signal()?;
            let progress = Progress::new(ProgressMode::Quiet);
            engine.context(&request, &progress, &cancel)?
        }
    };
    if args.why.is_empty() { list(&view.list()?, args) } else { explain(&view, args) }
}

fn list(listing: &ContextListing, args: &ContextLsArgs) -> Result<ExitCode, Failure> {
    let depth = if args.all { usize::MAX } else { args.depth.get() };
    let mut rows = grouped(&listing.sent, depth);
    if args.sort == ContextSort::Size {
        // Stable: what is equal stays in the order of names.
        rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
    }
    if args.json {
        ui::print(serde_json::to_string_pretty(&json(listing, &rows)).unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(["SIZE", "FILES", "PATH"]);
    let shown = if args.all || rows.len() <= MAX_ROWS { rows.len() } else { MAX_ROWS - 1 };
    for row in &rows[..shown] {
        table.row([ui::bytes(row.bytes), row.files.to_string(), row.path.clone()]);
    }
    if let rest @ [_, ..] = &rows[shown..] {
        let (bytes, files) = (rest.iter().map(|r| r.bytes).sum(), rest.iter().map(|r| r.files).sum::<u64>());
        table.row([
            ui::bytes(bytes),
            files.to_string(),
            format!("({} more; --all lists each file)", rest.len()),
        ]);
    }
    if !rows.is_empty() {
        ui::print(format_args!("{table}\n"));
    }
    ui::print(summary(listing));
    for hint in context_hints::heavy(&listing.sent) {
        ui::note(format_args!("hint: {hint}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// A file, or a directory with all below it.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    path: String,
    files: u64,
    bytes: u64,
}

/// Sums up what is deeper than so many levels; sorted by name.
fn grouped(sent: &[ListedFile], depth: usize) -> Vec<Row> {
    let mut groups: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for file in sent {
        // With its slash: so that a directory can be told from a file.
        let end = file.path.match_indices('/').nth(depth - 1).map_or(file.path.len(), |(slash, _)| slash + 1);
        let (files, bytes) = groups.entry(&file.path[..end]).or_default();
        *files += 1;
        *bytes += file.bytes;
    }
    let row = |(path, (files, bytes)): (&str, _)| Row { path: path.to_owned(), files, bytes };
    groups.into_iter().map(row).collect()
}

fn summary(listing: &ContextListing) -> String {
    let count = |files: u64, bytes| format!("{} in {}", ui::bytes(bytes), ui::counted(files, "file"));
    let (files, bytes) = sent(listing);
    let mut text = format!("sent: {}", count(files, bytes));
    let Some(ignore_file) = &listing.ignore_file else {
        return text + "\nnot sent: nothing, there is no .dockerignore";
    };
    let (files, bytes) = excluded(&listing.rules);
    text += &format!("\nnot sent: {}, by {ignore_file}", count(files, bytes));
    for used in listing.rules.iter().filter(|used| !used.brings_back) {
        let Rule { line, text: pattern, .. } = &used.rule;
        text += &format!("\n  line {line}, {pattern}: {}", count(used.files, used.bytes));
    }
    for path in &listing.unreadable {
        text += &format!("\n  {} cannot be read, and is not counted", path.display());
    }
    text
}

fn sent(listing: &ContextListing) -> (u64, u64) {
    (listing.sent.len() as u64, listing.sent.iter().map(|file| file.bytes).sum())
}

fn excluded(rules: &[RuleUse]) -> (u64, u64) {
    let excluding = || rules.iter().filter(|used| !used.brings_back);
    (excluding().map(|used| used.files).sum(), excluding().map(|used| used.bytes).sum())
}

fn json(listing: &ContextListing, rows: &[Row]) -> serde_json::Value {
    let total = |(files, bytes): (u64, u64)| serde_json::json!({ "files": files, "bytes": bytes });
    let row = |row: &Row| serde_json::json!({ "path": row.path, "files": row.files, "bytes": row.bytes });
    serde_json::json!({
        "context": listing.context,
        "ignore_file": listing.ignore_file,
        "sent": total(sent(listing)),
        "excluded": total(excluded(&listing.rules)),
        "rules": listing.rules,
        "unreadable": listing.unreadable,
        "entries": rows.iter().map(row).collect::<Vec<_>>(),
    })
}

fn explain(view: &ContextView, args: &ContextLsArgs) -> Result<ExitCode, Failure> {
    let answers: Vec<Why> = args.why.iter().map(|path| view.why(path)).collect::<Result<_, _>>()?;
    if args.json {
        ui::print(serde_json::to_string_pretty(&answers).unwrap_or_default());
    } else {
        answers.iter().for_each(|why| ui::print(in_words(why)));
    }
    Ok(match answers.iter().all(|why| why.exists) {
        false => ExitCode::from(2),
        true => ExitCode::from(u8::from(answers.iter().any(|why| !why.sent))),
    })
}

fn in_words(why: &Why) -> String {
    let Why { path, exists, nearby, sent, excluded, brought_back, parts_sent } = why;
    let path = if path.is_empty() { "." } else { path };
    let place = |rule: &Rule| format!("line {} of {}", rule.line, rule.file);
    if !exists {
        let near = if nearby.is_empty() { String::new() } else { format!("; nearby: {}", nearby.join(", ")) };
        return match excluded {
            Some(rule) if !sent => {
                format!("{path}: not there; {} would exclude it: {}{near}", place(rule), rule.text)
            }
            _ => format!("{path}: not there{near}"),
        };
    }
    match (excluded, brought_back) {
        (Some(excluded), Some(back)) => format!(
            "{path}: sent, {} brings it back: {} ({} excludes it: {})",
            place(back),
            back.text,
            place(excluded),
            excluded.text
        ),
        (Some(rule), None) => {
            let parts = if *parts_sent { "; a `!` below that line may bring back parts of it" } else { "" };
            format!("{path}: not sent, {} excludes it: {}{parts}", place(rule), rule.text)
        }
        (None, _) => format!("{path}: sent, no line excludes it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, bytes: u64) -> ListedFile {
        ListedFile { path: path.to_owned(), bytes }
    }

    #[test]
    fn what_is_deeper_is_summed_up() {
        let sent = [file("a", 1), file("d-x", 5), file("d/a", 2), file("d/e/f", 3), file("d/e/g", 4)];
        let rows = |depth| {
            let rows = grouped(&sent, depth);
            rows.into_iter()
                .map(|row| format!("{} {} {}", row.path, row.files, row.bytes))
                .collect::<Vec<_>>()
        };
        assert_eq!(rows(1), ["a 1 1", "d-x 1 5", "d/ 3 9"]);
        assert_eq!(rows(2), ["a 1 1", "d-x 1 5", "d/a 1 2", "d/e/ 2 7"]);
        assert_eq!(rows(usize::MAX), ["a 1 1", "d-x 1 5", "d/a 1 2", "d/e/f 1 3", "d/e/g 1 4"]);
    }
}
