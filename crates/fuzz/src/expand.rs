//! The expander: it ends, stays within its limit, says the same twice, and names what it looked up.

use std::cell::Cell;

use kiln_dockerfile::expand::{MAX_BYTES, heredoc, word};

/// The first line is a value that every variable has whose name does not begin with `U`; the rest is the word.
pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (value, text) = text.split_once('\n').unwrap_or(("", text));
    let looked_up = Cell::new(0_usize);
    let lookup = |name: &str| {
        looked_up.set(looked_up.get() + 1);
        (!name.starts_with('U')).then(|| value.to_owned())
    };
    for escape in ['\\', '`'] {
        looked_up.set(0);
        let first = word(text, escape, &lookup);
        assert!(looked_up.get() <= text.len(), "each `$` is looked up once");
        assert_eq!(first, word(text, escape, &lookup));
        match first {
            Ok(expanded) => {
                assert!(expanded.text.len() <= MAX_BYTES);
                assert!(expanded.missing.is_subset(&expanded.undefined));
                assert!(expanded.used.is_disjoint(&expanded.undefined));
                let letters = |text: &str| text.chars().filter(|ch| !ch.is_whitespace()).count();
                let in_words: usize = expanded.words.iter().map(|word| letters(word)).sum();
                assert_eq!(in_words, letters(&expanded.text), "words are the text, cut: {expanded:?}");
                if !text.contains(['$', '\'', '"', escape]) {
                    assert_eq!(expanded.text, text);
                }
            }
            Err(error) => assert!(error.offset <= text.len(), "{error:?} points into {text:?}"),
        }
    }
    if let Ok(body) = heredoc(text, &lookup) {
        assert!(body.text.len() <= MAX_BYTES);
    }
}
