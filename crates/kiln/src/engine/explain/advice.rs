//! What would keep a step from running the next time.

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::{Advice, KeyChange, StepInfo};
use kiln_dockerfile::Instruction;

use super::line::image_name;
use crate::engine::definition::Definition;

/// What a Dockerfile says of its arguments.
#[derive(Default)]
pub(super) struct Dockerfile {
    arguments: BTreeSet<String>,
    stages: BTreeMap<String, Vec<Written>>,
}

/// One instruction.
struct Written {
    line: usize,
    text: String,
    /// Arguments that it declares.
    declares: Vec<String>,
    /// Whether it makes a step.
    runs: bool,
}

impl Dockerfile {
    /// Reads it once more: only where a variable differs.
    pub(super) fn of(definition: &Definition) -> Self {
        let Ok((file, _)) = definition.parse() else { return Self::default() };
        let lines: Vec<&str> = definition.text.lines().collect();
        let mut known = Self::default();
        for declared in &file.global_args {
            known.arguments.extend(declared.value.iter().map(|arg| arg.name.value.clone()));
        }
        for (number, stage) in file.stages.iter().enumerate() {
            let name =
                stage.from.value.name.as_ref().map_or_else(|| number.to_string(), |name| name.value.clone());
            let written = stage.instructions.iter().map(|instruction| {
                let declares = match &instruction.value {
                    Instruction::Arg(args) => args.iter().map(|arg| arg.name.value.clone()).collect(),
                    _ => Vec::new(),
                };
                let (first, last) = instruction.lines;
                let text = lines.get(first.saturating_sub(1)..last.min(lines.len())).unwrap_or_default();
                Written {
                    line: first,
                    text: text.join("\n"),
                    declares,
                    runs: matches!(instruction.value, Instruction::Run(_)),
                }
            });
            let written: Vec<Written> = written.collect();
            known.arguments.extend(written.iter().flat_map(|one| one.declares.iter().cloned()));
            known.stages.insert(name.to_lowercase(), written);
        }
        known
    }

    pub(super) fn is_argument(&self, name: &str) -> bool {
        self.arguments.contains(name)
    }

    /// Returns where a stage declares an argument, and the first line after that which mentions it, if that is behind the RUN
    /// at `line`, which does not.
    fn early(&self, stage: &str, name: &str, line: usize) -> Option<(usize, Option<usize>)> {
        let written = self.stages.get(&stage.to_lowercase())?;
        let at = written.iter().position(|one| one.declares.iter().any(|declared| declared == name))?;
        let used = written[at + 1..].iter().find(|one| mentions(&one.text, name)).map(|one| one.line);
        let is_run = written.iter().any(|one| one.line == line && one.runs);
        (is_run && used.is_none_or(|used| used > line)).then_some((written[at].line, used))
    }
}

/// Whether a text has a name as a whole word.
fn mentions(text: &str, name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(name)
        .any(|(at, _)| !text[..at].ends_with(is_word) && !text[at + name.len()..].starts_with(is_word))
}

/// Returns what to say about a step that ran because of these changes.
pub(super) fn advice(changes: &[KeyChange], info: &StepInfo, file: &Dockerfile) -> Vec<Advice> {
    let mut advice = Vec::new();
    let modes = |change: &KeyChange| matches!(change, KeyChange::Files { modes_only: true, of: None, .. });
    if !changes.is_empty() && changes.iter().all(modes) {
        advice.push(Advice::ContextModes);
    }
    let ignorable: Option<Vec<Vec<String>>> = changes.iter().map(ignorable).collect();
    let patterns: BTreeSet<String> = ignorable.unwrap_or_default().into_iter().flatten().collect();
    if !patterns.is_empty() {
        advice.push(Advice::Ignore { patterns: patterns.into_iter().collect() });
    }
    for change in changes {
        match change {
            KeyChange::Argument { name, .. } => {
                let line = info.lines.map_or(0, |(first, _)| first);
                if let Some((line, used)) = file.early(&info.stage, name, line) {
                    advice.push(Advice::MoveArgument { name: name.clone(), line, used });
                }
            }
            KeyChange::Base { was, is, from: Some(_), to: Some(to) } if was == is => {
                advice.push(Advice::PinBase { image: format!("{}@{to}", image_name(is)) });
            }
            _ => {}
        }
    }
    advice
}

/// Returns what to leave out of the context so that a change does not count; none if it may well be meant, or is not known in
/// full.
fn ignorable(change: &KeyChange) -> Option<Vec<String>> {
    let KeyChange::Files { of: None, paths, count, .. } = change else { return None };
    if paths.is_empty() || *count > paths.len() {
        return None;
    }
    paths.iter().map(|path| pattern(&path.path)).collect()
}

/// Returns the line for `.dockerignore` that leaves out what tools leave behind and builds hardly mean.
fn pattern(path: &str) -> Option<String> {
    const DIRECTORIES: [&str; 11] = [
        ".git",
        ".hg",
        ".svn",
        ".idea",
        ".vscode",
        "__pycache__",
        ".pytest_cache",
        ".mypy_cache",
        ".ruff_cache",
        ".tox",
        "node_modules",
    ];
    const FILES: [&str; 5] = ["Dockerfile", "Containerfile", ".dockerignore", ".gitignore", ".DS_Store"];
    const ENDINGS: [&str; 6] = [".swp", ".swo", ".pyc", ".orig", ".rej", "~"];
    let (dirs, name) = path.rsplit_once('/').unwrap_or(("", path));
    if let Some(dir) = dirs.split('/').chain([name]).find(|dir| DIRECTORIES.contains(dir)) {
        return Some(if dirs.split('/').next() == Some(dir) || path == dir {
            dir.to_owned()
        } else {
            format!("**/{dir}")
        });
    }
    if FILES.contains(&name) {
        return Some(if dirs.is_empty() { name.to_owned() } else { format!("**/{name}") });
    }
    ENDINGS.iter().find(|ending| name.ends_with(*ending)).map(|ending| format!("**/*{ending}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_builds_hardly_mean_has_a_pattern() {
        let rows = [
            (".git/index", Some(".git")),
            (".git", Some(".git")),
            ("src/__pycache__/a.pyc", Some("**/__pycache__")),
            ("src/.a.py.swp", Some("**/*.swp")),
            ("a.py~", Some("**/*~")),
            ("Dockerfile", Some("Dockerfile")),
            ("sub/.DS_Store", Some("**/.DS_Store")),
            ("src/a.py", None),
            ("git", None),
            ("README.md", None),
        ];
        for (path, expected) in rows {
            assert_eq!(pattern(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_name_counts_as_a_whole_word() {
        let rows = [
            ("RUN echo $VERSION", true),
            ("RUN echo ${VERSION}x", true),
            ("RUN echo $VERSIONS", false),
            ("RUN echo MY_VERSION", false),
            ("RUN true", false),
        ];
        for (text, expected) in rows {
            assert_eq!(mentions(text, "VERSION"), expected, "{text}");
        }
    }
}
