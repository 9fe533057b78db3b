//! Steps that wait for others, and those that have their places meanwhile.

use kiln_core::Cancel;

use crate::bench::Bench;

/// What is not fetched yet holds up `a`, so that `w` begins first.
const STEPS: &str = "url http\n w run -\n a run - cache=d seed=url:x\n b run a\n c copy w b:x";

#[test]
fn a_step_that_waits_leaves_its_place_to_others_and_takes_one_again() {
    let bench = Bench::default();
    let (fetching, waits) = (bench.worker.gate("url"), bench.worker.waits("w"));
    let last = bench.worker.gate("b");
    std::thread::scope(|scope| {
        let build = scope.spawn(|| bench.attempt(STEPS, &["c"], 1, &Cancel::new()));
        // With one job: the others run while the first one waits.
        waits.wait();
        fetching.open();
        last.wait();
        waits.open();
        last.open();
        let (lines, result) = build.join().unwrap();
        result.unwrap();
        assert_eq!(lines[..4], ["started w", "started a", "done a", "started b"]);
        assert_eq!(lines[6..], ["started c", "done c"]);
    });
    assert_eq!(bench.worker.most_at_once(), 1, "it went on without a place");
}

#[test]
fn a_build_that_stops_waits_for_no_place() {
    let bench = Bench::default();
    let (fetching, waits) = (bench.worker.gate("url"), bench.worker.waits("w"));
    let running = bench.worker.gate("a");
    let cancel = Cancel::new();
    std::thread::scope(|scope| {
        let build = scope.spawn(|| bench.attempt(STEPS, &["c"], 1, &cancel));
        waits.wait();
        fetching.open();
        running.wait();
        // Now it wants its place back, which the other one has.
        waits.open();
        cancel.cancel();
        assert!(build.join().unwrap().1.is_err());
    });
}
