//! Every directory of testdata/lower is a case: what a Dockerfile means, or why it is refused. Its README says which case is
//! about what. `UPDATE=1 cargo test -p kiln-frontend` writes the plans anew.

mod cases;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use kiln_dockerfile::{Diagnostic, Position, Severity, parse};
use kiln_frontend::{ImageTable, Lowered, lower, print};

use cases::{Case, compare, empty_image};

#[test]
fn plans_are_as_written_down() {
    let cases = compare("lower", outcome);
    assert!(cases > 50, "only {cases} cases");
}

#[test]
fn every_case_is_in_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/lower");
    let table = fs::read_to_string(root.join("README.md")).unwrap();
    let dirs = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let names = dirs.map(|dir| dir.file_name().unwrap().to_string_lossy().into_owned());
    let missing: Vec<String> = names.filter(|name| !table.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let named = table.split('`').skip(1).step_by(2);
    let gone: Vec<&str> = named
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'))
        .filter(|name| {
            *name != "options" && *name != "plan" && !name.ends_with('-') && !root.join(name).is_dir()
        })
        .collect();
    assert!(gone.is_empty(), "{gone:?}");
}

fn outcome(case: &Case) -> String {
    let text = &case.text;
    let (options, known) = case.options();
    let mut images = ImageTable::new();
    let (file, found) = parse(text);
    if found.iter().any(|d| d.severity == Severity::Error) {
        return format!("not parsed\n{}", describe(&found, text));
    }
    let mut asked_for = String::new();
    let mut round = 0;
    loop {
        match lower(&file, &options, &images) {
            Ok(Lowered::NeedImages(requests)) => {
                let again = if round == 0 { "needs" } else { "then needs" };
                round += 1;
                for request in requests {
                    let _ = writeln!(asked_for, "{again} {} {}", request.name, request.platform);
                    let image = known.get(&request).cloned().unwrap_or_else(|| empty_image(&request));
                    assert!(images.insert(request, image).is_none(), "{}: asked twice", case.name());
                }
            }
            Ok(Lowered::Ready(plan)) => {
                return format!("{asked_for}{}{}", print::plan(&plan), describe(&plan.diagnostics, text));
            }
            Err(errors) => {
                assert!(errors.iter().any(|d| d.severity == Severity::Error), "an error without an error");
                return format!("{asked_for}{}", describe(&errors, text));
            }
        }
    }
}

fn describe(diagnostics: &[Diagnostic], text: &str) -> String {
    let mut out = String::new();
    for one in diagnostics {
        let kind = if one.severity == Severity::Error { "error" } else { "warning" };
        let Position { line, column } = Position::of(text, one.span.start);
        let marked = text[one.span.start..one.span.end].lines().next().unwrap_or("");
        let _ = writeln!(out, "{kind} {line}:{column} `{marked}`: {}", one.message);
        if let Some(help) = &one.help {
            let _ = writeln!(out, "  help: {help}");
        }
    }
    out
}
