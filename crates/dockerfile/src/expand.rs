//! Variable expansion: a word with `$name`, `${name...}`, quotes and escapes becomes a string, or several words.
//!
//! Every form of <https://docs.docker.com/reference/dockerfile/#environment-replacement>, and those that the program
//! has and the manual has not (`${v?m}`, `${v:?m}`). One pass with a stack of its own, so that nesting costs neither
//! time nor the thread's stack; the result is limited to [`MAX_BYTES`].

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

mod glob;
mod lexer;

pub(crate) use lexer::{Lexer, Mode};

/// The longest result of one expansion, in bytes. No process takes an argument or a variable this long; without a
/// limit a few lines of `ENV a=$a$a` would eat the machine.
pub const MAX_BYTES: usize = 16 << 20;

/// Looks a variable up; `None` if it is not set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What a word became.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expanded {
    /// The whole, quotes and escapes processed.
    pub text: String,
    /// The same cut at white space outside quotes, after expansion.
    pub words: Vec<String>,
    /// Names that were looked up and set.
    pub used: BTreeSet<String>,
    /// Names that were looked up and not set.
    pub undefined: BTreeSet<String>,
    /// Those of them that stood there without `-`, `+` or `?`, so that the writer surely expected a value.
    pub missing: BTreeSet<String>,
}

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{kind}")]
pub struct ExpandError {
    /// What is wrong.
    pub kind: ExpandErrorKind,
    /// Byte offset in the word.
    pub offset: usize,
}

/// What is wrong with a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum ExpandErrorKind {
    /// `'` or `"` without its partner.
    #[error("the quote {quote} is not closed")]
    OpenQuote {
        /// Which.
        quote: char,
    },
    /// `${name` without `}`, or `${name/pattern` without the second `/`.
    #[error("missing `{missing}` in `${{{name}`")]
    OpenBrace {
        /// The variable.
        name: String,
        /// What was expected.
        missing: char,
    },
    /// `${}`, `${:...}`, `${{`.
    #[error("bad substitution: a name must follow `${{`")]
    NoName,
    /// `${name=word}` and other forms that the reference does not have.
    #[error("unsupported modifier `{modifier}` in the substitution of `{name}`")]
    Modifier {
        /// The variable.
        name: String,
        /// What follows it.
        modifier: String,
    },
    /// A backslash in a pattern before something it cannot escape.
    #[error("bad escape in the pattern `{pattern}`")]
    Pattern {
        /// The pattern.
        pattern: String,
    },
    /// `${name?message}` and the variable is not set, or `${name:?message}` and it is empty.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// The writer's message or a default.
        message: String,
    },
    /// The result is longer than [`MAX_BYTES`].
    #[error("the expansion is longer than {} MiB", MAX_BYTES >> 20)]
    TooLong,
}

/// Expands a word (an instruction's value). `escape` is the file's escape character.
///
/// # Errors
/// A malformed word or a variable that `?` requires.
pub fn word(word: &str, escape: char, lookup: Lookup<'_>) -> Result<Expanded, ExpandError> {
    Lexer::new(word, Mode { escape, ..Mode::default() }, lookup).run()
}

/// Expands the body of a heredoc: quotes mean nothing there, and the escape character is always a backslash.
///
/// # Errors
/// As for [`word`].
pub fn heredoc(body: &str, lookup: Lookup<'_>) -> Result<Expanded, ExpandError> {
    let mode = Mode { skip_quotes: true, ..Mode::default() };
    Lexer::new(body, mode, lookup).run()
}

/// Cuts a line into words without expanding anything, quotes and escapes kept, and says where each stands; nothing if
/// the line is malformed. This is how heredocs are looked for.
pub(crate) fn raw_words(line: &str) -> Vec<(String, Range<usize>)> {
    let mode = Mode { raw_quotes: true, raw_escapes: true, keep_unset: true, ..Mode::default() };
    let mut lexer = Lexer::new(line, mode, &|_| None);
    match lexer.scan() {
        Ok(()) => lexer.into_words(),
        Err(_) => Vec::new(),
    }
}
