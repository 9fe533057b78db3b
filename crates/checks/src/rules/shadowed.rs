//! VariableShadowed.

use std::collections::HashMap;

use kiln_dockerfile::{Diagnostic, Rule};

use crate::advice::finding;
use crate::survey::{Setting, Stage, Survey, Value};

/// ARG and ENV of one name in one stage that say different things: in the build the later line wins, in the image ENV.
pub(super) fn check(survey: &Survey<'_>, found: &mut Vec<Diagnostic>) {
    for stage in &survey.stages {
        let mut last: HashMap<&str, &Setting<'_>> = HashMap::new();
        for setting in &stage.settings {
            if let Some(before) = last.insert(setting.name, setting) {
                found.extend(conflict(stage, before, setting));
            }
        }
    }
}

fn conflict(stage: &Stage<'_>, before: &Setting<'_>, setting: &Setting<'_>) -> Option<Diagnostic> {
    let name = setting.name;
    let differ = match (&before.value, &setting.value) {
        (Value::Set(a), Value::Set(b)) => a != b,
        (Value::Unset, Value::Set(_)) => true,
        _ => false,
    };
    let refers = setting.written.is_none_or(|value| value.contains(name));
    // what stands in between may have used the first
    let first = stage.steps.partition_point(|step| step.index < before.index);
    let is_between = stage.steps.get(first).is_some_and(|step| step.index < setting.index)
        || stage.copies.iter().any(|copied| copied.index > before.index && copied.index < setting.index);
    if !differ || refers || is_between {
        return None;
    }
    match (before.is_env, setting.is_env) {
        (false, true) => Some(finding(
            Rule::VariableShadowed,
            setting.span,
            format!("ENV {name} comes after ARG {name}, so `--build-arg {name}=...` has no effect"),
            format!("write `ENV {name}=${name}`, and give the ARG the default"),
        )),
        (true, false) => Some(finding(
            Rule::VariableShadowed,
            setting.span,
            format!("ARG {name} comes after ENV {name}: steps see the one, containers the other"),
            format!("drop one of them, or write `ARG {name}` first and `ENV {name}=${name}` below it"),
        )),
        _ => None,
    }
}
