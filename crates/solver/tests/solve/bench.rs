//! A machine that builds: a worker and an index that outlive a build.

use std::collections::HashMap;

use kiln_core::{Cancel, Snapshot};
use kiln_solver::{SolveError, Solved, Verdict, solve};
use kiln_testkit::{FakeError, FakeWorker, MemoryIndex, ProgressLog, TestGraph, graph};

/// A worker and an index.
#[derive(Default)]
pub(crate) struct Bench {
    pub(crate) worker: FakeWorker,
    pub(crate) index: MemoryIndex,
}

/// A build that went well.
pub(crate) struct Built {
    pub(crate) graph: TestGraph,
    pub(crate) solved: Solved,
    /// What progress said, as below.
    pub(crate) lines: Vec<String>,
    /// Titles of what ran, in the order of the graph's text: which of two that could both run was looked up first is chance.
    pub(crate) executed: Vec<String>,
}

impl Bench {
    /// Builds what the last line describes, one step at a time.
    pub(crate) fn build(&self, text: &str) -> Built {
        let wanted = text.lines().rfind(|line| !line.trim().is_empty());
        let wanted = wanted.and_then(|line| line.split_whitespace().next()).expect("a graph has a line");
        self.build_of(text, &[wanted])
    }

    /// Builds some of the steps, one at a time.
    pub(crate) fn build_of(&self, text: &str, wanted: &[&str]) -> Built {
        let (mut lines, result) = self.attempt(text, wanted, 1, &Cancel::new());
        let solved = result.unwrap_or_else(|error| panic!("the build failed: {error}; {lines:#?}"));
        let mut executed = self.worker.executed();
        let titles: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
        // Where two lines have one title the first counts.
        let places: HashMap<&str, usize> =
            titles.iter().enumerate().rev().map(|(at, title)| (*title, at)).collect();
        executed.sort_by_key(|title| places[title.as_str()]);
        lines.sort_by_key(|line| line.split(' ').nth(1).map(|title| places[title]));
        Built { graph: graph(text), solved, lines, executed }
    }

    /// Tries to build some of the steps.
    pub(crate) fn attempt(
        &self,
        text: &str,
        wanted: &[&str],
        jobs: usize,
        cancel: &Cancel,
    ) -> (Vec<String>, Result<Solved, SolveError<FakeError>>) {
        let graph = graph(text);
        let wanted: Vec<_> = wanted.iter().map(|name| graph.id(name)).collect();
        let log = ProgressLog::new(&graph.graph);
        self.worker.begin(&graph.graph);
        let result = solve(&graph.graph, &wanted, &self.worker, &self.index, &log, jobs, cancel);
        assert!(log.is_complete(), "something was left in the middle: {:#?}", log.lines());
        (log.lines(), result)
    }
}

impl Built {
    pub(crate) fn snapshot(&self, name: &str) -> &Snapshot {
        &self.solved.results[&self.graph.id(name)].snapshot
    }

    pub(crate) fn verdict(&self, name: &str) -> Verdict {
        self.solved.verdict(self.graph.id(name))
    }
}
