//! One .dockerignore pattern: filepath.Match's syntax, and `**` for any number of directories.
//!
//! What each pattern means was learnt from <https://github.com/moby/patternmatcher>, which makes a regular expression of
//! it unless it is a plain path, a plain start or a plain end. Here tokens and a set of states take the expression's
//! place, so that time is at most the product of both lengths, whatever the pattern.

use super::{Pattern, PatternError};

/// A compiled line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Whether the line began with `!`.
    pub(super) brings_back: bool,
    /// The line, from 1.
    pub(super) line: usize,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// The path itself.
    Exact(String),
    /// `text**`: everything that begins so.
    Prefix(String),
    /// `**text`: everything that ends so; `**/text` is also `text`.
    Suffix(String),
    /// Everything else.
    Tokens(Tokens),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Tokens {
    tokens: Vec<Token>,
    /// What every match begins and ends with; most paths are told by these.
    head: String,
    tail: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`
    One,
    /// `*`
    Star,
    /// `**` and more after it: nothing, or anything up to a slash.
    Directories,
    /// `**` at the end.
    Rest,
    /// `[...]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Rule {
    pub(super) fn new(pattern: &str, brings_back: bool, line: usize) -> Result<Self, PatternError> {
        Pattern::new(pattern)?;
        Ok(Self { brings_back, line, kind: Kind::new(pattern) })
    }

    /// Whether a path or a directory above it matches.
    pub(super) fn matches_or_parent(&self, path: &str) -> bool {
        match &self.kind {
            Kind::Tokens(tokens) => tokens.matches_or_parent(path),
            _ => self.matches(path) || path.match_indices('/').any(|(slash, _)| self.matches(&path[..slash])),
        }
    }

    /// Whether some path below a directory may match.
    pub(super) fn may_match_below(&self, directory: &str) -> bool {
        let below = format!("{directory}/");
        match &self.kind {
            Kind::Exact(path) => path.starts_with(&below),
            Kind::Prefix(prefix) => prefix.starts_with(&below) || below.starts_with(prefix.as_str()),
            Kind::Suffix(_) => true,
            Kind::Tokens(tokens) => tokens.run(&below, &mut |_| false).iter().any(|word| *word != 0),
        }
    }

    fn matches(&self, path: &str) -> bool {
        match &self.kind {
            Kind::Exact(exact) => path == exact,
            Kind::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Kind::Suffix(suffix) => path.ends_with(suffix.as_str()) || suffix.strip_prefix('/') == Some(path),
            Kind::Tokens(tokens) => tokens.matches(path),
        }
    }
}

impl Kind {
    fn new(pattern: &str) -> Self {
        let tokens = tokens(pattern);
        let plain = |tokens: &[Token]| tokens.iter().all(|token| matches!(token, Token::Char(_)));
        // an escape or a lone `]` makes an expression of it in the program; the meaning is the same but for `**`
        let special = pattern.contains(['\\', '[', ']']);
        match tokens.as_slice() {
            all if plain(all) => Self::Exact(all.iter().filter_map(Token::char).collect()),
            [Token::Rest] => Self::Suffix(String::new()),
            [head @ .., Token::Rest] if plain(head) && !special => {
                Self::Prefix(head.iter().filter_map(Token::char).collect())
            }
            [Token::Directories, tail @ ..]
                if plain(tail) && !special && pattern.matches("**").count() == 1 =>
            {
                Self::Suffix(pattern["**".len()..].to_owned())
            }
            all => {
                let head = all.iter().map_while(Token::char).collect();
                let mut tail: Vec<char> = all.iter().rev().map_while(Token::char).collect();
                tail.reverse();
                Self::Tokens(Tokens { head, tail: tail.into_iter().collect(), tokens })
            }
        }
    }
}

impl Token {
    fn char(&self) -> Option<char> {
        match self {
            Self::Char(ch) => Some(*ch),
            _ => None,
        }
    }
}

fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(ch) = chars.next() {
        let token = match ch {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_none() { Token::Rest } else { Token::Directories }
            }
            '*' => Token::Star,
            '?' => Token::One,
            '\\' => Token::Char(chars.next().unwrap_or('\\')),
            '[' => class(&mut chars),
            _ => Token::Char(ch),
        };
        // two in a row say no more than one, but would cost
        if token != Token::Directories || tokens.last() != Some(&token) {
            tokens.push(token);
        }
    }
    tokens
}

