//! CacheMountUnused.

use kiln_dockerfile::{Diagnostic, Edit, Rule, Span};

use crate::advice::{finding, with_fix};
use crate::managers::Usage;
use crate::survey::{Mount, Stage, Step, Survey, Value};

/// A cache mount that the step's package manager does not look into.
pub(super) fn check(survey: &Survey<'_>, found: &mut Vec<Diagnostic>) {
    for (stage, step) in survey.steps() {
        for (mount, usage, path) in misplaced(survey, stage, step) {
            let target = mount.target.as_deref().unwrap_or(&mount.written);
            let name = usage.manager.name;
            let message = format!("{name} does not use {target}: in this step its cache is {path}");
            let help = format!("write `target={path}`");
            let edits = edit(survey.text, mount, &path).map(|edit| vec![edit]);
            found.push(with_fix(finding(Rule::CacheMountUnused, mount.span, message, help), edits));
        }
    }
}

/// Returns the mounts that were meant for a manager and are elsewhere, with where they should be.
pub(super) fn misplaced<'s>(
    survey: &Survey<'_>,
    stage: &Stage<'_>,
    step: &'s Step<'_>,
) -> Vec<(&'s Mount, &'s Usage, String)> {
    let mut all: Vec<(&Mount, &Usage, String)> = Vec::new();
    for mount in step.caches() {
        let Some(target) = mount.target.as_deref() else { continue };
        if step.usages.is_empty() || is_used(step, target) || is_mentioned(survey, stage, step, mount) {
            continue;
        }
        for usage in step.usages.iter().filter(|usage| usage.downloads) {
            let Some(path) = missing_place(step, usage) else { continue };
            let taken = all.iter().any(|(_, _, other)| *other == path);
            if !taken && (looks_like(usage, mount) || nothing_else_runs(step)) {
                all.push((mount, usage, path));
                break;
            }
        }
    }
    all
}

/// Whether a manager of this step may use a directory.
fn is_used(step: &Step<'_>, target: &str) -> bool {
    let kept = || step.usages.iter().flat_map(|usage| &usage.caches);
    let near = |path: &String| crate::path::overlap(path, target);
    kept().any(|kept| kept.at.as_ref().is_none_or(|at| !at.certain || near(&at.path)))
        || kept().flat_map(|kept| &kept.others).any(near)
}

/// Whether the command, or a variable, speaks of the directory.
fn is_mentioned(survey: &Survey<'_>, stage: &Stage<'_>, step: &Step<'_>, mount: &Mount) -> bool {
    let target = mount.target.as_deref().unwrap_or(&mount.written);
    let is_in_script = match &step.script {
        Some(script) => script.text.contains(target),
        None => true,
    };
    let names = |word: &str| {
        let path = word.rsplit('=').next().unwrap_or(word).trim_start_matches("./");
        path.strip_prefix(mount.written.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mut words = step.calls.iter().flat_map(|call| &call.args).filter_map(|arg| arg.value.as_deref());
    let is_in_script = is_in_script || words.any(names);
    let is_in_value = |value: &Value| matches!(value, Value::Set(value) if value.contains(target));
    is_in_script
        || survey.chain(stage.number).any(|stage| stage.settings.iter().any(|one| is_in_value(&one.value)))
}

/// The place of the first cache that matters and has no mount.
fn missing_place(step: &Step<'_>, usage: &Usage) -> Option<String> {
    let bare = usage.caches.iter().filter(|kept| kept.essential).filter_map(|kept| kept.at.as_ref());
    let mut bare = bare.filter(|at| at.certain && !step.mounts.iter().any(|mount| mount.touches(&at.path)));
    bare.next().map(|at| at.path.clone())
}

/// Whether a target ends as this manager's cache in some home does.
fn looks_like(usage: &Usage, mount: &Mount) -> bool {
    let target = mount.target.as_deref().unwrap_or("");
    usage.manager.home_endings().any(|ending| target.ends_with(ending))
}

/// Whether there is no program that may use the mount for itself.
fn nothing_else_runs(step: &Step<'_>) -> bool {
    const PLAIN: [&str; 15] = [
        "set", "echo", "true", "mkdir", "rm", "cd", "export", "test", "[", "chmod", "chown", "ls", "which",
        "printf", "sleep",
    ];
    let known = |program: &str| PLAIN.contains(&program);
    !step.calls.is_empty()
        && step.calls.iter().all(|call| {
            known(&call.program) || step.usages.iter().any(|usage| usage.call == *call && usage.downloads)
        })
}

fn edit(text: &str, mount: &Mount, path: &str) -> Option<Edit> {
    let flag = &text[mount.span.start..mount.span.end];
    let keys = ["target=", "dst=", "destination="];
    let mut places = keys.iter().filter_map(|key| {
        let at = flag.find(&format!("{key}{}", mount.written))? + key.len();
        let end = at + mount.written.len();
        let ends = flag[end..].is_empty() || flag[end..].starts_with(',');
        ends.then_some(Span { start: mount.span.start + at, end: mount.span.start + end })
    });
    Some(Edit { span: places.next()?, text: path.to_owned() })
}
