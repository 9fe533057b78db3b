//! Makes findings.

use kiln_dockerfile::{Diagnostic, Edit, Fix, Rule, Severity, Span};

/// A finding without a fix.
pub(crate) fn finding(
    rule: Rule,
    span: Span,
    message: impl Into<String>,
    help: impl Into<String>,
) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        message: message.into(),
        span,
        help: Some(help.into()).filter(|help: &String| !help.is_empty()),
        rule: Some(rule),
        fix: None,
    }
}

/// Adds the change that ends it, if there is one.
pub(crate) fn with_fix(finding: Diagnostic, edits: Option<Vec<Edit>>) -> Diagnostic {
    let edits = edits.filter(|edits| !edits.is_empty());
    Diagnostic {
        fix: edits.map(|mut edits| {
            edits.sort_by_key(|edit| edit.span.start);
            Fix { edits }
        }),
        ..finding
    }
}

/// Puts text in.
pub(crate) fn insert(at: usize, text: impl Into<String>) -> Edit {
    Edit { span: Span { start: at, end: at }, text: text.into() }
}

/// Takes text out.
pub(crate) fn remove(span: Span) -> Edit {
    Edit { span, text: String::new() }
}
