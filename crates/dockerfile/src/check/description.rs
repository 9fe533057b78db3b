//! Comments that describe stages and arguments: `# name description`, directly above.

use super::{finding, name_span};
use crate::{ArgDecl, Diagnostic, From, Located, Rule};

/// The comment above a named stage.
pub(super) fn of_stage(line: &Located<From>) -> Option<Diagnostic> {
    let name = line.value.name.as_ref()?;
    check(line, "FROM", &[&name.value])
}

/// The comment above an ARG.
pub(super) fn of_args<T>(args: &[ArgDecl], line: &Located<T>) -> Option<Diagnostic> {
    let names: Vec<&str> = args.iter().map(|arg| arg.name.value.as_str()).collect();
    check(line, "ARG", &names)
}

/// Only the last line counts; it must begin with one of the names.
fn check<T>(line: &Located<T>, instruction: &str, names: &[&str]) -> Option<Diagnostic> {
    let comment = line.comments.last()?;
    let word = comment.value.split(' ').next().unwrap_or_default();
    if names.contains(&word) {
        return None;
    }
    let example = match names {
        [name] => name,
        _ => "NAME",
    };
    let message = format!("the comment above {instruction} does not describe it");
    let finding = finding(Rule::InvalidDefinitionDescription, name_span(line), message);
    let help =
        format!("write `# {example} DESCRIPTION`, or put an empty line below a comment about something else");
    Some(Diagnostic { help: Some(help), ..finding })
}