/// A class whose syntax was checked before.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Token {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    let one = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| match chars.next() {
        Some('\\') => chars.next(),
        other => other,
    };
    while chars.next_if_eq(&']').is_none() {
        let Some(low) = one(chars) else { break };
        let high = if chars.next_if_eq(&'-').is_some() { one(chars) } else { Some(low) };
        ranges.push((low, high.unwrap_or(low)));
    }
    Token::Class { negated, ranges }
}

impl Tokens {
    fn matches(&self, path: &str) -> bool {
        path.starts_with(&self.head)
            && path.ends_with(&self.tail)
            && self.is_end(&self.run(path, &mut |_| false))
    }

    /// One pass over the path, for it begins with each directory above it.
    fn matches_or_parent(&self, path: &str) -> bool {
        if !path.starts_with(&self.head) {
            return false;
        }
        let mut parent = false;
        let states = self.run(path, &mut |states| {
            parent = self.is_end(states);
            parent
        });
        parent || self.is_end(&states)
    }

    fn is_end(&self, states: &States) -> bool {
        let end = self.tokens.len();
        states[end / 64] & (1 << (end % 64)) != 0
    }

    /// The states that are left after a text; state n stands before token n, the last one is the end. Before each slash
    /// `stop` is asked whether this is enough.
    fn run(&self, text: &str, stop: &mut dyn FnMut(&States) -> bool) -> States {
        let size = self.tokens.len() / 64 + 1;
        let mut now = States::new(size);
        let mut next = States::new(size);
        self.enter(&mut now, 0);
        for ch in text.chars() {
            if ch == '/' && stop(&now) {
                break;
            }
            next.clear();
            for (word, bits) in now.iter().enumerate() {
                let mut bits = *bits;
                while bits != 0 {
                    let state = word * 64 + bits.trailing_zeros() as usize;
                    bits &= bits - 1;
                    self.step(&mut next, state, ch);
                }
            }
            std::mem::swap(&mut now, &mut next);
            if now.iter().all(|bits| *bits == 0) {
                break;
            }
        }
        now
    }

    fn step(&self, next: &mut States, state: usize, ch: char) {
        match self.tokens.get(state) {
            None => {}
            Some(Token::Char(wanted)) if *wanted == ch => self.enter(next, state + 1),
            Some(Token::One) if ch != '/' => self.enter(next, state + 1),
            Some(Token::Star) if ch != '/' => self.enter(next, state),
            Some(Token::Rest) => self.enter(next, state),
            Some(Token::Directories) => {
                // once inside, only a slash leads out
                next.set(state);
                if ch == '/' {
                    self.enter(next, state + 1);
                }
            }
            Some(Token::Class { negated, ranges }) => {
                let hit = ranges.iter().any(|(low, high)| (low..=high).contains(&&ch));
                if hit != *negated {
                    self.enter(next, state + 1);
                }
            }
            Some(_) => {}
        }
    }

    /// Adds a state and those behind it that need no character.
    fn enter(&self, states: &mut States, first: usize) {
        for state in first..=self.tokens.len() {
            let optional =
                matches!(self.tokens.get(state), Some(Token::Star | Token::Directories | Token::Rest));
            // whoever set an optional state here may have come from inside it, so what follows is added all the same
            states.set(state);
            if !optional {
                return;
            }
        }
    }
}

/// A set of states; on the stack for all but absurd patterns.
enum States {
    Few([u64; 2], usize),
    Many(Vec<u64>),
}

impl States {
    fn new(words: usize) -> Self {
        if words <= 2 { Self::Few([0; 2], words) } else { Self::Many(vec![0; words]) }
    }

    fn set(&mut self, state: usize) {
        let words = match self {
            Self::Few(words, _) => words.as_mut_slice(),
            Self::Many(words) => words.as_mut_slice(),
        };
        words[state / 64] |= 1 << (state % 64);
    }

    fn clear(&mut self) {
        match self {
            Self::Few(words, _) => *words = [0; 2],
            Self::Many(words) => words.fill(0),
        }
    }
}

impl std::ops::Deref for States {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        match self {
            Self::Few(words, size) => &words[..*size],
            Self::Many(words) => words,
        }
    }
}
