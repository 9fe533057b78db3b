//! The untyped form: one node an instruction, as BuildKit's parser has it. Typed instructions and the printer are made
//! from it.

use std::ops::Range;

use crate::json::{self, Json};
use crate::lines::Logical;
use crate::words::{BLANKS, Word, split_blanks, split_flags, split_quoted};
use crate::{Diagnostic, Heredoc, Severity, Span, Spanned};

/// How deep ONBUILD may nest in an untyped node. The typed form refuses ONBUILD in ONBUILD at all.
const MAX_NESTING: usize = 32;

/// One instruction, cut into words but not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The instruction's name as written.
    pub name: Spanned<String>,
    /// `--name[=value]` words, quotes and backslashes removed.
    pub flags: Vec<Spanned<String>>,
    /// What follows. ENV and LABEL have three for each pair: name, value and `=` or nothing for the old form.
    pub args: Vec<Spanned<String>>,
    /// Whether the arguments were written as a JSON array.
    pub json: bool,
    /// The instruction that ONBUILD defers.
    pub child: Option<Box<Node>>,
    /// Heredocs, bodies as written.
    pub heredocs: Vec<Heredoc>,
    /// Where the words stand that announce the heredocs.
    pub(crate) markers: Vec<Span>,
    /// Everything: name to the end of the last line.
    pub span: Span,
    /// First and last line, from 1.
    pub lines: (usize, usize),
    /// The joined line.
    pub text: String,
    /// Comments directly above.
    pub comments: Vec<Spanned<String>>,
}

/// What a line's arguments look like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    JsonOrWords,
    JsonOrText,
    Words,
    QuotedWords,
    Pairs,
    Text,
    Healthcheck,
    Instruction,
}

/// The instructions and the shape of their arguments.
const SHAPES: [(&str, Shape); 18] = [
    ("ADD", Shape::JsonOrWords),
    ("ARG", Shape::QuotedWords),
    ("CMD", Shape::JsonOrText),
    ("COPY", Shape::JsonOrWords),
    ("ENTRYPOINT", Shape::JsonOrText),
    ("ENV", Shape::Pairs),
    ("EXPOSE", Shape::Words),
    ("FROM", Shape::Words),
    ("HEALTHCHECK", Shape::Healthcheck),
    ("LABEL", Shape::Pairs),
    ("MAINTAINER", Shape::Text),
    ("ONBUILD", Shape::Instruction),
    ("RUN", Shape::JsonOrText),
    ("SHELL", Shape::JsonOrText),
    ("STOPSIGNAL", Shape::Text),
    ("USER", Shape::Text),
    ("VOLUME", Shape::JsonOrWords),
    ("WORKDIR", Shape::Text),
];

/// Names of all instructions, upper case.
pub(crate) fn instruction_names() -> impl Iterator<Item = &'static str> {
    SHAPES.iter().map(|(name, _)| *name)
}

impl Node {
    /// Cuts a logical line into words.
    pub(crate) fn new(line: &Logical<'_>, escape: char) -> Result<Self, Diagnostic> {
        Self::nested(line, 0..line.text.len(), escape, 0)
    }

    /// The node that may hold heredocs: itself, or what ONBUILD defers.
    pub(crate) fn takes_heredocs(&self) -> bool {
        if self.name.value.eq_ignore_ascii_case("ONBUILD")
            && let Some(child) = &self.child
        {
            return !child.name.value.eq_ignore_ascii_case("ONBUILD") && child.takes_heredocs();
        }
        let names = ["RUN", "COPY", "ADD"];
        !self.json && names.iter().any(|name| self.name.value.eq_ignore_ascii_case(name))
    }

    fn nested(
        line: &Logical<'_>,
        range: Range<usize>,
        escape: char,
        depth: usize,
    ) -> Result<Self, Diagnostic> {
        let range = trim(&line.text, range);
        let text = &line.text[range.clone()];
        let name_end = text.find(BLANKS).unwrap_or(text.len());
        let name = range.start..range.start + name_end;
        let after = text.len() - text[name_end..].trim_start_matches(BLANKS).len();
        let (flags, rest) = split_flags(&text[after..]);
        let flag_base = range.start + after;
        let rest = trim(&line.text, flag_base + rest..range.end);

        let mut node = Self {
            name: Spanned { value: line.text[name.clone()].to_owned(), span: line.span(name) },
            flags: flags.into_iter().map(|word| spanned(line, flag_base, word)).collect(),
            args: Vec::new(),
            json: false,
            child: None,
            heredocs: Vec::new(),
            markers: Vec::new(),
            span: line.span(range.clone()),
            lines: (0, 0),
            text: text.to_owned(),
            comments: Vec::new(),
        };
        node.read_args(line, rest, escape, depth)?;
        Ok(node)
    }

