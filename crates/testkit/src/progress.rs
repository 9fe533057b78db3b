//! What a build said, as lines.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_core::{Digest, StepGraph, StepId, StepOutcome};
use kiln_solver::{Finished, Progress};

/// Notes what it is told, by title, and panics where it is told nonsense.
#[derive(Debug)]
pub struct ProgressLog<'g> {
    graph: &'g StepGraph,
    heard: Mutex<Vec<(StepId, Heard)>>,
    missed: Mutex<Vec<(StepId, Digest, bool)>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Heard {
    Started,
    Cached,
    Settled,
    Finished(StepOutcome),
}

impl<'g> ProgressLog<'g> {
    /// Starts to listen to a build of a graph.
    pub fn new(graph: &'g StepGraph) -> Self {
        Self { graph, heard: Mutex::default(), missed: Mutex::default() }
    }

    /// Returns one line for each start, hit and end: `started dep`, `cached dep`, `done dep`, `failed dep: boom`,
    /// `cancelled dep`.
    pub fn lines(&self) -> Vec<String> {
        let line = |(id, heard): &(StepId, Heard)| {
            let title = self.graph.get(*id).map_or("?", |step| &step.info.title);
            match heard {
                Heard::Started => Some(format!("started {title}")),
                Heard::Cached => Some(format!("cached {title}")),
                Heard::Settled => None,
                Heard::Finished(StepOutcome::Done) => Some(format!("done {title}")),
                Heard::Finished(StepOutcome::Failed { message }) => {
                    Some(format!("failed {title}: {message}"))
                }
                Heard::Finished(StepOutcome::Cancelled) => Some(format!("cancelled {title}")),
            }
        };
        self.lock().iter().filter_map(line).collect()
    }

    /// Returns the titles of the steps without a record that counts, in order, with `over another root` where there is one
    /// all the same.
    pub fn missed(&self) -> Vec<String> {
        let missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |(id, _, outdated): &(StepId, Digest, bool)| {
            let title = self.graph.get(*id).map_or("?", |step| &step.info.title);
            format!("{title}{}", if *outdated { " over another root" } else { "" })
        };
        missed.iter().map(line).collect()
    }

    /// Returns whether everything that was started has ended.
    pub fn is_complete(&self) -> bool {
        let heard = self.lock();
        let mut last: HashMap<StepId, &Heard> = HashMap::new();
        last.extend(heard.iter().map(|(id, heard)| (*id, heard)));
        last.values().all(|heard| matches!(heard, Heard::Cached | Heard::Finished(_)))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(StepId, Heard)>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes something, if it can follow what the step was last heard of.
    fn hear(&self, id: StepId, now: Heard) {
        let step =
            self.graph.get(id).unwrap_or_else(|| panic!("{now:?} of step {id}, which is not in the graph"));
        let title = &step.info.title;
        let mut heard = self.lock();
        let before = heard.iter().rev().find(|(other, _)| *other == id).map(|(_, heard)| heard);
        let follows = match (&now, before) {
            (Heard::Started, None) | (Heard::Settled, None | Some(Heard::Started)) => true,
            // Also of one that was started: another process did it meanwhile.
            (Heard::Cached, Some(Heard::Settled)) => true,
            (Heard::Finished(StepOutcome::Done), Some(Heard::Settled)) => {
                heard.contains(&(id, Heard::Started))
            }
            (Heard::Finished(outcome), Some(Heard::Started)) => *outcome != StepOutcome::Done,
            _ => false,
        };
        assert!(follows, "{title}: {now:?} after {before:?}");
        heard.push((id, now));
    }
}

impl Progress for ProgressLog<'_> {
    fn started(&self, id: StepId) {
        self.hear(id, Heard::Started);
    }

    fn cached(&self, id: StepId) {
        self.hear(id, Heard::Cached);
    }

    fn finished(&self, id: StepId, outcome: StepOutcome, _duration: Duration) {
        self.hear(id, Heard::Finished(outcome));
    }

    fn missed(&self, id: StepId, key: &Digest, outdated: bool) {
        let before = self.lock().iter().any(|(heard, _)| *heard == id);
        assert!(!before, "{id} is missed after it was heard of");
        self.missed.lock().unwrap_or_else(PoisonError::into_inner).push((id, *key, outdated));
    }

    fn settled(&self, id: StepId, finished: &Finished) {
        let missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, key, _)) = missed.iter().find(|(heard, ..)| *heard == id) {
            assert_eq!(*key, finished.key, "{id} was missed under another key");
        }
        drop(missed);
        self.hear(id, Heard::Settled);
    }
}
