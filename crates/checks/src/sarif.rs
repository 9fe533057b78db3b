//! Findings as SARIF 2.1.0, for code hosts and editors.
//! <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>

use std::collections::BTreeMap;

use kiln_dockerfile::{Diagnostic, Origin, Rule, Severity, Span};
use serde_json::{Value, json};

use crate::page;

/// A file that was checked.
#[derive(Debug, Clone, Copy)]
pub struct CheckedFile<'a> {
    /// Its path as somebody typed it, relative or absolute.
    pub path: &'a str,
    /// Its text.
    pub text: &'a str,
    /// What was found in it. Errors without a rule are results too.
    pub findings: &'a [Diagnostic],
    /// Whether findings are failures (`# check=error=true`).
    pub error: bool,
}

/// Returns a log with one run over these files, as indented JSON. All rules are described in it, also those that found
/// nothing.
pub fn sarif(version: &str, files: &[CheckedFile<'_>]) -> String {
    let numbers: BTreeMap<Rule, usize> =
        Rule::ALL.iter().enumerate().map(|(number, rule)| (*rule, number)).collect();
    let results: Vec<Value> = files
        .iter()
        .flat_map(|file| {
            let lines = Lines::of(file.text);
            let numbers = &numbers;
            file.findings.iter().map(move |one| result(file, &lines, numbers, one))
        })
        .collect();
    let log = json!({
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "kiln",
                "semanticVersion": version,
                "rules": Rule::ALL.iter().map(|rule| describe(*rule)).collect::<Vec<_>>(),
            } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    format!("{log:#}\n")
}

fn describe(rule: Rule) -> Value {
    let mut value = json!({
        "id": rule.name(),
        "name": rule.name(),
        "shortDescription": { "text": rule.description() },
        "defaultConfiguration": { "enabled": !rule.is_experimental(), "level": "warning" },
    });
    if let Some(page) = page(rule) {
        value["help"] = json!({ "text": page, "markdown": page });
    }
    // a URI must be absolute: kiln's own pages are told in full above
    if rule.origin() != Origin::Kiln {
        value["helpUri"] = rule.url().into();
    }
    value
}

fn result(
    file: &CheckedFile<'_>,
    lines: &Lines<'_>,
    numbers: &BTreeMap<Rule, usize>,
    one: &Diagnostic,
) -> Value {
    let text = match &one.help {
        Some(help) => format!("{}. {help}", one.message),
        None => one.message.clone(),
    };
    let is_error = one.severity == Severity::Error || file.error && one.rule.is_some();
    let artifact = json!({ "uri": uri(file.path) });
    let mut value = json!({
        "level": if is_error { "error" } else { "warning" },
        "message": { "text": text },
        "locations": [{ "physicalLocation": { "artifactLocation": artifact, "region": lines.region(one.span) } }],
    });
    if let Some(rule) = one.rule {
        value["ruleId"] = rule.name().into();
        value["ruleIndex"] = numbers[&rule].into();
    }
    if let Some(fix) = &one.fix {
        let replacements: Vec<Value> = fix
            .edits
            .iter()
            .map(|edit| json!({ "deletedRegion": lines.region(edit.span), "insertedContent": { "text": edit.text } }))
            .collect();
        value["fixes"] = json!([{
            "description": { "text": one.help.as_deref().unwrap_or("change the text") },
            "artifactChanges": [{ "artifactLocation": artifact, "replacements": replacements }],
        }]);
    }
    value
}

/// A path as a URI reference: relative stays relative.
fn uri(path: &str) -> String {
    let mut uri = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(char::from(byte))
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

/// Where lines begin.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let after = text.match_indices('\n').map(|(at, _)| at + 1);
        // a byte order mark is no column
        let first = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { text, starts: std::iter::once(first).chain(after).collect() }
    }

    fn region(&self, span: Span) -> Value {
        let (start_line, start_column) = self.place(span.start);
        let (end_line, end_column) = self.place(span.end.max(span.start));
        json!({
            "startLine": start_line,
            "startColumn": start_column,
            "endLine": end_line,
            "endColumn": end_column,
        })
    }

    /// Line and column from 1; the column counts characters.
    fn place(&self, offset: usize) -> (usize, usize) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts[line - 1].min(offset);
        (line, self.text[start..offset].chars().count() + 1)
    }
}
