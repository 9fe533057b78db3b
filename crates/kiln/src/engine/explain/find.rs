//! Builds that are noted, for who asks later.

use kiln_core::StepWhy;
use kiln_store::{NoteKind, Store};
use serde::{Deserialize, Serialize};

use super::past::parts;
use crate::Error;
use crate::engine::Engine;
use crate::error::LookError;

/// Shorter beginnings of ids are rather numbers of steps.
const SHORTEST: usize = 4;

/// One build, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildNote {
    /// Names it for [`Engine::build_note`].
    pub id: String,
    /// When it began, seconds since 1970.
    pub time: u64,
    /// The Dockerfile's name.
    pub file: String,
    /// Its build context.
    pub context: String,
    /// How it ended.
    pub verdict: BuildVerdict,
    /// Wall time until its steps were done, milliseconds.
    pub duration_ms: u64,
    /// Steps whose results were there.
    pub hits: usize,
    /// The steps that ran, and why, in the order in which they began.
    pub steps: Vec<StepWhy>,
}

/// How a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildVerdict {
    /// All steps are done.
    Done,
    /// One failed.
    Failed,
    /// It was interrupted.
    Cancelled,
}

impl Engine {
    /// Lists the builds that are remembered, the last first: some hundred.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn build_notes(&self) -> Result<Vec<BuildNote>, Error> {
        let names = self.store.notes(NoteKind::Build)?;
        names.iter().rev().filter_map(|name| read(&self.store, name).transpose()).collect()
    }

    /// Finds one: `last`, an id, or the beginning of one that no other has.
    ///
    /// # Errors
    /// [`LookError`], if there is none.
    pub fn build_note(&self, which: &str) -> Result<BuildNote, Error> {
        let names = self.store.notes(NoteKind::Build)?;
        let named = |name: &&String| {
            let id = parts(name).map_or("", |[_, id, ..]| id);
            which == "last" || id == which || which.len() >= SHORTEST && id.starts_with(which)
        };
        let found: Vec<&String> = names.iter().rev().filter(named).collect();
        let build = || which.to_owned();
        match &found[..] {
            [] if which == "last" => return Err(LookError::NoBuilds.into()),
            [] => return Err(LookError::NoSuchBuild { build: build() }.into()),
            [_, _, ..] if which != "last" => {
                let ids = found.iter().filter_map(|name| parts(name)).map(|[_, id, ..]| id.to_owned());
                return Err(LookError::SeveralBuilds { build: build(), ids: ids.collect() }.into());
            }
            _ => {}
        }
        read(&self.store, found[0])?.ok_or_else(|| LookError::NoSuchBuild { build: build() }.into())
    }
}

impl BuildNote {
    /// Finds a step that ran: `2`, `2/5` or `build 2/5`, as its title says, `:12` or `Dockerfile:12`, a line of it, or words of
    /// its title.
    ///
    /// # Errors
    /// [`LookError`], if none did, or several are meant.
    pub fn step(&self, which: &str) -> Result<&StepWhy, Error> {
        let at = |step: &&StepWhy| crate::engine::debug::is_place(which, &self.file, &step.title, step.lines);
        let mut found: Vec<&StepWhy> = self.steps.iter().filter(at).collect();
        if found.is_empty() {
            found = self.steps.iter().filter(|step| step.title.contains(which)).collect();
        }
        let step = || which.to_owned();
        match &found[..] {
            [] => Err(LookError::DidNotRun { step: step() }.into()),
            [one] => Ok(one),
            several => {
                let titles = several.iter().map(|step| step.title.clone()).collect();
                Err(LookError::Several { step: step(), titles }.into())
            }
        }
    }
}

/// Damaged ones are none.
fn read(store: &Store, name: &str) -> Result<Option<BuildNote>, Error> {
    let bytes = store.get_note(NoteKind::Build, name)?;
    Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}
