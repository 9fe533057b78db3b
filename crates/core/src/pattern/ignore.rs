//! Lists of patterns, as in .dockerignore.

use super::rule::Rule;
use super::{PatternError, clean_path};

/// The patterns of a .dockerignore file, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoreList {
    rules: Vec<Rule>,
}

/// What a list says of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No pattern excludes it.
    Kept,
    /// It is left out.
    Excluded {
        /// The line (from 1) that does so.
        line: usize,
    },
    /// It was left out, and a `!` took it back.
    BroughtBack {
        /// The line (from 1) of the `!` that counts.
        line: usize,
        /// The line that left it out.
        excluded: usize,
    },
}

impl IgnoreList {
    /// Reads the text of a .dockerignore file.
    ///
    /// # Errors
    /// A malformed pattern, or a `!` alone.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut rules = Vec::new();
        for (line, pattern) in clean_lines(text) {
            rules.extend(rule(&pattern, line)?);
        }
        Ok(Self { rules })
    }

    /// Takes patterns that do not come from a file: no comments, and a leading `/` stays.
    ///
    /// # Errors
    /// A malformed pattern, or a `!` alone.
    pub fn from_patterns<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, PatternError> {
        let mut rules = Vec::new();
        for (index, pattern) in patterns.into_iter().enumerate() {
            rules.extend(rule(pattern, index + 1)?);
        }
        Ok(Self { rules })
    }

    /// Returns the patterns of a .dockerignore text as they are understood: trimmed, cleaned, one leading `/` removed,
    /// `!` before those that bring back. A `!` alone is shown, although [`Self::parse`] refuses it.
    ///
    /// # Errors
    /// A malformed pattern.
    pub fn cleaned(text: &str) -> Result<Vec<String>, PatternError> {
        let mut patterns = Vec::new();
        for (line, pattern) in clean_lines(text) {
            if pattern != "!" {
                rule(&pattern, line)?;
            }
            patterns.push(pattern);
        }
        Ok(patterns)
    }

    /// Returns whether `path` (relative, slash-separated, no leading slash) is excluded: the last match wins, and a
    /// pattern that matches a directory matches all below it.
    pub fn is_excluded(&self, path: &str) -> bool {
        self.decide(path).excluded.is_some()
    }

    /// Returns the line (from 1) of the pattern that excludes `path`, if it is excluded.
    pub fn why(&self, path: &str) -> Option<usize> {
        self.decide(path).excluded.map(|index| self.rules[index].line)
    }

    /// Returns which lines decide about `path`.
    pub fn verdict(&self, path: &str) -> Verdict {
        let line = |index: usize| self.rules[index].line;
        match self.decide(path) {
            Decision { excluded: Some(index), .. } => Verdict::Excluded { line: line(index) },
            Decision { brought_back: Some((index, excluded)), .. } => {
                Verdict::BroughtBack { line: line(index), excluded: line(excluded) }
            }
            Decision { .. } => Verdict::Kept,
        }
    }

    /// Returns whether the directory `path` is excluded and no later `!` pattern can bring anything below it back, so
    /// that a walk need not enter it.
    pub fn prunes(&self, path: &str) -> bool {
        match self.decide(path).excluded {
            None => false,
            Some(index) => {
                !self.rules[index + 1..].iter().any(|rule| rule.brings_back && rule.may_match_below(path))
            }
        }
    }

    /// Returns the line (from 1) of each pattern, and whether it is a `!`.
    pub fn lines(&self) -> impl Iterator<Item = (usize, bool)> {
        self.rules.iter().map(|rule| (rule.line, rule.brings_back))
    }

    /// Returns whether there is a `!` pattern.
    pub fn brings_back(&self) -> bool {
        self.rules.iter().any(|rule| rule.brings_back)
    }

    /// The rules that decide about a path.
    fn decide(&self, path: &str) -> Decision {
        let mut decision = Decision::default();
        if matches!(path, "" | ".") {
            return decision;
        }
        for (index, rule) in self.rules.iter().enumerate() {
            // an excluding pattern has nothing to say about what is excluded, nor a `!` about what is not
            if rule.brings_back != decision.excluded.is_some() || !rule.matches_or_parent(path) {
                continue;
            }
            match decision.excluded.take() {
                None => decision.excluded = Some(index),
                Some(excluded) => decision.brought_back = Some((index, excluded)),
            }
        }
        decision
    }
}

/// Indexes of rules.
#[derive(Debug, Default)]
struct Decision {
    /// The one that excludes, if the path is excluded.
    excluded: Option<usize>,
    /// The last `!` that counted, with the one it stood against.
    brought_back: Option<(usize, usize)>,
}

/// The lines that hold patterns, with their numbers.
fn clean_lines(text: &str) -> impl Iterator<Item = (usize, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')).filter_map(|(index, line)| {
        let line = line.trim();
        let (mark, pattern) = match line.strip_prefix('!') {
            Some(pattern) => ("!", pattern.trim()),
            None => ("", line),
        };
        if pattern.is_empty() {
            return (!mark.is_empty()).then(|| (index + 1, mark.to_owned()));
        }
        let clean = clean_path(pattern);
        let relative = match clean.strip_prefix('/') {
            Some(relative) if !relative.is_empty() => relative,
            _ => &clean,
        };
        Some((index + 1, format!("{mark}{relative}")))
    })
}

fn rule(pattern: &str, line: usize) -> Result<Option<Rule>, PatternError> {
    let pattern = pattern.trim();
    if pattern.is_empty() {
        return Ok(None);
    }
    let clean = clean_path(pattern);
    match clean.strip_prefix('!') {
        Some("") => Err(PatternError { pattern: pattern.to_owned() }),
        Some(pattern) => Rule::new(pattern, true, line).map(Some),
        None => Rule::new(&clean, false, line).map(Some),
    }
}
