//! docs/messages.md quotes what kiln says: each message there must be one that the source can say.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Of a message's own words, so many in a hundred stand side by side in the source in the same way. The others are around what is
/// filled in.
const SHARE: usize = 50;

/// Where a message is the system's and not kiln's.
const OTHERS: [&str; 2] = ["no space left on device", "file too large"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(dir: &Path, text: &mut String) {
    for entry in fs::read_dir(dir).expect("a directory of sources").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(&*name, "tests" | "target" | "testkit" | "examples") {
                sources(&path, text);
            }
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            let source = fs::read_to_string(&path).expect("sources are text");
            let source = source.split("#[cfg(test)]").next().unwrap_or_default();
            let lines = source.lines().filter(|line| !line.trim_start().starts_with("//"));
            lines.for_each(|line| {
                text.push_str(line.strip_suffix('\\').unwrap_or(line));
                text.push(' ');
            });
        }
    }
}

/// Words without quotes around them and punctuation behind them.
fn words(text: &str) -> Vec<String> {
    let text = text.replace("\\\"", " ").replace('"', " ");
    let words = text.split_whitespace().map(|word| word.trim_end_matches([',', ';', ':', '.']));
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Not a name, a path, a number.
fn is_plain(word: &str) -> bool {
    let word = word.trim_matches(['`', '(', ')']);
    !word.is_empty() && word.chars().all(|c| c.is_ascii_alphabetic() || matches!(c, '-' | '\''))
}

/// The messages of the page: lines `error: ...` and what follows such a line, and the first cells of tables.
fn messages(page: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let (mut in_block, mut goes_on) = (false, false);
    for line in page.lines() {
        if line.starts_with("```") {
            (in_block, goes_on) = (!in_block, false);
        } else if in_block {
            let kinds = ["error: ", "hint: ", "help: ", "WARNING: "];
            if let Some(text) = kinds.iter().find_map(|kind| line.strip_prefix(kind)) {
                found.push(text.to_owned());
                goes_on = true;
            } else if goes_on
                && line.starts_with(|c: char| c.is_ascii_lowercase() || c == '-')
                && !line.starts_with("---")
            {
                let last = found.last_mut().expect("it goes on");
                last.push(' ');
                last.push_str(line);
            } else {
                goes_on = false;
            }
        } else if let Some(cell) = line.strip_prefix("| ") {
            let cell = cell.split(" | ").next().unwrap_or_default();
            let fence = if cell.starts_with("``") { "``" } else { "`" };
            found.extend(cell.split(fence).skip(1).step_by(2).map(|code| code.trim().to_owned()));
        }
    }
    found
}

#[test]
fn each_message_that_the_page_quotes_is_one_of_kilns() {
    let mut text = String::new();
    for dir in ["crates", "runtime"] {
        sources(&root().join(dir), &mut text);
    }
    let source = words(&text);
    let two: HashSet<&[String]> = source.windows(2).collect();
    let three: HashSet<&[String]> = source.windows(3).collect();
    let page = fs::read_to_string(root().join("docs/messages.md")).expect("the page is there");
    let messages = messages(&page);
    assert!(messages.len() > 70, "only {} messages: has the page another form?", messages.len());
    let mut unknown = Vec::new();
    for message in &messages {
        // A step's title is the Dockerfile's.
        let own = match message.strip_prefix('[').and_then(|title| title.split_once(": ")) {
            Some((_, own)) => own,
            None => message,
        };
        let own = OTHERS.iter().fold(own.to_owned(), |own, other| own.replace(other, ""));
        let words = words(&own);
        let plain: Vec<bool> = words.iter().map(|word| is_plain(word)).collect();
        let mut known = vec![false; words.len()];
        for at in 0..words.len() {
            if words.get(at..at + 3).is_some_and(|run| three.contains(run)) {
                known[at..at + 3].fill(true);
            }
            if words.get(at..at + 2).is_some_and(|run| plain[at] && plain[at + 1] && two.contains(run)) {
                known[at..at + 2].fill(true);
            }
        }
        let all = plain.iter().filter(|plain| **plain).count();
        let found = plain.iter().zip(&known).filter(|(plain, known)| **plain && **known).count();
        if all >= 3 && found * 100 < all * SHARE {
            unknown.push(message);
        }
    }
    assert!(unknown.is_empty(), "the source does not say so (any more): {unknown:#?}");
}
