//! `kiln history`.

use std::process::ExitCode;

use kiln::{HistoryStep, Platform};
use serde_json::{Value, json};

use super::{format_flag, start};
use crate::args::{Global, HistoryArgs};
use crate::config;
use crate::hints::Failure;
use crate::ui::{self, Table};

/// As docker cuts commands off.
const WIDTH: usize = 45;

/// Prints an image's history, the newest step first.
pub(crate) fn history(global: Global, args: &HistoryArgs) -> Result<ExitCode, Failure> {
    let template = format_flag::read(args.format.as_deref())?;
    let platform: Option<Platform> =
        args.platform.as_deref().map(str::parse).transpose().map_err(Failure::from_usage)?;
    let name = args.image.parse().map_err(Failure::from_usage)?;
    let details = start(global)?.inspect(&name)?;
    let image = details.image(platform.as_ref())?;
    let mut steps = kiln::history(image);
    steps.reverse();
    if args.json {
        ui::print(serde_json::to_string_pretty(&steps).unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    let now = config::now();
    if args.quiet {
        steps.iter().for_each(|step| ui::print(layer(step, args.no_trunc)));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(template) = template {
        let rows: Vec<Value> = steps.iter().map(|step| row(step, args, now)).collect();
        format_flag::print(&template, &rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(["LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    for step in &steps {
        let Value::Object(row) = row(step, args, now) else { continue };
        let cell = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        table.row([
            cell("ID"),
            cell(if args.human { "CreatedSince" } else { "CreatedAt" }),
            cell("CreatedBy"),
            cell("Size"),
            cell("Comment"),
        ]);
    }
    ui::print(table);
    Ok(ExitCode::SUCCESS)
}

/// What templates see, in docker's names.
fn row(step: &HistoryStep, args: &HistoryArgs, now: u64) -> Value {
    let created = step.line.created.as_deref();
    let since = created.and_then(config::seconds).map_or_else(String::new, |then| ui::age(now, then));
    let size = step.layer.as_ref().map_or(0, |layer| layer.size);
    let by: Vec<&str> = step.line.created_by.as_deref().unwrap_or_default().split_whitespace().collect();
    let mut by = by.join(" ");
    if !args.no_trunc && by.chars().count() > WIDTH {
        by = by.chars().take(WIDTH - 1).chain(['…']).collect();
    }
    json!({
        "ID": layer(step, args.no_trunc),
        "CreatedAt": created.unwrap_or_default(),
        "CreatedSince": since,
        "CreatedBy": by,
        "Size": if args.human { ui::bytes(size) } else { size.to_string() },
        "Comment": step.line.comment.clone().unwrap_or_default(),
        "Empty": step.layer.is_none(),
    })
}

/// The layer's digest; a step that only said something has none.
fn layer(step: &HistoryStep, whole: bool) -> String {
    match &step.layer {
        Some(layer) if whole => layer.digest.to_string(),
        Some(layer) => layer.digest.short(),
        None => "<empty>".to_owned(),
    }
}