    fn read_args(
        &mut self,
        line: &Logical<'_>,
        range: Range<usize>,
        escape: char,
        depth: usize,
    ) -> Result<(), Diagnostic> {
        let text = &line.text[range.clone()];
        let whole = || Word { text: text.to_owned(), start: 0, end: text.len() };
        let known = SHAPES.iter().find(|(name, _)| self.name.value.eq_ignore_ascii_case(name));
        let Some((_, shape)) = known else {
            // the program's parser leaves one empty argument; the typed form refuses the name
            self.args = vec![Spanned { value: String::new(), span: line.span(range) }];
            return Ok(());
        };
        if text.is_empty() {
            return Ok(());
        }
        let words = match shape {
            Shape::JsonOrWords => self.json_or(line, &range, split_blanks)?,
            Shape::JsonOrText => self.json_or(line, &range, |_| vec![whole()])?,
            Shape::Words => split_blanks(text),
            Shape::QuotedWords => split_quoted(text, escape),
            Shape::Pairs => self.pairs(line, &range, escape)?,
            Shape::Text => vec![whole()],
            Shape::Healthcheck => {
                let end = text.find(char::is_whitespace).unwrap_or(text.len());
                let kind = Word { text: text[..end].to_owned(), start: 0, end };
                let command = trim(&line.text, range.start + end..range.end);
                self.args.push(spanned(line, range.start, kind));
                if !command.is_empty() {
                    let text = line.text[command.clone()].to_owned();
                    let words = self.json_or(line, &command, |_| {
                        vec![Word { start: 0, end: text.len(), text: text.clone() }]
                    })?;
                    self.args.extend(words.into_iter().map(|word| spanned(line, command.start, word)));
                }
                return Ok(());
            }
            Shape::Instruction if depth >= MAX_NESTING => {
                return Err(error("ONBUILD nests too deep".to_owned(), line.span(range)));
            }
            Shape::Instruction => {
                self.child = Some(Box::new(Self::nested(line, range, escape, depth + 1)?));
                return Ok(());
            }
        };
        self.args = words.into_iter().map(|word| spanned(line, range.start, word)).collect();
        Ok(())
    }

    fn json_or(
        &mut self,
        line: &Logical<'_>,
        range: &Range<usize>,
        otherwise: impl FnOnce(&str) -> Vec<Word>,
    ) -> Result<Vec<Word>, Diagnostic> {
        let text = &line.text[range.clone()];
        match json::array(text) {
            Json::Strings(words) => {
                self.json = true;
                Ok(words)
            }
            Json::No => Ok(otherwise(text)),
            Json::NotStrings => Err(error(
                "the JSON form takes an array of strings and nothing else".to_owned(),
                line.span(range.clone()),
            )),
        }
    }

    /// `name=value ...`, or the old `name value`.
    fn pairs(&self, line: &Logical<'_>, range: &Range<usize>, escape: char) -> Result<Vec<Word>, Diagnostic> {
        let text = &line.text[range.clone()];
        let words = split_quoted(text, escape);
        let Some(first) = words.first() else { return Ok(Vec::new()) };
        let instruction = self.name.value.to_ascii_uppercase();
        if !first.text.contains('=') {
            let end = text.find(BLANKS).unwrap_or(text.len());
            let start = text.len() - text[end..].trim_start_matches(BLANKS).len();
            if start == text.len() && end == text.len() {
                let mut error =
                    error(format!("{instruction} needs a name and a value"), line.span(range.clone()));
                error.help = Some(format!("write `{instruction} {text}=value`"));
                return Err(error);
            }
            return Ok(vec![
                Word { text: text[..end].to_owned(), start: 0, end },
                Word { text: text[start..].to_owned(), start, end: text.len() },
                Word { text: String::new(), start: end, end: start },
            ]);
        }
        let mut parts = Vec::with_capacity(words.len() * 3);
        for word in words {
            let Some((name, value)) = word.text.split_once('=') else {
                let span = line.span(range.start + word.start..range.start + word.end);
                let mut error = error(format!("`{}` must have the form name=value", word.text), span);
                error.help = Some("put quotes around a value with blanks in it".to_owned());
                return Err(error);
            };
            // the word's text is its source up to a dropped escape at the end, so the parts can be counted off
            let equals = word.start + name.len();
            parts.push(Word { text: name.to_owned(), start: word.start, end: equals });
            parts.push(Word { text: value.to_owned(), start: equals + 1, end: word.end });
            parts.push(Word { text: "=".to_owned(), start: equals, end: equals + 1 });
        }
        Ok(parts)
    }
}

/// An error at a place.
pub(crate) fn error(message: String, span: Span) -> Diagnostic {
    Diagnostic { severity: Severity::Error, message, span, help: None, rule: None, fix: None }
}

fn spanned(line: &Logical<'_>, base: usize, word: Word) -> Spanned<String> {
    Spanned { value: word.text, span: line.span(base + word.start..base + word.end) }
}

fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let end = range.start + part.trim_end().len();
    let start = range.end - part.trim_start().len();
    start.min(end)..end
}
