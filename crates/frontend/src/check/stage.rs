//! Checks of what a stage said before.

use kiln_dockerfile::{Command, Diagnostic, Rule, Span, Spanned};

use super::finding;
use crate::diagnose::with_help;
use crate::state::StageState;

/// What a stage has said so far, for the instructions of which one counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Once {
    cmd: Option<Span>,
    entrypoint: Option<Span>,
    healthcheck: Option<Span>,
    /// WORKDIR, here or in a stage of this file below it.
    has_workdir: bool,
}

impl Once {
    /// Returns what a stage that says `FROM this` starts with.
    pub(crate) fn inherit(&self) -> Self {
        Self { has_workdir: self.has_workdir, ..Self::default() }
    }
}

pub(super) fn cmd(state: &mut StageState, command: &Command, span: Span) -> Vec<Diagnostic> {
    let before = state.once.cmd.replace(span);
    replaced("CMD", before).into_iter().chain(shell_form("CMD", state, command, span)).collect()
}

pub(super) fn entrypoint(state: &mut StageState, command: &Command, span: Span) -> Vec<Diagnostic> {
    let before = state.once.entrypoint.replace(span);
    replaced("ENTRYPOINT", before).into_iter().chain(shell_form("ENTRYPOINT", state, command, span)).collect()
}

pub(super) fn healthcheck(state: &mut StageState, span: Span) -> Vec<Diagnostic> {
    replaced("HEALTHCHECK", state.once.healthcheck.replace(span)).into_iter().collect()
}

/// Only the first WORKDIR of a chain of stages matters: with that one mended all that follow are. What the base image
/// has does not count, since it may change.
pub(super) fn workdir(state: &mut StageState, path: &Spanned<String>) -> Vec<Diagnostic> {
    let first = !std::mem::replace(&mut state.once.has_workdir, true);
    if !first || path.value.starts_with('/') {
        return Vec::new();
    }
    let message =
        format!("where `{}` is depends on the base image: nothing above sets a WORKDIR", path.value);
    let help = "begin with an absolute path".to_owned();
    vec![with_help(finding(Rule::WorkdirRelativePath, path.span, message), Some(help))]
}

/// The place is that of the one that does not count.
fn replaced(instruction: &str, before: Option<Span>) -> Option<Diagnostic> {
    let message = format!("this {instruction} has no effect: another one follows in the same stage");
    Some(finding(Rule::MultipleInstructionsDisallowed, before?, message))
}

/// Whoever sets SHELL, here or in the base image, wants one.
fn shell_form(instruction: &str, state: &StageState, command: &Command, span: Span) -> Option<Diagnostic> {
    let has_shell = state.config.config.shell.as_ref().is_some_and(|shell| !shell.is_empty());
    if has_shell || !matches!(command, Command::Shell(_)) {
        return None;
    }
    let message = format!("a shell runs this {instruction} and does not pass signals such as SIGTERM on");
    let help = format!("write `{instruction} [\"program\", \"argument\"]`");
    Some(with_help(finding(Rule::JSONArgsRecommended, span, message), Some(help)))
}
