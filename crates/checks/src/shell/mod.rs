//! Reads shell text as far as advice needs it: simple commands in order, with what joins them. Nothing is executed, and
//! what cannot be known stays unknown. <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/V3_chap02.html>

mod call;
mod lexer;
mod parser;
mod script;

pub(crate) use call::{Arg, Call, Outside, calls, exec};
pub(crate) use script::{SHELLS, Script};

use std::ops::Range;

/// A piece of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Characters as they are.
    Text(String),
    /// `$name` or `${name}`.
    Variable(String),
    /// A leading `~`.
    Home,
    /// What only the shell knows: `$(...)`, `${name:-x}`, `$1`.
    Opaque,
}

/// A word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Word {
    /// Its pieces.
    pub(crate) parts: Vec<Part>,
    /// Where it stands in the script.
    pub(crate) range: Range<usize>,
    /// Whether any of it was quoted.
    pub(crate) quoted: bool,
}

/// What stands between two commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joint {
    /// Nothing: the script begins or ends here, or a group does.
    Edge,
    /// `&&`.
    And,
    /// `||`.
    Or,
    /// `;`, `&` or a line end.
    Then,
    /// `|`.
    Pipe,
}

/// What a command's output goes to, or its input comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Redirect {
    /// Whether it writes a file.
    pub(crate) writes: bool,
    /// The file.
    pub(crate) file: Word,
}

/// A simple command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    /// `A=b` in front.
    pub(crate) assignments: Vec<(String, Word)>,
    /// Program and arguments.
    pub(crate) words: Vec<Word>,
    /// Its redirections.
    pub(crate) redirects: Vec<Redirect>,
    /// From its first to its last word.
    pub(crate) range: Range<usize>,
    /// What stands before it.
    pub(crate) before: Joint,
    /// What stands after it.
    pub(crate) after: Joint,
    /// In how many groups, subshells, ifs and loops it is.
    pub(crate) depth: usize,
}

impl Word {
    /// Returns the text, if nothing in it has to be expanded.
    pub(crate) fn literal(&self) -> Option<String> {
        self.resolve(&|_| None, None)
    }

    /// Returns the text with variables and the home directory put in, if all are known.
    pub(crate) fn resolve(
        &self,
        lookup: &dyn Fn(&str) -> Option<String>,
        home: Option<&str>,
    ) -> Option<String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(piece) => text.push_str(piece),
                Part::Variable(name) => text.push_str(&lookup(name)?),
                Part::Home => text.push_str(home?),
                Part::Opaque => return None,
            }
        }
        Some(text)
    }
}

/// Cuts a script into simple commands, in the order of the text.
pub(crate) fn commands(text: &str) -> Vec<Command> {
    parser::parse(text, lexer::tokens(text))
}

#[cfg(test)]
mod tests;
