//! Graphs of thousands of steps: neither the stack nor the work may grow with more than their number.

use std::fmt::Write as _;

use kiln_core::Cancel;
use kiln_testkit::IndexCall;

use crate::bench::Bench;

#[test]
fn a_chain_of_ten_thousand_steps() {
    const STEPS: usize = 10_000;
    let bench = Bench::default();
    let mut text = "s0 run -\n".to_owned();
    for step in 1..STEPS {
        writeln!(text, "s{step} workdir s{}", step - 1).unwrap();
        // A snapshot is a list of layers; a store has some hundred of them at most.
        bench.worker.add_nothing(&format!("s{step}"));
    }
    let first = bench.build(&text);
    assert_eq!(first.executed.len(), STEPS);
    let calls = bench.index.take_calls();
    assert_eq!(calls.len(), 3 * STEPS, "a look before, one after, and a record");
    let second = bench.build(&text);
    assert_eq!(second.executed.len(), 0);
    assert_eq!(bench.index.take_calls(), vec![IndexCall::Lookup(true); STEPS]);
    assert_eq!(second.lines[STEPS - 1], format!("cached s{}", STEPS - 1));
}

#[test]
fn thousands_of_steps_beside_one_another() {
    const STEPS: usize = 2_000;
    let bench = Bench::default();
    let mut text = "main context\nbase image\n".to_owned();
    let mut end = "end run base".to_owned();
    for step in 0..STEPS {
        writeln!(text, "s{step} copy base main:{step}").unwrap();
        write!(end, " bind=s{step}:x").unwrap();
    }
    let text = format!("{text}{end}");
    let (_, result) = bench.attempt(&text, &["end"], 4, &Cancel::new());
    assert_eq!(result.unwrap().results.len(), STEPS + 2);
    let (lines, result) = bench.attempt(&text, &["end"], 4, &Cancel::new());
    result.unwrap();
    assert_eq!(lines.len(), STEPS + 1);
}
