//! Habits that no compiler checks.

use std::fs;
use std::path::{Path, PathBuf};

/// Names that say nothing about what is in a module.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc"];

/// A file of more lines must be split, or be listed below.
const MOST_LINES: usize = 500;

/// Tables and fakes may be longer.
const MOST_TEST_LINES: usize = 800;

/// Longer files, each with its reason.
const LONG: &[(&str, &str)] = &[];

/// The only files with unsafe code.
const UNSAFE: &[&str] = &["runtime/src/sys.rs", "runtime/src/sys/notify.rs"];

#[test]
fn modules_have_names_that_mean_something() {
    let mut wrong = Vec::new();
    for file in sources() {
        let path = Path::new(&file.path);
        let words = path.components().map(|part| Path::new(part.as_os_str()).with_extension(""));
        if words.into_iter().any(|word| EMPTY_NAMES.iter().any(|name| Path::new(name) == word)) {
            wrong.push(file.path.clone());
        }
        for (number, line) in file.code() {
            let module = line.split_once("mod ").map(|(_, rest)| rest.trim_end_matches([';', '{', ' ']));
            if module.is_some_and(|module| EMPTY_NAMES.contains(&module)) {
                wrong.push(format!("{}:{number}", file.path));
            }
        }
    }
    assert_eq!(wrong, [] as [String; 0], "modules called {EMPTY_NAMES:?}");
}

#[test]
fn no_test_is_ignored() {
    // In two pieces, so that this file passes.
    assert_nowhere("an ignored test", |_| true, |line| line.contains(concat!("#[", "ignore")));
}

#[test]
fn unsafe_code_is_in_one_file() {
    let starts = ["{", "fn ", "impl ", "extern ", "trait "];
    let found = |line: &str| {
        let after = line.match_indices("unsafe ").map(|(place, word)| &line[place + word.len()..]);
        after.into_iter().any(|rest| starts.iter().any(|start| rest.starts_with(start)))
            || line.contains("allow(unsafe") && !line.contains("unsafe_op_in_unsafe_fn")
    };
    assert_nowhere(
        "unsafe code",
        |file| !UNSAFE.contains(&&*file.path) && !file.path.ends_with("tests/tidy.rs"),
        found,
    );
}

#[test]
fn only_the_command_line_prints() {
    let macros = ["println!", "eprintln!", "print!", "eprint!", "dbg!"];
    let begins =
        |line: &str, place: usize| !line[..place].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let prints =
        |line: &str| macros.iter().any(|name| line.match_indices(name).any(|(place, _)| begins(line, place)));
    let concerned = |file: &Source| !file.path.starts_with("crates/cli/") && !file.is_test();
    assert_nowhere("printing", concerned, prints);
}

#[test]
fn files_are_short() {
    let mut wrong = Vec::new();
    for file in sources() {
        let lines = file.text.lines().count();
        let most = if file.is_test() { MOST_TEST_LINES } else { MOST_LINES };
        let listed = LONG.iter().any(|(path, _)| *path == file.path);
        match (lines > most, listed) {
            (true, false) => wrong.push(format!("{} has {lines} lines: split it", file.path)),
            (false, true) => wrong.push(format!("{} is short again: take it off the list", file.path)),
            _ => {}
        }
    }
    for (path, _) in LONG {
        if !root().join(path).exists() {
            wrong.push(format!("{path} is listed and not there"));
        }
    }
    assert_eq!(wrong, [] as [String; 0], "more than {MOST_LINES} lines, in tests {MOST_TEST_LINES}");
}

/// A source file.
struct Source {
    /// From the root of the repository, with slashes.
    path: String,
    text: String,
}

impl Source {
    /// Returns whether it is only compiled for tests, examples or benches.
    fn is_test(&self) -> bool {
        let part = |name: &str| self.path.split('/').any(|part| part == name);
        self.path.starts_with("crates/testkit/")
            || ["tests", "examples", "benches", "tests.rs"].into_iter().any(part)
    }

    /// Returns the lines with their numbers, comments left out.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        let code = lines.filter(|(_, line)| !line.trim_start().starts_with("//"));
        // A comment after code; `//` in a string, such as an URL, has no spaces around it.
        code.map(|(number, line)| (number + 1, line.split(" // ").next().unwrap_or(line)))
    }
}

fn assert_nowhere(what: &str, concerned: impl Fn(&Source) -> bool, found: impl Fn(&str) -> bool) {
    let mut places = Vec::new();
    for file in sources().iter().filter(|file| concerned(file)) {
        let lines = file.code().filter(|(_, line)| found(line));
        places.extend(lines.map(|(number, line)| format!("{}:{number}: {}", file.path, line.trim())));
    }
    assert_eq!(places, [] as [String; 0], "{what}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns all Rust files of the repository.
fn sources() -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    let mut directories = vec![root.join("crates"), root.join("runtime")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of the repository") {
            let entry = entry.expect("an entry");
            let path = entry.path();
            if entry.file_type().expect("its type").is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative =
                    path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
                found.push(Source { path: relative, text: fs::read_to_string(&path).expect("a text") });
            }
        }
    }
    assert!(found.iter().any(|file| file.path == UNSAFE[0]), "{UNSAFE:?} are among the files");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}
