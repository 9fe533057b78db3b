//! When a step need not run.

use std::time::Duration;

use kiln_solver::{CacheIndex as _, KeyParts, StepRecord, Verdict};
use kiln_testkit::{IndexCall, WorkerCall};

use crate::bench::Bench;

const STAGES: &str = "
    main   context
    base   image
    tools  run base
    make   copy tools main:src
    built  run make
    slim   image
    out    copy slim built:bin
    final  run out
";

#[test]
fn a_second_build_runs_nothing_and_touches_no_image_and_no_snapshot() {
    let bench = Bench::default();
    let first = bench.build(STAGES);
    assert_eq!(first.executed, ["base", "tools", "make", "built", "slim", "out", "final"]);
    assert_eq!(first.verdict("final"), Verdict::Ran);
    assert!(first.solved.results[&first.graph.id("base")].created.is_none(), "images are not recorded");
    bench.index.take_calls();

    let second = bench.build(STAGES);
    assert_eq!(second.executed, [] as [&str; 0]);
    assert_eq!(bench.worker.calls(), [WorkerCall::Digest("main".to_owned(), "src".to_owned())]);
    assert_eq!(second.lines, ["cached tools", "cached make", "cached built", "cached out", "cached final"]);
    for (name, verdict) in [("base", Verdict::Unneeded), ("slim", Verdict::Unneeded), ("final", Verdict::Hit)]
    {
        assert_eq!(second.verdict(name), verdict, "{name}");
    }
    assert_eq!(second.snapshot("final"), first.snapshot("final"));
    let (first, second) = (&first.solved.results[&first.graph.id("final")], second.solved.results);
    assert!(second.values().any(|found| found.key == first.key && found.created == first.created));
    let expected = [true; 5].map(IndexCall::Lookup).into_iter().chain([IndexCall::Alias(true)]);
    let mut calls = bench.index.take_calls();
    calls.sort_by_key(|call| matches!(call, IndexCall::Alias(_)));
    assert_eq!(calls, expected.collect::<Vec<_>>(), "one look per step, and nothing is written");
}

#[test]
fn a_changed_context_reruns_the_copy_and_what_is_above() {
    let bench = Bench::default();
    bench.worker.set_content("main", "src", "1");
    bench.build(STAGES);
    bench.worker.set_content("main", "src", "2");
    assert_eq!(bench.build(STAGES).executed, ["make", "built", "slim", "out", "final"]);
    bench.worker.set_content("main", "docs", "2");
    assert_eq!(bench.build(STAGES).executed, [] as [&str; 0], "what nobody copies does not count");
    bench.worker.set_content("main", "src", "1");
    let back = bench.build(STAGES);
    assert_eq!(back.executed, [] as [&str; 0], "the older records are still there");
}

#[test]
fn only_what_a_hit_lacks_is_executed_below_it() {
    let bench = Bench::default();
    bench.build("base image\n a run base\n b run a\n c run b");
    let more = bench.build("base image\n a run base\n b run a\n c run b\n d run c");
    assert_eq!(more.executed, ["d"], "the base image is not needed to run over a record");
}

#[test]
fn a_stage_that_made_the_same_files_leaves_its_copies_cached() {
    let bench = Bench::default();
    bench.worker.set_content("build", "out", "same");
    let text =
        |arg: &str| format!("base image\n build run base arg={arg}\n take copy - build:out\n end run take");
    let first = bench.build(&text("1"));
    assert_eq!(first.executed, ["base", "build", "take", "end"]);
    let second = bench.build(&text("2"));
    assert_eq!(second.executed, ["base", "build"], "the content key of the copy is the old one");
    assert_eq!(second.snapshot("end"), first.snapshot("end"));
    let third = bench.build(&text("2"));
    assert_eq!(third.executed, [] as [&str; 0]);
    assert_eq!(bench.worker.calls(), [], "the hit by content was noted: no file is looked at");
    bench.worker.set_content("build", "out", "other");
    assert_eq!(bench.build(&text("3")).executed, ["base", "build", "take", "end"]);
}

#[test]
fn equal_files_of_different_stages_are_one_content() {
    let bench = Bench::default();
    bench.worker.set_content("one", "out", "same");
    bench.worker.set_content("two", "out", "same");
    bench.build("one run -\n take copy - one:out");
    let moved = bench.build("two run -\n take copy - two:out");
    assert_eq!(moved.executed, ["two"]);
}

#[test]
fn an_image_as_a_source_is_fetched_once_and_then_known_by_its_manifest() {
    let bench = Bench::default();
    let text = "uv image\n bin copy - uv:uv\n also run bin bind=uv:uvx";
    assert_eq!(bench.build(text).executed, ["uv", "bin", "also"]);
    bench.build(text);
    assert_eq!(bench.worker.calls(), [], "nothing is fetched or hashed");
    assert_eq!(bench.build(&format!("{text}\n more run also")).executed, ["more"]);
}

