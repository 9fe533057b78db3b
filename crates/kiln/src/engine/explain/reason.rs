//! The reason why a step ran: what became of its result, or what differs from the nearest run of its line.

use kiln_core::{Compared, Digest, KeyChange, Reason, StepId};
use kiln_store::RemovalReason;

use super::asked::Asked;
use super::compare::{self, Ask as _, Run};
use super::pair::pair;
use super::past::PastBuild;
use super::shared::BuildElsewhere;
use super::{FactsOf, Why, line};

impl Why<'_> {
    /// Finds the reason, and the earlier run that it was compared with.
    pub(super) fn reason(
        &self,
        id: StepId,
        no_cache: bool,
        facts: &dyn FactsOf,
    ) -> Option<(Reason, Option<Compared>)> {
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
        let compared =
            |build: &PastBuild| Compared { build: build.id.clone(), time: build.time, cache: None };
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
        let ask = Asked::new(self, id, facts, None);
        let here = self.nearest(&now, &runs, &ask);
        let there = self.nearest_elsewhere(id, &now, facts);
        if let Some((distance, changes, compared)) = there
            && here.is_none_or(|(nearest, ..)| distance < nearest)
        {
            return Some((Reason::Changed { changes }, Some(compared)));
        }
        let Some((_, build, then)) = here else {
            return Some((Reason::NeverBuilt, None));
        };
        let changes = compare::changes(&now, &Run::of(&build.lines, then), &build.pairs, &ask);
        // Keys that differ for no reason that is kept: an older kiln made the other.
        let reason = if changes.is_empty() { Reason::NeverBuilt } else { Reason::Changed { changes } };
        Some((reason, Some(compared(build))))
    }

    /// Compares with the nearest run that the list of a shared cache speaks of: how far it is, what differs, and which it is.
    fn nearest_elsewhere(
        &self,
        id: StepId,
        now: &Run<'_>,
        facts: &dyn FactsOf,
    ) -> Option<(usize, Vec<KeyChange>, Compared)> {
        let fixed = self.fixed();
        let now = Run { lines: &fixed.hidden, ..*now };
        let builds = self.elsewhere.get_or_init(|| facts.elsewhere());
        let run = |build: &'_ BuildElsewhere| {
            let then = pair(&fixed.hidden, &build.lines.fixed).get(now.at).copied().flatten()?;
            // The same key: its result could not be had, and nothing differs.
            let differs = build.lines.found[then].key != now.found.key;
            differs.then(|| (compare::distance(&now, &Run::of(&build.lines, then)), then))
        };
        let runs = builds.iter().filter_map(|build| Some((run(build)?, build)));
        let ((distance, then), build) = runs.min_by_key(|((distance, _), _)| *distance)?;
        let ask = Asked::new(self, id, facts, Some(build.source));
        let pairs = pair(&fixed.hidden, &build.lines.fixed);
        let mut changes = compare::changes(&now, &Run::of(&build.lines, then), &pairs, &ask);
        let env = &fixed.lines[now.at].env;
        for change in &mut changes {
            // Their values are nowhere; this build's are known.
            if let KeyChange::Argument { name, to, .. } | KeyChange::Variable { name, to, .. } = change {
                *to = env.iter().find(|(known, _)| known == name).map(|(_, value)| line::shown(value));
            }
        }
        let compared =
            Compared { build: String::new(), time: build.times[then], cache: Some(build.label.clone()) };
        (!changes.is_empty()).then_some((distance, changes, compared))
    }

    /// Returns the run that differs least, of several the last.
    fn nearest<'p>(
        &self,
        now: &Run<'_>,
        runs: &[(&'p PastBuild, usize)],
        ask: &Asked<'_, '_>,
    ) -> Option<(usize, &'p PastBuild, usize)> {
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
        let (build, at) = match &near[..] {
            [only] => **only,
            // The first of equal ones is the last build.
            several => *several.iter().copied().min_by_key(files)?,
        };
        Some((least, build, at))
    }

    /// What became of a result that was there.
    fn removed(&self, key: Digest) -> Option<Reason> {
        let removals = self.of.store.removals().unwrap_or_default();
        let hex = key.hex();
        let last = removals.iter().rev().find(|removal| removal.key == hex)?;
        let how = match last.why {
            RemovalReason::Pruned => "pruned",
            RemovalReason::Room => "removed, as the store was full,",
            RemovalReason::Lost => "lost, as the machine went down,",
        };
        Some(Reason::Removed {
            ago_s: Some(self.of.now.saturating_sub(last.time)),
            how: Some(how.to_owned()),
        })
    }
}
