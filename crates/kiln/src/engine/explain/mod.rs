//! Why steps ran: what each build did is noted, and a step that has no result is held against the nearest earlier run of its
//! line. docs/cache-keys.md has it from a user's side, docs/decisions/0027 how it is kept.

mod advice;
mod asked;
mod compare;
mod find;
mod keep;
mod line;
mod pair;
mod past;
mod reason;
mod shared;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use kiln_core::{Advice, Digest, KeyChange, Op, Reason, Selection, StepGraph, StepId, StepWhy};
use kiln_solver::{Finished, SourceUse, Verdict};
use kiln_store::Store;
use kiln_store::tree::{DigestRule, Facts};

use super::definition::Definition;
use super::redact::Redactor;
use advice::Dockerfile;
pub use find::{BuildNote, BuildVerdict};
use line::{Found, Line, Secrets};
pub(crate) use past::Group;
use past::Past;
pub(crate) use shared::{BuildElsewhere, SharedLine, StepElsewhere, shared_lines};

/// Which build it is that is explained.
pub(crate) struct Subject<'a> {
    pub(crate) store: &'a Store,
    pub(crate) graph: &'a StepGraph,
    pub(crate) definition: &'a Definition,
    pub(crate) redactor: Redactor,
    pub(crate) group: Group,
    /// When it began, seconds since 1970.
    pub(crate) now: u64,
    /// Nothing is noted of builds that keep no results.
    pub(crate) is_on: bool,
}

/// What one build knows of its keys, and of earlier builds.
pub(crate) struct Why<'a> {
    of: Subject<'a>,
    state: Mutex<State>,
    fixed: OnceLock<Fixed>,
    past: OnceLock<Past>,
    elsewhere: OnceLock<Vec<BuildElsewhere>>,
    dockerfile: OnceLock<Dockerfile>,
}

/// What is known of the plan from the start.
struct Fixed {
    lines: Vec<Line>,
    position: HashMap<StepId, usize>,
    /// The first line that sees a variable.
    first: HashMap<String, usize>,
    /// The lines as they are held against another machine's: without values of variables.
    hidden: Vec<Line>,
}

#[derive(Default)]
struct State {
    keys: HashMap<StepId, Digest>,
    contents: HashMap<(StepId, Selection, SourceUse), (Digest, DigestRule)>,
    /// Steps that have a record over other results below.
    outdated: HashSet<StepId>,
    /// In the order in which they began.
    started: Vec<StepId>,
    ended: HashSet<StepId>,
    told: HashMap<StepId, StepWhy>,
    not_fetched: HashMap<Digest, Reason>,
}

/// Finds the files of a source again that a digest was made of.
pub(crate) trait FactsOf {
    /// Returns them; none if they cannot be had any more.
    fn facts(&self, source: StepId, selection: &Selection, rule: DigestRule) -> Option<Facts>;
    /// Returns the step's number in events.
    fn number(&self, id: StepId) -> Option<u32>;
    /// Returns the builds that wrote last to the sources of shared results, as far as that is known without asking.
    fn elsewhere(&self) -> Vec<BuildElsewhere>;
    /// Returns the files that a build elsewhere took, by their content digest. Asks, if it may.
    fn files_elsewhere(&self, source: usize, content: &Digest) -> Option<Facts>;
}

impl<'a> Why<'a> {
    pub(crate) fn new(of: Subject<'a>) -> Self {
        let (state, fixed, past, elsewhere, dockerfile) = Default::default();
        Self { of, state, fixed, past, elsewhere, dockerfile }
    }

    /// Takes the digest of what a step takes.
    pub(crate) fn content(
        &self,
        source: StepId,
        selection: &Selection,
        usage: SourceUse,
        digest: Digest,
        rule: DigestRule,
    ) {
        self.state().contents.insert((source, selection.clone(), usage), (digest, rule));
    }

    /// A step has no record that counts.
    pub(crate) fn missed(&self, id: StepId, key: Digest, outdated: bool) {
        let mut state = self.state();
        state.keys.insert(id, key);
        if outdated {
            state.outdated.insert(id);
        }
    }

    /// A step began.
    pub(crate) fn started(&self, id: StepId) {
        self.state().started.push(id);
    }

