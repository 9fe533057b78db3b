//! `kiln run`: a look into an image.

use std::process::ExitCode;

use kiln::RunRequest;

use super::{sandbox_flags, start};
use crate::args::{Global, RunArgs};
use crate::config;
use crate::hints::Failure;

/// Runs a command in an image; its exit status is kiln's.
pub(crate) fn run(global: Global, args: &RunArgs) -> Result<ExitCode, Failure> {
    let request = RunRequest {
        image: args.image.parse().map_err(Failure::from_usage)?,
        command: args.command.clone(),
        platform: args.platform.as_deref().map(str::parse).transpose().map_err(Failure::from_usage)?,
        emulators: config::emulators(),
        entrypoint: args.entrypoint.clone(),
        env: config::assignments("--env", &args.env)?,
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        tty: args.tty,
        stdin: args.interactive,
        network: sandbox_flags::network(&args.sandbox),
        sandbox: sandbox_flags::read(&args.sandbox)?,
        registry: config::registry(&args.registry)?,
    };
    let engine = start(global)?;
    let cancel = super::cancel_on_signal()?;
    let status = engine.run(&request, &cancel)?;
    Ok(ExitCode::from(u8::try_from(status.shell_code()).unwrap_or(255)))
}
