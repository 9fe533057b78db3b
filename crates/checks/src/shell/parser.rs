//! Tokens become simple commands.

use std::ops::Range;

use super::lexer::{Token, is_name};
use super::{Command, Joint, Part, Redirect, Word};

/// Words that stand before a command and change how it runs.
const BEFORE: [&str; 8] = ["if", "elif", "while", "until", "then", "else", "do", "!"];
const OPENING: [&str; 5] = ["if", "while", "until", "for", "case"];
const CLOSING: [&str; 3] = ["fi", "done", "esac"];

/// Reads tokens in order. Compound commands fall apart into the simple ones in them.
pub(super) fn parse(text: &str, tokens: Vec<Token>) -> Vec<Command> {
    let mut parser = Parser {
        text,
        done: Vec::new(),
        open: None,
        before: Joint::Edge,
        depth: 0,
        cases: Vec::new(),
        in_pattern: false,
    };
    let mut redirect = None;
    for token in tokens {
        match token {
            Token::Word(word) => match redirect.take() {
                Some(writes) => parser.redirect(Redirect { writes, file: word }),
                None => parser.word(word),
            },
            Token::Redirect(writes, range) => {
                redirect = Some(writes);
                parser.drop_descriptor(&range);
            }
            Token::Operator(mark, _) => {
                redirect = None;
                parser.operator(mark);
            }
        }
    }
    parser.end(Joint::Edge);
    parser.done
}

struct Parser<'a> {
    text: &'a str,
    done: Vec<Command>,
    open: Option<Command>,
    before: Joint,
    depth: usize,
    /// The depth of every `case` that is open.
    cases: Vec<usize>,
    /// Whether what comes is a pattern of the innermost of them.
    in_pattern: bool,
}

impl Parser<'_> {
    fn word(&mut self, word: Word) {
        if self.in_pattern && &self.text[word.range.clone()] != "esac" {
            return;
        }
        let plain = (!word.quoted).then(|| &self.text[word.range.clone()]);
        let at_start =
            self.open.as_ref().is_none_or(|open| open.words.is_empty() && open.assignments.is_empty());
        if at_start && let Some(text) = plain {
            if OPENING.contains(&text) {
                self.depth += 1;
                if text == "case" {
                    self.cases.push(self.depth);
                }
            }
            if BEFORE.contains(&text) {
                self.before = Joint::Edge;
                return;
            }
            if text == "{" {
                self.depth += 1;
                self.before = Joint::Edge;
                return;
            }
            if text == "}" || CLOSING.contains(&text) {
                self.end(Joint::Edge);
                if text == "esac" {
                    self.cases.pop();
                    self.in_pattern = false;
                }
                self.depth = self.depth.saturating_sub(1);
                self.before = Joint::Edge;
                return;
            }
        }
        let is_case = self.cases.last() == Some(&self.depth);
        if is_case && plain == Some("in") && self.open.as_ref().is_some_and(|open| open.words.len() == 2) {
            self.open = None;
            self.in_pattern = true;
            return;
        }
        let assignment = assignment(&self.text[word.range.clone()], &word);
        let open = self.open();
        open.range.end = word.range.end;
        match assignment {
            Some(pair) if open.words.is_empty() => open.assignments.push(pair),
            _ => open.words.push(word),
        }
    }

    fn redirect(&mut self, redirect: Redirect) {
        let open = self.open();
        open.range.end = redirect.file.range.end;
        open.redirects.push(redirect);
    }

    /// `2>`: the digits were read as a word.
    fn drop_descriptor(&mut self, mark: &Range<usize>) {
        let text = self.text;
        if let Some(open) = &mut self.open
            && let Some(word) = open.words.last()
            && word.range.end == mark.start
            && text[word.range.clone()].bytes().all(|byte| byte.is_ascii_digit())
        {
            open.words.pop();
        }
    }

    fn operator(&mut self, mark: &str) {
        if self.in_pattern {
            if mark == ")" {
                self.in_pattern = false;
                self.before = Joint::Edge;
            }
            return;
        }
        match mark {
            "&&" => self.end(Joint::And),
            "||" => self.end(Joint::Or),
            "|" | "|&" => self.end(Joint::Pipe),
            "(" => {
                self.end(Joint::Edge);
                self.depth += 1;
            }
            ")" => {
                self.end(Joint::Edge);
                self.depth = self.depth.saturating_sub(1);
            }
            "\r" => {}
            ";;" => {
                self.end(Joint::Edge);
                self.in_pattern = !self.cases.is_empty();
            }
            _ => self.end(Joint::Then),
        }
    }

    fn open(&mut self) -> &mut Command {
        let Self { text: _, before, depth, .. } = *self;
        self.open.get_or_insert_with(|| Command {
            assignments: Vec::new(),
            words: Vec::new(),
            redirects: Vec::new(),
            range: 0..0,
            before,
            after: Joint::Edge,
            depth,
        })
    }

    fn end(&mut self, joint: Joint) {
        if let Some(mut command) = self.open.take() {
            let starts = command.words.iter().map(|word| word.range.start);
            let assigned = command.assignments.iter().map(|(_, word)| word.range.start);
            let files = command.redirects.iter().map(|redirect| redirect.file.range.start);
            command.range.start = starts.chain(assigned).chain(files).min().unwrap_or(command.range.end);
            command.after = joint;
            self.done.push(command);
            self.before = joint;
        } else if joint == Joint::Edge {
            self.before = joint;
        }
    }
}

/// `A=b`: the name and the value.
fn assignment(raw: &str, word: &Word) -> Option<(String, Word)> {
    if !raw.split_once('=').is_some_and(|(name, _)| is_name(name)) {
        return None;
    }
    let Some(Part::Text(first)) = word.parts.first() else { return None };
    let (name, value) = first.split_once('=')?;
    if !is_name(name) {
        return None;
    }
    let mut parts = word.parts.clone();
    parts[0] = Part::Text(value.to_owned());
    Some((name.to_owned(), Word { parts, range: word.range.clone(), quoted: word.quoted }))
}
