//! RUN.

use kiln_core::{InlineFile, Mount, MountKind, Network, Op, RunOp, Security};
use kiln_dockerfile::{Command, Diagnostic, Heredoc, Run, Spanned};

use super::metadata::{arguments, with_shell};
use crate::diagnose::{did_you_mean, error, with_help};
use crate::lowering::Lowering;
use crate::mount::mount;
use crate::place::Place;
use crate::state::StageState;

/// `RUN`.
pub(super) fn run(
    state: StageState,
    run: &Run,
    at: &Place<'_>,
    lowering: &mut Lowering<'_>,
) -> Result<StageState, Diagnostic> {
    let mut mounts: Vec<Mount> = Vec::with_capacity(run.mounts.len());
    let mut sockets = 0;
    for flag in &run.mounts {
        let mount = mount(&state, flag, sockets, at, lowering)?;
        sockets += usize::from(matches!(mount.kind, MountKind::Ssh(_)));
        mounts.push(mount);
    }
    let Process { args, files } = process(&state, run);
    let line = format!("RUN {}{} # buildkit", arguments_in_effect(&state), args.join(" "));
    let op = Op::Run(RunOp {
        root: state.rootfs,
        args,
        env: state.env.env().clone(),
        cwd: state.cwd().to_owned(),
        user: state.config.config.user.clone(),
        network: network(run.network.as_ref(), lowering.settings.network)?,
        security: security(run.security.as_ref())?,
        mounts,
        files,
        platform: state.platform.clone(),
        hostname: lowering.settings.hostname.clone(),
        machine: Box::new(lowering.settings.machine.clone()),
    });
    let step = lowering.graph.add(op, at.info(&state, &title(run, at.text)));
    Ok(state.with_step(step, line))
}

/// What is executed.
struct Process {
    args: Vec<String>,
    files: Vec<InlineFile>,
}

/// One heredoc that is the whole command is a script: a file if it starts with `#!`, else a text for the shell.
/// With anything else around it the shell gets it all, and must understand heredocs itself.
fn process(state: &StageState, run: &Run) -> Process {
    let Command::Shell(text) = &run.command else {
        return Process { args: arguments(state, &run.command), files: Vec::new() };
    };
    match script(run) {
        Some(script) if script.content.starts_with("#!") => {
            let path = format!("/dev/pipes/{}", script.name);
            let file = InlineFile { name: script.name.clone(), content: script.content.clone(), mode: 0o755 };
            Process { args: with_shell(state, path), files: vec![file] }
        }
        Some(script) => Process { args: with_shell(state, script.content.clone()), files: Vec::new() },
        None => {
            let bodies = run.heredocs.iter().map(|doc| format!("\n{}{}", doc.content, doc.name));
            let whole = std::iter::once(text.clone()).chain(bodies).collect();
            Process { args: with_shell(state, whole), files: Vec::new() }
        }
    }
}

/// Returns the heredoc that is the whole command, if there is one: `RUN <<EOF`.
fn script(run: &Run) -> Option<&Heredoc> {
    let ([heredoc], Command::Shell(text)) = (&run.heredocs[..], &run.command) else { return None };
    let word = text.trim().trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let name: String = word.strip_prefix('-').unwrap_or(word).replace(['"', '\'', '\\'], "");
    (name.trim() == heredoc.name).then_some(heredoc)
}

/// The instruction as written; a script's first line says more than its `<<EOF`.
fn title(run: &Run, text: &str) -> String {
    let Some(script) = script(run) else { return text.to_owned() };
    let mut lines = script.content.trim().lines();
    let first = lines.next().unwrap_or("");
    let more = if lines.next().is_some() { "..." } else { "" };
    format!("{text} ({first}{more})")
}

/// `|2 A=1 B= `: declared arguments with the values that RUN sees.
fn arguments_in_effect(state: &StageState) -> String {
    let args = state.args.env();
    if args.is_empty() {
        return String::new();
    }
    let mut out = format!("|{} ", args.len());
    for (name, value) in args {
        for part in [name, "=", state.env.get(name).unwrap_or(value), " "] {
            out.push_str(part);
        }
    }
    out
}

/// The build's network stands in for the default one.
fn network(flag: Option<&Spanned<String>>, default: Network) -> Result<Network, Diagnostic> {
    const MODES: [&str; 3] = ["default", "none", "host"];
    let Some(Spanned { value, span }) = flag else { return Ok(default) };
    match value.as_str() {
        "default" | "" => Ok(default),
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        other => {
            let problem =
                error(*span, format!("unknown network `{other}`: there are default, none and host"));
            Err(with_help(problem, did_you_mean(other, MODES)))
        }
    }
}

/// Whether it is allowed was asked before.
fn security(flag: Option<&Spanned<String>>) -> Result<Security, Diagnostic> {
    let Some(Spanned { value, span }) = flag else { return Ok(Security::Sandbox) };
    match value.as_str() {
        "sandbox" | "" => Ok(Security::Sandbox),
        "insecure" => Ok(Security::Insecure),
        other => {
            let problem = error(*span, format!("unknown security `{other}`: there are sandbox and insecure"));
            Err(with_help(problem, did_you_mean(other, ["sandbox", "insecure"])))
        }
    }
}
