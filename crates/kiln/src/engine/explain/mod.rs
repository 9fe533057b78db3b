//! Why steps ran: what each build did is noted, and a step that has no result is held against the nearest earlier run of its
//! line. docs/cache-keys.md has it from a user's side, docs/decisions/0027 how it is kept.

mod advice;
mod asked;
mod compare;
mod find;
mod line;
mod pair;
mod past;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use kiln_core::{Advice, Compared, Digest, KeyChange, Op, Reason, Selection, StepGraph, StepId, StepWhy};
use kiln_solver::{Finished, SourceUse, Verdict};
use kiln_store::tree::{DigestRule, Facts};
use kiln_store::{NoteKind, RemovalReason, Store};

use super::definition::Definition;
use super::redact::Redactor;
use crate::Error;
use advice::Dockerfile;
use asked::Asked;
use compare::{Ask as _, Run};
pub use find::{BuildNote, BuildVerdict};
use line::{Found, Line, Secrets};
pub(crate) use past::Group;
use past::{Past, PastBuild};

/// What one build knows of its keys, and of earlier builds.
pub(crate) struct Why<'a> {
    store: &'a Store,
    graph: &'a StepGraph,
    definition: &'a Definition,
    redactor: Redactor,
    group: Group,
    /// Seconds since 1970.
    now: u64,
    /// Nothing is noted of builds that keep no results.
    is_on: bool,
    state: Mutex<State>,
    fixed: OnceLock<Fixed>,
    past: OnceLock<Past>,
    dockerfile: OnceLock<Dockerfile>,
}

/// What is known of the plan from the start.
struct Fixed {
    lines: Vec<Line>,
    position: HashMap<StepId, usize>,
    /// The first line that sees a variable.
    first: HashMap<String, usize>,
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
}

impl<'a> Why<'a> {
    pub(crate) fn new(
        store: &'a Store,
        graph: &'a StepGraph,
        definition: &'a Definition,
        redactor: Redactor,
        group: Group,
        now: u64,
        is_on: bool,
    ) -> Self {
        Self {
            store,
            graph,
            definition,
            redactor,
            group,
            now,
            is_on,
            state: Mutex::default(),
            fixed: OnceLock::new(),
            past: OnceLock::new(),
            dockerfile: OnceLock::new(),
        }
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
        state.keys.get(&id).is_some_and(|key| state.not_fetched.contains_key(key))
    }

