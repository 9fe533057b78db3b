//! CacheMountMissing.

use kiln_dockerfile::{Diagnostic, Rule};

use crate::advice::{finding, insert, with_fix};
use crate::managers::{Locking, Off, Usage};
use crate::survey::{Step, Survey};

/// A manager that downloads in a step without a mount on any directory that it keeps.
pub(super) fn check(survey: &Survey<'_>, found: &mut Vec<Diagnostic>) {
    for (stage, step) in survey.steps() {
        if !step.is_offline() && step.usages.iter().any(|usage| usage.downloads) {
            // a mount in the wrong place is told there
            let elsewhere = super::unused::misplaced(survey, stage, step);
            of_step(survey.text, step, elsewhere.into_iter().map(|(.., path)| path).collect(), found);
        }
    }
}

fn of_step(text: &str, step: &Step<'_>, mut told: Vec<String>, found: &mut Vec<Diagnostic>) {
    for usage in step.usages.iter().filter(|usage| usage.downloads) {
        let Some(missing) = missing(step, usage) else { continue };
        let mounts: Vec<String> = missing
            .paths
            .iter()
            .filter(|path| !told.contains(path))
            .map(|path| mount(step, usage, path))
            .collect();
        told.extend(missing.paths);
        if mounts.is_empty() {
            continue;
        }
        let manager = usage.manager.name;
        let line = mounts.join(" ");
        let mut help = format!("write `RUN {line}`");
        if let Some(Off::Variable(name)) = &usage.off {
            help = format!("{help}, and do not set {name}");
        }
        if manager == "yarn" {
            help.push_str(", or `target=/root/.yarn/berry` for yarn 2 and later");
        }
        if manager == "apk" {
            help.push_str(": apk keeps packages if that directory is there");
        }
        let message =
            format!("{manager} downloads everything again each time this step runs: it has no cache mount");
        let is_mechanical =
            missing.certain && !usage.call.other_user && manager != "yarn" && !off_by_variable(usage);
        let edits = is_mechanical.then(|| vec![insert(step.behind_run(text), format!(" {line}"))]);
        found.push(with_fix(finding(Rule::CacheMountMissing, place(step, usage), message, help), edits));
    }
}

/// What has no mount.
struct Missing {
    paths: Vec<String>,
    certain: bool,
}

fn missing(step: &Step<'_>, usage: &Usage) -> Option<Missing> {
    let mut paths = Vec::new();
    let mut certain = true;
    let mut essential = false;
    for kept in &usage.caches {
        let is_there = |path: &str| step.mounts.iter().any(|mount| mount.touches(path));
        let at = kept.at.as_ref()?;
        if is_there(&at.path) || kept.others.iter().any(|other| is_there(other)) {
            continue;
        }
        // where it is not certain where the cache is, any cache mount may be the one
        if !at.certain && step.caches().next().is_some() {
            continue;
        }
        if step.caches().any(|mount| mount.target.is_none()) {
            continue;
        }
        certain &= at.certain;
        essential |= kept.essential;
        paths.push(at.path.clone());
    }
    essential.then_some(Missing { paths, certain })
}

/// The mount to write.
fn mount(step: &Step<'_>, usage: &Usage, path: &str) -> String {
    let mut mount = format!("--mount=type=cache,target={path}");
    if usage.manager.locked != Locking::Own {
        mount.push_str(",sharing=locked");
    }
    if step.user.is_other() && !usage.call.sudo {
        match (step.user.uid, step.user.gid) {
            (Some(uid), Some(gid)) => mount.push_str(&format!(",uid={uid},gid={gid}")),
            _ => mount.push_str(",uid=UID,gid=GID"),
        }
    }
    mount
}

fn off_by_variable(usage: &Usage) -> bool {
    matches!(usage.off, Some(Off::Variable(_)))
}

/// The call if it has a place, else the instruction.
pub(super) fn place(step: &Step<'_>, usage: &Usage) -> kiln_dockerfile::Span {
    let script = step.script.as_ref();
    let range =
        usage.call.command.and_then(|number| step.commands.get(number)).map(|command| command.range.clone());
    range.zip(script).and_then(|(range, script)| script.span(range)).unwrap_or(step.located.span)
}
