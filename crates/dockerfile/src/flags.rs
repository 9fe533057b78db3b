//! Which flags an instruction takes.

use crate::node::{Node, error};
use crate::suggest::nearest;
use crate::{Diagnostic, Flag, Span, Spanned};

/// What a flag's value is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `--name=value`, once.
    Text,
    /// `--name=value`, any number.
    List,
    /// `--name`, `--name=true` or `--name=false`.
    Bool,
}

/// Flags in the order written, checked against what an instruction knows.
pub(crate) struct Flags {
    flags: Vec<Flag>,
}

impl Flags {
    /// Reads a node's flags. Each that is wrong makes a diagnostic and is left out.
    pub(crate) fn read(node: &Node, known: &[(&str, Kind)], diagnostics: &mut Vec<Diagnostic>) -> Self {
        let mut flags: Vec<Flag> = Vec::new();
        let instruction = node.name.value.to_ascii_uppercase();
        for word in &node.flags {
            match check(&instruction, word, known, &flags) {
                Ok(flag) => flags.push(flag),
                Err(error) => diagnostics.push(error),
            }
        }
        Self { flags }
    }

    /// Takes a text flag out. An empty value is as good as no flag, as in the program.
    pub(crate) fn text(&mut self, name: &str) -> Option<Spanned<String>> {
        let at = self.flags.iter().position(|flag| flag.name == name)?;
        let flag = self.flags.remove(at);
        let value = flag.value.filter(|value| !value.is_empty())?;
        // the value is the flag's tail unless quotes were removed; then the whole flag is pointed at
        let length = flag.span.end - flag.span.start;
        let head = "--".len() + flag.name.len() + "=".len();
        let start = if length == head + value.len() { flag.span.start + head } else { flag.span.start };
        Some(Spanned { value, span: Span { start, end: flag.span.end } })
    }

    /// Takes all flags of a name out.
    pub(crate) fn list(&mut self, name: &str) -> Vec<Flag> {
        self.flags.extract_if(.., |flag| flag.name == name).collect()
    }

    /// What nobody took.
    pub(crate) fn rest(self) -> Vec<Flag> {
        self.flags
    }
}

fn check(
    instruction: &str,
    word: &Spanned<String>,
    known: &[(&str, Kind)],
    before: &[Flag],
) -> Result<Flag, Diagnostic> {
    let body = word.value.strip_prefix("--").unwrap_or(&word.value);
    let (name, value) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (body, None),
    };
    let Some((_, kind)) = known.iter().find(|(known, _)| *known == name) else {
        let mut error = error(format!("{instruction} has no flag --{name}"), word.span);
        error.help = match nearest(name, known.iter().map(|(name, _)| *name)) {
            Some(near) => Some(format!("did you mean `--{near}`?")),
            None if known.is_empty() => Some(format!("{instruction} takes no flags")),
            None => {
                let all: Vec<String> = known.iter().map(|(name, _)| format!("--{name}")).collect();
                Some(format!("it has {}", all.join(", ")))
            }
        };
        return Err(error);
    };
    if *kind != Kind::List && before.iter().any(|flag| flag.name == name) {
        return Err(error(format!("--{name} is given twice"), word.span));
    }
    let value = match (kind, value) {
        (Kind::Bool, None) => None,
        (Kind::Bool, Some(value)) => match value.to_ascii_lowercase() {
            value if value == "true" || value == "false" => Some(value),
            _ => return Err(error(format!("--{name} is true or false, not `{value}`"), word.span)),
        },
        (_, None) => return Err(error(format!("--{name} needs a value: --{name}=..."), word.span)),
        (_, Some(value)) => Some(value.to_owned()),
    };
    Ok(Flag { name: name.to_owned(), value, span: word.span })
}
