//! VolatileArgTooEarly.

use kiln_dockerfile::{Diagnostic, Rule};

use crate::advice::finding;
use crate::survey::{Setting, Stage, Step, Survey};

/// Names of what is different in each build.
const VOLATILE: [&str; 28] = [
    "BUILD_DATE",
    "BUILD_ID",
    "BUILD_NUM",
    "BUILD_NUMBER",
    "BUILD_TIME",
    "BUILD_TIMESTAMP",
    "BUILDTIME",
    "CI_COMMIT_SHA",
    "CI_COMMIT_SHORT_SHA",
    "CI_PIPELINE_ID",
    "COMMIT",
    "COMMIT_HASH",
    "COMMIT_ID",
    "COMMIT_SHA",
    "GITHUB_RUN_ID",
    "GITHUB_SHA",
    "GIT_COMMIT",
    "GIT_COMMIT_HASH",
    "GIT_COMMIT_SHA",
    "GIT_HASH",
    "GIT_REF",
    "GIT_REV",
    "GIT_REVISION",
    "GIT_SHA",
    "REVISION",
    "SOURCE_COMMIT",
    "TIMESTAMP",
    "VCS_REF",
];

/// An ARG that changes with every build above a step that installs and does not use it: every RUN below an ARG has it in
/// its environment, so its value decides about the cache.
/// <https://docs.docker.com/reference/dockerfile/#impact-on-build-caching>
pub(super) fn check(survey: &Survey<'_>, found: &mut Vec<Diagnostic>) {
    for stage in &survey.stages {
        let volatile = |setting: &&Setting<'_>| {
            !setting.is_env && VOLATILE.contains(&setting.name.to_ascii_uppercase().as_str())
        };
        for setting in stage.settings.iter().filter(volatile) {
            let Some(step) = first_victim(stage, setting) else { continue };
            let (first, last) = step.located.lines;
            let name = setting.name;
            let message = format!("each new {name} makes line {first} run again, which does not use it");
            let help = format!("move `ARG {name}`, and ENV that uses it, below line {last}");
            found.push(finding(Rule::VolatileArgTooEarly, setting.span, message, help));
        }
    }
}

/// The first step behind an argument that installs something, if none up to it uses the argument.
fn first_victim<'s, 'a>(stage: &'s Stage<'a>, setting: &Setting<'_>) -> Option<&'s Step<'a>> {
    let first = stage.steps.partition_point(|step| step.index < setting.index);
    for step in &stage.steps[first..] {
        let text = step.script.as_ref().map_or(step.located.text.as_str(), |script| &script.text);
        if text.contains(setting.name) || step.located.text.contains(setting.name) {
            return None;
        }
        if step.usages.iter().any(|usage| usage.downloads) {
            return Some(step);
        }
    }
    None
}
