//! Words and operators.

use std::iter::Peekable;
use std::ops::Range;
use std::str::CharIndices;

use super::{Part, Word};

/// What a script is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A word.
    Word(Word),
    /// `&&`, `||`, `;`, `|`, `&`, `(`, `)`, a line end as `\n`.
    Operator(&'static str, Range<usize>),
    /// A redirection: its file is the next word. `true` if it writes.
    Redirect(bool, Range<usize>),
}

/// Longest first.
const OPERATORS: [&str; 11] = ["&&", "||", ";;", "|&", ";", "|", "&", "(", ")", "\n", "\r"];
const REDIRECTS: [(&str, bool); 11] = [
    ("<<<", false),
    ("<<-", false),
    ("&>>", true),
    ("<<", false),
    (">>", true),
    (">&", true),
    ("<&", false),
    (">|", true),
    ("&>", true),
    ("<", false),
    (">", true),
];

/// Cuts a text; a text that ends inside a quote ends there.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut lexer =
        Lexer { text, chars: text.char_indices().peekable(), tokens: Vec::new(), heredocs: Vec::new() };
    lexer.run();
    lexer.tokens
}

struct Lexer<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    tokens: Vec<Token>,
    /// Heredocs whose bodies come after this line: whether tabs are stripped, and the terminator.
    heredocs: Vec<(bool, String)>,
}

