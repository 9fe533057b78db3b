//! Secrets in what a step writes: replaced before anybody sees them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use kiln_core::Secret;
use memchr::memmem::Finder;

/// What stands in a secret's place.
const STARS: &[u8] = b"***";
/// Shorter ones are left: their bytes are in every other line.
const SHORTEST: usize = 4;
/// The same for a line of a secret that has several.
const SHORTEST_LINE: usize = 8;

/// Knows the secrets of a build.
#[derive(Default)]
pub(crate) struct Redactor {
    /// Longest first, so that a secret goes before what is a part of it.
    finders: Vec<Finder<'static>>,
}

impl Redactor {
    /// Looks for each secret without the white space around it, and for each line of one: a program may write them at
    /// different times.
    pub(crate) fn new(secrets: &BTreeMap<String, Secret>) -> Self {
        let mut patterns: Vec<&[u8]> = Vec::new();
        for secret in secrets.values() {
            let whole = secret.bytes().trim_ascii();
            patterns.extend(Some(whole).filter(|whole| whole.len() >= SHORTEST));
            let lines = whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            patterns.extend(lines.filter(|line| line.len() >= SHORTEST_LINE));
        }
        patterns.sort_unstable_by_key(|pattern| (std::cmp::Reverse(pattern.len()), *pattern));
        patterns.dedup();
        Self { finders: patterns.into_iter().map(|pattern| Finder::new(pattern).into_owned()).collect() }
    }

    /// Returns how many bytes at an end may be the beginning of a secret.
    pub(crate) fn overlap(&self) -> usize {
        self.finders.first().map_or(0, |finder| finder.needle().len() - 1)
    }

    /// Replaces them.
    pub(crate) fn redact<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        self.finders.iter().fold(Cow::Borrowed(text), |text, finder| match replace(&text, finder) {
            Some(replaced) => Cow::Owned(replaced),
            None => text,
        })
    }
}

/// Returns nothing if nothing was found.
fn replace(text: &[u8], finder: &Finder<'_>) -> Option<Vec<u8>> {
    let mut found = finder.find_iter(text).peekable();
    found.peek()?;
    let mut replaced = Vec::with_capacity(text.len());
    let mut rest = 0;
    for at in found {
        replaced.extend_from_slice(&text[rest..at]);
        replaced.extend_from_slice(STARS);
        rest = at + finder.needle().len();
    }
    replaced.extend_from_slice(&text[rest..]);
    Some(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(secrets: &[&str]) -> Redactor {
        let secret = |(number, text): (usize, &&str)| {
            (number.to_string(), Secret::new(text.as_bytes().to_vec()).unwrap())
        };
        Redactor::new(&secrets.iter().enumerate().map(secret).collect())
    }

    #[test]
    fn secrets_and_their_lines_are_replaced() {
        let redactor =
            redactor(&["hunter2\n", "hunter2-and-more", "abc", "-----BEGIN-----\nshort\nZm9vYmFy\n"]);
        let table = [
            ("nothing", "nothing"),
            ("a hunter2 b hunter2", "a *** b ***"),
            ("hunter2-and-more", "***"),
            ("abc is too short to tell", "abc is too short to tell"),
            ("x Zm9vYmFy y", "x *** y"),
            ("-----BEGIN-----\nshort\nZm9vYmFy", "***"),
            ("-----BEGIN-----\n", "***\n"),
            ("short\n", "short\n"),
        ];
        for (text, expected) in table {
            assert_eq!(String::from_utf8_lossy(&redactor.redact(text.as_bytes())), expected);
        }
        assert_eq!(redactor.overlap(), "-----BEGIN-----\nshort\nZm9vYmFy".len() - 1);
    }

    #[test]
    fn without_secrets_nothing_is_copied() {
        let redactor = Redactor::default();
        assert!(matches!(redactor.redact(b"text"), Cow::Borrowed(b"text")));
        assert_eq!(redactor.overlap(), 0);
    }
}
