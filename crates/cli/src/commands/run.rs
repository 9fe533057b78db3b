//! `kiln run`: a look into an image.

use std::process::ExitCode;

use kiln::{Cancel, Error, RunError, RunMountKind, RunRequest, Signals};

use super::{machine_flags, mount_flag, sandbox_flags, start, start_with_caches, storage};
use crate::args::{Global, RunArgs};
use crate::config;
use crate::hints::Failure;
use crate::ui;

/// Runs a command in an image; its exit status is kiln's. What kiln itself has to report has docker's numbers, which programs
/// seldom use: <https://docs.docker.com/engine/containers/run/#exit-status>.
pub(crate) fn run(global: Global, args: &RunArgs) -> Result<ExitCode, Failure> {
    attempt(global, args).or_else(|failure| {
        ui::show_failure(&failure);
        Ok(ExitCode::from(code(&failure)))
    })
}

fn attempt(global: Global, args: &RunArgs) -> Result<ExitCode, Failure> {
    let mut env = config::env_files(&args.env_file)?;
    env.extend(config::assignments("--env", &args.env)?);
    let request = RunRequest {
        image: args.image.parse().map_err(Failure::from_usage)?,
        command: args.command.clone(),
        platform: args.platform.as_deref().map(str::parse).transpose().map_err(Failure::from_usage)?,
        emulators: config::emulators(),
        entrypoint: args.entrypoint.clone(),
        env,
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        tty: args.tty,
        stdin: args.interactive,
        mounts: mount_flag::read(args)?,
        read_only: args.read_only,
        hostname: args.hostname.clone(),
        machine: machine_flags::read(&args.machine)?,
        network: sandbox_flags::network(&args.sandbox),
        sandbox: sandbox_flags::read(&args.sandbox)?,
        registry: config::registry(&args.registry)?,
    };
    let caches = request.mounts.iter().any(|mount| matches!(mount.kind, RunMountKind::Cache { .. }));
    let timeout = storage::lock_timeout(args.wait.lock_timeout.as_deref())?;
    let engine = if caches { start_with_caches(global)? } else { start(global)? };
    let engine = engine.lock_timeout(timeout);
    let (signals, cancel) = pass_signals()?;
    let status =
        engine.run(&request, &signals, &|what| ui::note(format_args!("waiting for {what}")), &cancel)?;
    Ok(ExitCode::from(u8::try_from(status.shell_code()).unwrap_or(255)))
}

fn code(failure: &Failure) -> u8 {
    let Failure::Engine(error) = failure else { return 125 };
    match error.root() {
        Error::Run(RunError::Program { errno, .. }) => {
            let not_found = [rustix::io::Errno::NOENT, rustix::io::Errno::NOTDIR];
            if not_found.iter().any(|found| found.raw_os_error() == *errno) { 127 } else { 126 }
        }
        Error::Interrupted => 130,
        _ => 125,
    }
}

/// Passes signals on to the process; before there is one they end kiln. The second interrupt ends it in any case, the third
/// at once.
fn pass_signals() -> Result<(Signals, Cancel), Failure> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    let (signals, cancel) = (Signals::default(), Cancel::new());
    let mut caught =
        signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2])
            .map_err(|error| Failure::usage(format!("cannot listen to signals: {error}")))?;
    let (to_pass, to_cancel) = (signals.clone(), cancel.clone());
    std::thread::spawn(move || {
        let mut interrupts = 0;
        for signal in caught.forever() {
            interrupts += u32::from(signal == SIGINT);
            let ends = !matches!(signal, SIGUSR1 | SIGUSR2);
            match interrupts {
                3.. => std::process::exit(128 + SIGINT),
                2 if signal == SIGINT => to_cancel.cancel(),
                _ if !to_pass.pass(signal) && ends => to_cancel.cancel(),
                _ => {}
            }
        }
    });
    Ok((signals, cancel))
}
