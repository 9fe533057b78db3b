//! DockerCleanActive.

use kiln_dockerfile::{Diagnostic, Rule};

use crate::advice::{finding, insert, with_fix};
use crate::managers::Usage;
use crate::shell::Joint;
use crate::survey::{Stage, Step, Survey};

const FILE: &str = "/etc/apt/apt.conf.d/docker-clean";

/// The file that Debian's and Ubuntu's images have so that apt keeps nothing, beside a mount that is there to keep.
/// <https://docs.docker.com/reference/dockerfile/#example-cache-apt-packages>
pub(super) fn check(survey: &Survey<'_>, found: &mut Vec<Diagnostic>) {
    // whether the file is gone, or this was said already, at the end of each stage
    let mut gone: Vec<bool> = Vec::with_capacity(survey.stages.len());
    for stage in &survey.stages {
        let mut is_gone = stage.parent.map_or(!stage.base.official, |parent| gone[parent]);
        for step in &stage.steps {
            is_gone = is_gone || mentions(step) || is_configured(stage, step);
            if is_gone {
                continue;
            }
            if let Some(usage) = wasted(step) {
                report(step, usage, found);
                is_gone = true;
            }
        }
        gone.push(is_gone);
    }
}

/// Whether a step does something about it. What it does exactly does not matter: somebody knows.
fn mentions(step: &Step<'_>) -> bool {
    let all = step.script.as_ref().map_or(step.located.text.as_str(), |script| &script.text);
    ["docker-clean", "Keep-Downloaded-Packages", "apt.conf"].iter().any(|word| all.contains(word))
}

/// Whether a file of apt's configuration was copied before.
fn is_configured(stage: &Stage<'_>, step: &Step<'_>) -> bool {
    let before = stage.copies.iter().take_while(|copied| copied.index < step.index);
    before.into_iter().any(|copied| copied.dest.as_deref().is_none_or(|dest| dest.starts_with("/etc")))
}

fn wasted<'s>(step: &'s Step<'_>) -> Option<&'s Usage> {
    let kept = step.caches().any(|mount| mount.touches("/var/cache/apt/archives"));
    step.usages.iter().find(|usage| kept && usage.manager.name == "apt" && usage.downloads)
}

fn report(step: &Step<'_>, usage: &Usage, found: &mut Vec<Diagnostic>) {
    let message =
        format!("apt deletes what it downloads, so the cache mount stays empty: the base image has {FILE}");
    let sudo = if usage.call.sudo { "sudo " } else { "" };
    let command = format!("{sudo}rm -f {FILE} && ");
    let help = format!("begin the step with `{}`", command.trim_end());
    let edits = start(step, usage).map(|at| vec![insert(at, command)]);
    let span = super::missing::place(step, usage);
    let can_remove = usage.call.sudo || !step.user.is_other();
    found.push(with_fix(finding(Rule::DockerCleanActive, span, message, help), edits.filter(|_| can_remove)));
}

/// Where the file can be removed before apt runs first.
fn start(step: &Step<'_>, usage: &Usage) -> Option<usize> {
    let is_apt = |other: &&Usage| other.manager.name == "apt" && other.call.command.is_some();
    let first = step.usages.iter().find(is_apt).unwrap_or(usage).call.command?;
    let fits = |number: &usize| {
        let command = &step.commands[*number];
        command.depth == 0 && matches!(command.before, Joint::Edge | Joint::And | Joint::Then)
    };
    let number = [first, 0].into_iter().find(fits)?;
    let range = step.commands[number].range.clone();
    Some(step.script.as_ref()?.span(range)?.start)
}
