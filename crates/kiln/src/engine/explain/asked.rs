//! What the comparison of one step asks of the build: names, and which files differ.

use std::cell::RefCell;
use std::collections::HashMap;

use kiln_core::{Digest, MOST_PATHS, PathChange, PathPart, StepId};
use kiln_solver::SourceUse;
use kiln_store::NoteKind;
use kiln_store::tree::{Changed, Facts, Kind};

use super::compare::{Ask, FilesChange};
use super::{FactsOf, Why};

/// Answers what the comparison of one step asks.
pub(super) struct Asked<'w, 'a> {
    why: &'w Why<'a>,
    id: StepId,
    facts: &'w dyn FactsOf,
    /// The source of shared results that the other run is of.
    elsewhere: Option<usize>,
    /// The files that the step takes now, by digest.
    read: RefCell<HashMap<Digest, Option<Facts>>>,
}

impl Ask for Asked<'_, '_> {
    fn is_argument(&self, name: &str) -> bool {
        self.why.dockerfile().is_argument(name)
    }

    fn is_first(&self, line: usize, name: &str) -> bool {
        self.why.fixed().first.get(name) == Some(&line)
    }

    fn files(&self, now: &Digest, was: &Digest) -> Option<FilesChange> {
        let known = self.why.of.store.get_note(NoteKind::Files, &was.hex()).ok().flatten();
        let known = known.and_then(|known| Facts::from_bytes(&known));
        let there = || self.facts.files_elsewhere(self.elsewhere?, was);
        let was = known.or_else(there)?;
        let mut read = self.read.borrow_mut();
        let now = read.entry(*now).or_insert_with(|| self.taken(now));
        let mut found = FilesChange { paths: Vec::new(), count: 0, modes_only: true };
        for change in was.changes(now.as_ref()?) {
            found.count += 1;
            found.modes_only &= change.what.is_mode_only() && git_keeps_neither(&change.what);
            if found.paths.len() < MOST_PATHS {
                found.paths.push(path_change(&change.path, &change.what));
            }
        }
        (found.count > 0).then_some(found)
    }
}

impl<'w, 'a> Asked<'w, 'a> {
    pub(super) fn new(
        why: &'w Why<'a>,
        id: StepId,
        facts: &'w dyn FactsOf,
        elsewhere: Option<usize>,
    ) -> Self {
        Self { why, id, facts, elsewhere, read: RefCell::default() }
    }

    /// The files that have this digest: a source of the step.
    fn taken(&self, digest: &Digest) -> Option<Facts> {
        let step = self.why.of.graph.get(self.id)?;
        let usage = SourceUse::of(&step.op);
        for (source, selection) in step.op.sources() {
            let known = self.why.state().contents.get(&(source, selection.clone(), usage)).copied();
            if let Some((found, rule)) = known
                && found == *digest
            {
                return self.facts.facts(source, &selection, rule);
            }
        }
        None
    }
}

/// Whether both permissions are one to git, which keeps whether the owner may execute a file.
fn git_keeps_neither(what: &Changed) -> bool {
    matches!(what, Changed::Parts { mode: Some((from, to)), .. } if (from ^ to) & 0o100 == 0)
}

fn path_change(path: &std::path::Path, what: &Changed) -> PathChange {
    let path = path.to_string_lossy().into_owned();
    let kind = |kind: &Kind| kind_words(*kind).to_owned();
    let what = match what {
        Changed::Added => vec![PathPart::Added],
        Changed::Removed => vec![PathPart::Removed],
        Changed::Kind { was, is } => vec![PathPart::Type { from: kind(was), to: kind(is) }],
        Changed::Parts { mode, owner, attributes, content } => {
            let content = content.then_some(PathPart::Content);
            let mode = mode.map(|(from, to)| PathPart::Mode { from, to });
            let owner = owner.map(|(from, to)| PathPart::Owner { from, to });
            let attributes = attributes.then_some(PathPart::Attributes);
            content.into_iter().chain(mode).chain(owner).chain(attributes).collect()
        }
    };
    PathChange { path, what }
}

fn kind_words(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "file",
        Kind::Dir => "directory",
        Kind::Symlink => "symbolic link",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::CharDevice | Kind::BlockDevice => "device",
    }
}
