//! What ends a build before its time.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kiln_core::Cancel;
use kiln_solver::SolveError;
use kiln_testkit::{FakeError, Gate, graph};

use crate::bench::Bench;

const TWO: &str = "bad run -\n long run -\n both run bad bind=long:x";

#[test]
fn the_first_failure_cancels_the_rest_and_is_returned() {
    let bench = Bench::default();
    bench.worker.fail("bad", "boom\nwith a second line");
    let (bad, long) = (bench.worker.gate("bad"), bench.worker.gate("long"));
    std::thread::scope(|scope| {
        let build = scope.spawn(|| bench.attempt(TWO, &["both"], 2, &Cancel::new()));
        bad.wait();
        long.wait();
        bad.open();
        // long is never opened: only cancelling ends it.
        let (mut lines, result) = build.join().unwrap();
        lines[..2].sort();
        assert_eq!(lines, ["started bad", "started long", "failed bad: boom", "cancelled long"]);
        let id = graph(TWO).id("bad");
        assert_eq!(result, Err(SolveError::Step { id, error: FakeError("boom\nwith a second line".into()) }));
    });
    bench.worker.heal();
    assert_eq!(bench.build(TWO).executed, ["bad", "long", "both"]);
}

#[test]
fn after_a_failure_no_step_begins_and_what_was_done_is_kept() {
    let bench = Bench::default();
    bench.worker.fail("c", "boom");
    let text = "a run -\n b run a\n c run b\n d run c\n e run -\n top run d bind=e:x";
    let (lines, result) = bench.attempt(text, &["top"], 1, &Cancel::new());
    result.unwrap_err();
    // e could run as well, and is later in the graph; whether it is known in time that it has to is chance.
    assert_eq!(lines[lines.len() - 2..], ["started c", "failed c: boom"]);
    let but_e = |mut all: Vec<String>| {
        all.retain(|line| !line.ends_with('e') || line.starts_with("failed"));
        all
    };
    let lines = but_e(lines);
    assert_eq!(lines, ["started a", "done a", "started b", "done b", "started c", "failed c: boom"]);
    bench.worker.heal();
    assert_eq!(but_e(bench.build(text).executed), ["c", "d", "top"]);
}

#[test]
fn the_callers_cancel_ends_what_runs() {
    let bench = Bench::default();
    let cancel = Cancel::new();
    let gates = [bench.worker.gate("long"), bench.worker.gate("main:src")];
    std::thread::scope(|scope| {
        let text = "main context\n long run -\n src copy - main:src";
        let build = scope.spawn(|| bench.attempt(text, &["long", "src"], 2, &cancel));
        gates.iter().for_each(Gate::wait);
        cancel.cancel();
        let (lines, result) = build.join().unwrap();
        assert_eq!(lines, ["started long", "cancelled long"]);
        assert_eq!(result, Err(SolveError::Cancelled));
    });
}

#[test]
fn a_build_that_is_cancelled_before_it_begins_does_nothing() {
    let bench = Bench::default();
    let cancel = Cancel::new();
    cancel.cancel();
    let (lines, result) = bench.attempt(TWO, &["both"], 2, &cancel);
    assert_eq!((lines, result), (vec![], Err(SolveError::Cancelled)));
    assert_eq!(bench.worker.calls(), []);
}

#[test]
fn a_failing_build_does_not_cancel_its_caller() {
    let bench = Bench::default();
    bench.worker.fail("bad", "boom");
    let cancel = Cancel::new();
    bench.attempt(TWO, &["both"], 2, &cancel).1.unwrap_err();
    assert!(!cancel.is_cancelled());
}

#[test]
fn a_source_that_is_not_there_fails_the_step_that_takes_it_before_anything_runs() {
    let bench = Bench::default();
    bench.worker.fail("main", "no such file");
    let text = "main context\n long run -\n src copy long main:src\n end run src";
    let (lines, result) = bench.attempt(text, &["end"], 1, &Cancel::new());
    assert_eq!(lines, ["started src", "failed src: no such file"]);
    assert!(matches!(result, Err(SolveError::Step { id, .. }) if id == graph(text).id("src")));
}

#[test]
fn an_index_that_cannot_be_written_fails_the_build() {
    let bench = Bench::default();
    bench.index.fill_up();
    let (lines, result) = bench.attempt("a run -", &["a"], 1, &Cancel::new());
    assert_eq!(lines, ["started a", "failed a: disk full"]);
    assert!(matches!(result, Err(SolveError::Index { error, .. }) if error.0 == "disk full"));
}

#[test]
fn an_index_that_cannot_be_read_fails_the_build() {
    let bench = Bench::default();
    bench.index.break_down();
    let (lines, result) = bench.attempt("a run -", &["a"], 1, &Cancel::new());
    assert_eq!(lines, ["started a", "failed a: index unreadable"]);
    assert!(matches!(result, Err(SolveError::Index { .. })));
}

#[test]
fn a_panic_of_the_worker_ends_the_build_and_reaches_the_caller() {
    let bench = Bench::default();
    bench.worker.panic_in("bad");
    let (bad, long) = (bench.worker.gate("bad"), bench.worker.gate("long"));
    std::thread::scope(|scope| {
        let work = || bench.attempt(TWO, &["both"], 2, &Cancel::new());
        let build = scope.spawn(move || catch_unwind(AssertUnwindSafe(work)).map(drop));
        bad.wait();
        long.wait();
        bad.open();
        let payload = build.join().unwrap().unwrap_err();
        assert_eq!(payload.downcast_ref::<String>().map(String::as_str), Some("bad panics as asked"));
    });
}

#[test]
#[should_panic(expected = "is not in the graph")]
fn a_wanted_step_must_be_in_the_graph() {
    let stranger = graph("x run -").id("x");
    let bench = Bench::default();
    let graph = kiln_core::StepGraph::new();
    let log = kiln_testkit::ProgressLog::new(&graph);
    let _ = kiln_solver::solve(&graph, &[stranger], &bench.worker, &bench.index, &log, 1, &Cancel::new());
}
