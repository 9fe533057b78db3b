//! Every directory of testdata/checks is a case: `Dockerfile`, what is asked (`options`, may be absent: `build-arg A=b`,
//! `target x`, `error` if it cannot be built), perhaps `.dockerignore`, and what is found (`expected`, `Rule:LINE` lines).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kiln::{CheckRequest, PlanRequest, check, ignore_list};
use kiln_dockerfile::{Origin, Rule};

#[test]
fn checks_find_what_is_written_down() {
    let mut wrong = Vec::new();
    for case in cases() {
        let wanted = fs::read_to_string(case.join("expected")).unwrap();
        let got = outcome(&case);
        if got != wanted {
            wrong.push(format!("{}\n--- wanted\n{wanted}--- got\n{got}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Of all but what only a registry tells.
#[test]
fn every_rule_of_buildkit_has_a_case() {
    let found: String =
        cases().iter().map(|case| fs::read_to_string(case.join("expected")).unwrap()).collect();
    let found: BTreeSet<&str> = found.lines().filter_map(|line| line.split(':').next()).collect();
    let missing = Rule::ALL
        .iter()
        .filter(|rule| rule.origin() != Origin::Kiln && **rule != Rule::InvalidBaseImagePlatform)
        .filter(|rule| !found.contains(rule.name()));
    assert_eq!(missing.collect::<Vec<_>>(), [] as [&Rule; 0]);
}

#[test]
fn every_rule_has_a_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let index = fs::read_to_string(root.join("docs/checks/README.md")).unwrap();
    for rule in Rule::ALL {
        let page = fs::read_to_string(root.join(rule.page())).unwrap_or_default();
        assert!(page.starts_with(&format!("# {}\n", rule.name())), "{}", rule.page());
        assert!(
            index.contains(&format!("[{0}]({0}.md)", rule.name())),
            "docs/checks/README.md: {}",
            rule.name()
        );
    }
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/checks");
    let mut cases: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() > 60, "only {} cases", cases.len());
    cases
}

fn outcome(case: &Path) -> String {
    let path = case.join("Dockerfile");
    let mut plan = PlanRequest { text: fs::read_to_string(&path).unwrap(), ..PlanRequest::default() };
    let mut is_broken = false;
    for line in fs::read_to_string(case.join("options")).unwrap_or_default().lines() {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("target", name) => plan.target = Some(name.to_owned()),
            ("build-arg", pair) => {
                let (name, value) = pair.split_once('=').unwrap();
                plan.build_args.insert(name.to_owned(), value.to_owned());
            }
            ("error", "") => is_broken = true,
            other => panic!("unknown option {other:?}"),
        }
    }
    let ignore = ignore_list(case, Some(&path)).unwrap();
    let checked = check(&CheckRequest { plan, ignore, ..CheckRequest::default() });
    let mut got: String =
        checked.findings.iter().map(|one| format!("{}:{}\n", one.rule.name(), one.lines.0)).collect();
    if checked.is_broken() != is_broken {
        got.push_str(&format!("can be built: {}: {:#?}\n", is_broken, checked.diagnostics));
    }
    got
}
