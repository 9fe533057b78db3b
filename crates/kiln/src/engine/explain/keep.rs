//! What is noted of a build at its end.

use std::collections::HashSet;

use kiln_core::{StepId, StepWhy};
use kiln_solver::SourceUse;
use kiln_store::NoteKind;

use super::find::{BuildNote, BuildVerdict};
use super::{FactsOf, Why, line, past};
use crate::Error;

impl Why<'_> {
    /// Does what [`keep`](Self::keep) spends most of its time on, once all steps have ended: compares, and keeps the files that
    /// they took. What cannot be done here fails there.
    pub(crate) fn prepare(&self, facts: &dyn FactsOf) {
        if !self.of.is_on {
            return;
        }
        let started = self.state().started.clone();
        for id in started {
            let _ = self.explain(id, facts);
            let _ = self.keep_files(id, facts);
        }
    }

    /// Notes what this build was, and returns why its steps ran. What cannot be noted is missing later, no more.
    pub(crate) fn keep(
        &self,
        verdict: BuildVerdict,
        duration_ms: u64,
        facts: &dyn FactsOf,
    ) -> Result<Vec<StepWhy>, Error> {
        if !self.of.is_on {
            return Ok(Vec::new());
        }
        let started = std::mem::take(&mut self.state().started);
        let ran: HashSet<StepId> = started.iter().copied().collect();
        let steps: Vec<StepWhy> = started.iter().filter_map(|id| self.explain(*id, facts)).collect();
        for id in &started {
            self.keep_files(*id, facts)?;
        }
        let state = self.state();
        let ids = || self.of.graph.iter().filter(|(_, step)| !step.op.is_source());
        let mut name = kiln_core::Canonical::new("lines");
        name.str(&self.of.definition.text);
        let mut hits = 0;
        for (id, _) in ids() {
            name.digest(id.digest()).bool(state.ended.contains(&id));
            name.option(self.key(&state, id).as_ref(), |key, out| {
                out.digest(key);
            });
            hits += usize::from(state.ended.contains(&id) && !ran.contains(&id));
        }
        let name = name.finish().hex()[..16].to_owned();
        if !self.of.store.has_note(NoteKind::Lines, &name)? {
            let found = ids().map(|(id, _)| self.found(&state, id)).collect();
            let lines = line::Lines { fixed: self.fixed().lines.clone(), found };
            self.of.store.put_note(NoteKind::Lines, &name, &lines.to_bytes())?;
        }
        let note = BuildNote {
            id: String::new(),
            time: self.of.now,
            file: self.of.definition.file.clone(),
            context: self.of.group.context.clone(),
            verdict,
            duration_ms,
            hits,
            steps: steps.clone(),
        };
        past::keep(self.of.store, &self.of.group, &name, note)?;
        Ok(steps)
    }

    /// Keeps which files a step that ran took, for the next time.
    fn keep_files(&self, id: StepId, facts: &dyn FactsOf) -> Result<(), Error> {
        let Some(step) = self.of.graph.get(id) else { return Ok(()) };
        for (source, selection) in step.op.sources() {
            let usage = SourceUse::of(&step.op);
            let known = self.state().contents.get(&(source, selection.clone(), usage)).copied();
            let Some((digest, rule)) = known else { continue };
            if !self.of.store.has_note(NoteKind::Files, &digest.hex())?
                && let Some(facts) = facts.facts(source, &selection, rule)
            {
                self.of.store.put_note(NoteKind::Files, &digest.hex(), &facts.to_bytes())?;
            }
        }
        Ok(())
    }
}
