//! Lists of patterns, as in .dockerignore.

use super::rule::Rule;
use super::{PatternError, clean_path};

/// The patterns of a .dockerignore file, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoreList {
    rules: Vec<Rule>,
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
        self.decide(path).is_some()
    }

    /// Returns the line (from 1) of the pattern that excludes `path`, if it is excluded.
    pub fn why(&self, path: &str) -> Option<usize> {
        self.decide(path).map(|index| self.rules[index].line)
    }

    /// Returns whether the directory `path` is excluded and no later `!` pattern can bring anything below it back, so
    /// that a walk need not enter it.
    pub fn prunes(&self, path: &str) -> bool {
        match self.decide(path) {
            None => false,
            Some(index) => {
                !self.rules[index + 1..].iter().any(|rule| rule.brings_back && rule.may_match_below(path))
            }
        }
    }

    /// Returns whether there is a `!` pattern.
    pub fn brings_back(&self) -> bool {
        self.rules.iter().any(|rule| rule.brings_back)
    }

    /// The rule that excludes a path.
    fn decide(&self, path: &str) -> Option<usize> {
        if matches!(path, "" | ".") {
            return None;
        }
        let mut excluded = None;
        for (index, rule) in self.rules.iter().enumerate() {
            // an excluding pattern has nothing to say about what is excluded, nor a `!` about what is not
            if rule.brings_back == excluded.is_some() && rule.matches_or_parent(path) {
                excluded = (!rule.brings_back).then_some(index);
            }
        }
        excluded
    }
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
