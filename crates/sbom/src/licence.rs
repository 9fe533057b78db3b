//! Stated licences as SPDX licence expressions (<https://spdx.github.io/spdx-spec/v2.3/SPDX-license-expressions/>).
//!
//! What is stated may be an expression, a name, or anything else. Known identifiers stay; for the rest the document
//! defines a `LicenseRef-` with the stated text, so that nothing is lost and nothing is guessed.

use std::collections::BTreeMap;

use kiln_core::Digest;

/// SPDX's identifiers, one a line, version 3.28 of the list with those that are deprecated.
const LICENCES: &str = include_str!("licences.txt");
const EXCEPTIONS: &str = include_str!("exceptions.txt");

/// Names that mean one licence of the list and no other, in lower case.
const ALIASES: &[(&str, &str)] = &[
    ("apache 2", "Apache-2.0"),
    ("apache 2.0", "Apache-2.0"),
    ("apache license 2.0", "Apache-2.0"),
    ("apache license, version 2.0", "Apache-2.0"),
    ("apache license version 2.0", "Apache-2.0"),
    ("apache-2", "Apache-2.0"),
    ("bsd-3", "BSD-3-Clause"),
    ("bsd 3-clause license", "BSD-3-Clause"),
    ("expat", "MIT"),
    ("isc license (iscl)", "ISC"),
    ("mit license", "MIT"),
    ("mozilla public license 2.0 (mpl 2.0)", "MPL-2.0"),
    ("python software foundation license", "PSF-2.0"),
    ("the mit license", "MIT"),
    ("the mit license (mit)", "MIT"),
    ("the unlicense (unlicense)", "Unlicense"),
];

/// Longer texts than this are no names of licences but licences.
const LONGEST_NAME: usize = 64;

/// The licences of a document that are not of SPDX's list: their texts by `LicenseRef-` name.
pub(crate) type References = BTreeMap<String, String>;

/// Returns the expression for what is stated, and adds what it refers to.
pub(crate) fn expression(stated: &str, references: &mut References) -> String {
    let stated = stated.trim();
    if let Some((_, id)) = ALIASES.iter().find(|(name, _)| *name == stated.to_lowercase()) {
        return (*id).to_owned();
    }
    let words = words(stated);
    // Tried without leaving references behind first.
    let is_one = Parser { words: &words, references: &mut References::new() }.whole().is_some();
    let parsed = if is_one { Parser { words: &words, references }.whole() } else { None };
    parsed.unwrap_or_else(|| reference(stated, references))
}

/// Splits at blanks and parentheses; those are words too.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '(' | ')' => 1,
            _ => rest.find(|c: char| c.is_whitespace() || "()".contains(c)).unwrap_or(rest.len()),
        };
        words.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    words
}

/// Reads `A AND (B OR C WITH e)`; the words between may be in any case.
struct Parser<'a> {
    words: &'a [&'a str],
    references: &'a mut References,
}

impl Parser<'_> {
    fn whole(&mut self) -> Option<String> {
        let expression = self.operands(0)?;
        self.words.is_empty().then_some(expression)
    }

    fn operands(&mut self, depth: usize) -> Option<String> {
        let mut out = self.operand(depth)?;
        while let Some(operator) = self.next_of(&["AND", "OR"]) {
            out = format!("{out} {operator} {}", self.operand(depth)?);
        }
        Some(out)
    }

    fn operand(&mut self, depth: usize) -> Option<String> {
        /// Deeper ones are an attack on the stack.
        const DEEPEST: usize = 32;
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        if *first == "(" {
            let inner = if depth < DEEPEST { self.operands(depth + 1)? } else { return None };
            let (")", rest) = self.words.split_first().map(|(word, rest)| (*word, rest))? else {
                return None;
            };
            self.words = rest;
            return Some(format!("({inner})"));
        }
        if *first == ")" || ["AND", "OR", "WITH"].iter().any(|word| word.eq_ignore_ascii_case(first)) {
            return None;
        }
        let licence = self.licence(first);
        if self.next_of(&["WITH"]).is_some() {
            let (exception, rest) = self.words.split_first()?;
            let exception = listed(EXCEPTIONS, exception)?;
            self.words = rest;
            return Some(format!("{licence} WITH {exception}"));
        }
        Some(licence)
    }

    /// Takes the next word if it is one of these.
    fn next_of(&mut self, wanted: &[&'static str]) -> Option<&'static str> {
        let (first, rest) = self.words.split_first()?;
        let found = wanted.iter().find(|word| word.eq_ignore_ascii_case(first))?;
        self.words = rest;
        Some(found)
    }

    fn licence(&mut self, word: &str) -> String {
        identifier(word).unwrap_or_else(|| reference(word, self.references))
    }
}

/// Returns a word as an identifier of the list, if it is one.
fn identifier(word: &str) -> Option<String> {
    if let Some(id) = listed(LICENCES, word) {
        return Some(id.to_owned());
    }
    if let Some((_, id)) = ALIASES.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)) {
        return Some((*id).to_owned());
    }
    // "GPL-2+" of Debian, "GPLv2+" of rpm: this version or a later one.
    let (base, later) = match word.strip_suffix('+') {
        Some(base) => (base, true),
        None => (word, false),
    };
    let upper = base.to_uppercase();
    let gnu = ["AGPL", "LGPL", "GPL", "GFDL"].into_iter().find(|name| upper.starts_with(name));
    if let Some(name) = gnu {
        let version = upper[name.len()..].trim_start_matches(['-', 'V']);
        let version = if version.contains('.') { version.to_owned() } else { format!("{version}.0") };
        let suffix = if later { "or-later" } else { "only" };
        return listed(LICENCES, &format!("{name}-{version}-{suffix}")).map(str::to_owned);
    }
    listed(LICENCES, base).filter(|_| later).map(|id| format!("{id}+"))
}

fn listed(list: &'static str, word: &str) -> Option<&'static str> {
    list.lines().find(|id| id.eq_ignore_ascii_case(word))
}

/// Names a licence that is not of the list after its text: readable if short, by digest if not.
fn reference(text: &str, references: &mut References) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '-' };
    let digest = Digest::of(text.as_bytes()).hex();
    let mut name = match text.strip_prefix("LicenseRef-").unwrap_or(text) {
        short if short.len() <= LONGEST_NAME && !short.is_empty() => short.chars().map(plain).collect(),
        _ => digest[..16].to_owned(),
    };
    name.insert_str(0, "LicenseRef-");
    // "a b" and "a-b" are two.
    if references.get(&name).is_some_and(|known| known != text) {
        name = format!("{name}-{}", &digest[..16]);
    }
    references.insert(name.clone(), text.to_owned());
    name
}

#[cfg(test)]
mod tests;
