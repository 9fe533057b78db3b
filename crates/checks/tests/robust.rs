//! Whatever the file says: no panic, fixes that end, that break nothing and touch nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_checks::{apply, findings, fix_all};
use kiln_core::{Op, RunOp};
use kiln_dockerfile::{Diagnostic, Severity, parse};
use kiln_frontend::{ImageTable, LowerOptions, lower_offline};
use proptest::prelude::*;

fn find(text: &str) -> Vec<Diagnostic> {
    let (file, problems) = parse(text);
    if problems.iter().any(|one| one.severity == Severity::Error) {
        return Vec::new();
    }
    findings(text, &file, &LowerOptions::default(), &ImageTable::new())
}

/// Every Dockerfile of the repository.
fn dockerfiles() -> Vec<(PathBuf, String)> {
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")];
    let mut all = Vec::new();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if entry.is_dir() {
                dirs.push(entry);
            } else if name.starts_with("Dockerfile")
                && let Ok(text) = fs::read_to_string(&entry)
            {
                all.push((entry, text));
            }
        }
    }
    all.sort();
    assert!(all.len() > 50, "only {} Dockerfiles", all.len());
    all
}

#[test]
fn fixed_files_have_nothing_left_to_fix() {
    let mut changed = 0;
    for (path, text) in dockerfiles() {
        let (after, applied) = fix_all(&text, find);
        let left: Vec<_> = find(&after).into_iter().filter(|one| one.fix.is_some()).collect();
        assert_eq!(left, [], "{}\n{after}", path.display());
        assert_eq!(applied.is_empty(), after == text, "{}", path.display());
        changed += usize::from(after != text);
    }
    assert!(changed > 10, "only {changed} files had something to fix");
}

/// A fix adds and changes mounts, and takes out commands that empty caches; nothing else of the plan moves.
#[test]
fn fixes_leave_the_rest_of_the_plan_alone() {
    let run = |op: &Op| match op {
        Op::Run(RunOp { mounts, cwd, user, env, .. }) => {
            format!("run {cwd} {user} {env:?} {}", mounts.iter().filter(|one| one.source_step()).count())
        }
        Op::Copy(copy) => format!("copy {} {:?}", copy.dest, copy.sources.len()),
        other => format!("{:?}", std::mem::discriminant(other)),
    };
    let steps = |text: &str| -> Option<Vec<String>> {
        let plan = lower_offline(&parse(text).0, &LowerOptions::default()).ok()?;
        Some(plan.graph.iter().map(|(_, step)| run(&step.op)).collect())
    };
    let mut compared = 0;
    for (path, text) in dockerfiles() {
        let (after, applied) = fix_all(&text, find);
        if applied.is_empty() {
            continue;
        }
        let (Some(before), Some(after)) = (steps(&text), steps(&after)) else { continue };
        assert_eq!(before, after, "{}", path.display());
        compared += 1;
    }
    assert!(compared > 5, "only {compared} plans compared");
}

/// Bytes outside the edits are the same bytes.
#[test]
fn fixes_keep_line_ends_marks_and_blanks() {
    let text = "\u{feff}FROM python:3.12  \r\nRUN pip install x \\\r\n   y\t\r\n\r\n# end  \r\n";
    let found = find(text);
    let (after, applied) = apply(text, &found);
    assert_eq!(applied.len(), 1);
    assert_eq!(after, text.replace("RUN ", "RUN --mount=type=cache,target=/root/.cache/pip "));
}

#[test]
fn a_big_file_is_read_to_its_end() {
    let mut text = String::from("FROM python:3.12\n");
    for number in 0..2500 {
        text.push_str(&format!("ENV V{number}=/v{number}\nARG A{number}=1\n"));
        text.push_str("RUN --mount=type=cache,target=/elsewhere pip install $V1 && make\n");
        text.push_str(&format!("COPY --from=0 /elsewhere/x{number} /y{number}\n"));
    }
    assert_eq!(find(&text).len(), 2500);
}

trait SourceStep {
    fn source_step(&self) -> bool;
}

impl SourceStep for kiln_core::Mount {
    fn source_step(&self) -> bool {
        !matches!(self.kind, kiln_core::MountKind::Cache(_))
    }
}

fn line() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "pip",
        "install",
        "apt-get",
        "-y",
        "rm",
        "-rf",
        "/root/.cache",
        "&&",
        "||",
        ";",
        "|",
        "(",
        ")",
        "$X",
        "${X:-y}",
        "'",
        "\"",
        "`",
        "\\\n",
        "<<EOF",
        "\nEOF\n",
        "npm",
        "ci",
        "--no-cache-dir",
        "go",
        "build",
        "sh -c",
        "cp",
        "https://a:b@c/",
        "curl -u a:b",
        "/run/secrets/x",
        "é🦀",
        "*",
        "~",
        "#",
        "{",
        "}",
        "if",
        "fi",
        "case",
        "esac",
        "--mount=type=cache,target=/root/.cache/pip",
        "--mount=type=cache,target=l",
        "--mount=type=secret,id=x",
    ]);
    let head = prop::sample::select(vec![
        "RUN ",
        "RUN ",
        "RUN ",
        "COPY . ",
        "USER ",
        "ENV X=",
        "ARG X=",
        "WORKDIR ",
        "CMD ",
        "FROM ",
        "COPY --from=0 / ",
    ]);
    (head, prop::collection::vec(word, 0..8)).prop_map(|(head, words)| format!("{head}{}\n", words.join(" ")))
}

proptest! {
    #[test]
    fn no_file_makes_it_panic(lines in prop::collection::vec(line(), 0..12)) {
        let text = format!("FROM python:3.12\n{}", lines.concat());
        for one in find(&text) {
            prop_assert!(text.get(one.span.start..one.span.end).is_some(), "{one:?}\n{text}");
            for edit in one.fix.iter().flat_map(|fix| &fix.edits) {
                prop_assert!(text.get(edit.span.start..edit.span.end).is_some(), "{one:?}\n{text}");
            }
        }
        let (after, _) = fix_all(&text, find);
        let (_, before) = parse(&text);
        let (_, problems) = parse(&after);
        let errors = |all: &[Diagnostic]| all.iter().filter(|one| one.severity == Severity::Error).count();
        prop_assert_eq!(errors(&before), errors(&problems));
    }
}
