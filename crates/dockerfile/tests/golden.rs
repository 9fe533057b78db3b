//! Every directory in testdata/parse: a Dockerfile, and `result` with what `kiln debug parse` prints for it, JSON lines
//! after a `---`; or the error as `line:column: message`. `UPDATE=1` writes the results anew.

use std::path::Path;

use kiln_dockerfile::{Position, print};

#[test]
fn every_case_prints_its_result() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/parse");
    let mut cases: Vec<_> = std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() > 20, "only {} cases in {}", cases.len(), root.display());
    for case in cases {
        let text = std::fs::read_to_string(case.join("Dockerfile")).unwrap();
        let printed = match print::lines(&text) {
            Ok(lines) => format!("{lines}---\n{}", print::json(&text).unwrap()),
            Err(error) => {
                let Position { line, column } = Position::of(&text, error.span.start);
                format!("{line}:{column}: {}\n", error.message)
            }
        };
        let expected = case.join("result");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&expected, &printed).unwrap();
        }
        let expected = std::fs::read_to_string(&expected).unwrap();
        assert_eq!(printed, expected, "{}", case.display());
    }
}
