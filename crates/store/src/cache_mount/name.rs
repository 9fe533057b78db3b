//! Readable directory names for ids that may hold anything.
//!
//! `/` is written `+`, so that `/root/.cache/pip` is `+root+.cache+pip`; what a shell or a terminal would trip over
//! is `%` and two hexadecimal digits. No two ids share a name.

use std::fmt::Write;

use kiln_core::{CacheScope, Digest};
use serde::{Deserialize, Serialize};

/// Which cache: what a mount says, without how it wants it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CacheName {
    /// Its id.
    pub id: String,
    /// Who shares the id.
    pub scope: CacheScope,
}

impl CacheName {
    /// Returns the scope as people write it: `global`, or a platform.
    pub fn scope_text(&self) -> &str {
        match &self.scope {
            CacheScope::Global => GLOBAL,
            CacheScope::Platform(platform) => platform,
        }
    }

    /// Reads a scope as people write it.
    pub fn scope_from(text: &str) -> CacheScope {
        if text == GLOBAL { CacheScope::Global } else { CacheScope::Platform(text.to_owned()) }
    }
}

/// Longer names are cut and end in a hash; the whole id stands in the cache's `meta.json`. File names have 255
/// bytes at most.
const MAX_NAME: usize = 200;

/// Returns the directory name of an id.
pub(super) fn of_id(id: &str) -> String {
    let name = escape(id);
    if name.len() <= MAX_NAME {
        return name;
    }
    let mut cut = MAX_NAME - 70;
    // Neither a character nor an escape is cut in two.
    while !name.is_char_boundary(cut) || name.as_bytes()[cut - 2..cut].contains(&b'%') {
        cut -= 1;
    }
    // No escape begins like this.
    format!("{}%~{}", &name[..cut], Digest::of(id.as_bytes()).hex())
}

/// Returns the directory name of a scope.
pub(super) fn of_scope(scope: &CacheScope) -> String {
    match scope {
        CacheScope::Global => GLOBAL.to_owned(),
        // A platform has a slash, so it is never called `global`.
        CacheScope::Platform(platform) => match of_id(platform) {
            name if name == GLOBAL => format!("%{:02X}{}", b'g', &name[1..]),
            name => name,
        },
    }
}

/// Returns the id that a name stands for; the name itself for a cut one.
pub(super) fn to_id(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'+' => bytes.push(b'/'),
            b'%' if rest.is_empty() => {}
            b'%' => {
                let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
                let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
                    return name.to_owned();
                };
                bytes.push(byte);
                rest = &rest[2..];
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| name.to_owned())
}

/// Returns the scope that a name stands for.
pub(super) fn to_scope(name: &str) -> CacheScope {
    if name == GLOBAL { CacheScope::Global } else { CacheScope::Platform(to_id(name)) }
}

const GLOBAL: &str = "global";

fn escape(id: &str) -> String {
    let mut name = String::with_capacity(id.len());
    for (at, c) in id.char_indices() {
        match c {
            '/' => name.push('+'),
            // A name that starts with a dot is hidden, or kiln's own; with a dash, an option.
            '.' | '-' if at == 0 => hex(&mut name, c),
            '.' | '-' | '_' | ':' | '@' | '=' | ',' => name.push(c),
            c if c.is_alphanumeric() => name.push(c),
            c => hex(&mut name, c),
        }
    }
    if name.is_empty() { "%".to_owned() } else { name }
}

fn hex(name: &mut String, c: char) {
    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
        write!(name, "%{byte:02X}").expect("writing to a string cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn ids_get_readable_names() {
        let table = [
            ("apt", "apt"),
            ("/root/.cache/pip", "+root+.cache+pip"),
            ("a+b", "a%2Bb"),
            ("100%", "100%25"),
            (".", "%2E"),
            ("..", "%2E."),
            ("../../etc", "%2E.+..+etc"),
            (".new-x", "%2Enew-x"),
            ("-rf", "%2Drf"),
            ("a b\nc\0", "a%20b%0Ac%00"),
            ("größe", "größe"),
            ("\u{202e}x", "%E2%80%AEx"),
            ("", "%"),
        ];
        for (id, name) in table {
            assert_eq!(of_id(id), name, "{id:?}");
            assert_eq!(to_id(name), id);
        }
        assert_eq!(of_scope(&CacheScope::Global), "global");
        assert_eq!(of_scope(&CacheScope::Platform("linux/arm64".to_owned())), "linux+arm64");
        assert_ne!(of_scope(&CacheScope::Platform("global".to_owned())), "global");
    }

    #[test]
    fn long_ids_are_cut_without_meeting() {
        let mut names = HashMap::new();
        for length in [190, 199, 200, 201, 255, 5000] {
            for unit in ["a", "%", "ß", "/", "\u{1f980}"] {
                for end in ["", "x", "y"] {
                    let id = format!("{}{end}", unit.repeat(length));
                    let name = of_id(&id);
                    assert!(name.len() <= 255, "{} bytes", name.len());
                    if let Some(other) = names.insert(name, id.clone()) {
                        panic!("{id:?} and {other:?} share a name");
                    }
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_two_ids_share_a_name(a: String, b: String) {
            proptest::prop_assert_eq!(of_id(&a) == of_id(&b), a == b);
        }

        #[test]
        fn names_lead_back_to_ids(id in "\\PC{0,40}") {
            let name = of_id(&id);
            // A cut name leads back to nothing but itself.
            let expected = if escape(&id).len() <= MAX_NAME { &id } else { &name };
            proptest::prop_assert_eq!(&to_id(&name), expected);
        }

        #[test]
        fn every_name_is_one_safe_component(id: String) {
            let name = of_id(&id);
            proptest::prop_assert!(!name.is_empty() && name.len() <= 255);
            proptest::prop_assert!(!name.starts_with(['.', '-']));
            proptest::prop_assert!(!name.chars().any(|c| c == '/' || c.is_control() || c.is_whitespace()));
        }
    }
}
