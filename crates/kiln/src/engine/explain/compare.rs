//! What differs between two runs of one line.

use std::collections::HashMap;

use kiln_core::{Digest, Env, KeyChange};
use kiln_solver::KeyPart;

use super::line::{Found, Line, Lines, image_name, shown};

/// A line of a build with what it came to.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) lines: &'a [Line],
    pub(crate) at: usize,
    pub(crate) found: &'a Found,
    /// The key of the step that it stands on, and of the layers that go over that.
    pub(crate) below: (Option<Digest>, Option<Digest>),
}

impl<'a> Run<'a> {
    /// The line at a position of a build that is over.
    pub(crate) fn of(lines: &'a Lines, at: usize) -> Self {
        let key = |below: Option<usize>| below.and_then(|below| lines.found[below].key);
        let line = &lines.fixed[at];
        Self { lines: &lines.fixed, at, found: &lines.found[at], below: (key(line.root), key(line.layers)) }
    }

    fn line(&self) -> &'a Line {
        &self.lines[self.at]
    }
}

/// What is asked of who compares.
pub(crate) trait Ask {
    /// Whether the Dockerfile declares an argument of this name.
    fn is_argument(&self, name: &str) -> bool;
    /// Whether no line before this one sees the variable.
    fn is_first(&self, line: usize, name: &str) -> bool;
    /// Which files of a source are not what they were.
    fn files(&self, now: &Digest, was: &Digest) -> Option<FilesChange>;
}

/// How the files of a source differ.
pub(crate) struct FilesChange {
    pub(crate) paths: Vec<kiln_core::PathChange>,
    pub(crate) count: usize,
    pub(crate) modes_only: bool,
}

/// Counts what differs, to find out which of several runs is nearest: parts of the instruction and of the environment, sources,
/// and what is below. Costs little.
pub(crate) fn distance(now: &Run<'_>, was: &Run<'_>) -> usize {
    let (line, old) = (now.line(), was.line());
    let parts = instruction(&line.parts, &old.parts).len() + environment(&line.env, &old.env).len();
    let pairs = now.found.contents.iter().zip(&was.found.contents);
    let sources = pairs.filter(|(now, was)| now != was).count();
    let below = usize::from(now.below.0 != was.below.0) + usize::from(now.below.1 != was.below.1);
    // Another source alone says less than another command.
    4 * parts + 2 * sources + below
}

/// Returns what differs; not empty if the keys differ. `pairs` says which line of the earlier build each of this one is.
pub(crate) fn changes(
    now: &Run<'_>,
    was: &Run<'_>,
    pairs: &[Option<usize>],
    ask: &dyn Ask,
) -> Vec<KeyChange> {
    let (line, old) = (now.line(), was.line());
    let mut changes = Vec::new();
    let (mut others, mut unknown) = below(now, was);
    changes.extend(others.extract_if(.., |change| matches!(change, KeyChange::Base { .. })));
    changes.extend(variables(now, was, pairs, !others.is_empty() || !changes.is_empty(), ask));
    changes.extend(instruction(&line.parts, &old.parts));
    let sources = line.sources.iter().zip(&old.sources);
    let contents = now.found.contents.iter().zip(&was.found.contents);
    for ((source, old), contents) in sources.zip(contents) {
        if source.shown != old.shown || source.of != old.of {
            let words = |source: &super::line::LineSource| match &source.of {
                Some(of) => format!("{} of {of}", source.shown),
                None => source.shown.clone(),
            };
            changes.push(KeyChange::Instruction {
                what: "source".to_owned(),
                from: Some(words(old)),
                to: Some(words(source)),
            });
            continue;
        }
        let (Some(is), Some(was)) = contents else {
            unknown |= contents.0 != contents.1;
            continue;
        };
        if is == was {
            continue;
        }
        let files = ask.files(is, was);
        let (source, of) = (source.shown.clone(), source.of.clone());
        changes.push(match files {
            Some(FilesChange { paths, count, modes_only }) => {
                KeyChange::Files { source, of, paths, count, modes_only }
            }
            None => KeyChange::Files { source, of, paths: Vec::new(), count: 0, modes_only: false },
        });
    }
    changes.append(&mut others);
    if changes.is_empty() && unknown {
        let source = line.sources.first().map_or_else(|| "files".to_owned(), |source| source.shown.clone());
        let of = line.sources.first().and_then(|source| source.of.clone());
        changes.push(KeyChange::Files { source, of, paths: Vec::new(), count: 0, modes_only: false });
    }
    changes
}

