//! Physical lines, and logical lines: what continuations join, with the way back to the source.

use std::borrow::Cow;
use std::ops::Range;

use crate::Span;

/// One line of the file with its line end.
#[derive(Clone, Copy)]
pub(crate) struct Physical<'a> {
    /// With the line end.
    pub(crate) raw: &'a str,
    /// Byte offset in the file.
    pub(crate) start: usize,
    /// From 1.
    pub(crate) number: usize,
}

impl<'a> Physical<'a> {
    /// Without the line end (all trailing CR and LF, as the program does).
    pub(crate) fn text(&self) -> &'a str {
        self.raw.trim_end_matches(['\r', '\n'])
    }

    /// Where the text stands.
    pub(crate) fn span(&self) -> Span {
        Span { start: self.start, end: self.start + self.text().len() }
    }

    /// Whether the first non-blank is `#`.
    pub(crate) fn is_comment(&self) -> bool {
        self.raw.trim_start().starts_with('#')
    }

    /// Whether there is nothing but blanks.
    pub(crate) fn is_blank(&self) -> bool {
        self.raw.trim_start().is_empty()
    }
}

/// Hands out physical lines of any length.
pub(crate) struct Lines<'a> {
    text: &'a str,
    position: usize,
    number: usize,
}

impl<'a> Lines<'a> {
    /// Starts after a byte order mark and a `#!` line.
    pub(crate) fn new(text: &'a str) -> Self {
        let mut lines = Self { text, position: 0, number: 0 };
        if text.starts_with('\u{feff}') {
            lines.position = '\u{feff}'.len_utf8();
        }
        if text[lines.position..].starts_with("#!") {
            lines.next();
        }
        lines
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Physical<'a>;

    fn next(&mut self) -> Option<Physical<'a>> {
        let rest = &self.text[self.position..];
        if rest.is_empty() {
            return None;
        }
        let length = rest.find('\n').map_or(rest.len(), |newline| newline + 1);
        let start = self.position;
        self.position += length;
        self.number += 1;
        Some(Physical { raw: &rest[..length], start, number: self.number })
    }
}

/// What continuations join into one, with the way back to the file.
#[derive(Debug, Clone)]
pub struct Logical<'a> {
    /// The joined text.
    pub text: Cow<'a, str>,
    /// Offset in `text` and in the file, where each piece begins.
    pieces: Vec<(usize, usize)>,
}

/// A logical line and where it ends.
pub(crate) struct Joined<'a> {
    pub(crate) logical: Logical<'a>,
    /// Byte offset of the end of its last line.
    pub(crate) end: usize,
    /// Number of its last line.
    pub(crate) last: usize,
    /// From the first empty line in it to the end of its last line, if there is any empty one.
    pub(crate) empty: Option<Span>,
}

impl<'a> Logical<'a> {
    /// Starts with one piece at a file offset.
    fn new(piece: &'a str, start: usize) -> Self {
        Self { text: Cow::Borrowed(piece), pieces: vec![(0, start)] }
    }

    /// Joins another piece.
    fn push(&mut self, piece: &'a str, start: usize) {
        if !piece.is_empty() {
            self.pieces.push((self.text.len(), start));
            self.text.to_mut().push_str(piece);
        }
    }

    /// Reads the line that goes on from `start`, as the parser joins it. Heredoc bodies are no part of it.
    pub fn at(text: &'a str, start: usize, escape: char) -> Self {
        let mut lines = Lines { text, position: start, number: 0 };
        let Some(first) = lines.next() else { return Self::new("", start) };
        Self::read(&first, &mut lines, escape).logical
    }

    /// Reads what begins on `line`.
    pub(crate) fn read(line: &Physical<'a>, lines: &mut Lines<'a>, escape: char) -> Joined<'a> {
        let text = line.text();
        let start = line.start + (text.len() - text.trim_start().len());
        let text = text.trim_start();
        let mut open = continued(text, escape);
        let mut joined = Joined {
            logical: Self::new(open.unwrap_or(text), start),
            end: start + text.len(),
            last: line.number,
            empty: None,
        };
        while open.is_some() {
            let Some(line) = lines.next() else { break };
            joined.last = line.number;
            if line.is_blank() {
                joined.empty.get_or_insert(line.span());
            }
            if let Some(empty) = &mut joined.empty {
                empty.end = line.span().end;
            }
            if line.is_comment() || line.is_blank() {
                continue;
            }
            let text = line.text();
            open = continued(text, escape);
            joined.logical.push(open.unwrap_or(text), line.start);
            joined.end = line.start + text.len();
        }
        joined
    }

    /// Where a range of the joined text stands in the file.
    pub fn span(&self, range: Range<usize>) -> Span {
        let start = self.source(range.start);
        let end = if range.end > range.start { self.source(range.end - 1) + 1 } else { start };
        Span { start, end }
    }

    fn source(&self, offset: usize) -> usize {
        let piece = self.pieces.partition_point(|(begin, _)| *begin <= offset).max(1) - 1;
        let (begin, start) = self.pieces[piece];
        start + (offset - begin)
    }
}

/// Cuts a continuation off: the escape character as the last but blanks, neither doubled nor, on its own line, preceded
/// by anything. `None` if the line does not go on.
fn continued(line: &str, escape: char) -> Option<&str> {
    let rest = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!rest.ends_with(escape)).then_some(rest)
}
