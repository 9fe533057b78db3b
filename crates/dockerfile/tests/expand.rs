//! The table testdata/expand.txt, and what a table cannot say.

use std::collections::HashMap;

use kiln_dockerfile::expand::{self, ExpandErrorKind, Expanded, MAX_BYTES};
use proptest::prelude::*;

#[test]
fn table() {
    let mut variables: HashMap<String, String> = HashMap::new();
    let mut rows = 0;
    let mut wrong = Vec::new();
    for (number, line) in include_str!("../../../testdata/expand.txt").lines().enumerate() {
        if line.starts_with('#') {
            continue;
        }
        let Some((kind, rest)) = line.split_once('|') else {
            let (name, value) = line.split_once('=').expect(line);
            variables.insert(name.to_owned(), value.to_owned());
            continue;
        };
        let (input, expected) = rest.rsplit_once('|').expect(line);
        let (kind, input, expected) = (kind.trim(), input.trim(), expected.trim());
        let got = run(kind, input, &variables);
        let plain = expected.strip_prefix('<').and_then(|text| text.strip_suffix('>'));
        let expected = if kind == "words" { expected } else { plain.unwrap_or(expected) };
        if got != expected {
            wrong.push(format!("line {}: {line}\n    got {got:?}", number + 1));
        }
        rows += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(rows > 140, "{rows} rows");
}

fn run(kind: &str, input: &str, variables: &HashMap<String, String>) -> String {
    let lookup = |name: &str| variables.get(name).cloned();
    let list = |names: std::collections::BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(" ");
    let escape = if kind == "tick" { '`' } else { '\\' };
    let result = match kind {
        "heredoc" => expand::heredoc(input, &lookup).map(|expanded| expanded.text),
        _ => expand::word(input, escape, &lookup).map(|expanded| match kind {
            "words" => {
                let words: Vec<String> = expanded.words.iter().map(|word| format!("<{word}>")).collect();
                words.join(" ")
            }
            "missing" => list(expanded.missing),
            "undefined" => list(expanded.undefined),
            _ => expanded.text,
        }),
    };
    result.unwrap_or_else(|error| format!("error: {error}"))
}

#[test]
fn an_error_says_where() {
    let cases = [("ab${V", 2), ("한 'x", 4), ("${A:-${B", 5), ("a\"b", 1), ("x${V?}", 1), ("ok ${V#\\v}", 3)];
    for (word, offset) in cases {
        let error = expand::word(word, '\\', &|_| None).unwrap_err();
        assert_eq!(error.offset, offset, "{word}: {error}");
    }
}

#[test]
fn used_and_undefined_names_are_told() {
    let Expanded { used, undefined, missing, .. } =
        expand::word("$A ${B:-$C} ${D}", '\\', &|name| (name == "A").then(String::new)).unwrap();
    assert_eq!(used.into_iter().collect::<Vec<_>>(), ["A"]);
    assert_eq!(undefined.into_iter().collect::<Vec<_>>(), ["B", "C", "D"]);
    assert_eq!(missing.into_iter().collect::<Vec<_>>(), ["C", "D"]);
}

/// On a thread with a small stack: nesting must not use it up.
#[test]
fn nesting_costs_no_stack() {
    let deep = |open: &str, inner: &str, close: &str| open.repeat(10_000) + inner + &close.repeat(10_000);
    let run = move || {
        let cases = [
            (deep("${a:-", "x", "}"), "x".to_owned()),
            (deep("y${a:-", "x", "}"), "y".repeat(10_000) + "x"),
            (deep("\"${a:-", "x", "}\""), "x".to_owned()),
            (deep("${a/${b:-", "x", "}/}"), String::new()),
        ];
        for (word, expected) in cases {
            assert_eq!(expand::word(&word, '\\', &|_| None).unwrap().text, expected);
        }
        let open = deep("${a:-", "x", "");
        assert!(matches!(
            expand::word(&open, '\\', &|_| None).unwrap_err().kind,
            ExpandErrorKind::OpenBrace { missing: '}', .. }
        ));
    };
    std::thread::Builder::new().stack_size(64 << 10).spawn(run).unwrap().join().unwrap();
}

#[test]
fn patterns_do_not_backtrack() {
    let value = "a".repeat(5_000);
    let lookup = |_: &str| Some(value.clone());
    let stars = "*a".repeat(2_000);
    for word in [format!("${{v##{stars}b}}"), format!("${{v%%b{stars}}}"), format!("${{v//{stars}b/x}}")] {
        assert_eq!(expand::word(&word, '\\', &lookup).unwrap().text, value);
    }
}

#[test]
fn a_result_has_a_limit() {
    let value = "x".repeat(1 << 20);
    let word = "$v".repeat(40);
    let error = expand::word(&word, '\\', &|_| Some(value.clone())).unwrap_err();
    assert_eq!(error.kind, ExpandErrorKind::TooLong);
    assert_eq!(error.to_string(), format!("the expansion is longer than {} MiB", MAX_BYTES >> 20));
}

proptest! {
    #[test]
    fn ends_and_never_panics(word in "[\\$\\{\\}a:+\\-?#%/*'\"\\\\` <é0]{0,40}", value in "[a*/é\\\\]{0,6}") {
        for escape in ['\\', '`'] {
            let _ = expand::word(&word, escape, &|name| (name == "a").then(|| value.clone()));
        }
        let _ = expand::heredoc(&word, &|_| None);
    }

    #[test]
    fn plain_text_stays(word in "[a-z0-9/.:=, -]{0,40}") {
        let expanded = expand::word(&word, '\\', &|_| None).unwrap();
        prop_assert_eq!(&expanded.text, &word);
        prop_assert_eq!(expanded.words, word.split_whitespace().collect::<Vec<_>>());
    }
}
