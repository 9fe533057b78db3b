//! Messages about places in a Dockerfile, with the excerpt.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use kiln_dockerfile::{Diagnostic, Severity};

/// Shows diagnostics, errors last so that they are what is left on the screen.
pub(crate) fn show_diagnostics(file: &str, text: &str, diagnostics: &[Diagnostic]) {
    let renderer = if crate::config::colours() { Renderer::styled() } else { Renderer::plain() };
    let mut sorted: Vec<&Diagnostic> = diagnostics.iter().collect();
    sorted.sort_by_key(|d| (d.severity == Severity::Error, d.span.start));
    for (number, diagnostic) in sorted.into_iter().enumerate() {
        if number > 0 {
            super::note("");
        }
        super::note(renderer.render(&report(file, text, diagnostic)));
    }
}

fn report<'a>(file: &'a str, text: &'a str, diagnostic: &'a Diagnostic) -> Vec<Group<'a>> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let end = diagnostic.span.end.min(text.len());
    let start = diagnostic.span.start.min(end);
    let snippet =
        Snippet::source(text).path(file).line_start(1).annotation(AnnotationKind::Primary.span(start..end));
    let title = level.primary_title(diagnostic.message.as_str());
    let title = match diagnostic.rule {
        Some(rule) => title.id(rule.name()),
        None => title,
    };
    let mut groups = vec![title.element(snippet)];
    if let Some(help) = &diagnostic.help {
        groups.push(Group::with_title(Level::HELP.secondary_title(help.as_str())));
    }
    groups
}
