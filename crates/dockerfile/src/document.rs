//! The whole text as nodes: directives, comments, continuations, heredocs.

use crate::heredoc;
use crate::lines::{Joined, Lines, Logical, Physical};
use crate::node::{Node, error};
use crate::{Diagnostic, Directives, Rule, Severity, Span, Spanned};

/// The untyped form of a file.
#[derive(Default)]
pub(crate) struct Document {
    pub(crate) directives: Directives,
    pub(crate) nodes: Vec<Node>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Directives met so far.
    seen: Vec<&'static str>,
}

/// Cuts a text into nodes. Goes on behind an error.
pub(crate) fn read(text: &str) -> Document {
    let mut document = Document::default();
    let mut lines = Lines::new(text);
    let mut in_directives = true;
    let mut comments: Vec<Spanned<String>> = Vec::new();
    while let Some(line) = lines.next() {
        if line.is_comment() {
            in_directives = in_directives && document.directive(&line);
            if !in_directives {
                add_comment(&mut comments, &line);
            }
            continue;
        }
        in_directives = false;
        if line.is_blank() {
            comments.clear();
            continue;
        }
        document.instruction(&mut lines, line, std::mem::take(&mut comments));
    }
    if document.directives.syntax.is_none() {
        document.directives.syntax = foreign_syntax(text);
    }
    if document.nodes.is_empty() && document.diagnostics.is_empty() {
        let span = Span { start: 0, end: text.len() };
        document.diagnostics.push(error("the file has no instructions".to_owned(), span));
    }
    document
}

impl Document {
    /// Reads a comment line as a directive. False ends the directives: an ordinary comment, or a name that is none.
    fn directive(&mut self, line: &Physical<'_>) -> bool {
        let Some((name, value)) = directive_parts(line, "#") else { return false };
        let known = ["syntax", "escape", "check"].into_iter().find(|known| name.eq_ignore_ascii_case(known));
        let Some(name) = known else { return false };
        if self.seen.contains(&name) {
            let message = format!("the directive `{name}` may be given only once");
            self.diagnostics.push(error(message, line.span()));
            return true;
        }
        self.seen.push(name);
        match (name, value.value.as_str()) {
            ("syntax", _) => self.directives.syntax = Some(value),
            ("check", _) => self.directives.check = Some(value),
            (_, "\\") => self.directives.escape = '\\',
            (_, "`") => self.directives.escape = '`',
            (_, other) => {
                let message = format!("the escape character can be `\\` or a backtick, not `{other}`");
                self.diagnostics.push(error(message, value.span));
            }
        }
        true
    }

    /// Reads one instruction that begins on `line`.
    fn instruction<'t>(&mut self, lines: &mut Lines<'t>, line: Physical<'t>, comments: Vec<Spanned<String>>) {
        let escape = self.directives.escape;
        let first = line.number;
        let Joined { logical, end, mut last, empty } = Logical::read(&line, lines, escape);
        if let Some(span) = empty {
            self.diagnostics.push(Diagnostic {
                severity: Severity::Warning,
                message: "empty line in a continued instruction".to_owned(),
                // up to where the instruction ends: that is where the program says it
                span,
                help: Some("remove it, or make it a comment".to_owned()),
                rule: Some(Rule::NoEmptyContinuation),
                fix: None,
            });
        }
        match Node::new(&logical, escape) {
            Ok(mut node) => {
                node.comments = comments;
                node.span.end = end.max(node.span.start);
                self.heredocs(&mut node, &logical, lines, &mut last);
                node.lines = (first, last);
                self.nodes.push(node);
            }
            Err(error) => self.diagnostics.push(error),
        }
    }

    /// Reads the bodies of the heredocs that an instruction announces.
    fn heredocs(&mut self, node: &mut Node, logical: &Logical<'_>, lines: &mut Lines<'_>, last: &mut usize) {
        if !node.takes_heredocs() {
            return;
        }
        let markers = match heredoc::markers(&logical.text) {
            Ok(markers) => markers,
            Err((message, range)) => {
                self.diagnostics.push(error(message, logical.span(range)));
                return;
            }
        };
        for marker in markers {
            let span = logical.span(marker.range.clone());
            match heredoc::body(&marker, lines, span) {
                Ok((body, end)) => {
                    node.span.end = end.end;
                    *last = end.line;
                    node.heredocs.push(body);
                    node.markers.push(span);
                }
                Err(error) => {
                    self.diagnostics.push(error);
                    return;
                }
            }
        }
    }
}

/// Adds a comment to those above the next instruction; an empty one clears them.
fn add_comment(comments: &mut Vec<Spanned<String>>, line: &Physical<'_>) {
    let hash = line.raw.len() - line.raw.trim_start().len();
    let body = &line.raw[hash + 1..];
    let text = body.trim();
    if text.is_empty() {
        comments.clear();
        return;
    }
    let start = line.start + hash + 1 + (body.len() - body.trim_start().len());
    let span = Span { start, end: start + text.len() };
    comments.push(Spanned { value: text.to_owned(), span });
}

/// `# name = value`: the name and the value.
fn directive_parts<'a>(line: &Physical<'a>, mark: &str) -> Option<(&'a str, Spanned<String>)> {
    const SPACES: [char; 5] = [' ', '\t', '\r', '\n', '\u{c}'];
    let rest = line.text().trim_start().strip_prefix(mark)?.trim_start();
    let (name, value) = rest.split_once('=')?;
    let name = name.trim_end_matches(SPACES);
    let value = value.trim_matches(SPACES);
    let named = name.starts_with(|ch: char| ch.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !named || value.is_empty() {
        return None;
    }
    let start = line.start + line.text().trim_end_matches(SPACES).len() - value.len();
    let span = Span { start, end: start + value.len() };
    Some((name, Spanned { value: value.to_owned(), span }))
}

/// The syntax of a file that is written in another language than ours: `// syntax=...` or a JSON object.
fn foreign_syntax(text: &str) -> Option<Spanned<String>> {
    for line in Lines::new(text) {
        let Some((name, value)) = directive_parts(&line, "//") else { break };
        if name.eq_ignore_ascii_case("syntax") {
            return Some(value);
        }
    }
    let body = text.trim_start_matches('\u{feff}');
    if !body.trim_start().starts_with('{') {
        return None;
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(body).ok()?;
    let value = object.get("syntax")?.as_str()?.to_owned();
    Some(Spanned { value, span: Span { start: 0, end: text.len() } })
}
