//! Every directory of testdata/advice is a case: `Dockerfile`, what is found (`expected`, `RuleName:LINE` lines), and the
//! file after all fixes (`fixed`, if there are any). `UPDATE=1 cargo test -p kiln-checks` writes the last two anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_checks::{findings, fix_all};
use kiln_dockerfile::{Diagnostic, Origin, Position, Rule, Severity, parse};
use kiln_frontend::{ImageTable, LowerOptions};

#[test]
fn findings_and_fixes_are_as_written_down() {
    let mut wrong = Vec::new();
    for case in cases() {
        let text = fs::read_to_string(case.join("Dockerfile")).unwrap();
        let got: String = find(&text)
            .iter()
            .map(|one| format!("{}:{}\n", one.rule.unwrap().name(), Position::of(&text, one.span.start).line))
            .collect();
        let (after, applied) = fix_all(&text, find);
        compare(&case.join("expected"), &got, &mut wrong);
        compare(&case.join("fixed"), if applied.is_empty() { "" } else { &after }, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every rule but the one that needs files fires in one case at least, and is silent in another that has its name and `-none`.
#[test]
fn every_rule_of_kiln_has_cases() {
    let mut missing = Vec::new();
    let cases = cases();
    let of_text = |rule: &&Rule| rule.origin() == Origin::Kiln && **rule != Rule::EmptyWildcard;
    for rule in Rule::ALL.iter().filter(of_text) {
        let fires = |case: &PathBuf| {
            let expected = fs::read_to_string(case.join("expected")).unwrap_or_default();
            expected.lines().any(|line| line.split(':').next() == Some(rule.name()))
        };
        if !cases.iter().any(fires) {
            missing.push(format!("{} fires nowhere", rule.name()));
        }
        let silent = cases.iter().find(|case| case.ends_with(format!("{}-none", kebab(rule.name()))));
        if silent.is_none_or(fires) {
            missing.push(format!("{}-none", kebab(rule.name())));
        }
    }
    assert_eq!(missing, [] as [String; 0]);
}

#[test]
fn messages_say_what_to_write_and_spans_are_in_the_text() {
    for case in cases() {
        let text = fs::read_to_string(case.join("Dockerfile")).unwrap();
        for one in find(&text) {
            assert!(one.help.is_some(), "{}: {one:?}", case.display());
            assert!(text.get(one.span.start..one.span.end).is_some_and(|at| !at.is_empty()), "{one:?}");
            assert_eq!(one.severity, Severity::Warning);
        }
    }
}

#[test]
fn every_rule_of_kiln_has_a_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for rule in Rule::ALL.iter().filter(|rule| rule.origin() == Origin::Kiln) {
        let page = fs::read_to_string(root.join(rule.page())).unwrap_or_default();
        assert!(page.starts_with(&format!("# {}\n", rule.name())), "{}", rule.page());
        assert!(page.contains("```dockerfile") && page.contains("## When to skip it"), "{}", rule.page());
    }
}

fn find(text: &str) -> Vec<Diagnostic> {
    let (file, problems) = parse(text);
    assert!(problems.iter().all(|one| one.severity != Severity::Error), "{problems:?}\n{text}");
    findings(text, &file, &LowerOptions::default(), &ImageTable::new())
}

fn compare(file: &Path, got: &str, wrong: &mut Vec<String>) {
    if std::env::var_os("UPDATE").is_some() {
        if got.is_empty() && !file.ends_with("expected") {
            let _ = fs::remove_file(file);
        } else {
            fs::write(file, got).unwrap();
        }
        return;
    }
    let wanted = fs::read_to_string(file).unwrap_or_default();
    if got != wanted {
        wrong.push(format!("{}\n--- wanted\n{wanted}--- got\n{got}", file.display()));
    }
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/advice");
    let all: BTreeSet<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(all.len() > 10, "only {} cases", all.len());
    all.into_iter().collect()
}

/// `CacheMountMissing` is `cache-mount-missing`.
fn kebab(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('-');
        }
        text.extend(letter.to_lowercase());
    }
    text
}
