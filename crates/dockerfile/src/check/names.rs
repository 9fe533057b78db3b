//! Names of stages.

use std::collections::HashSet;

use super::finding;
use crate::words::split_blanks;
use crate::{Diagnostic, From, Located, Rule, Stage};

/// Names that mean something else where a stage could be named.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// `FROM image AS Name`.
pub(super) fn stage_name_casing(line: &Located<From>) -> Option<Diagnostic> {
    let name = line.value.name.as_ref()?;
    let written = split_blanks(&line.text).pop()?.text;
    (written != name.value).then(|| {
        let message = format!("stage name `{written}` is not in lower case");
        let finding = finding(Rule::StageNameCasing, name.span, message);
        Diagnostic { help: Some(format!("write `{}`", name.value)), ..finding }
    })
}

/// `AS scratch`, and a name that an earlier stage has.
pub(super) fn reserved_and_duplicate(stages: &[Stage]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    for name in stages.iter().filter_map(|stage| stage.from.value.name.as_ref()) {
        let text = &name.value;
        if RESERVED.contains(&text.as_str()) {
            let message = format!("`{text}` is reserved and cannot be used to refer to this stage");
            found.push(finding(Rule::ReservedStageName, name.span, message));
        }
        if !seen.insert(text) {
            let message = format!("an earlier stage is called `{text}` too; from here on this one is meant");
            found.push(finding(Rule::DuplicateStageName, name.span, message));
        }
    }
    found
}
