//! Numbers for steps, and the events that speak of them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kiln_core::{Event, EventSink, LogStream, StepId, StepOutcome, StepUsage, StepWhy};

use crate::outcome::{CacheVerdict, StepReport};

/// Turns what happens to steps into numbered events, and keeps the report of them.
pub(crate) struct Reporter<'a> {
    sink: &'a dyn EventSink,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u32,
    by_id: HashMap<StepId, u32>,
    reports: Vec<StepReport>,
    why: Vec<StepWhy>,
}

/// Work that is no step of the graph: resolving, loading, exporting. Ends as cancelled if dropped.
pub(crate) struct Task<'a> {
    reporter: &'a Reporter<'a>,
    /// Its number.
    pub(crate) step: u32,
    started: Instant,
    done: bool,
}

impl<'a> Reporter<'a> {
    /// Starts with no step mentioned.
    pub(crate) fn new(sink: &'a dyn EventSink) -> Self {
        Self { sink, state: Mutex::new(State::default()) }
    }

    /// Passes an event on.
    pub(crate) fn emit(&self, event: Event) {
        self.sink.emit(event);
    }

    /// Returns a step's number, declaring it if it was never mentioned.
    pub(crate) fn number(&self, id: StepId, title: &str, lines: Option<(usize, usize)>) -> u32 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(step) = state.by_id.get(&id) {
            return *step;
        }
        let step = self.declare(&mut state, title, lines);
        state.by_id.insert(id, step);
        step
    }

    /// Begins a task.
    pub(crate) fn task(&'a self, title: &str) -> Task<'a> {
        let step = self.declare(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner), title, None);
        self.emit(Event::StepStarted { step });
        Task { reporter: self, step, started: Instant::now(), done: false }
    }

    /// A step's result was there.
    pub(crate) fn cached(&self, step: u32) {
        self.emit(Event::StepCached { step });
        self.report(step, CacheVerdict::Hit, Duration::ZERO, None);
    }

    /// A step ended.
    pub(crate) fn finished(
        &self,
        step: u32,
        outcome: StepOutcome,
        duration: Duration,
        usage: Option<StepUsage>,
    ) {
        let duration_us = micros(duration);
        self.report(step, CacheVerdict::Ran, duration, usage);
        self.emit(Event::StepFinished { step, outcome, duration_us, usage });
    }

    /// Something to know.
    pub(crate) fn warn(&self, message: impl Into<String>, lines: Option<(usize, usize)>) {
        self.emit(Event::Warning { message: message.into(), lines });
    }

    /// Takes why steps ran.
    pub(crate) fn explained(&self, why: Vec<StepWhy>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).why = why;
    }

    /// Returns what became of each step of the graph, in the order of their numbers, and why those ran that did.
    pub(crate) fn into_reports(self) -> (Vec<StepReport>, Vec<StepWhy>) {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let graph: std::collections::HashSet<u32> = state.by_id.values().copied().collect();
        let reports = state.reports.into_iter().filter(|report| graph.contains(&report.step)).collect();
        (reports, state.why)
    }

    fn declare(&self, state: &mut State, title: &str, lines: Option<(usize, usize)>) -> u32 {
        state.next += 1;
        let step = state.next;
        state.reports.push(StepReport {
            step,
            title: title.to_owned(),
            verdict: CacheVerdict::Unneeded,
            duration_us: 0,
            usage: None,
        });
        self.emit(Event::StepDeclared { step, title: title.to_owned(), lines });
        step
    }

    fn report(&self, step: u32, verdict: CacheVerdict, duration: Duration, usage: Option<StepUsage>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(report) = state.reports.get_mut(step as usize - 1) {
            report.verdict = verdict;
            report.duration_us = micros(duration);
            report.usage = usage;
        }
    }
}

impl Task<'_> {
    /// Says that it waits for another process, or does not any more.
    pub(crate) fn waiting(&self, holder: Option<&str>) {
        let holder = holder.map(str::to_owned);
        self.reporter.emit(Event::StepWaiting { step: self.step, holder });
    }

    /// Says how far an item of the task is.
    pub(crate) fn progress(&self, item: &str, current: u64, total: Option<u64>) {
        self.reporter.emit(Event::StepProgress { step: self.step, item: item.to_owned(), current, total });
    }

    /// Says something about it, in a line.
    pub(crate) fn says(&self, line: &str) {
        let (stream, text) = (LogStream::Stdout, format!("{line}\n"));
        self.reporter.emit(Event::StepLog { step: self.step, stream, text });
    }

    /// Ends the task well.
    pub(crate) fn done(mut self) {
        self.done = true;
        self.end(StepOutcome::Done);
    }

    /// Ends the task as `result` says.
    pub(crate) fn end_with<T, E: std::fmt::Display>(mut self, result: &Result<T, E>) {
        self.done = true;
        self.end(match result {
            Ok(_) => StepOutcome::Done,
            Err(error) => StepOutcome::Failed { message: error.to_string() },
        });
    }

    fn end(&self, outcome: StepOutcome) {
        self.reporter.finished(self.step, outcome, self.started.elapsed(), None);
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.end(StepOutcome::Cancelled);
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
