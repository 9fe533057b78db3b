//! `COPY --link`: layers that are made over nothing and put over a root by a step of its own.

use kiln_core::Snapshot;
use kiln_testkit::WorkerCall;

use crate::bench::Bench;

const NONE: [&str; 0] = [];

fn text(base: &str) -> String {
    format!("main context\n {base} image\n copied copy - main:src\n link merge {base} copied\n end run link")
}

fn over(root: &Snapshot, layers: &Snapshot) -> Snapshot {
    Snapshot { layers: [root.layers.clone(), layers.layers.clone()].concat() }
}

#[test]
fn another_base_does_not_make_the_copy_anew() {
    let bench = Bench::default();
    let first = bench.build(&text("old"));
    assert_eq!(first.executed, ["old", "copied", "link", "end"]);
    assert_eq!(*first.snapshot("link"), over(first.snapshot("old"), first.snapshot("copied")));
    assert_eq!(bench.build(&text("old")).executed, NONE);

    let second = bench.build(&text("new"));
    assert_eq!(second.executed, ["new", "link", "end"]);
    assert_eq!(*second.snapshot("link"), over(second.snapshot("new"), first.snapshot("copied")));
}

#[test]
fn the_files_of_a_linked_copy_are_never_hashed() {
    let bench = Bench::default();
    bench.build(&text("base"));
    let digests: Vec<WorkerCall> =
        bench.worker.calls().into_iter().filter(|call| matches!(call, WorkerCall::Digest(..))).collect();
    assert_eq!(digests, [WorkerCall::Digest("main".to_owned(), "src".to_owned())], "the context's alone");
}

#[test]
fn other_files_make_the_copy_and_what_is_above_it_anew() {
    let bench = Bench::default();
    bench.build(&text("base"));
    bench.worker.set_content("main", "src", "2");
    assert_eq!(bench.build(&text("base")).executed, ["base", "copied", "link", "end"]);
}

#[test]
fn a_copy_that_ran_anew_under_its_old_key_is_put_over_the_root_anew() {
    let bench = Bench::default();
    bench.build(&text("base"));
    let refreshed = text("base").replace("main:src", "main:src no-cache");
    let second = bench.build(&refreshed);
    assert_eq!(second.executed, ["base", "copied", "link", "end"]);
    assert_eq!(*second.snapshot("link"), over(second.snapshot("base"), second.snapshot("copied")));
    assert_eq!(bench.build(&text("base")).executed, NONE);

    // The copy alone, in a build that does not reach the merge: its record there is of the old layer.
    let alone = bench.build_of(&refreshed, &["copied"]);
    assert_eq!(alone.executed, ["copied"]);
    let whole = bench.build(&text("base"));
    assert_eq!(whole.executed, ["base", "link", "end"]);
    assert_eq!(*whole.snapshot("link"), over(whole.snapshot("base"), alone.snapshot("copied")));
}

#[test]
fn a_root_that_ran_anew_gets_the_same_layers() {
    let bench = Bench::default();
    let text = "main context\n below run -\n copied copy - main:src\n link merge below copied";
    let first = bench.build(text);
    let second = bench.build(&text.replace("below run -", "below run - no-cache"));
    assert_eq!(second.executed, ["below", "link"]);
    assert_eq!(*second.snapshot("link"), over(second.snapshot("below"), first.snapshot("copied")));
}

#[test]
fn a_merge_outlives_the_record_of_its_copy() {
    let bench = Bench::default();
    bench.build(&text("base"));
    assert_eq!(bench.index.forget("copied"), 1);
    assert_eq!(bench.build(&text("base")).executed, NONE);
}

#[test]
fn a_stage_may_be_linked_from_and_copied_from() {
    let bench = Bench::default();
    let text = |arg: &str| {
        format!(
            "tools run - arg={arg}\n copied copy - tools:bin\n base image\n link merge base copied\n take copy - link:x"
        )
    };
    bench.worker.set_content("tools", "bin", "same");
    assert_eq!(bench.build(&text("1")).executed, ["tools", "copied", "base", "link", "take"]);
    assert_eq!(bench.build(&text("1")).executed, NONE);
    let again = bench.build(&text("2"));
    assert_eq!(again.executed, ["tools", "base"], "the same files: the copy is a hit, and all above it");
}
