//! `fix` over every Dockerfile of the checks' cases: what is fixed has nothing left to fix, and skips count.

use std::fs;
use std::path::Path;

use kiln::{CheckRequest, PlanRequest, check, fix};

fn request(text: &str) -> CheckRequest {
    let plan = PlanRequest { text: text.to_owned(), ..PlanRequest::default() };
    CheckRequest { plan, ..CheckRequest::default() }
}

#[test]
fn fixed_files_have_nothing_left_to_fix() {
    let mut changed = 0;
    for dir in ["checks", "advice"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(dir);
        for case in fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()) {
            let text = fs::read_to_string(case.join("Dockerfile")).unwrap();
            let was_broken = check(&request(&text)).is_broken();
            let fixed = fix(&request(&text));
            let after = check(&request(&fixed.text));
            let left = after.findings.iter().filter(|one| one.diagnostic.fix.is_some()).count();
            assert!(was_broken || left == 0, "{}\n{}", case.display(), fixed.text);
            assert!(was_broken || !after.is_broken(), "{}\n{}", case.display(), fixed.text);
            assert!(!was_broken || fixed.text == text, "{}", case.display());
            changed += usize::from(!fixed.applied.is_empty());
        }
    }
    assert!(changed > 20, "only {changed} files had something to fix");
}

#[test]
fn what_is_skipped_is_not_fixed() {
    let text = "FROM python:3.12\n# check=skip=CacheMountMissing\nRUN pip install x\nENV a b\n";
    let fixed = fix(&request(text));
    assert_eq!(fixed.text, text.replace("ENV a b", "ENV a=b"));
    assert_eq!(fixed.applied.len(), 1);
}
