//! What SARIF 2.1.0 demands of the objects that kiln writes: section numbers are the standard's.

use kiln_checks::{CheckedFile, apply, findings, page, sarif};
use kiln_dockerfile::{Diagnostic, Edit, Fix, Origin, Rule, Severity, Span, parse};
use kiln_frontend::{ImageTable, LowerOptions};
use serde_json::Value;

const TEXT: &str =
    "\u{feff}FROM python:3.12\r\n# é🦀\r\nRUN echo é && pip install x\r\nARG A=1\r\nENV A=2\r\n";

fn log(path: &str, text: &str) -> (Value, Vec<Diagnostic>) {
    let found = findings(text, &parse(text).0, &LowerOptions::default(), &ImageTable::new());
    assert!(!found.is_empty());
    let log = sarif("1.2.3", &[CheckedFile { path, text, findings: &found, error: false }]);
    (serde_json::from_str(&log).unwrap(), found)
}

#[test]
fn required_properties_are_there() {
    let (log, found) = log("my dir/Dockerfile", TEXT);
    // 3.13: version and runs; 3.14: tool; 3.18: driver; 3.19: name
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let driver = &run["tool"]["driver"];
    assert_eq!(driver["name"], "kiln");
    // 3.49: ids of rules are unique, helpUri is absolute
    let rules = driver["rules"].as_array().unwrap();
    assert_eq!(rules.len(), Rule::ALL.len());
    for (rule, known) in rules.iter().zip(Rule::ALL) {
        assert_eq!(rule["id"], known.name());
        assert!(rule["shortDescription"]["text"].as_str().is_some_and(|text| !text.is_empty()));
        match known.origin() {
            Origin::Kiln => assert!(rule["help"]["text"].as_str().unwrap().starts_with("# ")),
            _ => assert!(rule["helpUri"].as_str().unwrap().starts_with("https://")),
        }
    }
    // 3.27: a result has a message; ruleIndex points to ruleId; level is one of four
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), found.len());
    for result in results {
        assert!(result["message"]["text"].as_str().is_some_and(|text| !text.is_empty()));
        let number = result["ruleIndex"].as_u64().unwrap() as usize;
        assert_eq!(rules[number]["id"], result["ruleId"]);
        assert!(["none", "note", "warning", "error"].contains(&result["level"].as_str().unwrap()));
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "my%20dir/Dockerfile");
        // 3.30: from 1, the end not before the start
        let number = |key: &str| place["region"][key].as_u64().unwrap();
        assert!(number("startLine") >= 1 && number("startColumn") >= 1);
        assert!((number("startLine"), number("startColumn")) <= (number("endLine"), number("endColumn")));
        // 3.55 to 3.57: a fix has changes, a change an artifact and replacements, a replacement a region
        for fix in result["fixes"].as_array().into_iter().flatten() {
            for change in fix["artifactChanges"].as_array().filter(|all| !all.is_empty()).unwrap() {
                assert!(change["artifactLocation"]["uri"].is_string());
                for replacement in change["replacements"].as_array().filter(|all| !all.is_empty()).unwrap() {
                    assert!(replacement["deletedRegion"]["startLine"].is_u64());
                    assert!(replacement["insertedContent"]["text"].is_string());
                }
            }
        }
    }
}

/// Columns count characters, and the byte order mark is none.
#[test]
fn regions_and_fixes_say_the_same_as_spans() {
    let (log, found) = log("Dockerfile", TEXT);
    let result = &log["runs"][0]["results"][0];
    assert_eq!(result["ruleId"], "CacheMountMissing");
    let region = &result["locations"][0]["physicalLocation"]["region"];
    assert_eq!((region["startLine"].as_u64(), region["startColumn"].as_u64()), (Some(3), Some(15)));
    let replacement = &result["fixes"][0]["artifactChanges"][0]["replacements"][0];
    let place = &replacement["deletedRegion"];
    assert_eq!((place["startLine"].as_u64(), place["startColumn"].as_u64()), (Some(3), Some(4)));
    let inserted = replacement["insertedContent"]["text"].as_str().unwrap();
    let (after, _) = apply(TEXT, &found);
    assert!(after.contains(&format!("RUN{inserted} echo é && pip install x\r\n")), "{after}");
}

#[test]
fn errors_without_a_rule_are_results_and_absolute_paths_are_files() {
    let broken = Diagnostic {
        severity: Severity::Error,
        message: "no".to_owned(),
        span: Span { start: 0, end: 4 },
        help: None,
        rule: None,
        fix: Some(Fix { edits: vec![Edit { span: Span { start: 9, end: 99 }, text: String::new() }] }),
    };
    let file = CheckedFile { path: "/a/é", text: "FROM x", findings: &[broken], error: true };
    let log: Value = serde_json::from_str(&sarif("0", &[file])).unwrap();
    let result = &log["runs"][0]["results"][0];
    assert_eq!(result["level"], "error");
    assert_eq!(result["ruleId"], Value::Null);
    assert_eq!(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "file:///a/%C3%A9");
}

#[test]
fn every_rule_of_kiln_brings_its_page() {
    for rule in Rule::ALL {
        assert_eq!(page(*rule).is_some(), rule.origin() == Origin::Kiln, "{}", rule.name());
    }
}
