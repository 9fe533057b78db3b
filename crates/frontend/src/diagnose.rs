//! Makes diagnostics, and finds what somebody may have meant.

use kiln_dockerfile::{Diagnostic, Severity, Span, nearest};

/// Something that keeps the image from being built.
pub(crate) fn error(span: Span, message: impl Into<String>) -> Diagnostic {
    Diagnostic { severity: Severity::Error, message: message.into(), span, help: None, rule: None, fix: None }
}

/// Something worth knowing.
pub(crate) fn warning(span: Span, message: impl Into<String>) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        message: message.into(),
        span,
        help: None,
        rule: None,
        fix: None,
    }
}

/// Adds advice, if there is any.
pub(crate) fn with_help(diagnostic: Diagnostic, help: Option<String>) -> Diagnostic {
    Diagnostic { help: help.or(diagnostic.help), ..diagnostic }
}

/// Returns "did you mean `x`?" for the candidate nearest to `word`, if one is near enough to be a slip.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(word, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}
