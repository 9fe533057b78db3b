//! Instructions that change the image's configuration alone.

use kiln_dockerfile::{Command, Diagnostic, Spanned, Trigger};
use serde_json::Value;

use super::signal;
use crate::diagnose::error;
use crate::lowering::Lowering;
use crate::quote::quote_list;
use crate::state::StageState;

/// `USER`.
pub(super) fn user(
    mut state: StageState,
    user: &Spanned<String>,
    lowering: &mut Lowering<'_>,
) -> Result<StageState, Diagnostic> {
    let user = lowering.words.expand(user, &state.env)?;
    let line = format!("USER {user}");
    state.config.config.user = user;
    Ok(state.with_history(line))
}

/// `CMD`.
pub(super) fn cmd(mut state: StageState, command: &Command) -> StageState {
    let args = arguments(&state, command);
    let line = format!("CMD {}", quote_list(&args));
    let config = &mut state.config.config;
    config.cmd = Some(args);
    // Deprecated, but docker still reads it, and the program writes it.
    config.extra.insert("ArgsEscaped".to_owned(), Value::Bool(true));
    state.has_own_cmd = true;
    state.with_history(line)
}

/// `ENTRYPOINT`: takes away a CMD that this stage did not set itself.
pub(super) fn entrypoint(mut state: StageState, command: &Command) -> StageState {
    let args = arguments(&state, command);
    let line = format!("ENTRYPOINT {}", quote_list(&args));
    state.config.config.entrypoint = (!args.is_empty()).then_some(args);
    if !state.has_own_cmd {
        state.config.config.cmd = None;
    }
    state.with_history(line)
}

/// `SHELL`.
pub(super) fn shell(mut state: StageState, shell: &[String]) -> StageState {
    state.config.config.shell = Some(shell.to_vec());
    state.with_history(format!("SHELL [{}]", shell.join(" ")))
}

/// `VOLUME`.
pub(super) fn volume(
    mut state: StageState,
    paths: &[Spanned<String>],
    lowering: &mut Lowering<'_>,
) -> Result<StageState, Diagnostic> {
    let mut volumes = Vec::with_capacity(paths.len());
    for path in paths {
        let volume = lowering.words.expand(path, &state.env)?;
        if volume.is_empty() {
            return Err(error(path.span, "a volume needs a path"));
        }
        volumes.push(volume);
    }
    let line = format!("VOLUME [{}]", volumes.join(" "));
    state.config.config.volumes.extend(volumes);
    Ok(state.with_history(line))
}

/// `STOPSIGNAL`.
pub(super) fn stop_signal(
    mut state: StageState,
    written: &Spanned<String>,
    lowering: &mut Lowering<'_>,
) -> Result<StageState, Diagnostic> {
    let text = lowering.words.expand(written, &state.env)?;
    signal::check(&text, written.span)?;
    let line = format!("STOPSIGNAL {text}");
    state.config.config.stop_signal = Some(text);
    Ok(state.with_history(line))
}

/// `MAINTAINER`.
pub(super) fn maintainer(mut state: StageState, name: &str) -> StageState {
    state.config.author = Some(name.to_owned());
    state.with_history(format!("MAINTAINER {name}"))
}

/// `ONBUILD`: for the next image. The program writes no line of history for it.
pub(super) fn onbuild(mut state: StageState, trigger: &Trigger) -> StageState {
    state.config.config.on_build.push(trigger.text.clone());
    state
}

/// Returns a command's argument vector; the shell form has SHELL before it.
pub(super) fn arguments(state: &StageState, command: &Command) -> Vec<String> {
    match command {
        Command::Exec(args) => args.clone(),
        Command::Shell(text) => with_shell(state, text.clone()),
    }
}

/// Returns SHELL and one more argument.
pub(super) fn with_shell(state: &StageState, script: String) -> Vec<String> {
    let mut args = match state.config.config.shell.as_deref() {
        None | Some([]) => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        Some(shell) => shell.to_vec(),
    };
    args.push(script);
    args
}
