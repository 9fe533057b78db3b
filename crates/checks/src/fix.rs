//! Applies fixes to a text. Everything that no edit names stays as it is, byte for byte.

use kiln_dockerfile::{Diagnostic, Edit, Severity, parse};

/// How often a fixed text is looked at again: a fix may make room for another, but not for ever.
const MAX_ROUNDS: usize = 16;

/// Applies the fixes of findings, each wholly or not at all: of two that touch the same place the first counts. Returns
/// the new text and those that were applied.
pub fn apply<'a>(
    text: &str,
    findings: impl IntoIterator<Item = &'a Diagnostic>,
) -> (String, Vec<&'a Diagnostic>) {
    let mut edits: Vec<&Edit> = Vec::new();
    let mut applied = Vec::new();
    for finding in findings {
        let Some(fix) = &finding.fix else { continue };
        let fits = |edit: &Edit| {
            edit.span.start <= edit.span.end
                && text.is_char_boundary(edit.span.start.min(text.len()))
                && text.is_char_boundary(edit.span.end.min(text.len()))
                && edit.span.end <= text.len()
                && !edits.iter().any(|other| touch(other, edit))
        };
        if !fix.edits.is_empty() && fix.edits.iter().all(fits) {
            edits.extend(&fix.edits);
            applied.push(finding);
        }
    }
    edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for edit in edits {
        out.push_str(&text[at..edit.span.start]);
        out.push_str(&edit.text);
        at = edit.span.end;
    }
    out.push_str(&text[at..]);
    (out, applied)
}

/// Applies fixes until none is left; `find` looks at a text that parses. Returns the new text and all that was applied,
/// with spans in the text of its round.
pub fn fix_all(text: &str, mut find: impl FnMut(&str) -> Vec<Diagnostic>) -> (String, Vec<Diagnostic>) {
    let mut text = text.to_owned();
    let mut all = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let findings = find(&text);
        let (next, applied) = apply(&text, &findings);
        // a fix that breaks the file would be worse than what it mends
        let broken = parse(&next).1.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
        if applied.is_empty() || next == text || broken {
            break;
        }
        all.extend(applied.into_iter().cloned());
        text = next;
    }
    (text, all)
}

/// Two edits that overlap, or insert at one place.
fn touch(a: &Edit, b: &Edit) -> bool {
    a.span.start <= b.span.end && b.span.start <= a.span.end
}
