//! When a record does not count although its key is the same: what it was made over has been made anew since.
//! And when it counts although what it was made over is gone.

use kiln_core::Cancel;
use kiln_solver::{Verdict, solve};
use kiln_testkit::{ProgressLog, graph};

use crate::bench::Bench;

const CHAIN: &str = "base image\n a run base\n b run a\n c run b\n d run c";
const NONE: [&str; 0] = [];

/// The chain with `a` ignoring records.
fn refreshing(text: &str) -> String {
    text.replace("a run base", "a run base no-cache")
}

#[test]
fn a_step_that_ignores_records_runs_and_its_children_are_made_over_what_it_made() {
    let bench = Bench::default();
    let first = bench.build(CHAIN);
    let second = bench.build(&refreshing(CHAIN));
    assert_eq!(second.executed, ["base", "a", "b", "c", "d"]);
    assert_ne!(second.snapshot("a"), first.snapshot("a"));
    assert!(second.snapshot("d").layers.starts_with(&second.snapshot("a").layers));
    let third = bench.build(CHAIN);
    assert_eq!(third.executed, NONE, "what ran was recorded");
    assert_eq!(third.snapshot("d"), second.snapshot("d"));
}

#[test]
fn a_step_that_ignores_records_runs_even_if_all_above_it_is_recorded() {
    let bench = Bench::default();
    let text = "a run -\n b copy - a:x\n c run b";
    bench.worker.set_content("a", "x", "same");
    bench.build(text);
    let second = bench.build("a run - no-cache\n b copy - a:x\n c run b");
    assert_eq!(second.executed, ["a"], "it made the same files, so the rest is a hit");
    bench.worker.set_content("a", "x", "other");
    let third = bench.build("a run - no-cache\n b copy - a:x\n c run b");
    assert_eq!(third.executed, ["a", "b", "c"]);
}

#[test]
fn after_a_build_of_a_lower_step_alone_nothing_is_mixed() {
    let bench = Bench::default();
    bench.build(CHAIN);
    let lower = bench.build_of(&refreshing(CHAIN), &["a"]);
    assert_eq!(lower.executed, ["base", "a"]);
    let whole = bench.build(CHAIN);
    // c's and d's records were made over the old a as well, though b, which is right below c, has not run yet
    // when c is looked up.
    assert_eq!(whole.executed, ["b", "c", "d"]);
    assert_eq!(whole.snapshot("a"), lower.snapshot("a"));
    assert!(whole.snapshot("d").layers.starts_with(&lower.snapshot("a").layers));
    assert_eq!(bench.build(CHAIN).executed, NONE);
}

#[test]
fn after_a_build_of_a_source_alone_its_new_files_are_taken() {
    let bench = Bench::default();
    let text = "base image\n a run base\n lib run a\n take copy - lib:out\n end run take";
    bench.worker.set_content("lib", "out", "old");
    let first = bench.build(text);
    bench.worker.set_content("lib", "out", "new");
    assert_eq!(bench.build_of(&text.replace("lib run a", "lib run a no-cache"), &["lib"]).executed, ["lib"]);
    let second = bench.build(text);
    assert_eq!(second.executed, ["take", "end"], "the key of lib is the same, its files are not");
    assert_ne!(second.snapshot("end"), first.snapshot("end"));
    assert_eq!(bench.build(text).executed, NONE);
    // And if the files are the same after all, the copy is a hit by content.
    assert_eq!(bench.build_of(&text.replace("lib run a", "lib run a no-cache"), &["lib"]).executed, ["lib"]);
    assert_eq!(bench.build(text).executed, NONE);
}

#[test]
fn a_source_that_must_be_made_anew_is_made_before_its_copy_is_judged() {
    let bench = Bench::default();
    let text = "base image\n a run base\n lib run a\n take copy - lib:out\n end run take";
    bench.worker.set_content("lib", "out", "old");
    bench.build(text);
    bench.worker.set_content("lib", "out", "new");
    assert_eq!(bench.build_of(&refreshing(text), &["a"]).executed, ["base", "a"]);
    assert_eq!(bench.build(text).executed, ["lib", "take", "end"]);
}

#[test]
fn a_failed_refresh_leaves_no_mixture_behind() {
    let bench = Bench::default();
    bench.build(CHAIN);
    bench.worker.fail("c", "no");
    let (_, result) = bench.attempt(&refreshing(CHAIN), &["d"], 1, &Cancel::new());
    result.unwrap_err();
    bench.worker.heal();
    let whole = bench.build(CHAIN);
    assert_eq!(whole.executed, ["c", "d"]);
    assert!(whole.snapshot("d").layers.starts_with(&whole.snapshot("b").layers));
}

#[test]
fn records_outlive_those_of_the_steps_below() {
    let bench = Bench::default();
    let first = bench.build(CHAIN);
    for gone in ["a", "b", "c"] {
        assert_eq!(bench.index.forget(gone), 1);
    }
    let second = bench.build(CHAIN);
    assert_eq!((second.executed, second.lines), (vec![], vec!["cached d".to_owned()]));
    let unneeded: [Verdict; 3] =
        ["a", "b", "c"].map(|name| first.graph.id(name)).map(|id| second.solved.verdict(id));
    assert_eq!(unneeded, [Verdict::Unneeded; 3]);
}

#[test]
fn copies_outlive_the_records_of_their_sources() {
    let bench = Bench::default();
    let text = "a run -\n take copy - a:x\n end run take";
    bench.build(text);
    assert_eq!(bench.index.forget("a"), 1);
    assert_eq!(bench.build(text).executed, NONE, "the key of a, which is known, leads to the copy");
    assert_eq!(bench.index.forget("take"), 1);
    assert_eq!(bench.build(text).executed, ["a"], "what a made anew has the same content: end is a hit");
}

#[test]
fn a_step_whose_layer_is_gone_runs_again() {
    let bench = Bench::default();
    let first = bench.build(CHAIN);
    let top = first.snapshot("d").layers.last().unwrap();
    bench.index.remove_layer(top);
    assert_eq!(bench.build(CHAIN).executed, ["d"]);
    let below = &first.snapshot("b").layers[2];
    bench.index.remove_layer(below);
    assert_eq!(bench.build(CHAIN).executed, ["b", "c", "d"], "all records with that layer are gone");
}

/// What a build is told of its misses: which steps have no record that counts, and whether one is there all the same.
#[test]
fn who_listens_hears_of_misses_and_whether_there_is_a_record_over_another_root() {
    let bench = Bench::default();
    let missed = |text: &str, wanted: &str| {
        let graph = graph(text);
        let log = ProgressLog::new(&graph.graph);
        bench.worker.begin(&graph.graph);
        let result =
            solve(&graph.graph, &[graph.id(wanted)], &bench.worker, &bench.index, &log, 1, &Cancel::new());
        result.expect("it builds");
        log.missed()
    };
    assert_eq!(missed(CHAIN, "d"), ["a", "b", "c", "d"]);
    assert_eq!(missed(CHAIN, "d"), NONE);
    assert_eq!(missed(&refreshing(CHAIN), "a"), ["a"]);
    assert_eq!(missed(CHAIN, "d"), ["b", "c", "d"].map(|title| format!("{title} over another root")));
    assert_eq!(missed(CHAIN, "d"), NONE);
}
