//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*`, `?` and backslash escapes, no classes.
//!
//! A pattern is fixed pieces between stars. The shortest match takes each piece as early as it can, the longest puts
//! the last piece as late as it can, so no form needs backtracking.

/// One position of a fixed piece.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cell {
    Char(char),
    Any,
}

/// A pattern: pieces with a star between each two.
pub(super) struct Glob {
    pieces: Vec<Vec<Cell>>,
}

impl Glob {
    /// Compiles; `None` for a backslash at the end or before an ordinary character. A backslash before `}` or `/` is
    /// there for the `${...}` around the pattern and goes away.
    pub(super) fn new(pattern: &str) -> Option<Self> {
        let mut pieces = vec![Vec::new()];
        let mut chars = pattern.chars().peekable();
        while let Some(ch) = chars.next() {
            let cell = match ch {
                '*' => {
                    pieces.push(Vec::new());
                    continue;
                }
                '?' => Cell::Any,
                '\\' => match chars.next()? {
                    next @ ('*' | '?' | '\\' | '}' | '/') => Cell::Char(next),
                    _ => return None,
                },
                _ => Cell::Char(ch),
            };
            pieces.last_mut()?.push(cell);
        }
        Some(Self { pieces })
    }

    /// What is left of a value without the shortest or longest match at its start.
    pub(super) fn trim_prefix(&self, value: &str, longest: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        match self.match_at(&chars, 0, longest) {
            Some(end) => chars[end..].iter().collect(),
            None => value.to_owned(),
        }
    }

    /// What is left of a value without the shortest or longest match at its end.
    pub(super) fn trim_suffix(&self, value: &str, longest: bool) -> String {
        let mirrored = Self {
            pieces: self.pieces.iter().rev().map(|piece| piece.iter().rev().copied().collect()).collect(),
        };
        let chars: Vec<char> = value.chars().rev().collect();
        match mirrored.match_at(&chars, 0, longest) {
            Some(end) => chars[end..].iter().rev().collect(),
            None => value.to_owned(),
        }
    }

    /// Replaces the first or every longest match from the left.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::with_capacity(value.len());
        let (mut done, mut at) = (0, 0);
        while let Some((start, end)) = self.find(&chars, at) {
            out.extend(&chars[done..start]);
            // an empty match right behind a match does not count, as in Go's regexp
            if end > done || start == 0 {
                out.push_str(replacement);
            }
            done = end;
            if !all || out.len() > super::MAX_BYTES {
                break;
            }
            at = end.max(at + 1);
        }
        out.extend(&chars[done..]);
        out
    }

    /// The leftmost match at or after `from`, the longest one there.
    fn find(&self, chars: &[char], from: usize) -> Option<(usize, usize)> {
        let first = &self.pieces[0];
        let start = (from..=chars.len()).find(|at| fits(first, chars, *at))?;
        // if the rest does not fit behind the leftmost start, it fits behind no later one
        Some((start, self.match_at(chars, start, true)?))
    }

    fn match_at(&self, chars: &[char], start: usize, longest: bool) -> Option<usize> {
        let (first, rest) = self.pieces.split_first()?;
        if !fits(first, chars, start) {
            return None;
        }
        let mut at = start + first.len();
        let Some((last, middle)) = rest.split_last() else { return Some(at) };
        for piece in middle {
            at = (at..=chars.len()).find(|at| fits(piece, chars, *at))? + piece.len();
        }
        let mut places = at..=chars.len();
        let at = if longest {
            places.rfind(|at| fits(last, chars, *at))?
        } else {
            places.find(|at| fits(last, chars, *at))?
        };
        Some(at + last.len())
    }
}

fn fits(piece: &[Cell], chars: &[char], at: usize) -> bool {
    chars.get(at..at + piece.len()).is_some_and(|text| {
        piece.iter().zip(text).all(|(cell, ch)| match cell {
            Cell::Any => true,
            Cell::Char(wanted) => wanted == ch,
        })
    })
}