impl Lexer<'_> {
    fn run(&mut self) {
        let mut heredoc = None;
        while let Some(&(at, ch)) = self.chars.peek() {
            match ch {
                ' ' | '\t' => {
                    self.chars.next();
                }
                '#' => self.skip_line(),
                _ if self.text[at..].starts_with("\\\n") => self.skip(2),
                _ if self.text[at..].starts_with("\\\r\n") => self.skip(3),
                _ => {
                    if let Some((mark, writes)) = self.redirect(at) {
                        self.skip(mark.len());
                        heredoc = mark.strip_prefix("<<").filter(|rest| *rest != "<").map(|rest| rest == "-");
                        self.tokens.push(Token::Redirect(writes, at..at + mark.len()));
                    } else if let Some(mark) =
                        OPERATORS.iter().find(|mark| self.text[at..].starts_with(**mark))
                    {
                        self.skip(mark.len());
                        self.tokens.push(Token::Operator(mark, at..at + mark.len()));
                        heredoc = None;
                        if *mark == "\n" {
                            self.skip_bodies();
                        }
                    } else {
                        let word = self.word(at);
                        if let Some(chomp) = heredoc.take() {
                            self.heredocs.push((chomp, word.literal().unwrap_or_default()));
                        }
                        self.tokens.push(Token::Word(word));
                    }
                }
            }
        }
    }

    fn redirect(&self, at: usize) -> Option<(&'static str, bool)> {
        let rest = &self.text[at..];
        // `&>` only: a lone `&` is an operator
        REDIRECTS.iter().copied().find(|(mark, _)| rest.starts_with(mark))
    }

    /// Reads a word. Digits directly before `<` or `>` belong to the redirection and are dropped.
    fn word(&mut self, start: usize) -> Word {
        let mut word = Word { range: start..start, ..Word::default() };
        let mut text = String::new();
        while let Some(&(at, ch)) = self.chars.peek() {
            let rest = &self.text[at..];
            match ch {
                ' ' | '\t' | '\n' | '\r' | ';' | '|' | '&' | '(' | ')' => break,
                '<' | '>' => break,
                '\'' => {
                    self.chars.next();
                    word.quoted = true;
                    text.push_str(self.until('\''));
                }
                '"' => {
                    self.chars.next();
                    word.quoted = true;
                    self.double_quoted(&mut word, &mut text);
                }
                '\\' if rest.starts_with("\\\n") => self.skip(2),
                '\\' => {
                    self.chars.next();
                    text.extend(self.chars.next().map(|(_, ch)| ch));
                    word.quoted = true;
                }
                '$' | '`' => self.expansion(&mut word, &mut text),
                '~' if at == start => {
                    self.chars.next();
                    let alone = self.chars.peek().is_none_or(|(_, next)| " \t\r\n/;|&()<>".contains(*next));
                    word.parts.push(if alone { Part::Home } else { Part::Opaque });
                }
                _ => {
                    self.chars.next();
                    text.push(ch);
                }
            }
        }
        word.range.end = self.at();
        if !text.is_empty() || word.parts.is_empty() {
            word.parts.push(Part::Text(text));
        }
        word
    }

    fn double_quoted(&mut self, word: &mut Word, text: &mut String) {
        while let Some(&(_, ch)) = self.chars.peek() {
            match ch {
                '"' => {
                    self.chars.next();
                    return;
                }
                '\\' => {
                    self.chars.next();
                    match self.chars.next() {
                        Some((_, '\n')) | None => {}
                        Some((_, ch @ ('$' | '`' | '"' | '\\'))) => text.push(ch),
                        Some((_, ch)) => text.extend(['\\', ch]),
                    }
                }
                '$' | '`' => self.expansion(word, text),
                _ => {
                    self.chars.next();
                    text.push(ch);
                }
            }
        }
    }

    /// Reads what begins with `$` or a backquote.
    fn expansion(&mut self, word: &mut Word, text: &mut String) {
        let Some((at, first)) = self.chars.next() else { return };
        let mut push = |part| {
            if !text.is_empty() {
                word.parts.push(Part::Text(std::mem::take(text)));
            }
            word.parts.push(part);
        };
        if first == '`' {
            self.until('`');
            return push(Part::Opaque);
        }
        let rest = &self.text[at + 1..];
        match rest.chars().next() {
            Some('(') => {
                self.chars.next();
                self.balanced('(', ')');
                push(Part::Opaque);
            }
            Some('{') => {
                self.chars.next();
                let inner_start = self.at();
                self.balanced('{', '}');
                let inner = self.text[inner_start..self.at()].trim_end_matches('}');
                let plain = is_name(inner);
                push(if plain { Part::Variable(inner.to_owned()) } else { Part::Opaque });
            }
            Some(ch) if ch.is_ascii_alphabetic() || ch == '_' => {
                let end =
                    rest.find(|ch: char| !ch.is_ascii_alphanumeric() && ch != '_').unwrap_or(rest.len());
                self.skip(end);
                push(Part::Variable(rest[..end].to_owned()));
            }
            Some(ch) if ch.is_ascii_digit() || "@*#?-$!".contains(ch) => {
                self.chars.next();
                push(Part::Opaque);
            }
            Some('\'') => push(Part::Opaque),
            _ => text.push('$'),
        }
    }

    /// Skips to the bracket that closes the one just read, quotes and nested brackets regarded.
    fn balanced(&mut self, open: char, close: char) {
        let mut depth = 1;
        while let Some((_, ch)) = self.chars.next() {
            match ch {
                '\\' => {
                    self.chars.next();
                }
                '\'' if open == '(' => {
                    self.until('\'');
                }
                _ if ch == open => depth += 1,
                _ if ch == close => {
                    depth -= 1;
                    if depth == 0 {
                        return;
                    }
                }
                _ => {}
            }
        }
    }

    /// Reads up to and over a character; returns what is before it.
    fn until(&mut self, end: char) -> &str {
        let start = self.at();
        for (at, ch) in self.chars.by_ref() {
            if ch == end {
                return &self.text[start..at];
            }
        }
        &self.text[start..]
    }

    fn skip_line(&mut self) {
        while self.chars.next_if(|(_, ch)| *ch != '\n').is_some() {}
    }

    /// Skips heredoc bodies; the line before them has just ended.
    fn skip_bodies(&mut self) {
        for (chomp, name) in std::mem::take(&mut self.heredocs) {
            while self.chars.peek().is_some() {
                let start = self.at();
                self.skip_line();
                let line = self.text[start..self.at()].trim_end_matches('\r');
                self.chars.next();
                if (if chomp { line.trim_start_matches('\t') } else { line }) == name {
                    break;
                }
            }
        }
    }

    /// Skips so many bytes.
    fn skip(&mut self, bytes: usize) {
        let end = self.at() + bytes;
        while self.chars.next_if(|(at, _)| *at < end).is_some() {}
    }

    fn at(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |(at, _)| *at)
    }
}

/// Whether a text can be a variable's name.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|ch: char| ch.is_ascii_alphabetic() || ch == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
