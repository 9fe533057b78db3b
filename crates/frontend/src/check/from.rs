//! Checks of all FROM lines, also those of stages that the target does not need.

use std::collections::BTreeSet;

use kiln_core::{ImageRef, Platform};
use kiln_dockerfile::{Diagnostic, Dockerfile, From, Rule, Span, Spanned};

use super::finding;
use crate::diagnose::{did_you_mean, with_help};
use crate::variables::Variables;
use crate::words::{SUGGESTIONS, Words};

/// Checks FROM lines. `globals` are the variables that they see; `defaults` the same as if no build argument were given
/// for an ARG of the file.
pub(crate) fn from_lines(
    file: &Dockerfile,
    globals: &Variables,
    defaults: &Variables,
    words: &Words,
) -> Vec<Diagnostic> {
    let declared: BTreeSet<&str> = file
        .global_args
        .iter()
        .flat_map(|line| &line.value)
        .map(|arg| arg.name.value.as_str())
        .chain(globals.names())
        .collect();
    let mut found = Vec::new();
    for line in file.stages.iter().map(|stage| &stage.from) {
        let from = &line.value;
        if let Ok(image) = words.look(&from.image, defaults)
            && image.text.parse::<ImageRef>().is_err()
        {
            found.push(invalid_default(&from.image, image.text == from.image.value));
        }
        let suggest = found.len() < SUGGESTIONS;
        found.extend(undeclared(&from.image, suggest, &declared, globals, words));
        if let Some(platform) = &from.platform {
            found.extend(undeclared(platform, suggest, &declared, globals, words));
            found.extend(platform_flag(from, platform, globals, words));
        }
    }
    found
}

fn invalid_default(image: &Spanned<String>, is_constant: bool) -> Diagnostic {
    let written = &image.value;
    let (message, help) = match is_constant {
        true => (format!("`{written}` is no valid image name"), None),
        false => (
            format!("`{written}` names no image unless a build argument is given"),
            Some("give the ARG above a default that makes it a valid name".to_owned()),
        ),
    };
    with_help(finding(Rule::InvalidDefaultArgInFrom, image.span, message), help)
}

fn undeclared(
    word: &Spanned<String>,
    suggest: bool,
    declared: &BTreeSet<&str>,
    globals: &Variables,
    words: &Words,
) -> Vec<Diagnostic> {
    let Ok(expanded) = words.look(word, globals) else { return Vec::new() };
    let names = expanded.undefined.iter().filter(|name| !declared.contains(name.as_str()));
    names
        .map(|name| {
            let message = format!("no ARG above the first FROM declares `{name}`");
            let help = suggest.then(|| did_you_mean(name, declared.iter().copied()));
            with_help(finding(Rule::UndefinedArgInFrom, word.span, message), help.flatten())
        })
        .collect()
}

/// `--platform=$TARGETPLATFORM` says nothing, and a constant is for one platform only; whoever puts it into the stage's
/// name means it.
fn platform_flag(
    from: &From,
    written: &Spanned<String>,
    globals: &Variables,
    words: &Words,
) -> Option<Diagnostic> {
    const TARGET: &str = "TARGETPLATFORM";
    let expanded = words.look(written, globals).ok()?;
    let span: Span = written.span;
    match (expanded.used.len(), expanded.undefined.is_empty()) {
        (1, true) => {
            let is_target = expanded.used.contains(TARGET) && globals.get(TARGET) == Some(&expanded.text);
            let message = format!("`--platform={}` is what FROM does anyway", written.value);
            is_target.then(|| finding(Rule::RedundantTargetPlatform, span, message))
        }
        (0, true) => {
            let platform: Platform = expanded.text.parse().ok()?;
            let name = from.name.as_ref().map_or("", |name| name.value.as_str());
            if name.contains(&platform.os) || name.contains(&platform.architecture) {
                return None;
            }
            let message = format!("the platform `{}` is constant: the image is for no other", expanded.text);
            let help = "use $BUILDPLATFORM or leave --platform out".to_owned();
            Some(with_help(finding(Rule::FromPlatformFlagConstDisallowed, span, message), Some(help)))
        }
        _ => None,
    }
}
