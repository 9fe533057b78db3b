//! The machine behind expansion: one pass over the characters with a stack of what is open.

use std::collections::BTreeSet;
use std::ops::Range;

use super::glob::Glob;
use super::{ExpandError, ExpandErrorKind, Expanded, Lookup, MAX_BYTES};

/// How quotes, escapes and unset variables are treated.
#[derive(Clone, Copy)]
pub(crate) struct Mode {
    /// The escape character.
    pub(crate) escape: char,
    /// Quotes stay in the result.
    pub(crate) raw_quotes: bool,
    /// Escape characters stay in the result.
    pub(crate) raw_escapes: bool,
    /// Quotes are ordinary characters.
    pub(crate) skip_quotes: bool,
    /// A substitution of an unset variable stays as it is.
    pub(crate) keep_unset: bool,
}

impl Default for Mode {
    fn default() -> Self {
        Self { escape: '\\', raw_quotes: false, raw_escapes: false, skip_quotes: false, keep_unset: false }
    }
}

/// Something open: its text so far, and what is to be done with it once it closes.
struct Frame {
    kind: Kind,
    out: String,
    /// Where it began, for messages and word places.
    start: usize,
    raw_escapes: bool,
}

enum Kind {
    /// The word itself.
    Top,
    /// Between double quotes.
    Quote,
    /// `${name<operator>`, up to `}`.
    Operand { name: String, operator: char, colon: bool },
    /// `${name/` or `${name//`, up to `/`.
    Pattern { name: String, all: bool },
    /// What follows the pattern, up to `}`.
    Replacement { name: String, all: bool, pattern: String },
}

