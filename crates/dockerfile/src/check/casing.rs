//! Upper and lower case of keywords.

use super::{finding, name_of, name_span};
use crate::words::split_blanks;
use crate::{Diagnostic, From, Located, Rule, Span, Stage};

/// `FROM ... as` and `from ... AS`. What is neither upper nor lower case itself is another rule's.
pub(super) fn from_and_as(line: &Located<From>) -> Option<Diagnostic> {
    let name = line.value.name.as_ref()?;
    let words = split_blanks(&line.text);
    let (from, word) = (name_of(line), &words.get(words.len().checked_sub(2)?)?.text);
    let wanted = match Case::of(from) {
        Case::Lower => word.to_lowercase(),
        Case::Upper => word.to_uppercase(),
        Case::Mixed => return None,
    };
    if *word == wanted {
        return None;
    }
    let span = Span { start: (line.value.image.span.end + 1).min(name.span.start), end: name.span.end };
    let finding =
        finding(Rule::FromAsCasing, span, format!("`{word}` and `{from}` are written in different cases"));
    Some(Diagnostic { help: Some(format!("write `{wanted}`")), ..finding })
}

/// Instructions in another case than most; upper case wins a draw. ARG before the first FROM does not count.
pub(super) fn instructions(stages: &[Stage]) -> Vec<Diagnostic> {
    let names: Vec<(&str, Span)> = stages
        .iter()
        .flat_map(|stage| {
            let rest = stage.instructions.iter().map(|line| (name_of(line), name_span(line)));
            std::iter::once((name_of(&stage.from), name_span(&stage.from))).chain(rest)
        })
        .collect();
    let count = |case| names.iter().filter(|(name, _)| Case::of(name) == case).count();
    let (majority, word) =
        if count(Case::Lower) > count(Case::Upper) { (Case::Lower, "lower") } else { (Case::Upper, "upper") };
    let others = names.iter().filter(|(name, _)| Case::of(name) != majority);
    others
        .map(|(name, span)| {
            let message = format!("`{name}` is not in {word} case, as most instructions here are");
            finding(Rule::ConsistentInstructionCasing, *span, message)
        })
        .collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Lower,
    Upper,
    Mixed,
}

impl Case {
    fn of(word: &str) -> Self {
        if word == word.to_lowercase() {
            Self::Lower
        } else if word == word.to_uppercase() {
            Self::Upper
        } else {
            Self::Mixed
        }
    }
}
