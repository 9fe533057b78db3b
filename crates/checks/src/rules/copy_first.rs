//! CopyBeforeInstall.

use kiln_dockerfile::{Diagnostic, Rule};

use crate::advice::finding;
use crate::managers::{Usage, flag_value};
use crate::survey::{Copied, Stage, Step, Survey};

/// A COPY of the whole context above a step that needs two files of it: every change of any file installs all again.
pub(super) fn check(survey: &Survey<'_>, found: &mut Vec<Diagnostic>) {
    for stage in &survey.stages {
        let Some(copied) = stage.copies.iter().find(|copied| is_everything(copied)) else { continue };
        let installed =
            |step: &Step<'_>| step.usages.iter().any(|usage| usage.downloads && needs(usage).is_some());
        let before = stage.steps.iter().take_while(|step| step.index < copied.index);
        if before.into_iter().any(installed) {
            continue;
        }
        found.extend(victim(stage, copied));
    }
}

fn victim(stage: &Stage<'_>, copied: &Copied<'_>) -> Option<Diagnostic> {
    let behind = stage.steps.iter().skip_while(|step| step.index < copied.index);
    let (step, usage, files) = behind.into_iter().find_map(|step| {
        let found = step.usages.iter().find_map(|usage| Some((usage, needs(usage)?)));
        found.map(|(usage, files)| (step, usage, files))
    })?;
    let (line, _) = step.located.lines;
    let name = usage.manager.name;
    let message = format!(
        "a change of any file makes {name} in line {line} install everything again: it needs only {files}"
    );
    let help = format!("write `COPY {files} ./` here, and this line below line {}", step.located.lines.1);
    Some(finding(Rule::CopyBeforeInstall, copied.located.span, message, help))
}

/// `COPY . .` from the build context.
fn is_everything(copied: &Copied<'_>) -> bool {
    copied.copy.from.is_none()
        && copied.copy.heredocs.is_empty()
        && copied.copy.flags.iter().all(|flag| flag.name == "link")
        && copied.sources.iter().any(|source| source == "/")
}

/// The files that an install needs, if it is certain that it needs no others.
fn needs(usage: &Usage) -> Option<String> {
    if !usage.downloads {
        return None;
    }
    let args = &usage.call.args;
    let has = |name: &str| args.iter().any(|arg| arg.value.as_deref() == Some(name));
    let plain = || {
        let words = args.iter().filter_map(|arg| arg.value.as_deref()).filter(|word| !word.starts_with('-'));
        args.iter().all(|arg| arg.value.is_some()) && words.count() <= usize::from(!usage.verb.is_empty())
    };
    let files = match (usage.manager.name, usage.verb.as_str()) {
        ("pip", "install") if !has("-e") && !has(".") => {
            let file = flag_value(args, &["-r", "--requirement"])??;
            return (!file.starts_with('/') && !file.contains("..")).then_some(file);
        }
        ("npm", "ci" | "install" | "i" | "clean-install") if plain() => "package.json package-lock.json",
        ("yarn", "install" | "") if plain() => "package.json yarn.lock",
        ("pnpm", "install" | "i") if plain() => "package.json pnpm-lock.yaml",
        ("bundler", "install") if plain() => "Gemfile Gemfile.lock",
        ("go", "mod download") => "go.mod go.sum",
        ("poetry", "install" | "sync") if has("--no-root") => "pyproject.toml poetry.lock",
        ("uv", "sync") if has("--no-install-project") => "pyproject.toml uv.lock",
        _ => return None,
    };
    Some(files.to_owned())
}