/// What differs in the steps below. And whether something may that is not known.
fn below(now: &Run<'_>, was: &Run<'_>) -> (Vec<KeyChange>, bool) {
    let mut changes = Vec::new();
    let mut unknown = false;
    let (line, old) = (now.line(), was.line());
    let rows = [
        (line.root, old.root, now.below.0, was.below.0),
        (line.layers, old.layers, now.below.1, was.below.1),
    ];
    for (is, before, key, old_key) in rows {
        // A step that has a key stands on one that has.
        unknown |= is.is_some() != key.is_some() || before.is_some() != old_key.is_some();
        if key == old_key {
            continue;
        }
        let image = |lines: &[Line], at: Option<usize>, key: Option<Digest>| match at.map(|at| &lines[at]) {
            None => Some(("scratch".to_owned(), None)),
            Some(line) if line.kind == "image" => {
                Some((image_name(&line.title).to_owned(), key.map(|key| key.to_string())))
            }
            Some(_) => None,
        };
        changes.push(match (image(was.lines, before, old_key), image(now.lines, is, key), is) {
            (Some((was, from)), Some((is, to)), _) => KeyChange::Base { was, is, from, to },
            (_, _, Some(is)) => KeyChange::Below { title: now.lines[is].title.clone() },
            (_, _, None) => KeyChange::Below { title: "FROM scratch".to_owned() },
        });
    }
    (changes, unknown)
}

/// Variables that differ: those that a line below saw differ as well are told there, if there is anything else to tell here.
fn variables(
    now: &Run<'_>,
    was: &Run<'_>,
    pairs: &[Option<usize>],
    told_below: bool,
    ask: &dyn Ask,
) -> Vec<KeyChange> {
    let mut differ = environment(&now.line().env, &was.line().env);
    if differ.is_empty() {
        return match now.line().env == was.line().env {
            true => Vec::new(),
            false => vec![KeyChange::VariableOrder],
        };
    }
    if told_below {
        let mut at = now.line().root;
        while let Some(below) = at {
            let line = &now.lines[below];
            if let (false, Some(old)) = (line.env.is_empty(), pairs[below].map(|old| &was.lines[old])) {
                let told = environment(&line.env, &old.env);
                differ.retain(|one| !told.contains(one));
                break;
            }
            at = line.root;
        }
    }
    let change = |(name, from, to): Difference| {
        let (from, to) = (from.map(|from| shown(&from)), to.map(|to| shown(&to)));
        match ask.is_argument(&name) {
            true => KeyChange::Argument { first: ask.is_first(now.at, &name), name, from, to },
            false => KeyChange::Variable { name, from, to },
        }
    };
    differ.into_iter().map(change).collect()
}

/// A name with its value before and now.
type Difference = (String, Option<String>, Option<String>);

fn environment(now: &Env, was: &Env) -> Vec<Difference> {
    if now == was {
        return Vec::new();
    }
    let before: HashMap<&str, &str> =
        was.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let names: HashMap<&str, &str> =
        now.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let owned = |value: Option<&&str>| value.map(|value| (*value).to_owned());
    let set = now.iter().filter(|(name, value)| before.get(name.as_str()) != Some(&value.as_str()));
    let set = set.map(|(name, value)| (name.clone(), owned(before.get(name.as_str())), Some(value.clone())));
    let gone = was.iter().filter(|(name, _)| !names.contains_key(name.as_str()));
    let gone = gone.map(|(name, value)| (name.clone(), Some(value.clone()), None));
    set.chain(gone).collect()
}

/// What the instruction itself says otherwise.
fn instruction(now: &[KeyPart], was: &[KeyPart]) -> Vec<KeyChange> {
    let mut changes = Vec::new();
    let args = |parts: &[KeyPart]| {
        let args = parts.iter().filter(|part| part.name.starts_with("arg "));
        args.map(|part| part.value.clone()).collect::<Vec<_>>()
    };
    let (command, old) = (args(now), args(was));
    if command != old {
        // Of a shell's command only what the shell is given, if the shell is the same.
        let last = |args: &[String]| args.split_last().map(|(last, rest)| (last.clone(), rest.to_vec()));
        let (from, to) = match (last(&old), last(&command)) {
            (Some((from, shell)), Some((to, other))) if shell == other => (from, to),
            _ => (old.join(" "), command.join(" ")),
        };
        changes.push(KeyChange::Instruction { what: "command".to_owned(), from: Some(from), to: Some(to) });
    }
    let other = |parts: &[KeyPart]| {
        let parts = parts.iter().filter(|part| !part.name.starts_with("arg "));
        parts.map(|part| (part.name.clone(), part.value.clone())).collect::<Vec<_>>()
    };
    let (now, was) = (other(now), other(was));
    let old: HashMap<&str, &str> = was.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let is: HashMap<&str, &str> = now.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let gone = was.iter().filter(|(name, _)| !is.contains_key(name.as_str()));
    for (name, _) in now.iter().chain(gone) {
        let value = |values: &HashMap<&str, &str>| values.get(name.as_str()).map(|value| shown(value));
        let (from, to) = (value(&old), value(&is));
        if from != to {
            changes.push(KeyChange::Instruction { what: words(name), from, to });
        }
    }
    changes
}

/// What a part is called where its short name says little.
fn words(name: &str) -> String {
    match name {
        "cwd" => "directory".to_owned(),
        "dest" => "destination".to_owned(),
        "op" => "kind of step".to_owned(),
        "encoding" => "version of kiln's keys".to_owned(),
        name => match name.strip_prefix("file ") {
            Some(number) => format!("heredoc {number}"),
            None => name.to_owned(),
        },
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
