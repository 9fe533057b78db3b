//! Steps that others, in other processes, are about to execute too.

use std::sync::{Arc, Mutex};

use kiln_core::{Cancel, Digest, LayerId, Op, Selection, Snapshot, Step, StepId};
use kiln_solver::{
    CacheIndex as _, Claim, Inputs, KeyParts, Place, SolveError, SourceUse, StepRecord, Worker, solve,
};
use kiln_testkit::{FakeError, ProgressLog, graph};

use crate::bench::Bench;

const STEPS: &str = "a run -\n b run a";

/// A worker that waits for the claims of one step while another process does something.
struct Shared<'a> {
    bench: &'a Bench,
    /// Recorded by the other process during the wait.
    other: Option<StepRecord>,
    cannot: bool,
    /// What was claimed, and how it ended.
    said: Arc<Mutex<Vec<String>>>,
}

struct Held(Arc<Mutex<Vec<String>>>, String);

impl Claim for Held {
    fn end(self: Box<Self>, well: bool) {
        self.0.lock().unwrap().push(format!("{} {}", self.1, if well { "well" } else { "badly" }));
    }
}

impl Worker for Shared<'_> {
    type Error = FakeError;

    fn content_digest(
        &self,
        source: StepId,
        op: &Op,
        snapshot: Option<&Snapshot>,
        selection: &Selection,
        usage: SourceUse,
        late: &dyn Fn(),
        cancel: &Cancel,
    ) -> Result<Digest, FakeError> {
        self.bench.worker.content_digest(source, op, snapshot, selection, usage, late, cancel)
    }

    fn fetch(&self, source: StepId, op: &Op, cancel: &Cancel) -> Result<(), FakeError> {
        self.bench.worker.fetch(source, op, cancel)
    }

    fn claim(
        &self,
        _id: StepId,
        step: &Step,
        key: &Digest,
        _place: &Place<'_>,
        _cancel: &Cancel,
    ) -> Result<Option<Box<dyn Claim>>, FakeError> {
        if self.cannot {
            return Err(FakeError("no locks here".to_owned()));
        }
        if let Some(record) = self.other.clone().filter(|record| record.key == *key) {
            self.bench.index.record(record, &KeyParts::default())?;
        }
        Ok(Some(Box::new(Held(Arc::clone(&self.said), step.info.title.clone()))))
    }

    fn execute(
        &self,
        id: StepId,
        step: &Step,
        inputs: &Inputs,
        place: &Place<'_>,
        cancel: &Cancel,
    ) -> Result<Snapshot, FakeError> {
        assert!(
            self.said.lock().unwrap().iter().all(|said| !said.starts_with(&step.info.title)),
            "let go early"
        );
        self.bench.worker.execute(id, step, inputs, place, cancel)
    }
}

struct Outcome {
    lines: Vec<String>,
    said: Vec<String>,
    executed: Vec<String>,
    result: Result<Snapshot, SolveError<FakeError>>,
}

/// Builds both steps, forgets the second, and builds again.
fn again(bench: &Bench, change: impl FnOnce(&mut Shared<'_>)) -> Outcome {
    bench.build(STEPS);
    let record = bench.index.records("b").remove(0);
    bench.index.forget("b");
    let mut worker = Shared { bench, other: Some(record), cannot: false, said: Arc::default() };
    change(&mut worker);
    let graph = graph(STEPS);
    let log = ProgressLog::new(&graph.graph);
    bench.worker.begin(&graph.graph);
    let solved = solve(&graph.graph, &[graph.id("b")], &worker, &bench.index, &log, 1, &Cancel::new());
    assert!(log.is_complete(), "{:?}", log.lines());
    let said = worker.said.lock().unwrap().clone();
    let result = solved.map(|solved| solved.results[&graph.id("b")].snapshot.clone());
    Outcome { lines: log.lines(), said, executed: bench.worker.executed(), result }
}

#[test]
fn what_another_process_did_meanwhile_is_taken() {
    let bench = Bench::default();
    let mut made = None;
    let outcome = again(&bench, |worker| made = worker.other.as_ref().map(|record| record.snapshot.clone()));
    assert_eq!(outcome.lines, ["cached a", "started b", "cached b"]);
    assert_eq!((outcome.executed, outcome.said), (vec![], vec!["b well".to_owned()]));
    assert_eq!(outcome.result.unwrap(), made.unwrap());
}

#[test]
fn what_it_made_over_another_root_is_not() {
    let outcome = again(&Bench::default(), |worker| {
        let elsewhere = Snapshot { layers: vec![LayerId("elsewhere".to_owned())] };
        worker.other.as_mut().unwrap().snapshot = elsewhere;
    });
    assert_eq!(outcome.lines, ["cached a", "started b", "done b"]);
    assert_eq!((outcome.executed, outcome.said), (vec!["b".to_owned()], vec!["b well".to_owned()]));
}

#[test]
fn a_claim_is_held_until_the_record_is_there_or_the_step_has_failed() {
    let bench = Bench::default();
    let outcome = again(&bench, |worker| worker.other = None);
    assert_eq!((outcome.executed, outcome.said), (vec!["b".to_owned()], vec!["b well".to_owned()]));
    assert_eq!(bench.index.records("b").len(), 1);
    let outcome = again(&Bench::default(), |worker| {
        worker.other = None;
        worker.bench.worker.fail("b", "boom");
    });
    assert_eq!(outcome.lines, ["cached a", "started b", "failed b: boom"]);
    assert_eq!(outcome.said, ["b badly"]);
}

#[test]
fn a_claim_that_cannot_be_had_fails_the_step() {
    let outcome = again(&Bench::default(), |worker| worker.cannot = true);
    assert_eq!(outcome.lines, ["cached a", "started b", "failed b: no locks here"]);
    assert!(outcome.result.is_err() && outcome.executed.is_empty());
}

#[test]
fn what_has_to_run_anyway_waits_for_nobody() {
    let bench = Bench::default();
    let graph = graph("a run - no-cache");
    let worker = Shared { bench: &bench, other: None, cannot: true, said: Arc::default() };
    bench.worker.begin(&graph.graph);
    let log = ProgressLog::new(&graph.graph);
    solve(&graph.graph, &[graph.id("a")], &worker, &bench.index, &log, 1, &Cancel::new()).unwrap();
    assert_eq!(log.lines(), ["started a", "done a"]);
}
