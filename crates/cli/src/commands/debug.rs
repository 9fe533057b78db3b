//! `kiln graph`, `kiln debug`: for teaching and for tests. Formats are fixed in docs/debug.md.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use kiln::{CheckRequest, PlanRequest};
use kiln_core::IgnoreList;

use super::{diff, shell, start};
use crate::args::{DebugCommand, Global, GraphArgs, PlanArgs};
use crate::config;
use crate::hints::Failure;
use crate::ui;

/// Prints the step graph of a context's Dockerfile.
pub(crate) fn graph(args: &GraphArgs) -> Result<ExitCode, Failure> {
    let file = args.file.clone().unwrap_or_else(|| args.context.join("Dockerfile"));
    plan(&file, &args.plan)
}

/// Runs a debug command.
pub(crate) fn debug(global: Global, command: DebugCommand) -> Result<ExitCode, Failure> {
    match command {
        DebugCommand::Parse { json, file } => {
            let text = read(&file)?;
            let print = if json { kiln_dockerfile::print::json } else { kiln_dockerfile::print::lines };
            let printed = print(&text).map_err(|d| dockerfile_error(&file, &text, vec![d]))?;
            ui::print(printed.trim_end_matches('\n'));
            Ok(ExitCode::SUCCESS)
        }
        DebugCommand::Plan { plan: args, file } => plan(&file, &args),
        DebugCommand::Check { plan: args, file } => check(&file, &args),
        DebugCommand::Expand { words, env, word } => {
            let env = config::assignments("--env", &env)?;
            let lookup = |name: &str| env.get(name).cloned();
            let expanded =
                kiln_dockerfile::expand::word(&word, '\\', &lookup).map_err(Failure::from_usage)?;
            if words {
                expanded.words.iter().for_each(ui::print);
            } else {
                ui::print(expanded.text);
            }
            Ok(ExitCode::SUCCESS)
        }
        DebugCommand::Match { pattern, path } => {
            let list =
                IgnoreList::from_patterns(pattern.iter().map(String::as_str)).map_err(Failure::from_usage)?;
            ui::print(list.is_excluded(&kiln_core::clean_path(&path)));
            Ok(ExitCode::SUCCESS)
        }
        DebugCommand::Ignorefile { file } => {
            for pattern in IgnoreList::cleaned(&read(&file)?).map_err(Failure::from_usage)? {
                ui::print(pattern);
            }
            Ok(ExitCode::SUCCESS)
        }
        DebugCommand::Ls { json } => shell::list(global, json),
        DebugCommand::Diff { step, format } => diff::diff(global, &step, format),
        DebugCommand::Shell(args) => shell::shell(global, &args),
        DebugCommand::Fsck => {
            let problems = start(global)?.fsck()?;
            for problem in &problems {
                ui::print(problem);
            }
            ui::note(format_args!("{} problems", problems.len()));
            Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
    }
}

fn plan(file: &Path, args: &PlanArgs) -> Result<ExitCode, Failure> {
    ui::print(kiln::plan_text(&plan_request(file, args)?)?.trim_end());
    Ok(ExitCode::SUCCESS)
}

/// Prints `RuleName:LINE` for each finding, also of a file that cannot be built.
fn check(file: &Path, args: &PlanArgs) -> Result<ExitCode, Failure> {
    let plan = plan_request(file, args)?;
    let (name, text) = (plan.file.clone(), plan.text.clone());
    let ignore = match file.parent() {
        Some(context) if file != Path::new("-") => kiln::ignore_list(context, Some(file))?,
        _ => IgnoreList::default(),
    };
    let checked = kiln::check(&CheckRequest { plan, ignore, ..CheckRequest::default() });
    for finding in &checked.findings {
        ui::print(format_args!("{}:{}", finding.rule.name(), finding.lines.0));
    }
    if checked.is_broken() {
        return Err(dockerfile_error(Path::new(&name), &text, checked.diagnostics));
    }
    Ok(ExitCode::SUCCESS)
}

fn plan_request(file: &Path, args: &PlanArgs) -> Result<PlanRequest, Failure> {
    Ok(PlanRequest {
        file: file.display().to_string(),
        text: read(file)?,
        target: args.target.clone(),
        build_args: config::assignments("--build-arg", &args.build_arg)?,
        platforms: config::platforms(&args.platform)?,
    })
}

fn read(file: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::usage(format!("cannot read {}: {error}", file.display()));
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(failed)?;
        return Ok(text);
    }
    std::fs::read_to_string(file).map_err(failed)
}

fn dockerfile_error(file: &Path, text: &str, diagnostics: Vec<kiln_dockerfile::Diagnostic>) -> Failure {
    kiln::Error::Dockerfile { file: file.display().to_string(), text: text.to_owned(), diagnostics }.into()
}
