//! What goes on at the same time.

use kiln_core::Cancel;

use crate::bench::Bench;

#[test]
fn independent_steps_run_at_once() {
    let bench = Bench::default();
    let (one, two) = (bench.worker.gate("one"), bench.worker.gate("two"));
    std::thread::scope(|scope| {
        let build = scope.spawn(|| {
            bench.attempt("one run -\n two run -\n both run one bind=two:x", &["both"], 2, &Cancel::new())
        });
        one.wait();
        two.wait();
        two.open();
        one.open();
        let (mut lines, result) = build.join().unwrap();
        result.unwrap();
        lines[..2].sort();
        assert_eq!(lines[..2], ["started one", "started two"]);
        assert_eq!(lines[4..], ["started both", "done both"]);
    });
}

#[test]
fn no_more_steps_run_than_there_are_jobs() {
    let bench = Bench::default();
    let names = ["one", "two", "three"];
    let gates = names.map(|name| bench.worker.gate(name));
    std::thread::scope(|scope| {
        let text = "one run -\n two run -\n three run -";
        let build = scope.spawn(|| bench.attempt(text, &names, 2, &Cancel::new()));
        // Which two come first is chance.
        let running = |count: usize| loop {
            let executed = bench.worker.executed();
            if executed.len() >= count {
                break executed;
            }
            std::thread::yield_now();
        };
        let gate = |name: &str| &gates[names.iter().position(|other| *other == name).unwrap()];
        let first = running(2);
        gate(&first[0]).open();
        let all = running(3);
        gate(&all[1]).open();
        gate(&all[2]).open();
        let (lines, result) = build.join().unwrap();
        result.unwrap();
        let kinds: Vec<&str> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(kinds[..4], ["started", "started", "done", "started"], "{lines:?}");
        assert_eq!(lines[2], format!("done {}", first[0]));
    });
    // None is as good as one.
    let (lines, result) = bench.attempt("four run -\n five run four", &["five"], 0, &Cancel::new());
    result.unwrap();
    assert_eq!(lines, ["started four", "done four", "started five", "done five"]);
}

#[test]
fn a_long_hashing_holds_up_only_who_needs_it() {
    let bench = Bench::default();
    let hashing = bench.worker.gate("main:src");
    let other = bench.worker.gate("other");
    std::thread::scope(|scope| {
        let text = "main context\n copy copy - main:src\n other run -";
        let build = scope.spawn(|| bench.attempt(text, &["copy", "other"], 1, &Cancel::new()));
        hashing.wait();
        other.wait();
        other.open();
        hashing.open();
        build.join().unwrap().1.unwrap();
    });
}

#[test]
fn nothing_runs_before_it_is_known_that_it_must() {
    let bench = Bench::default();
    let text = "main context\n base image\n slow run base\n copy copy slow main:src\n end run copy";
    bench.build(text);
    assert_eq!(bench.index.forget("slow"), 1);
    let hashing = bench.worker.gate("main:src");
    std::thread::scope(|scope| {
        let build = scope.spawn(|| bench.attempt(text, &["end"], 2, &Cancel::new()));
        hashing.wait();
        hashing.open();
        let (lines, result) = build.join().unwrap();
        result.unwrap();
        assert_eq!(lines, ["cached copy", "cached end"]);
    });
}

/// Two stages run at once although the key of each copy waits for the stage below it.
#[test]
fn stages_run_at_once_however_they_are_put_together() {
    let final_stages = [
        "c copy - a:x\n end copy c b:x",
        "c copy a b:x\n end run c",
        "c copy - a:x\n d run c\n e copy d b:x\n end run e",
        "c run a bind=b:x\n end run c",
        "end copy - a:x b:x",
        "f workdir a\n g copy f b:x\n end run g",
        "c copy - a:x\n d copy b c:y\n end run d",
    ];
    for text in final_stages {
        let bench = Bench::default();
        let (a, b) = (bench.worker.gate("a"), bench.worker.gate("b"));
        std::thread::scope(|scope| {
            let text = format!("base image\n a run base\n b run base arg=b\n {text}");
            let build = scope.spawn(move || (bench.attempt(&text, &["end"], 2, &Cancel::new()), bench));
            a.wait();
            b.wait();
            a.open();
            b.open();
            build.join().unwrap().0.1.unwrap();
        });
    }
}

#[test]
fn what_has_no_record_runs_beside_a_step_that_ignores_records() {
    let bench = Bench::default();
    let (a, b) = (bench.worker.gate("a"), bench.worker.gate("b"));
    std::thread::scope(|scope| {
        let text = "a run - no-cache\n b run -\n c copy a b:x";
        let build = scope.spawn(|| bench.attempt(text, &["c"], 2, &Cancel::new()));
        a.wait();
        b.wait();
        b.open();
        a.open();
        build.join().unwrap().1.unwrap();
    });
}

/// A root that has no record is made while a copy over it waits for its source. The copy's old record was made over
/// the old root: it must not be taken, whichever of the two is there first.
#[test]
fn a_record_does_not_count_once_its_root_is_being_made_anew() {
    let bench = Bench::default();
    let text = |arg: &str| format!("root run -\n lib run - arg={arg}\n c copy root lib:x\n end run c");
    bench.worker.set_content("lib", "x", "same");
    bench.build(&text("1"));
    assert_eq!(bench.index.forget("root"), 1);
    let root = bench.worker.gate("root");
    std::thread::scope(|scope| {
        let text = text("2");
        let build = scope.spawn(move || {
            let result = bench.attempt(&text, &["end"], 2, &Cancel::new());
            (result, bench.worker.executed(), bench)
        });
        root.wait();
        root.open();
        let ((_, result), mut executed, _) = build.join().unwrap();
        result.unwrap();
        executed.sort();
        assert_eq!(executed, ["c", "end", "lib", "root"]);
    });
}

#[test]
fn each_source_is_hashed_as_soon_as_it_is_there() {
    let bench = Bench::default();
    let (slow, hashing) = (bench.worker.gate("slow"), bench.worker.gate("quick:x"));
    std::thread::scope(|scope| {
        let text = "slow run -\n quick run -\n copy copy - slow:x quick:x";
        let build = scope.spawn(|| bench.attempt(text, &["copy"], 2, &Cancel::new()));
        slow.wait();
        hashing.wait();
        hashing.open();
        slow.open();
        build.join().unwrap().1.unwrap();
    });
}
