//! Checks: what can be said of a file from its text alone, and which of all findings are reported.
//!
//! Three places find something: [`of_instructions`] and [`of_whole`] here, lowering (what depends on variables and base images), and kiln's own
//! rules. None of them knows what is skipped: [`report`] alone decides that.

mod casing;
mod description;
mod names;
mod options;
mod report;

use crate::{Diagnostic, Dockerfile, Instruction, Located, Rule, Severity, Span};

pub use options::{Options, OptionsError};
pub use report::{Finding, report};

/// Returns what each instruction tells by itself, in stages that nothing needs too.
pub fn of_instructions(file: &Dockerfile) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for line in &file.global_args {
        found.extend(description::of_args(&line.value, line));
    }
    for stage in &file.stages {
        found.extend(names::stage_name_casing(&stage.from));
        found.extend(casing::from_and_as(&stage.from));
        found.extend(description::of_stage(&stage.from));
        for line in &stage.instructions {
            match &line.value {
                Instruction::Maintainer(name) => found.push(maintainer(name, line)),
                Instruction::Arg(args) => found.extend(description::of_args(args, line)),
                _ => {}
            }
        }
    }
    found
}

/// Returns what only the whole file tells: names that are there twice, the case of most instructions.
pub fn of_whole(file: &Dockerfile) -> Vec<Diagnostic> {
    let mut found = names::reserved_and_duplicate(&file.stages);
    found.extend(casing::instructions(&file.stages));
    found
}

fn maintainer<T>(name: &str, line: &Located<T>) -> Diagnostic {
    let finding = finding(Rule::MaintainerDeprecated, name_span(line), "MAINTAINER is deprecated".to_owned());
    let help = format!("write `LABEL org.opencontainers.image.authors=\"{name}\"`");
    Diagnostic { help: Some(help), ..finding }
}

/// A finding of a rule.
fn finding(rule: Rule, span: Span, message: String) -> Diagnostic {
    Diagnostic { severity: Severity::Warning, message, span, help: None, rule: Some(rule), fix: None }
}

/// The instruction's name as written.
fn name_of<T>(line: &Located<T>) -> &str {
    line.text.split(crate::words::BLANKS).next().unwrap_or_default()
}

/// Where it stands.
fn name_span<T>(line: &Located<T>) -> Span {
    Span { start: line.span.start, end: (line.span.start + name_of(line).len()).min(line.span.end) }
}
