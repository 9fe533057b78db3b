//! Solving a graph: one thread that owns the schedule, and a crew.

use std::collections::HashMap;
use std::fmt::Display;
use std::panic::resume_unwind;
use std::time::Duration;

use kiln_core::{Cancel, Digest, IoError, Snapshot, StepGraph, StepId, StepOutcome};

use crate::crew::{Crew, Desk, Done, Question};
use crate::foresight::Foresight;
use crate::schedule::Schedule;
use crate::task::{Fault, Looked, Tools};
use crate::{CacheIndex, Progress, SolveError, Worker};

/// What a build made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Solved {
    /// Each step that has a result: all that were wanted, and those that had to be made or were found on the way.
    pub results: HashMap<StepId, Finished>,
}

/// A step's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// What it left behind.
    pub snapshot: Snapshot,
    /// Its content key; an image's manifest digest.
    pub key: Digest,
    /// When it was recorded, seconds since 1970; none for an image, which is not recorded.
    pub created: Option<u64>,
    /// Whether it ran in this build.
    pub verdict: Verdict,
    /// Wall time of its execution: now, or for a hit when it ran.
    pub duration: Duration,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its result was there.
    Hit,
    /// It ran.
    Ran,
    /// Nothing needed its result.
    Unneeded,
}

impl Solved {
    /// Returns what became of a step.
    pub fn verdict(&self, id: StepId) -> Verdict {
        self.results.get(&id).map_or(Verdict::Unneeded, |finished| finished.verdict)
    }
}

/// Makes the wanted steps' snapshots.
///
/// Up to `jobs` steps (at least one) run at once, the earliest in the graph first; those that wait for others leave their
/// [`Place`](crate::Place) meanwhile. The first failure cancels what
/// still runs, and is what is returned; raising `cancel` does the same without a failure. In either case all work
/// has ended on return, and what was finished is recorded.
///
/// # Errors
/// The first failure, or [`SolveError::Cancelled`].
///
/// # Panics
/// If a wanted step is not in the graph, or a context is wanted or used as a root; and whatever the worker or the
/// index panics with.
pub fn solve<E: Display + Send>(
    graph: &StepGraph,
    wanted: &[StepId],
    worker: &dyn Worker<Error = E>,
    index: &dyn CacheIndex<Error = E>,
    progress: &dyn Progress,
    jobs: usize,
    cancel: &Cancel,
) -> Result<Solved, SolveError<E>> {
    let stop = Cancel::new();
    let _forward = cancel.on_cancel({
        let stop = stop.clone();
        move || stop.cancel()
    });
    let tools = Tools { worker, index, cancel: &stop };
    let desk = Desk::new();
    let schedule = Schedule::new(graph, wanted, index.reaches_out());
    std::thread::scope(|scope| {
        let crew = Crew::new(scope, &tools, &desk, jobs);
        Owner { schedule, crew, progress, stop: &stop, failure: None }.work(wanted)
    })
}

struct Owner<'a, 'scope, 'env, 'g, E> {
    schedule: Schedule<'g>,
    crew: Crew<'scope, 'env, 'g, E>,
    progress: &'a dyn Progress,
    stop: &'a Cancel,
    failure: Option<SolveError<E>>,
}

