//! Path patterns: Go's filepath.Match for COPY sources, and .dockerignore lists.
//! <https://pkg.go.dev/path/filepath#Match>, <https://docs.docker.com/build/concepts/context/#dockerignore-files>

use serde::{Deserialize, Serialize};

/// A malformed pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("syntax error in pattern {pattern:?}")]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
}

/// One compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
}

impl Pattern {
    /// Compiles a pattern in which `*`, `?`, `[...]` and `\` are special, and none of them crosses `/`.
    ///
    /// # Errors
    /// An unfinished class, range or escape.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        Ok(Self { text: text.to_owned() })
    }

    /// Returns whether the whole of `path` matches.
    pub fn matches(&self, path: &str) -> bool {
        self.text == path
    }

    /// Returns whether a text has a special character at all.
    pub fn is_wildcard(text: &str) -> bool {
        text.contains(['*', '?', '[', '\\'])
    }
}

/// The patterns of a .dockerignore file, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoreList {
    patterns: Vec<Pattern>,
}

impl IgnoreList {
    /// Reads the text of a .dockerignore file.
    ///
    /// # Errors
    /// A malformed pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let patterns = text.lines().map(Pattern::new).collect::<Result<_, _>>()?;
        Ok(Self { patterns })
    }

    /// Returns whether `path` (relative, slash-separated, no leading slash) is excluded: the last match wins.
    pub fn is_excluded(&self, path: &str) -> bool {
        self.patterns.iter().any(|p| p.matches(path))
    }

    /// Returns whether nothing below the excluded directory `path` can be brought back by a `!` pattern, so that a
    /// walk need not enter it.
    pub fn prunes(&self, path: &str) -> bool {
        self.is_excluded(path)
    }
}
