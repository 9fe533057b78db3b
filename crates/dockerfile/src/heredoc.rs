//! Heredocs: `[fd]<<[-]NAME` words in a line and the bodies below it.

use std::ops::Range;

use crate::expand::{Lexer, Mode, raw_words};
use crate::lines::Lines;
use crate::{Diagnostic, Heredoc, Severity, Span};

/// A heredoc's word, before its body is read.
pub(crate) struct Marker {
    pub(crate) name: String,
    pub(crate) expand: bool,
    pub(crate) chomp: bool,
    pub(crate) fd: u32,
    /// Where the word stands in the line.
    pub(crate) range: Range<usize>,
}

/// The heredocs that a line announces, in order.
///
/// # Errors
/// A quote in a name that is not closed.
pub(crate) fn markers(line: &str) -> Result<Vec<Marker>, (String, Range<usize>)> {
    if !line.contains("<<") {
        return Ok(Vec::new());
    }
    let mut markers = Vec::new();
    for (word, range) in raw_words(line) {
        match marker(&word, range.clone()) {
            Ok(marker) => markers.extend(marker),
            Err(message) => return Err((message, range)),
        }
    }
    Ok(markers)
}

/// Reads a word as a heredoc. `None` if it is not one: `a<<b`, `<<<b`, a bare `<<`.
pub(crate) fn marker(word: &str, range: Range<usize>) -> Result<Option<Marker>, String> {
    let Some((fd, rest)) = word.split_once("<<") else { return Ok(None) };
    if !fd.bytes().all(|byte| byte.is_ascii_digit()) || rest.contains('<') {
        return Ok(None);
    }
    let chomp = rest.starts_with('-');
    let rest = rest[usize::from(chomp)..].trim_start_matches([' ', '\t', '\r', '\u{c}', '\n']);
    if rest.is_empty() {
        return Ok(None);
    }
    let lex = |raw_quotes| {
        let mode = Mode { raw_quotes, keep_unset: true, ..Mode::default() };
        Lexer::new(rest, mode, &|_| None).run().map_err(|error| error.to_string())
    };
    let plain = lex(false)?.words;
    let [name] = plain.as_slice() else { return Ok(None) };
    let raw = lex(true)?.words.concat();
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    Ok(Some(Marker {
        expand: quotes(name) == quotes(&raw),
        name: name.clone(),
        chomp,
        fd: if fd.is_empty() { 0 } else { fd.parse().unwrap_or(u32::MAX) },
        range,
    }))
}

/// The line that ends a heredoc.
pub(crate) struct End {
    /// Its number, from 1.
    pub(crate) line: usize,
    /// Byte offset of its end, line end aside.
    pub(crate) end: usize,
}

/// Takes a heredoc's body, as written, from the lines that follow. `at` is where the heredoc is announced.
pub(crate) fn body(marker: &Marker, lines: &mut Lines<'_>, at: Span) -> Result<(Heredoc, End), Diagnostic> {
    let mut content = String::new();
    let mut span: Option<Span> = None;
    for line in lines.by_ref() {
        let text = line.text();
        let candidate = if marker.chomp { text.trim_start_matches('\t') } else { text };
        if candidate == marker.name {
            let empty = Span { start: line.start, end: line.start };
            let heredoc = Heredoc {
                name: marker.name.clone(),
                expand: marker.expand,
                chomp: marker.chomp,
                fd: marker.fd,
                content,
                span: span.unwrap_or(empty),
            };
            return Ok((heredoc, End { line: line.number, end: line.start + text.len() }));
        }
        content.push_str(line.raw);
        span.get_or_insert(Span { start: line.start, end: line.start }).end = line.start + line.raw.len();
    }
    Err(Diagnostic {
        severity: Severity::Error,
        message: format!("the heredoc `{}` is not terminated", marker.name),
        span: at,
        help: Some(format!("end it with a line that holds `{}` and nothing else", marker.name)),
        rule: None,
        fix: None,
    })
}

/// Strips leading tabs from every line, as `<<-` asks for.
pub(crate) fn chomp(content: &str) -> String {
    content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}
