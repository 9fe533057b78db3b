//! docs/testing.md has a table of threads and tests: each test there exists and cites its threads, and each test that is named after
//! a thread is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const HEADING: &str = "## Threads and the tests that answer them";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A thread of a project, as the table writes it: `buildkit 1474`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Thread {
    project: String,
    number: String,
}

impl Thread {
    /// Whether a test's name begins with it, as `buildkit_1474_` or, a pull request, `buildah_pr4349_`.
    fn names(&self, test: &str) -> bool {
        let project = self.project.replace('-', "_");
        let rest = test.strip_prefix(&project).and_then(|rest| rest.strip_prefix('_'));
        let rest = rest.map(|rest| rest.strip_prefix("pr").unwrap_or(rest));
        rest.and_then(|rest| rest.strip_prefix(&self.number)).is_some_and(|rest| rest.starts_with('_'))
    }

    /// Whether its address is in a comment.
    fn is_in(&self, comment: &str) -> bool {
        ["issues", "pull"]
            .iter()
            .any(|kind| comment.contains(&format!("/{}/{kind}/{}>", self.project, self.number)))
    }
}

/// The rows: what the first cell names, and the tests of the second.
fn table() -> Vec<(Vec<Thread>, Vec<String>)> {
    let page = fs::read_to_string(root().join("docs/testing.md")).expect("the page is there");
    let (_, section) = page.split_once(HEADING).expect("the section is there");
    let section = section.split("\n## ").next().expect("there is a first part");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.skip(1)
        .map(|row| {
            let (threads, tests) = row.split_once(" | ").expect("two cells");
            let of_project = |text: &str| -> Vec<Thread> {
                let (project, numbers) = text.split_once(' ').expect("a project and its numbers");
                let thread = |number: &str| Thread { project: project.to_owned(), number: number.to_owned() };
                numbers.split(", ").map(thread).collect()
            };
            let tests = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            (threads.split("; ").flat_map(of_project).collect(), tests)
        })
        .collect()
}

/// All tests of the repository, each with the comment above it.
fn tests() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root().join("crates"), root().join("runtime")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory of the repository").flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a text");
                let lines: Vec<&str> = text.lines().map(str::trim).collect();
                for (at, _) in lines.iter().enumerate().filter(|(_, line)| **line == "#[test]") {
                    let above = lines[..at].iter().rev().take_while(|line| line.starts_with("///"));
                    let comment: String = above.copied().collect::<Vec<_>>().join("\n").to_lowercase();
                    let below = lines[at..].iter().find_map(|line| line.strip_prefix("fn "));
                    let name = below.and_then(|rest| rest.split('(').next()).expect("a test is a function");
                    found.insert(name.to_owned(), comment);
                }
            }
        }
    }
    found
}

#[test]
fn threads_and_tests_agree() {
    let (table, tests) = (table(), tests());
    assert!(table.len() > 30, "only {} rows: has the table another form?", table.len());
    let mut wrong = Vec::new();
    let mut listed = BTreeSet::new();
    for (threads, names) in &table {
        let cites = |name: &String, thread: &Thread| {
            thread.names(name) || tests.get(name).is_some_and(|comment| thread.is_in(comment))
        };
        for name in names {
            if !tests.contains_key(name) {
                wrong.push(format!("there is no test {name}"));
            } else if !threads.iter().any(|thread| cites(name, thread)) {
                wrong.push(format!("{name} cites none of {threads:?}"));
            }
            if !listed.insert(name) {
                wrong.push(format!("{name} is in two rows"));
            }
        }
        for thread in threads {
            if !names.iter().any(|name| cites(name, thread)) {
                wrong.push(format!("no test of its row has the address of {thread:?} above it"));
            }
        }
    }
    let projects: BTreeSet<String> = table
        .iter()
        .flat_map(|(threads, _)| threads)
        .map(|thread| thread.project.replace('-', "_"))
        .collect();
    for name in tests.keys().filter(|name| !listed.contains(name)) {
        let number = |project: &String| {
            let rest = name.strip_prefix(project.as_str())?.strip_prefix('_')?;
            let digits = rest.strip_prefix("pr").unwrap_or(rest).split('_').next()?;
            (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(())
        };
        if projects.iter().any(|project| number(project).is_some()) {
            wrong.push(format!("{name} is named after a thread and not in the table"));
        }
    }
    assert!(wrong.is_empty(), "docs/testing.md, {HEADING:?}: {wrong:#?}");
}