    /// Says why a step runs; none for what is no step of its own, such as an image.
    pub(crate) fn explain(&self, id: StepId, facts: &dyn FactsOf) -> Option<StepWhy> {
        if let Some(told) = self.state().told.get(&id) {
            return Some(told.clone());
        }
        let step = self.graph.get(id).filter(|_| self.is_on)?;
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

    fn reason(&self, id: StepId, no_cache: bool, facts: &dyn FactsOf) -> Option<(Reason, Option<Compared>)> {
        if no_cache {
            return Some((Reason::NoCache, None));
        }
        let fixed = self.fixed();
        let at = *fixed.position.get(&id)?;
        let (found, below, outdated, not_fetched) = {
            let state = self.state();
            let found = self.found(&state, id);
            // Without a key it failed before it could run: a file is not there, and the error says so.
            let key = found.key?;
            let below_key = |below: Option<usize>| {
                below.and_then(|below| self.id_at(below)).and_then(|below| self.key(&state, below))
            };
            let line = &fixed.lines[at];
            let below = (below_key(line.root), below_key(line.layers));
            (found, below, state.outdated.contains(&id), state.not_fetched.get(&key).cloned())
        };
        if let Some(reason) = not_fetched {
            return Some((reason, None));
        }
        if outdated {
            let below = fixed.lines[at].root.map(|root| fixed.lines[root].title.clone());
            return Some((Reason::Outdated { below }, None));
        }
        let now = Run { lines: &fixed.lines, at, found: &found, below };
        let past = self.past();
        let runs = past.runs(at);
        let same: Vec<&(&PastBuild, usize)> =
            runs.iter().filter(|(build, at)| build.lines.found[*at].key == found.key).collect();
        let compared = |build: &PastBuild| Compared { build: build.id.clone(), time: build.time };
        if let Some((newest, _)) = same.first() {
            let ended = same.iter().any(|(build, at)| build.lines.found[*at].ended);
            let gone = || self.removed(found.key?);
            let reason = match ended {
                true => gone().unwrap_or(Reason::Removed { ago_s: None, how: None }),
                false => Reason::NotEnded,
            };
            return Some((reason, Some(compared(newest))));
        }
        // Of a build that is not remembered any more, or of another Dockerfile.
        if let Some(reason) = self.removed(found.key?) {
            return Some((reason, None));
        }
        let ask = Asked::new(self, id, facts);
        let Some((build, then)) = self.nearest(&now, &runs, &ask) else {
            return Some((Reason::NeverBuilt, None));
        };
        let changes = compare::changes(&now, &Run::of(&build.lines, then), &build.pairs, &ask);
        // Keys that differ for no reason that is kept: an older kiln made the other.
        let reason = if changes.is_empty() { Reason::NeverBuilt } else { Reason::Changed { changes } };
        Some((reason, Some(compared(build))))
    }

    /// Returns the run that differs least, of several the last.
    fn nearest<'p>(
        &self,
        now: &Run<'_>,
        runs: &[(&'p PastBuild, usize)],
        ask: &Asked<'_, '_>,
    ) -> Option<(&'p PastBuild, usize)> {
        let distances: Vec<usize> =
            runs.iter().map(|(build, at)| compare::distance(now, &Run::of(&build.lines, *at))).collect();
        let least = *distances.iter().min()?;
        let near = runs.iter().zip(distances).filter(|(_, distance)| *distance == least);
        let near: Vec<&(&PastBuild, usize)> = near.map(|(run, _)| run).take(4).collect();
        let files = |(build, at): &&(&PastBuild, usize)| {
            let was = &build.lines.found[*at].contents;
            let pairs = now.found.contents.iter().zip(was).filter(|(is, was)| is != was);
            let counts = pairs.map(|(is, was)| match (is, was) {
                (Some(is), Some(was)) => ask.files(is, was).map_or(usize::MAX, |files| files.count),
                _ => usize::MAX,
            });
            counts.fold(0_usize, usize::saturating_add)
        };
        match &near[..] {
            [only] => Some(**only),
            // The first of equal ones is the last build.
            several => several.iter().copied().min_by_key(files).copied(),
        }
    }

    /// What became of a result that was there.
    fn removed(&self, key: Digest) -> Option<Reason> {
        let removals = self.store.removals().unwrap_or_default();
        let hex = key.hex();
        let last = removals.iter().rev().find(|removal| removal.key == hex)?;
        let how = match last.why {
            RemovalReason::Pruned => "pruned",
            RemovalReason::Room => "removed, as the store was full,",
            RemovalReason::Lost => "lost, as the machine went down,",
        };
        Some(Reason::Removed { ago_s: Some(self.now.saturating_sub(last.time)), how: Some(how.to_owned()) })
    }

    /// Notes what this build was, and returns why its steps ran. What cannot be noted is missing later, no more.
    pub(crate) fn keep(
        &self,
        verdict: BuildVerdict,
        duration_ms: u64,
        facts: &dyn FactsOf,
    ) -> Result<Vec<StepWhy>, Error> {
        if !self.is_on {
            return Ok(Vec::new());
        }
        let started = std::mem::take(&mut self.state().started);
        let ran: HashSet<StepId> = started.iter().copied().collect();
        let steps: Vec<StepWhy> = started.iter().filter_map(|id| self.explain(*id, facts)).collect();
        for id in &started {
            self.keep_files(*id, facts)?;
        }
        let state = self.state();
        let ids = || self.graph.iter().filter(|(_, step)| !step.op.is_source());
        let mut name = kiln_core::Canonical::new("lines");
        name.str(&self.definition.text);
        let mut hits = 0;
        for (id, _) in ids() {
            name.digest(id.digest()).bool(state.ended.contains(&id));
            name.option(self.key(&state, id).as_ref(), |key, out| {
                out.digest(key);
            });
            hits += usize::from(state.ended.contains(&id) && !ran.contains(&id));
        }
        let name = name.finish().hex()[..16].to_owned();
        if !self.store.has_note(NoteKind::Lines, &name)? {
            let found = ids().map(|(id, _)| self.found(&state, id)).collect();
            let lines = line::Lines { fixed: self.fixed().lines.clone(), found };
            self.store.put_note(NoteKind::Lines, &name, &lines.to_bytes())?;
        }
        let note = BuildNote {
            id: String::new(),
            time: self.now,
            file: self.definition.file.clone(),
            context: self.group.context.clone(),
            verdict,
            duration_ms,
            hits,
            steps: steps.clone(),
        };
        past::keep(self.store, &self.group, &name, note)?;
        Ok(steps)
    }

    /// Keeps which files a step that ran took, for the next time.
    fn keep_files(&self, id: StepId, facts: &dyn FactsOf) -> Result<(), Error> {
        let Some(step) = self.graph.get(id) else { return Ok(()) };
        for (source, selection) in step.op.sources() {
            let usage = SourceUse::of(&step.op);
            let known = self.state().contents.get(&(source, selection.clone(), usage)).copied();
            let Some((digest, rule)) = known else { continue };
            if !self.store.has_note(NoteKind::Files, &digest.hex())?
                && let Some(facts) = facts.facts(source, &selection, rule)
            {
                self.store.put_note(NoteKind::Files, &digest.hex(), &facts.to_bytes())?;
            }
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An image's key is its digest, whether anything asked for it or not.
    fn key(&self, state: &State, id: StepId) -> Option<Digest> {
        match self.graph.get(id).map(|step| &step.op) {
            Some(Op::Image(image)) => Some(image.manifest),
            _ => state.keys.get(&id).copied(),
        }
    }

    fn found(&self, state: &State, id: StepId) -> Found {
        let step = self.graph.get(id);
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
            let secrets = Secrets { redactor: &self.redactor };
            let (lines, position) = line::lines(self.graph, &self.definition.text, &secrets);
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
            Fixed { lines, position, first }
        })
    }

    fn id_at(&self, position: usize) -> Option<StepId> {
        self.graph.iter().filter(|(_, step)| !step.op.is_source()).nth(position).map(|(id, _)| id)
    }

    fn past(&self) -> &Past {
        self.past.get_or_init(|| Past::load(self.store, &self.group, &self.fixed().lines))
    }

    fn dockerfile(&self) -> &Dockerfile {
        self.dockerfile.get_or_init(|| Dockerfile::of(self.definition))
    }

    fn advice(&self, id: StepId, changes: &[KeyChange]) -> Vec<Advice> {
        let Some(step) = self.graph.get(id) else { return Vec::new() };
        advice::advice(changes, &step.info, self.dockerfile())
    }
}
