//! `kiln debug shell`, `kiln debug ls`: a look at what a step left.

use std::process::ExitCode;

use kiln::{BuildRequest, Cancel, Engine, EnterRequest, Entering, HeldStep, Side, StepShell, StepSummary};

use super::{cancel_on_signal, secret_flag, ssh_flag, start, start_patient};
use crate::args::{Global, ShellArgs};
use crate::config;
use crate::hints::Failure;
use crate::ui::{self, Table};

/// Opens a shell where a step was, or runs a command there; its exit status is kiln's.
pub(crate) fn shell(global: Global, args: &ShellArgs) -> Result<ExitCode, Failure> {
    let request = EnterRequest {
        side: if args.before { Side::Before } else { Side::After },
        command: args.command.clone(),
        shell: if args.builtin { StepShell::BuiltIn } else { StepShell::Image },
        secrets: secret_flag::read(&args.secret)?,
        ssh: ssh_flag::read(&args.ssh)?,
        env: config::assignments("--env", &args.env)?,
        user: args.user.clone(),
        workdir: args.workdir.clone(),
        tty: config::interactive(),
        emulators: config::emulators(),
    };
    let engine = start_patient(global, &args.wait)?;
    let cancel = cancel_on_signal()?;
    let step = engine.step(&args.step)?;
    enter(&engine, &step, &request, args.quiet, &cancel)
}

/// The same after a build that failed, with what the build was given.
pub(crate) fn after_failure(engine: &Engine, build: &BuildRequest, kept: &str) -> Result<(), Failure> {
    let request = EnterRequest {
        secrets: build.secrets.clone(),
        ssh: build.ssh.clone(),
        tty: true,
        emulators: build.emulators.clone(),
        ..EnterRequest::default()
    };
    ui::note("");
    enter(engine, &engine.step(kept)?, &request, false, &Cancel::new())?;
    Ok(())
}

/// Lists what can be entered.
pub(crate) fn list(global: Global, json: bool) -> Result<ExitCode, Failure> {
    let steps = start(global)?.steps()?;
    if json {
        ui::print(serde_json::to_string_pretty(&steps).unwrap_or_default());
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(["NAME", "WHEN", "STATUS", "WHERE", "STEP"]);
    for step in &steps {
        let status = step.failed.clone().unwrap_or_else(|| "done".to_owned());
        table.row([
            step.name.clone(),
            ui::age(config::now(), step.time),
            status,
            place(step),
            step.title.clone(),
        ]);
    }
    ui::print(table);
    Ok(ExitCode::SUCCESS)
}

fn enter(
    engine: &Engine,
    step: &HeldStep,
    request: &EnterRequest,
    quiet: bool,
    cancel: &Cancel,
) -> Result<ExitCode, Failure> {
    let mut tell = |entering: Entering| match entering {
        Entering::Waiting { cache, holder } => {
            ui::note(format_args!("waiting for cache mount {cache:?}, which {holder} holds"));
        }
        Entering::Ready { mounts } if !quiet => introduce(step.summary(), request.side, &mounts),
        Entering::Ready { .. } => {}
        Entering::NoShell { reason } => {
            ui::note(format_args!("the image has no shell that starts ({reason}): this is kiln's own"));
        }
    };
    let status = engine.enter_step(step, request, &mut tell, cancel)?;
    Ok(ExitCode::from(u8::try_from(status.shell_code()).unwrap_or(255)))
}

/// Says where one is, and what comes of it.
fn introduce(step: &StepSummary, side: Side, mounts: &[kiln::StepMount]) {
    let state = match (side, &step.failed) {
        (Side::Before, _) => "before it ran".to_owned(),
        (Side::After, None) => "after it ran".to_owned(),
        (Side::After, Some(reason)) => format!("as it failed: {reason}"),
    };
    ui::note(format_args!("{}: {}, {state}", place(step), step.title));
    for mount in mounts {
        let target = if mount.target.is_empty() { String::new() } else { format!(" at {}", mount.target) };
        match &mount.missing {
            None => ui::note(format_args!("  {}{target}", mount.what)),
            Some(why) => ui::note(format_args!("  {}{target} is not there: {why}", mount.what)),
        }
    }
    let but = if mounts.iter().any(|mount| mount.what.starts_with("cache")) {
        "; in cache mounts they stay"
    } else {
        ""
    };
    ui::note(format_args!("changes are thrown away{but}"));
}

fn place(step: &StepSummary) -> String {
    step.lines.map_or_else(|| step.file.clone(), |(first, _)| format!("{}:{first}", step.file))
}
