//! Path patterns: Go's filepath.Match for COPY sources, and .dockerignore lists.
//! <https://pkg.go.dev/path/filepath#Match>, <https://docs.docker.com/build/concepts/context/#dockerignore-files>

use serde::{Deserialize, Serialize};

mod ignore;
mod rule;

pub use ignore::{IgnoreList, Verdict};

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
    /// Compiles a pattern in which `*`, `?`, `[...]` and `\` are special, and neither `*` nor `?` crosses `/`.
    ///
    /// # Errors
    /// An unfinished class, range or escape.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let (_, chunk, after) = split_chunk(rest);
            match_chunk(chunk, None).map_err(|Malformed| PatternError { pattern: text.to_owned() })?;
            rest = after;
        }
        Ok(Self { text: text.to_owned() })
    }

    /// Returns whether the whole of `path` matches. Step for step Go's algorithm, which works on bytes: time grows with
    /// the product of both lengths at worst.
    pub fn matches(&self, path: &str) -> bool {
        let (mut pattern, mut name) = (self.text.as_bytes(), path.as_bytes());
        while !pattern.is_empty() {
            let (star, chunk, after) = split_chunk(pattern);
            if star && chunk.is_empty() {
                return !name.contains(&b'/');
            }
            match rest_behind(star, chunk, name, after.is_empty()) {
                Some(rest) => (pattern, name) = (after, rest),
                None => return false,
            }
        }
        name.is_empty()
    }

    /// Returns whether a text has a special character at all.
    pub fn is_wildcard(text: &str) -> bool {
        text.contains(['*', '?', '[', '\\'])
    }
}

/// The shortest form of a path, as Go's filepath.Clean makes it: no empty, `.` or inner `..` components, no slash at the
/// end; `.` for nothing. <https://pkg.go.dev/path/filepath#Clean>
pub fn clean_path(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            _ => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// Returns `path` taken from `base`, as Go's path.Join and path.Clean: absolute, without `.`, `..`, doubled and trailing
/// slashes. `..` stops at `/`. <https://pkg.go.dev/path#Clean>
pub fn resolve_path(base: &str, path: &str) -> String {
    let base = if path.starts_with('/') { "" } else { base };
    clean_path(&format!("/{base}/{path}"))
}

struct Malformed;

/// Splits off leading stars and what follows up to the next star.
fn split_chunk(pattern: &[u8]) -> (bool, &[u8], &[u8]) {
    let stars = pattern.iter().take_while(|byte| **byte == b'*').count();
    let body = &pattern[stars..];
    let (mut at, mut in_class) = (0, false);
    while at < body.len() {
        match body[at] {
            b'\\' => at += 1,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'*' if !in_class => break,
            _ => {}
        }
        at += 1;
    }
    let (chunk, after) = body.split_at(at.min(body.len()));
    (stars > 0, chunk, after)
}

/// What is left of a name behind a chunk, which a star may precede. The last chunk must reach the name's end.
fn rest_behind<'a>(star: bool, chunk: &[u8], name: &'a [u8], last: bool) -> Option<&'a [u8]> {
    let try_at = |name: &'a [u8]| match match_chunk(chunk, Some(name)) {
        Ok(Some(rest)) if rest.is_empty() || !last => Some(rest),
        _ => None,
    };
    if let Some(rest) = try_at(name) {
        return Some(rest);
    }
    if !star {
        return None;
    }
    let reach = name.iter().position(|byte| *byte == b'/').unwrap_or(name.len());
    (1..=reach).find_map(|skipped| try_at(&name[skipped..]))
}

/// Matches a chunk without stars at the start of a name; without a name it only checks the syntax.
fn match_chunk<'a>(mut chunk: &[u8], mut name: Option<&'a [u8]>) -> Result<Option<&'a [u8]>, Malformed> {
    while let Some((first, after)) = chunk.split_first() {
        name = name.filter(|name| !name.is_empty());
        match first {
            b'[' => {
                let ch = name.map(|name| decode(name).0);
                let (hit, after) = match_class(after, ch)?;
                name = name.filter(|_| hit).map(|name| &name[decode(name).1..]);
                chunk = after;
            }
            b'?' => {
                name = name.filter(|name| name[0] != b'/').map(|name| &name[decode(name).1..]);
                chunk = after;
            }
            _ => {
                let (byte, after) = match first {
                    b'\\' => after.split_first().ok_or(Malformed)?,
                    _ => (first, after),
                };
                name = name.filter(|name| name[0] == *byte).map(|name| &name[1..]);
                chunk = after;
            }
        }
    }
    Ok(name)
}

/// Matches what stands behind `[`, and returns the pattern behind `]`. A class may match `/`, as in Go.
fn match_class(pattern: &[u8], ch: Option<u32>) -> Result<(bool, &[u8]), Malformed> {
    let negated = pattern.first() == Some(&b'^');
    let mut rest = &pattern[usize::from(negated)..];
    let mut hit = false;
    let mut ranges = 0;
    loop {
        if rest.first() == Some(&b']') && ranges > 0 {
            return Ok((hit != negated, &rest[1..]));
        }
        let (low, after) = class_char(rest)?;
        let (high, after) = match after.split_first() {
            Some((b'-', after)) => class_char(after)?,
            _ => (low, after),
        };
        hit |= ch.is_some_and(|ch| (low..=high).contains(&ch));
        ranges += 1;
        rest = after;
    }
}

/// One character of a class, maybe escaped; something must follow it.
fn class_char(pattern: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    let rest = match pattern.first() {
        None | Some(b'-' | b']') => return Err(Malformed),
        Some(b'\\') => &pattern[1..],
        Some(_) => pattern,
    };
    if rest.is_empty() {
        return Err(Malformed);
    }
    let (ch, length) = decode(rest);
    let after = &rest[length..];
    if after.is_empty() { Err(Malformed) } else { Ok((ch, after)) }
}

/// The character at the start of a non-empty text. Matching may begin inside a character; then it is U+FFFD, one byte
/// long, as in Go.
fn decode(text: &[u8]) -> (u32, usize) {
    let head = &text[..text.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(valid) => valid,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(ch) => (u32::from(ch), ch.len_utf8()),
        None => (0xfffd, 1),
    }
}