    /// A step has its result.
    pub(crate) fn settled(&self, id: StepId, finished: &Finished) {
        let mut state = self.state();
        state.keys.insert(id, finished.key);
        state.ended.insert(id);
        if finished.verdict == Verdict::Hit {
            // Another process did it when its turn came.
            state.started.retain(|started| *started != id);
        }
    }

    /// A remote cache has a key's result, and there is a reason not to take it from there.
    pub(crate) fn not_fetched(&self, key: Digest, reason: Reason) {
        self.state().not_fetched.insert(key, reason);
    }

    /// Whether a step runs because that takes less time than to fetch its result.
    pub(crate) fn is_choice(&self, id: StepId) -> bool {
        let state = self.state();
        let reason = state.keys.get(&id).and_then(|key| state.not_fetched.get(key));
        matches!(reason, Some(Reason::NotFetched { .. }))
    }

    /// Says why a step runs; none for what is no step of its own, such as an image.
    pub(crate) fn explain(&self, id: StepId, facts: &dyn FactsOf) -> Option<StepWhy> {
        if let Some(told) = self.state().told.get(&id) {
            return Some(told.clone());
        }
        let step = self.of.graph.get(id).filter(|_| self.of.is_on)?;
        if step.op.is_source() || matches!(step.op, Op::Image(_)) {
            return None;
        }
        let (reason, compared) = self.reason(id, step.info.no_cache, facts)?;
        let why = StepWhy {
            step: facts.number(id)?,
            title: step.info.title.clone(),
            lines: step.info.lines,
            advice: match &reason {
                Reason::Changed { changes } => self.advice(id, changes),
                _ => Vec::new(),
            },
            reason,
            compared,
        };
        self.state().told.insert(id, why.clone());
        Some(why)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An image's key is its digest, whether anything asked for it or not.
    fn key(&self, state: &State, id: StepId) -> Option<Digest> {
        match self.of.graph.get(id).map(|step| &step.op) {
            Some(Op::Image(image)) => Some(image.manifest),
            _ => state.keys.get(&id).copied(),
        }
    }

    fn found(&self, state: &State, id: StepId) -> Found {
        let step = self.of.graph.get(id);
        let content = |(source, selection): (StepId, Selection), usage| {
            state.contents.get(&(source, selection, usage)).map(|(digest, _)| *digest)
        };
        let contents = step.map(|step| {
            let usage = SourceUse::of(&step.op);
            step.op.sources().into_iter().map(|source| content(source, usage)).collect()
        });
        Found {
            key: self.key(state, id),
            contents: contents.unwrap_or_default(),
            ended: state.ended.contains(&id),
        }
    }

    fn fixed(&self) -> &Fixed {
        self.fixed.get_or_init(|| {
            let secrets = Secrets { redactor: &self.of.redactor };
            let (lines, position) = line::lines(self.of.graph, &self.of.definition.text, &secrets);
            let mut first = HashMap::new();
            let mut before = kiln_core::Env::new();
            for (number, line) in lines.iter().enumerate().filter(|(_, line)| !line.env.is_empty()) {
                for place in line.env.places_that_differ(&before) {
                    if let Some((name, _)) = line.env.at(place) {
                        first.entry(name.clone()).or_insert(number);
                    }
                }
                before = line.env.clone();
            }
            let hidden = shared::hide(self.of.graph, &lines);
            Fixed { lines, position, first, hidden }
        })
    }

    fn id_at(&self, position: usize) -> Option<StepId> {
        self.of.graph.iter().filter(|(_, step)| !step.op.is_source()).nth(position).map(|(id, _)| id)
    }

    fn past(&self) -> &Past {
        self.past.get_or_init(|| Past::load(self.of.store, &self.of.group, &self.fixed().lines))
    }

    fn dockerfile(&self) -> &Dockerfile {
        self.dockerfile.get_or_init(|| Dockerfile::of(self.of.definition))
    }

    fn advice(&self, id: StepId, changes: &[KeyChange]) -> Vec<Advice> {
        let Some(step) = self.of.graph.get(id) else { return Vec::new() };
        advice::advice(changes, &step.info, self.dockerfile())
    }
}
