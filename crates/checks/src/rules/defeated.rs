//! CacheMountDefeated.

use kiln_dockerfile::{Diagnostic, Edit, Rule, Span};

use crate::advice::{finding, remove, with_fix};
use crate::managers::{Off, Usage};
use crate::path;
use crate::shell::{Arg, Call, Joint};
use crate::survey::{Step, Survey};

/// A flag, a variable or a command that undoes the mount beside it.
pub(super) fn check(survey: &Survey<'_>, found: &mut Vec<Diagnostic>) {
    for (_, step) in survey.steps() {
        if step.caches().next().is_none() {
            continue;
        }
        for usage in &step.usages {
            of_usage(survey.text, step, usage, found);
        }
        for call in step.calls.iter().filter(|call| call.program == "rm") {
            of_removal(survey.text, step, call, found);
        }
    }
}

fn of_usage(text: &str, step: &Step<'_>, usage: &Usage, found: &mut Vec<Diagnostic>) {
    let places = || usage.caches.iter().filter_map(|kept| kept.at.as_ref());
    let others = usage.caches.iter().flat_map(|kept| &kept.others);
    let mounted = |path: &str| step.caches().any(|mount| mount.touches(path));
    if !places().any(|at| mounted(&at.path)) && !others.into_iter().any(|other| mounted(other)) {
        return;
    }
    let name = usage.manager.name;
    let whole = super::missing::place(step, usage);
    match &usage.off {
        Some(Off::Flag(flag, range)) if usage.downloads => {
            let message = format!("`{flag}` keeps {name} from the cache that is mounted for it");
            let span = range.clone().zip(step.script.as_ref()).and_then(|(range, script)| script.span(range));
            let edits = range.as_ref().and_then(|range| word(text, step, range.start, range.end));
            let help = format!("take `{flag}` out: what is in a cache mount is not in the image");
            let finding = finding(Rule::CacheMountDefeated, span.unwrap_or(whole), message, help);
            found.push(with_fix(finding, edits.map(|edit| vec![edit])));
        }
        Some(Off::Variable(variable)) if usage.downloads => {
            let message = format!("{variable} keeps {name} from the cache that is mounted for it");
            let help = format!("do not set {variable}: what is in a cache mount is not in the image");
            found.push(finding(Rule::CacheMountDefeated, whole, message, help));
        }
        _ => {}
    }
    if usage.cleans {
        let message = format!("this empties {name}'s cache, which a mount keeps out of the image anyway");
        let edits = usage.call.command.and_then(|number| command(text, step, number));
        let finding = finding(Rule::CacheMountDefeated, whole, message, "take the command out");
        found.push(with_fix(finding, edits.map(|edit| vec![edit])));
    }
}

/// `rm -rf` of a mounted cache.
fn of_removal(text: &str, step: &Step<'_>, call: &Call, found: &mut Vec<Diagnostic>) {
    let is_flag = |arg: &&Arg| arg.value.as_deref().is_some_and(|value| value.starts_with('-'));
    let recursive = |arg: &Arg| {
        let flag = arg.value.as_deref().unwrap_or("");
        flag == "--recursive" || flag.starts_with('-') && !flag.starts_with("--") && flag.contains(['r', 'R'])
    };
    if !call.args.iter().any(recursive) {
        return;
    }
    let targets: Vec<&Arg> = call.args.iter().filter(|arg| !is_flag(arg)).collect();
    let wasted: Vec<&Arg> = targets.iter().copied().filter(|arg| empties(step, call, arg)).collect();
    let Some(first) = wasted.first() else { return };
    let whole = targets.len() == wasted.len();
    let (span, edits) = match call.command.zip(step.script.as_ref()) {
        Some((number, script)) if whole => {
            let span = script.span(step.commands[number].range.clone());
            (span, command(text, step, number).map(|edit| vec![edit]))
        }
        Some((_, script)) => {
            let edits =
                wasted.iter().map(|arg| arg.range.clone().and_then(|r| word(text, step, r.start, r.end)));
            (first.range.clone().and_then(|range| script.span(range)), edits.collect())
        }
        None => (None, None),
    };
    let paths: Vec<&str> = wasted.iter().filter_map(|arg| arg.value.as_deref()).collect();
    let message = format!("this empties the cache mount: {}", paths.join(" "));
    let help = "take it out: what is in a cache mount is not in the image";
    let finding = finding(Rule::CacheMountDefeated, span.unwrap_or(step.located.span), message, help);
    found.push(with_fix(finding, edits));
}

fn empties(step: &Step<'_>, call: &Call, arg: &Arg) -> bool {
    let Some(value) = arg.value.as_deref() else { return false };
    let value = value.strip_suffix("/*").unwrap_or(value);
    if value.is_empty() || value.contains(['*', '?', '[', '{']) {
        return false;
    }
    let dir = match (&call.dir, &step.dir) {
        _ if value.starts_with('/') => "/".to_owned(),
        (Some(moved), Some(dir)) => path::resolve(dir, moved),
        _ => return false,
    };
    let gone = path::resolve(&dir, value);
    let mounted = |target: &str| {
        let kept = step.usages.iter().flat_map(|usage| &usage.caches);
        let mut places =
            kept.flat_map(|kept| kept.at.as_ref().map(|at| &at.path).into_iter().chain(&kept.others));
        path::is_in(target, &gone)
            || places.any(|place| path::is_in(place, target) && path::is_in(place, &gone) && place != target)
    };
    step.caches().filter_map(|mount| mount.target.as_deref()).any(mounted)
}

/// Takes a word out, with the blanks before it.
fn word(text: &str, step: &Step<'_>, start: usize, end: usize) -> Option<Edit> {
    let script = step.script.as_ref()?;
    let before = script.text[..start].trim_end_matches([' ', '\t']).len();
    let span = script.span(before..end)?;
    is_clean(text, span).then(|| remove(span))
}

/// Takes a whole command out, with what joins it to its neighbour.
fn command(text: &str, step: &Step<'_>, number: usize) -> Option<Edit> {
    let script = step.script.as_ref()?;
    let command = step.commands.get(number)?;
    if command.depth > 0 {
        return None;
    }
    let stops = step.calls.iter().any(|call| {
        let flag = call.args.first().and_then(|arg| arg.value.as_deref()).unwrap_or("");
        call.program == "set" && flag.starts_with('-') && flag.contains('e')
    });
    let goes = match (command.before, command.after) {
        (Joint::And, Joint::And | Joint::Edge | Joint::Then) | (Joint::Then, Joint::Then) => true,
        // else the step's end would be another's
        (Joint::Then, Joint::Edge) => stops,
        _ => false,
    };
    let range = if goes {
        let before = number.checked_sub(1).and_then(|number| step.commands.get(number))?;
        (before.depth == 0).then_some(before.range.end..command.range.end)?
    } else if command.before == Joint::Edge && matches!(command.after, Joint::And) {
        let next = step.commands.get(number + 1)?;
        (next.depth == 0).then_some(command.range.start..next.range.start)?
    } else {
        return None;
    };
    let span = script.span(range)?;
    is_clean(text, span).then(|| remove(span))
}

/// A comment in between would be lost.
fn is_clean(text: &str, span: Span) -> bool {
    text.get(span.start..span.end)
        .is_some_and(|gone| !gone.lines().any(|line| line.trim_start().starts_with('#')))
}
