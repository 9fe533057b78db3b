//! The table testdata/match.txt, and what a table cannot say.

use kiln_core::{IgnoreList, Pattern, clean_path};
use proptest::prelude::*;

#[test]
fn table() {
    let table = include_str!("../../../testdata/match.txt");
    let mut rows = 0;
    for (number, line) in table.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(" | ").map(str::trim).collect();
        // a `|` may be part of a pattern; blanks around it make it a separator
        let [kind, patterns, path, expected] = fields[..] else { panic!("line {}: {line}", number + 1) };
        let list = || IgnoreList::parse(&patterns.split(' ').collect::<Vec<_>>().join("\n"));
        let result = match kind {
            "match" => Pattern::new(patterns).map(|pattern| pattern.matches(path)),
            "ignore" => list().map(|list| list.is_excluded(path)),
            "prune" => list().map(|list| list.prunes(path)),
            _ => panic!("line {}: {kind}", number + 1),
        };
        let result = result.map_or("error".to_owned(), |result| result.to_string());
        assert_eq!(result, expected, "line {}: {line}", number + 1);
        rows += 1;
    }
    assert!(rows > 120, "{rows} rows");
}

#[test]
fn a_file_is_cleaned_as_the_program_does() {
    let text = "\u{feff}# comment\r\n  # a pattern, for it is not in column 0\r\n\r\ntest1\n/test2\n/a//file/./here/\n! /back/again\n!\n! \n  spaced \t\n!a/../b\n/\n.\n";
    let expected = [
        "# a pattern, for it is not in column 0",
        "test1",
        "test2",
        "a/file/here",
        "!back/again",
        "!",
        "!",
        "spaced",
        "!b",
        "/",
        ".",
    ];
    assert_eq!(IgnoreList::cleaned(text).unwrap(), expected);
    assert_eq!(IgnoreList::cleaned("a\n[").unwrap_err().to_string(), "syntax error in pattern \"[\"");
}

#[test]
fn why_names_the_line() {
    let list = IgnoreList::parse("# c\n\n*.md\n!README.md\n**/secret\n").unwrap();
    let cases = [("a.md", Some(3)), ("README.md", None), ("x/secret/y", Some(5)), ("src", None)];
    for (path, line) in cases {
        assert_eq!(list.why(path), line, "{path}");
    }
}

#[test]
fn a_verdict_names_both_lines() {
    use kiln_core::Verdict::{BroughtBack, Excluded, Kept};
    let list = IgnoreList::parse("docs\n!docs/*.md\ndocs/b.md\n\n!docs/b.md\n").unwrap();
    let cases = [
        ("src", Kept),
        ("docs", Excluded { line: 1 }),
        ("docs/a.txt", Excluded { line: 1 }),
        ("docs/a.md", BroughtBack { line: 2, excluded: 1 }),
        ("docs/b.md", BroughtBack { line: 5, excluded: 3 }),
    ];
    for (path, verdict) in cases {
        assert_eq!(list.verdict(path), verdict, "{path}");
    }
}

#[test]
fn bare_patterns_are_no_file() {
    let list = IgnoreList::from_patterns(["#x", "/a", "b/", "!b/c"]).unwrap();
    for (path, excluded) in [("#x", true), ("a", false), ("b/d", true), ("b/c", false)] {
        assert_eq!(list.is_excluded(path), excluded, "{path}");
    }
    assert!(list.brings_back());
}

#[test]
fn paths_are_cleaned_as_go_does() {
    let cases = [
        ("", "."),
        (".", "."),
        ("./a//b/", "a/b"),
        ("a/../b", "b"),
        ("a/../..", ".."),
        ("../a/..", ".."),
        ("../../a", "../../a"),
        ("/..", "/"),
        ("/../a/.", "/a"),
        ("//a", "/a"),
    ];
    for (path, clean) in cases {
        assert_eq!(clean_path(path), clean, "{path}");
    }
}

/// A pattern like this has as many ways to match as there are paths; each state is visited once a character all the same.
#[test]
fn many_stars_are_cheap() {
    let path = vec!["a"; 300].join("/");
    for unit in ["**/", "**/a/", "*a", "**a/*", "***/", "a*/**/"] {
        let pattern = unit.repeat(200) + "nothing";
        assert!(!IgnoreList::parse(&pattern).unwrap().is_excluded(&path), "{unit}");
        assert!(!Pattern::new(&pattern).unwrap().matches(&path), "{unit}");
    }
}

/// What the tokens mean, by trying everything. Only for small inputs.
fn naive(pattern: &[char], path: &[char]) -> bool {
    match pattern {
        [] => path.is_empty(),
        ['*', '*', '/'] | ['*', '*'] => true,
        ['*', '*', '/', rest @ ..] | ['*', '*', rest @ ..] => {
            naive(rest, path) || (0..path.len()).any(|at| path[at] == '/' && naive(rest, &path[at + 1..]))
        }
        ['*', rest @ ..] => {
            naive(rest, path) || path.first().is_some_and(|ch| *ch != '/' && naive(pattern, &path[1..]))
        }
        ['?', rest @ ..] => path.first().is_some_and(|ch| *ch != '/' && naive(rest, &path[1..])),
        [ch, rest @ ..] => path.first() == Some(ch) && naive(rest, &path[1..]),
    }
}

proptest! {
    #[test]
    fn never_panics(pattern in "[\\[\\]\\-^*?/a\\\\é!.#\n ]{0,20}", path in "[a/é\\]*.]{0,20}") {
        if let Ok(pattern) = Pattern::new(&pattern) {
            pattern.matches(&path);
        }
        if let Ok(list) = IgnoreList::parse(&pattern) {
            prop_assert_eq!(list.is_excluded(&path), list.why(&path).is_some());
            prop_assert!(!list.prunes(&path) || list.is_excluded(&path));
        }
    }

    #[test]
    fn states_agree_with_trying_everything(pattern in "x[*?/ab]{1,8}", path in "x[ab/]{0,8}") {
        let pattern = clean_path(&pattern);
        let path = clean_path(&path);
        let (chars, of): (Vec<char>, Vec<char>) = (pattern.chars().collect(), path.chars().collect());
        // `text**` means "begins with text", which the naive matcher says as well for its last two characters
        let expected = (1..=of.len())
            .filter(|end| *end == of.len() || of[*end] == '/')
            .any(|end| naive(&chars, &of[..end]));
        prop_assert_eq!(IgnoreList::parse(&pattern).unwrap().is_excluded(&path), expected);
    }

    #[test]
    fn a_pruned_directory_holds_nothing(patterns in "(!?[ab*?/]{1,5}\n){1,4}", dir in "[ab]{1,2}", below in "[ab]{1,2}(/[ab]{1,2})?") {
        if let Ok(list) = IgnoreList::parse(&patterns) {
            let path = format!("{dir}/{below}");
            prop_assert!(!list.prunes(&dir) || list.is_excluded(&path));
        }
    }
}
