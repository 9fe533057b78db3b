//! Builds that are noted, and those of them that say something about this one.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_core::Digest;
use kiln_store::{NoteKind, Store};

use super::find::BuildNote;
use super::line::{Line, Lines};
use super::pair::pair;
use crate::Error;
use crate::engine::definition::{Definition, Place};
use crate::request::ContextSource;

/// Earlier builds whose lines differ that a build is compared with.
const MOST: usize = 16;

/// What is built again and again: a Dockerfile with its context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// Where both are.
    place: String,
    /// What the Dockerfile says: a checkout elsewhere has it too.
    text: String,
    /// As messages call it.
    pub(crate) context: String,
}

/// A build that is noted.
pub(crate) struct PastBuild {
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) time: u64,
    pub(crate) lines: Lines,
    /// Which of its lines each line of this build is.
    pub(crate) pairs: Vec<Option<usize>>,
}

/// The builds that this one is compared with, the last first.
#[derive(Default)]
pub(crate) struct Past {
    builds: Vec<PastBuild>,
}

impl Group {
    pub(crate) fn of(definition: &Definition, context: &ContextSource, root: &std::path::Path) -> Self {
        let file = match &definition.place {
            Place::Nowhere => String::new(),
            Place::Here(path) => {
                std::fs::canonicalize(path).unwrap_or_else(|_| path.clone()).display().to_string()
            }
            Place::Inside(path) => path.display().to_string(),
        };
        let (place, shown) = match context {
            // Symbolic links are resolved: it is one directory.
            ContextSource::Directory(_) => (root.display().to_string(), root.display().to_string()),
            other => (other.to_string(), other.to_string()),
        };
        let short = |text: &str| Digest::of(text.as_bytes()).hex()[..12].to_owned();
        Self { place: short(&format!("{file}\0{place}")), text: short(&definition.text), context: shown }
    }
}

/// The parts of a build note's name: time, id, place, text, lines.
pub(super) fn parts(name: &str) -> Option<[&str; 5]> {
    let mut words = name.split('-');
    let parts = [words.next()?, words.next()?, words.next()?, words.next()?, words.next()?];
    words.next().is_none().then_some(parts)
}

/// Notes a build.
pub(super) fn keep(store: &Store, group: &Group, lines: &str, note: BuildNote) -> Result<(), Error> {
    // In the name, so that builds sort by it; of two of one millisecond the ids differ.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let unique = format!("{} {} {lines} {}", now.as_nanos(), std::process::id(), group.place);
    let id = Digest::of(unique.as_bytes()).hex()[..8].to_owned();
    let Group { place, text, .. } = group;
    let name = format!("{:013}-{id}-{place}-{text}-{lines}", now.as_millis());
    let bytes = serde_json::to_vec(&BuildNote { id, ..note }).unwrap_or_default();
    Ok(store.put_note(NoteKind::Build, &name, &bytes)?)
}

impl Past {
    /// Reads what is known of earlier builds of the same. What cannot be read is not known.
    pub(crate) fn load(store: &Store, group: &Group, lines: &[Line]) -> Self {
        let names = store.notes(NoteKind::Build).unwrap_or_default();
        let all: Vec<[&str; 5]> = names.iter().rev().filter_map(|name| parts(name)).collect();
        // The same place; for a checkout that is new, the same Dockerfile elsewhere.
        let here: Vec<_> = all.iter().filter(|[_, _, place, ..]| *place == group.place).collect();
        let chosen = match here.is_empty() {
            true => all.iter().filter(|[_, _, _, text, _]| *text == group.text).collect(),
            false => here,
        };
        let mut seen = HashSet::new();
        let mut builds = Vec::new();
        for [time, id, _, _, name] in chosen {
            if builds.len() == MOST || !seen.insert(*name) {
                continue;
            }
            let bytes = store.get_note(NoteKind::Lines, name).ok().flatten();
            let Some(found) = bytes.and_then(|bytes| Lines::from_bytes(&bytes)) else { continue };
            let pairs = pair(lines, &found.fixed);
            let time = time.parse::<u64>().unwrap_or(0) / 1000;
            builds.push(PastBuild { id: (*id).to_owned(), time, lines: found, pairs });
        }
        Self { builds }
    }

    /// Returns the runs of a line, the last first; of one key the last, and one that came to its end rather.
    pub(crate) fn runs(&self, at: usize) -> Vec<(&PastBuild, usize)> {
        let run = |build: &'_ PastBuild| {
            let then = build.pairs.get(at).copied().flatten()?;
            build.lines.found[then].key.map(|key| (then, key, build.lines.found[then].ended))
        };
        let mut seen = HashSet::new();
        let mut runs = Vec::new();
        for build in &self.builds {
            if let Some((then, key, ended)) = run(build)
                && seen.insert((key, ended))
            {
                runs.push((build, then));
            }
        }
        runs
    }
}
