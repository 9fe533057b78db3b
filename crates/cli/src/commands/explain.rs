//! `kiln explain`.

use std::process::ExitCode;
use std::time::Duration;

use kiln::{BuildNote, BuildVerdict, Engine, Error, LookError, StepWhy};
use serde_json::Value;

use super::start;
use crate::args::{ExplainArgs, Global};
use crate::config;
use crate::hints::Failure;
use crate::ui::{self, Table};

/// Says why steps ran.
pub(crate) fn explain(global: Global, args: &ExplainArgs) -> Result<ExitCode, Failure> {
    let engine = start(global)?;
    let now = config::now();
    if args.list {
        let builds = engine.build_notes()?;
        if args.json {
            let builds: Vec<Value> = builds.iter().map(|build| json(build, &build.steps)).collect();
            ui::print(serde_json::to_string_pretty(&builds).unwrap_or_default());
        } else {
            ui::print(list(&builds, now));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (build, step) = find(&engine, args)?;
    let steps = match &step {
        Some(step) => vec![build.step(step)?.clone()],
        None => build.steps.clone(),
    };
    if args.json {
        ui::print(serde_json::to_string_pretty(&json(&build, &steps)).unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    ui::print(heading(&build, now));
    for step in &steps {
        let mut lines = ui::reason(step);
        if let Some(compared) = &step.compared {
            let age = ui::age(now, compared.time);
            lines.push(match &compared.cache {
                Some(cache) => format!("compared with the cache in {cache}, where it ran {age}"),
                None => format!("compared with build {}, {age}", compared.build),
            });
        }
        ui::print(format_args!("\n{}", ui::one_line(&step.title)));
        lines.iter().for_each(|line| ui::print(format_args!("  {line}")));
    }
    Ok(ExitCode::SUCCESS)
}

/// Finds the build; what is no build is a step of the last one.
fn find(engine: &Engine, args: &ExplainArgs) -> Result<(BuildNote, Option<String>), Error> {
    let Some(first) = &args.build else { return Ok((engine.build_note("last")?, args.step.clone())) };
    match (engine.build_note(first), &args.step) {
        (Err(Error::Look(LookError::NoSuchBuild { .. })), None) => {
            Ok((engine.build_note("last")?, Some(first.clone())))
        }
        (build, step) => Ok((build?, step.clone())),
    }
}

fn heading(build: &BuildNote, now: u64) -> String {
    let BuildNote { id, file, verdict, duration_ms, hits, steps, .. } = build;
    let took = ui::seconds(Duration::from_millis(*duration_ms));
    let verdict = words(*verdict);
    let ran = match steps.len() {
        0 if *hits == 0 => "it has no steps".to_owned(),
        0 => format!("every result was there, nothing ran ({})", count(*hits)),
        ran => format!("{} ran, {hits} cached", count(ran)),
    };
    let file = ui::one_line(file);
    format!("build {id} of {file}, {}: {verdict} in {took}; {ran}", ui::age(now, build.time))
}

fn count(steps: usize) -> String {
    ui::counted(steps, "step")
}

fn words(verdict: BuildVerdict) -> &'static str {
    match verdict {
        BuildVerdict::Done => "done",
        BuildVerdict::Failed => "failed",
        BuildVerdict::Cancelled => "cancelled",
    }
}

fn list(builds: &[BuildNote], now: u64) -> Table {
    let mut table = Table::new(["BUILD", "BEGAN", "ENDED", "TOOK", "RAN", "CACHED", "DOCKERFILE", "CONTEXT"]);
    for build in builds {
        table.row([
            build.id.clone(),
            ui::age(now, build.time),
            words(build.verdict).to_owned(),
            ui::seconds(Duration::from_millis(build.duration_ms)),
            build.steps.len().to_string(),
            build.hits.to_string(),
            build.file.clone(),
            build.context.clone(),
        ]);
    }
    table
}

/// The build with these of its steps, each with its reason in words.
fn json(build: &BuildNote, steps: &[StepWhy]) -> Value {
    let mut value = serde_json::to_value(build).unwrap_or_default();
    let steps = steps.iter().map(|step| {
        let mut value = serde_json::to_value(step).unwrap_or_default();
        value["summary"] = step.summary().into();
        value
    });
    value["steps"] = steps.collect();
    value
}