#[test]
fn a_wanted_image_is_made_present() {
    let built = Bench::default().build("base image");
    assert_eq!(
        (built.executed, built.lines),
        (vec!["base".to_owned()], vec!["started base".into(), "done base".into()])
    );
    assert_eq!(built.solved.results[&built.graph.id("base")].key, kiln_core::Digest::of(b"base"));
}

#[test]
fn a_seed_is_executed_only_for_a_step_that_runs_and_is_no_part_of_its_key() {
    let bench = Bench::default();
    let text =
        |arg: &str| format!("base image\n fill run base arg={arg}\n use run - cache=pip seed=fill:pip");
    let first = bench.build(&text("1"));
    assert_eq!(first.executed, ["base", "fill", "use"]);
    let second = bench.build(&text("2"));
    assert_eq!(second.executed, [] as [&str; 0]);
    assert_eq!(second.lines, ["cached use"], "nobody asks for the seed");
    let context = bench.build("main context\n use run - cache=pip seed=main:pip arg=2");
    assert_eq!(context.executed, ["use"], "a context as a seed is not hashed, and comes without a snapshot");
    assert_eq!(bench.worker.calls().len(), 1);
}

#[test]
fn a_cache_mounts_name_is_no_part_of_a_key() {
    let bench = Bench::default();
    bench.build("use run - cache=one");
    assert_eq!(bench.build("use run - cache=two").executed, [] as [&str; 0]);
}

#[test]
fn steps_that_differ_in_no_key_run_once() {
    let bench = Bench::default();
    // The arguments hold the name, so both are called the same, and the second name is lost.
    let text = "a run - cache=one\n top run a\n a run - cache=two\n side run a";
    let built = bench.build_of(text, &["top", "side"]);
    assert_eq!(built.executed, ["a", "top", "side"]);
    assert_eq!(built.snapshot("side").layers[0], built.snapshot("top").layers[0]);
    assert_eq!(bench.build_of(text, &["top", "side"]).executed, [] as [&str; 0]);
}

#[test]
fn the_same_step_in_two_stages_runs_once() {
    let bench = Bench::default();
    let built = bench.build_of("base image\n a run base\n x run a\n y run a", &["x", "y", "x"]);
    assert_eq!(built.executed, ["base", "a", "x", "y"]);
}

#[test]
fn steps_that_nobody_wants_do_not_run() {
    let bench = Bench::default();
    let built = bench.build_of("base image\n a run base\n b run a\n other run base", &["a"]);
    assert_eq!(built.executed, ["base", "a"]);
    assert_eq!(built.verdict("other"), Verdict::Unneeded);
}

#[test]
fn one_selection_of_one_source_is_hashed_once() {
    let bench = Bench::default();
    bench.build(
        "main context\n a run -\n b copy a main:src\n c copy - main:src\n d copy b c:x\n e run d bind=c:x",
    );
    let digests = bench.worker.calls().into_iter().filter(|call| matches!(call, WorkerCall::Digest(..)));
    // A mount shows more of the files than a copy does.
    let expected = [("main", "src"), ("c", "x"), ("c", "x")]
        .map(|(a, b)| WorkerCall::Digest(a.to_owned(), b.to_owned()));
    assert_eq!(digests.collect::<Vec<_>>(), expected);
}

#[test]
fn what_another_process_finished_meanwhile_is_taken() {
    let bench = Bench::default();
    let text = "base image\n slow run base\n top run slow";
    let gate = bench.worker.gate("slow");
    let other = Bench::default();
    let built = std::thread::scope(|scope| {
        let build = scope.spawn(|| bench.build(text));
        gate.wait();
        // The other process ends first.
        let theirs = other.build_of(text, &["slow"]);
        for record in other.index.records("slow") {
            bench.index.record(record, &KeyParts::default()).unwrap();
        }
        bench.worker.learn(&other.worker);
        gate.open();
        let ours = build.join().unwrap();
        assert_eq!(ours.snapshot("slow"), theirs.snapshot("slow"));
        ours
    });
    assert_eq!(built.executed, ["base", "slow", "top"]);
    assert_eq!(built.verdict("slow"), Verdict::Ran);
    assert_eq!(bench.build(text).executed, [] as [&str; 0]);
}

#[test]
fn a_record_says_what_its_key_is_made_of() {
    let bench = Bench::default();
    let built = bench.build(STAGES);
    let record = bench.index.records("out").remove(0);
    let finished = &built.solved.results[&built.graph.id("out")];
    let parts = bench.index.parts(&record.key).unwrap();
    assert_eq!(
        (record.key, &record.snapshot, Some(record.created)),
        (finished.key, &finished.snapshot, finished.created)
    );
    assert_eq!(
        Duration::from_micros(record.duration_us),
        Duration::from_micros(finished.duration.as_micros() as u64)
    );
    assert_eq!(parts.get("op"), Some("copy"));
    assert_eq!(parts.get("root"), Some(kiln_core::Digest::of(b"slim").to_string().as_str()));
    assert!(parts.get("source 1").is_some_and(|source| source.starts_with("sha256:")));
    let json = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<StepRecord>(&json).unwrap(), record);
}
