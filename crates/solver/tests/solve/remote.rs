//! Sources that have to be fetched: asked first, fetched if need be, beside what runs.

use kiln_core::Cancel;
use kiln_solver::SolveError;
use kiln_testkit::{Gate, WorkerCall, graph};

use crate::bench::Bench;

const NONE: [&str; 0] = [];

/// What was fetched, in order.
fn fetched(bench: &Bench) -> Vec<String> {
    let url = |call| match call {
        WorkerCall::Fetch(url) => Some(url),
        WorkerCall::Execute(_) | WorkerCall::Digest(..) => None,
    };
    bench.worker.calls().into_iter().filter_map(url).collect()
}

#[test]
fn a_source_is_fetched_once_and_only_for_a_step_that_runs() {
    let bench = Bench::default();
    let text = "url http\n one copy - url:x\n two copy one url:x url:y\n three run two bind=url:z";
    assert_eq!(bench.build(text).executed, ["one", "two", "three"]);
    assert_eq!(fetched(&bench), ["url"]);
    assert_eq!(bench.build(text).executed, NONE);
    assert_eq!(fetched(&bench), NONE, "the digest is enough for a hit");
    bench.worker.set_content("url", "z", "2");
    assert_eq!(bench.build(text).executed, ["three"]);
    assert_eq!(fetched(&bench), ["url"]);
}

#[test]
fn what_seeds_a_cache_is_fetched_and_never_asked_for_its_digest() {
    let bench = Bench::default();
    let text = "url http\n run run - cache=c seed=url:x";
    assert_eq!(bench.build(text).executed, ["run"]);
    assert_eq!(bench.worker.calls(), [WorkerCall::Fetch("url".into()), WorkerCall::Execute("run".into())]);
    assert_eq!(bench.build(text).executed, NONE);
    assert_eq!(fetched(&bench), NONE);
}

#[test]
fn all_that_must_be_fetched_is_fetched_at_once_and_beside_steps() {
    let bench = Bench::default();
    let gates = ["a", "b", "slow"].map(|name| bench.worker.gate(name));
    std::thread::scope(|scope| {
        let text = "a http\n b http\n slow run -\n one copy slow a:x\n two copy one b:x";
        let build = scope.spawn(|| bench.attempt(text, &["two"], 1, &Cancel::new()));
        // Both fetches and the step, although there is one job: none of them is opened before all have begun.
        gates.iter().for_each(Gate::wait);
        gates.iter().for_each(Gate::open);
        build.join().unwrap().1.unwrap();
    });
    assert_eq!(bench.worker.executed(), ["slow", "one", "two"]);
}

#[test]
fn steps_below_run_while_a_digest_is_fetched() {
    for text in [
        "url http\n base image\n slow run base\n copy copy slow url:x",
        "url http\n base image\n slow run base\n copy copy slow url:x\n end run copy",
        "url http\n base image\n slow run base\n copy copy - url:x\n end run slow bind=copy:x",
        "url http\n other http\n base image\n slow run base\n copy copy slow other:y url:x",
    ] {
        let bench = Bench::default();
        bench.worker.must_fetch("url");
        let (digest, slow) = (bench.worker.gate("url:x"), bench.worker.gate("slow"));
        let last = text.lines().last().unwrap().split_whitespace().next().unwrap();
        std::thread::scope(|scope| {
            let build = scope.spawn(|| bench.attempt(text, &[last], 2, &Cancel::new()));
            digest.wait();
            slow.wait();
            slow.open();
            digest.open();
            build.join().unwrap().1.unwrap();
        });
        assert_eq!(
            bench.worker.executed().len(),
            text.lines().count() - text.matches("http").count(),
            "{text}"
        );
        assert_eq!(bench.build(text).executed, NONE, "{text}");
    }
}

#[test]
fn nothing_runs_while_it_is_asked_whether_a_source_is_the_same() {
    let bench = Bench::default();
    let text = "url http\n base image\n slow run base\n copy copy slow url:x\n end run copy";
    bench.build(text);
    assert_eq!(bench.index.forget("slow"), 1);
    let asking = bench.worker.gate("url:x");
    std::thread::scope(|scope| {
        let build = scope.spawn(|| bench.attempt(text, &["end"], 2, &Cancel::new()));
        asking.wait();
        asking.open();
        let (lines, result) = build.join().unwrap();
        result.unwrap();
        assert_eq!(lines, ["cached copy", "cached end"]);
    });
}

#[test]
fn slow_servers_hold_up_only_who_needs_them() {
    let bench = Bench::default();
    let urls: Vec<String> = (0..20).map(|number| format!("u{number}")).collect();
    let mut text = String::from("main context\n");
    for url in &urls {
        text.push_str(&format!("{url} http\n c{url} copy - {url}:x\n"));
    }
    text.push_str("src copy - main:src\n other run src");
    let gates: Vec<Gate> = urls.iter().map(|url| bench.worker.gate(&format!("{url}:x"))).collect();
    let other = bench.worker.gate("other");
    let copies: Vec<String> = urls.iter().map(|url| format!("c{url}")).collect();
    let wanted: Vec<&str> = copies.iter().map(String::as_str).chain(["other"]).collect();
    std::thread::scope(|scope| {
        let build = scope.spawn(|| bench.attempt(&text, &wanted, 1, &Cancel::new()));
        gates.iter().for_each(Gate::wait);
        other.wait();
        other.open();
        gates.iter().for_each(Gate::open);
        build.join().unwrap().1.unwrap();
    });
}

#[test]
fn a_source_that_cannot_be_had_fails_the_step_that_takes_it() {
    let bench = Bench::default();
    bench.worker.fail("url", "not there");
    // To know its digest, and where that is known without it.
    let text = "url http\n src copy - url:x";
    let (lines, result) = bench.attempt(text, &["src"], 1, &Cancel::new());
    assert_eq!(lines, ["started src", "failed src: not there"]);
    assert!(matches!(result, Err(SolveError::Step { id, .. }) if id == graph(text).id("src")));
    let text = "url http\n run run - cache=c seed=url:x";
    let (lines, result) = bench.attempt(text, &["run"], 1, &Cancel::new());
    assert_eq!(lines, ["started run", "failed run: not there"]);
    assert!(matches!(result, Err(SolveError::Step { id, .. }) if id == graph(text).id("run")));
    bench.worker.heal();
    assert_eq!(bench.build(text).executed, ["run"]);
}

#[test]
fn cancelling_ends_what_is_fetched() {
    let bench = Bench::default();
    let cancel = Cancel::new();
    let fetching = bench.worker.gate("url");
    std::thread::scope(|scope| {
        let build = scope.spawn(|| bench.attempt("url http\n src copy - url:x", &["src"], 1, &cancel));
        fetching.wait();
        cancel.cancel();
        let (lines, result) = build.join().unwrap();
        assert_eq!((lines, result), (vec![], Err(SolveError::Cancelled)));
    });
}