/// Expands one word.
pub(crate) struct Lexer<'a> {
    source: &'a str,
    at: usize,
    mode: Mode,
    lookup: Lookup<'a>,
    stack: Vec<Frame>,
    /// Bytes in all open frames.
    held: usize,
    words: Words,
    seen: Expanded,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(source: &'a str, mode: Mode, lookup: Lookup<'a>) -> Self {
        let top = Frame { kind: Kind::Top, out: String::new(), start: 0, raw_escapes: mode.raw_escapes };
        Self {
            source,
            at: 0,
            mode,
            lookup,
            stack: vec![top],
            held: 0,
            words: Words::default(),
            seen: Expanded::default(),
        }
    }

    /// Expands to the end.
    pub(crate) fn run(mut self) -> Result<Expanded, ExpandError> {
        self.scan()?;
        let mut expanded = std::mem::take(&mut self.seen);
        expanded.text = self.stack.pop().map(|top| top.out).unwrap_or_default();
        expanded.words = self.into_words().into_iter().map(|(word, _)| word).collect();
        Ok(expanded)
    }

    /// The words of the result and where they stand in the source.
    pub(crate) fn into_words(mut self) -> Vec<(String, Range<usize>)> {
        self.words.close();
        self.words.done
    }

    /// Reads everything; afterwards only the outermost frame is left.
    pub(crate) fn scan(&mut self) -> Result<(), ExpandError> {
        loop {
            let Some(ch) = self.peek() else { return self.finish() };
            let begin = self.at;
            self.at += ch.len_utf8();
            let frame = self.stack.last().expect("the outermost frame stays");
            let raw_escapes = frame.raw_escapes;
            match (&frame.kind, ch) {
                (Kind::Quote, '"') => self.close_quote(begin)?,
                (Kind::Operand { .. } | Kind::Replacement { .. }, '}') => self.close_substitution()?,
                (Kind::Pattern { .. }, '/') => self.close_pattern(),
                (_, '$') => self.dollar(begin)?,
                (Kind::Quote, _) if ch == self.mode.escape => self.quoted_escape(ch, raw_escapes)?,
                (Kind::Quote, _) => self.put(ch)?,
                (_, '<') => self.angle(begin)?,
                (_, '\'') if !self.mode.skip_quotes => self.single_quote(begin)?,
                (_, '"') if !self.mode.skip_quotes => self.open(Kind::Quote, begin, raw_escapes),
                _ if ch == self.mode.escape => self.escape(ch, begin, raw_escapes)?,
                _ => self.plain(ch, begin)?,
            }
        }
    }

    fn finish(&self) -> Result<(), ExpandError> {
        let frame = self.stack.last().expect("the outermost frame stays");
        let kind = match &frame.kind {
            Kind::Top => return Ok(()),
            Kind::Quote => ExpandErrorKind::OpenQuote { quote: '"' },
            Kind::Pattern { name, .. } => ExpandErrorKind::OpenBrace { name: name.clone(), missing: '/' },
            Kind::Operand { name, .. } | Kind::Replacement { name, .. } => {
                ExpandErrorKind::OpenBrace { name: name.clone(), missing: '}' }
            }
        };
        Err(ExpandError { kind, offset: frame.start })
    }

    fn plain(&mut self, ch: char, begin: usize) -> Result<(), ExpandError> {
        if self.stack.len() == 1 {
            self.words.add(ch, begin..self.at);
        }
        self.put(ch)
    }

    /// An escape outside quotes: the next character is itself; at the very end it is dropped.
    fn escape(&mut self, escape: char, begin: usize, raw: bool) -> Result<(), ExpandError> {
        let top = self.stack.len() == 1;
        if raw {
            self.put(escape)?;
            if top {
                self.words.add_raw(escape.encode_utf8(&mut [0; 4]), begin..self.at);
            }
        }
        let Some(next) = self.next() else { return Ok(()) };
        if top {
            self.words.add_raw(next.encode_utf8(&mut [0; 4]), begin..self.at);
        }
        self.put(next)
    }

    /// An escape in double quotes, where it only escapes `"`, `$` and itself.
    fn quoted_escape(&mut self, escape: char, raw: bool) -> Result<(), ExpandError> {
        if raw {
            self.put(escape)?;
        }
        match self.peek() {
            None => Ok(()),
            Some(next) if next == '"' || next == '$' || next == self.mode.escape => {
                self.at += next.len_utf8();
                self.put(next)
            }
            Some(_) => self.put(escape),
        }
    }

    fn single_quote(&mut self, begin: usize) -> Result<(), ExpandError> {
        let Some(length) = self.source[self.at..].find('\'') else {
            return Err(ExpandError { kind: ExpandErrorKind::OpenQuote { quote: '\'' }, offset: begin });
        };
        let end = self.at + length + 1;
        let range = if self.mode.raw_quotes { begin..end } else { begin + 1..end - 1 };
        self.at = end;
        let text = &self.source[range];
        if self.stack.len() == 1 {
            self.words.add_raw(text, begin..end);
        }
        self.append(text)
    }

    fn close_quote(&mut self, quote: usize) -> Result<(), ExpandError> {
        let frame = self.close();
        let text = if self.mode.raw_quotes { format!("\"{}\"", frame.out) } else { frame.out };
        if self.stack.len() == 1 {
            self.words.add_raw(&text, frame.start..quote + 1);
        }
        self.append_owned(text)
    }

    /// `<<` takes the blanks that follow it into its word, so that `<< EOF` is one word and can be seen as a heredoc.
    fn angle(&mut self, begin: usize) -> Result<(), ExpandError> {
        if self.peek() == Some('<') {
            self.at += 1;
            let rest = &self.source[self.at..];
            self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r']).len();
        }
        let text = &self.source[begin..self.at];
        if self.stack.len() == 1 {
            self.words.add_raw(text, begin..self.at);
        }
        self.append(text)
    }

    /// `$name`, or the start of `${name...`.
    fn dollar(&mut self, begin: usize) -> Result<(), ExpandError> {
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return self.substitute(begin, "$".to_owned());
            }
            let value = self.value(&name, true);
            let kept = value.is_none() && self.mode.keep_unset;
            let text = if kept { format!("${name}") } else { value.unwrap_or_default() };
            return self.substitute(begin, text);
        }
        self.at += 1;
        match self.peek() {
            None => {
                return Err(
                    self.error(begin, ExpandErrorKind::OpenBrace { name: String::new(), missing: '}' })
                );
            }
            Some('{' | '}' | ':') => return Err(self.error(begin, ExpandErrorKind::NoName)),
            Some(_) => {}
        }
        let name = self.name();
        let Some(mut operator) = self.next() else {
            return Err(self.error(begin, ExpandErrorKind::OpenBrace { name, missing: '}' }));
        };
        let colon = operator == ':';
        if operator == '}' {
            let value = self.value(&name, true);
            let kept = value.is_none() && self.mode.keep_unset;
            let text = if kept { format!("${{{name}}}") } else { value.unwrap_or_default() };
            return self.substitute(begin, text);
        }
        if colon {
            let Some(next) = self.next() else {
                return Err(self.error(begin, ExpandErrorKind::OpenBrace { name, missing: '}' }));
            };
            operator = next;
        }
        match operator {
            '-' | '+' | '?' => self.open(Kind::Operand { name, operator, colon }, begin, false),
            '#' | '%' if !colon => self.open(Kind::Operand { name, operator, colon }, begin, true),
            '/' if !colon => {
                let all = self.peek() == Some('/');
                self.at += usize::from(all);
                self.open(Kind::Pattern { name, all }, begin, true);
            }
            _ => {
                let modifier = if colon { format!(":{operator}") } else { operator.to_string() };
                return Err(self.error(begin, ExpandErrorKind::Modifier { name, modifier }));
            }
        }
        Ok(())
    }

    /// The `/` between pattern and replacement.
    fn close_pattern(&mut self) {
        let frame = self.close();
        if let Kind::Pattern { name, all } = frame.kind {
            self.open(Kind::Replacement { name, all, pattern: frame.out }, frame.start, true);
        }
    }

    /// The `}` of a substitution with an operator.
    fn close_substitution(&mut self) -> Result<(), ExpandError> {
        let Frame { kind, out: operand, start, .. } = self.close();
        let text = match kind {
            Kind::Operand { name, operator, colon } => self.operate(name, operator, colon, operand, start)?,
            Kind::Replacement { name, all, pattern } => match self.value(&name, true) {
                None if self.mode.keep_unset => {
                    format!("${{{name}/{}{pattern}/{operand}}}", if all { "/" } else { "" })
                }
                value => self.glob(&pattern, start)?.replace(&value.unwrap_or_default(), &operand, all),
            },
            Kind::Top | Kind::Quote | Kind::Pattern { .. } => unreachable!("only `}}` closes these two"),
        };
        self.substitute(start, text)
    }

    fn operate(
        &mut self,
        name: String,
        operator: char,
        colon: bool,
        operand: String,
        start: usize,
    ) -> Result<String, ExpandError> {
        let value = self.value(&name, matches!(operator, '#' | '%'));
        if value.is_none() && self.mode.keep_unset {
            return Ok(format!("${{{name}{}{operator}{operand}}}", if colon { ":" } else { "" }));
        }
        let absent = value.as_ref().is_none_or(|value| colon && value.is_empty());
        let unset = value.is_none();
        let value = value.unwrap_or_default();
        Ok(match operator {
            '-' if absent => operand,
            '+' if absent => String::new(),
            '+' => operand,
            '?' if absent => {
                let message = match operand {
                    message if !message.is_empty() => message,
                    _ if unset => "is not allowed to be unset".to_owned(),
                    _ => "is not allowed to be empty".to_owned(),
                };
                return Err(self.error(start, ExpandErrorKind::Required { name, message }));
            }
            '#' | '%' => {
                let doubled = operand.strip_prefix(operator);
                let glob = self.glob(doubled.unwrap_or(&operand), start)?;
                match operator {
                    '#' => glob.trim_prefix(&value, doubled.is_some()),
                    _ => glob.trim_suffix(&value, doubled.is_some()),
                }
            }
            _ => value,
        })
    }

    fn glob(&self, pattern: &str, start: usize) -> Result<Glob, ExpandError> {
        Glob::new(pattern)
            .ok_or_else(|| self.error(start, ExpandErrorKind::Pattern { pattern: pattern.to_owned() }))
    }

    /// A variable's name: digits, or one special character, or letters, digits and underscores.
    fn name(&mut self) -> String {
        let rest = &self.source[self.at..];
        let end = match rest.chars().next() {
            Some(first) if first.is_numeric() => rest.find(|ch: char| !ch.is_numeric()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => Some(1),
            _ => rest.find(|ch: char| !ch.is_alphanumeric() && ch != '_'),
        };
        let name = &rest[..end.unwrap_or(rest.len())];
        self.at += name.len();
        name.to_owned()
    }

    fn value(&mut self, name: &str, expected: bool) -> Option<String> {
        let value = (self.lookup)(name);
        let note = |set: &mut BTreeSet<String>| {
            if !set.contains(name) {
                set.insert(name.to_owned());
            }
        };
        match &value {
            _ if name.is_empty() => {}
            Some(_) => note(&mut self.seen.used),
            None => {
                note(&mut self.seen.undefined);
                if expected {
                    note(&mut self.seen.missing);
                }
            }
        }
        value
    }

    /// Puts what a substitution became where it stood.
    fn substitute(&mut self, begin: usize, text: String) -> Result<(), ExpandError> {
        if self.stack.len() == 1 {
            for ch in text.chars() {
                self.words.add(ch, begin..self.at);
            }
        }
        self.append_owned(text)
    }

    fn put(&mut self, ch: char) -> Result<(), ExpandError> {
        self.append(ch.encode_utf8(&mut [0; 4]))
    }

    fn append(&mut self, text: &str) -> Result<(), ExpandError> {
        self.grow(text.len())?;
        self.top().out.push_str(text);
        Ok(())
    }

    /// Like [`Self::append`], without a copy where nothing stands before it: nested defaults would else copy the
    /// innermost text once a level.
    fn append_owned(&mut self, text: String) -> Result<(), ExpandError> {
        self.grow(text.len())?;
        let top = self.top();
        if top.out.is_empty() {
            top.out = text;
        } else {
            top.out.push_str(&text);
        }
        Ok(())
    }

    fn grow(&mut self, bytes: usize) -> Result<(), ExpandError> {
        self.held += bytes;
        if self.held > MAX_BYTES {
            return Err(self.error(self.at, ExpandErrorKind::TooLong));
        }
        Ok(())
    }

    fn open(&mut self, kind: Kind, start: usize, raw_escapes: bool) {
        self.stack.push(Frame { kind, out: String::new(), start, raw_escapes });
    }

    fn close(&mut self) -> Frame {
        let frame = self.stack.pop().expect("only an open frame closes");
        self.held -= frame.out.len();
        frame
    }

    fn top(&mut self) -> &mut Frame {
        self.stack.last_mut().expect("the outermost frame stays")
    }

    fn peek(&self) -> Option<char> {
        self.source[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let ch = self.peek()?;
        self.at += ch.len_utf8();
        Some(ch)
    }

    fn error(&self, offset: usize, kind: ExpandErrorKind) -> ExpandError {
        ExpandError { kind, offset }
    }
}

/// Words as they come together. A quoted empty string makes no word, as in the program.
#[derive(Default)]
struct Words {
    done: Vec<(String, Range<usize>)>,
    word: String,
    range: Range<usize>,
}

impl Words {
    fn add(&mut self, ch: char, range: Range<usize>) {
        if ch.is_whitespace() {
            self.close();
        } else {
            self.add_raw(ch.encode_utf8(&mut [0; 4]), range);
        }
    }

    fn add_raw(&mut self, text: &str, range: Range<usize>) {
        if self.word.is_empty() {
            self.range.start = range.start;
        }
        self.range.end = range.end;
        self.word.push_str(text);
    }

    fn close(&mut self) {
        if !self.word.is_empty() {
            self.done.push((std::mem::take(&mut self.word), self.range.clone()));
        }
    }
}
