use std::sync::Mutex;
use std::time::Duration;

use kiln_core::{Digest, Event, ImageOp, Op, StepId, StepOutcome};

use super::Reporter;
use crate::CacheVerdict;

fn id(name: &str) -> StepId {
    StepId::of(&Op::Image(ImageOp { manifest: Digest::of(name.as_bytes()) }))
}

#[test]
fn a_step_has_one_number_and_tasks_are_counted_with_steps() {
    let events = Mutex::new(Vec::new());
    let sink = |event: Event| events.lock().unwrap().push(event);
    let reporter = Reporter::new(&sink);
    reporter.task("load").done();
    assert_eq!(reporter.number(id("a"), "RUN a", Some((2, 3))), 2);
    assert_eq!(reporter.number(id("b"), "RUN b", None), 3);
    assert_eq!(reporter.number(id("a"), "RUN a", Some((2, 3))), 2);
    reporter.cached(2);
    reporter.finished(3, StepOutcome::Done, Duration::from_millis(5), None);

    // Tasks are no steps of the graph, and so no part of the report.
    let (reports, _) = reporter.into_reports();
    let seen: Vec<_> = reports.iter().map(|r| (r.step, r.title.as_str(), r.verdict, r.duration_us)).collect();
    assert_eq!(seen, [(2, "RUN a", CacheVerdict::Hit, 0), (3, "RUN b", CacheVerdict::Ran, 5000)]);

    let declared: Vec<u32> = events
        .into_inner()
        .unwrap()
        .iter()
        .filter_map(|event| match event {
            Event::StepDeclared { step, .. } => Some(*step),
            _ => None,
        })
        .collect();
    assert_eq!(declared, [1, 2, 3]);
}

#[test]
fn a_task_ends_as_its_result_says_and_cancelled_if_dropped() {
    let outcomes = Mutex::new(Vec::new());
    let sink = |event: Event| {
        if let Event::StepFinished { outcome, .. } = event {
            outcomes.lock().unwrap().push(outcome);
        }
    };
    let reporter = Reporter::new(&sink);
    reporter.task("well").end_with(&Ok::<_, String>(()));
    reporter.task("badly").end_with(&Err::<(), _>("no such host"));
    drop(reporter.task("forgotten"));
    let failed = StepOutcome::Failed { message: "no such host".to_owned() };
    assert_eq!(outcomes.into_inner().unwrap(), [StepOutcome::Done, failed, StepOutcome::Cancelled]);
}