impl<'g: 'env, 'env, E: Display + Send> Owner<'_, '_, 'env, 'g, E> {
    fn work(mut self, wanted: &[StepId]) -> Result<Solved, SolveError<E>> {
        let mut panic = None;
        loop {
            self.hand_out();
            match self.crew.next() {
                None => break,
                Some(Done::Panicked { payload, .. }) => {
                    panic.get_or_insert(payload);
                    self.stop.cancel();
                }
                Some(done) => self.take(done),
            }
            self.report_hits();
        }
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let results: HashMap<StepId, Finished> = self
            .schedule
            .iter()
            .filter_map(|node| Some((node.id, Finished::clone(node.finished.as_deref()?))))
            .collect();
        if wanted.iter().all(|id| results.contains_key(id)) {
            return Ok(Solved { results });
        }
        assert!(self.stop.is_cancelled(), "the schedule has nothing to do and lacks wanted steps");
        Err(SolveError::Cancelled)
    }

    /// Hands out all that can be done now.
    fn hand_out(&mut self) {
        let foreseen = self.schedule.foresight.as_mut().map(Foresight::take);
        for (id, key) in foreseen.unwrap_or_default() {
            self.crew.tools.index.foresee(id, &key);
        }
        while !self.stop.is_cancelled() {
            let (id, handed) = if let Some(task) = self.schedule.next_fetch() {
                (task.asker, self.crew.ask(Question::Fetch(task)))
            } else if let Some(task) = self.schedule.next_digest() {
                (task.asker, self.crew.ask(Question::Digest(task)))
            } else if let Some(task) = self.schedule.next_look() {
                (task.node, self.crew.ask(Question::Look(task)))
            } else if self.crew.has_place()
                && let Some(task) = self.schedule.next_run()
            {
                self.progress.started(task.id);
                (task.node, self.crew.run(task))
            } else {
                return;
            };
            if let Err(error) = handed {
                let error = IoError::new("start", "thread", &error);
                self.fail(SolveError::Thread { id: self.schedule.node(id).id, error });
            }
        }
    }

    fn take(&mut self, done: Done<E>) {
        match done {
            Done::Digested { content, result: Ok(digest), .. } => self.schedule.digested(content, digest),
            Done::Looked { node, result: Ok(looked) } => {
                if let Looked::Missed { key, outdated } = &looked {
                    self.progress.missed(self.schedule.node(node).id, key, *outdated);
                }
                self.schedule.looked(node, looked);
            }
            Done::Late { content } => self.schedule.late(content),
            Done::Fetched { source, result: Ok(()), .. } => self.schedule.fetched(source),
            Done::Digested { asker: node, result: Err(fault), .. }
            | Done::Fetched { asker: node, result: Err(fault), .. }
            | Done::Looked { node, result: Err(fault) } => {
                if !self.stop.is_cancelled() {
                    let id = self.schedule.node(node).id;
                    self.progress.started(id);
                    self.end_badly(node, fault, Duration::ZERO);
                }
            }
            // Another process did it meanwhile: it is reported with the hits.
            Done::Ran { node, result: Ok(finished), .. } if finished.verdict == Verdict::Hit => {
                self.schedule.ran(node, finished);
            }
            Done::Ran { node, result: Ok(finished), duration, .. } => {
                let id = self.schedule.node(node).id;
                self.progress.settled(id, &finished);
                self.schedule.ran(node, finished);
                self.progress.finished(id, StepOutcome::Done, duration);
            }
            Done::Ran { node, result: Err(fault), duration, .. } => self.end_badly(node, fault, duration),
            Done::Left | Done::Skipped | Done::Panicked { .. } => {}
        }
    }

    /// Ends a step that was reported as started. Once the build stops, an error is how a step says that it gave up.
    fn end_badly(&mut self, node: usize, fault: Fault<E>, duration: Duration) {
        let id = self.schedule.node(node).id;
        if self.stop.is_cancelled() {
            return self.progress.finished(id, StepOutcome::Cancelled, duration);
        }
        let failure = match fault {
            Fault::Worker(error) => SolveError::Step { id, error },
            Fault::Index(error) => SolveError::Index { id, error },
        };
        let message = failure.to_string();
        let message = message.lines().next().unwrap_or_default().to_owned();
        self.fail(failure);
        self.progress.finished(id, StepOutcome::Failed { message }, duration);
    }

    fn fail(&mut self, failure: SolveError<E>) {
        self.failure.get_or_insert(failure);
        self.stop.cancel();
    }

    fn report_hits(&mut self) {
        for node in self.schedule.take_hits() {
            let id = self.schedule.node(node).id;
            self.progress.settled(id, self.schedule.finished(node));
            self.progress.cached(id);
        }
    }
}
