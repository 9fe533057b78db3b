//! Records of other machines: taken by the same rule, asked for before their turn, and never mixed.
//!
//! A machine is an index of its own. Layers have the same names everywhere, as if they were named by content.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use kiln_core::{Cancel, Digest, StepId};
use kiln_solver::{
    CacheIndex, Elsewhere, KeyParts, Snapshots, Solved, Sought, StepRecord, definition_key, solve,
};
use kiln_testkit::{FakeError, FakeWorker, MemoryIndex, ProgressLog, graph};

const CHAIN: &str = "base image\n a run base\n b run a\n c run b";

/// What all machines see.
#[derive(Default)]
struct Shared {
    records: Mutex<HashMap<Digest, StepRecord>>,
    aliases: Mutex<HashMap<Digest, Digest>>,
}

/// One machine's view: its own records first. What it leaves, it leaves for all.
struct Machine<'s> {
    own: MemoryIndex,
    shared: &'s Shared,
    foreseen: Mutex<Vec<Digest>>,
    asked: Mutex<Vec<Digest>>,
    /// Whether what it does is left for others.
    leaves: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'s> Machine<'s> {
    fn new(shared: &'s Shared) -> Self {
        let (foreseen, asked) = (Mutex::default(), Mutex::default());
        Self { own: MemoryIndex::new(), shared, foreseen, asked, leaves: true }
    }

    /// Builds; returns what ran, and the result.
    fn build(&self, worker: &FakeWorker, text: &str, wanted: &str) -> (Vec<String>, Solved) {
        let graph = graph(text);
        let log = ProgressLog::new(&graph.graph);
        worker.begin(&graph.graph);
        let solved = solve(&graph.graph, &[graph.id(wanted)], worker, self, &log, 2, &Cancel::new());
        (worker.executed(), solved.unwrap_or_else(|error| panic!("{error} in {text}")))
    }
}

impl CacheIndex for Machine<'_> {
    type Error = FakeError;

    fn lookup(&self, key: &Digest) -> Result<Option<StepRecord>, FakeError> {
        self.own.lookup(key)
    }

    fn alias(&self, definition: &Digest) -> Result<Option<Digest>, FakeError> {
        self.own.alias(definition)
    }

    fn record(&self, record: StepRecord, parts: &KeyParts) -> Result<StepRecord, FakeError> {
        self.own.record(record, parts)
    }

    fn record_alias(&self, definition: &Digest, content: &Digest) -> Result<(), FakeError> {
        self.own.record_alias(definition, content)
    }

    fn reaches_out(&self) -> bool {
        true
    }

    fn elsewhere(&self, key: &Digest, _: &Sought<'_>) -> Elsewhere {
        lock(&self.asked).push(*key);
        lock(&self.shared.records).get(key).cloned().map_or(Elsewhere::Nothing, Elsewhere::Record)
    }

    fn alias_elsewhere(&self, sought: &Sought<'_>) -> Option<Digest> {
        let definition = definition_key(&sought.step.op, sought.inputs, Snapshots::Known);
        lock(&self.shared.aliases).get(&definition).copied()
    }

    fn foresee(&self, _: StepId, key: &Digest) {
        lock(&self.foreseen).push(*key);
    }

    fn settled(&self, sought: &Sought<'_>, record: &StepRecord) {
        if !self.leaves {
            return;
        }
        lock(&self.shared.records).insert(record.key, record.clone());
        for over in [Snapshots::Left, Snapshots::Known] {
            let definition = definition_key(&sought.step.op, sought.inputs, over);
            lock(&self.shared.aliases).insert(definition, record.key);
        }
    }
}

const NONE: [&str; 0] = [];

#[test]
fn what_one_machine_did_another_need_not_do() {
    let (worker, shared) = (FakeWorker::default(), Shared::default());
    let (one, two) = (Machine::new(&shared), Machine::new(&shared));
    let (_, first) = one.build(&worker, CHAIN, "c");
    let (executed, second) = two.build(&worker, CHAIN, "c");
    assert_eq!(executed, NONE);
    let id = graph(CHAIN).id("c");
    assert_eq!(second.results[&id].snapshot, first.results[&id].snapshot);
}

#[test]
fn a_record_over_what_another_machine_made_below_does_not_count() {
    let (worker, shared) = (FakeWorker::default(), Shared::default());
    let two = Machine { leaves: false, ..Machine::new(&shared) };
    two.build(&worker, CHAIN, "a");
    Machine::new(&shared).build(&worker, CHAIN, "c");
    let (executed, _) = two.build(&worker, CHAIN, "c");
    assert_eq!(
        executed,
        ["b", "c"],
        "a of this machine is another one than that below the records of b and c"
    );
    // Without its own a, it takes all.
    assert_eq!(two.own.forget("a") + two.own.forget("b") + two.own.forget("c"), 3);
    assert_eq!(two.build(&worker, CHAIN, "c").0, NONE);
}

#[test]
fn what_is_made_anew_takes_nothing_above_it_from_elsewhere() {
    let (worker, shared) = (FakeWorker::default(), Shared::default());
    Machine::new(&shared).build(&worker, CHAIN, "c");
    let text = CHAIN.replace("a run base", "a run base no-cache");
    let two = Machine::new(&shared);
    let (executed, _) = two.build(&worker, &text, "c");
    assert_eq!(executed, ["base", "a", "b", "c"]);
    assert_eq!(
        lock(&two.asked).len(),
        1,
        "the record of b was made over another a, and so nothing above it is asked for"
    );
}

#[test]
fn a_copy_is_found_without_the_stage_it_copies_from() {
    let text = "base image\n a run base\n lib run a\n take copy - lib:out\n end run take";
    let (worker, shared) = (FakeWorker::default(), Shared::default());
    Machine::new(&shared).build(&worker, text, "end");
    assert_eq!(Machine::new(&shared).build(&worker, text, "end").0, NONE);
    // Of the stage no record is left there: its key leads to the copy all the same.
    lock(&shared.records).retain(|_, record| ["take", "end"].contains(&record.title.as_str()));
    assert_eq!(Machine::new(&shared).build(&worker, text, "end").0, NONE);
}

#[test]
fn keys_are_foreseen_when_the_context_is_hashed_and_each_once() {
    let text = "main context\nbase image\n a copy base main:1\n b run a\n c run b\n d run base";
    let (worker, shared) = (FakeWorker::default(), Shared::default());
    let machine = Machine::new(&shared);
    machine.build(&worker, text, "c");
    let foreseen = lock(&machine.foreseen).clone();
    let asked = lock(&machine.asked).clone();
    assert!(asked.len() == 3 && asked.iter().all(|key| foreseen.contains(key)), "{asked:?} of {foreseen:?}");
    let mut once = foreseen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), foreseen.len());
    let other = Machine::new(&shared);
    other.build(&worker, &text.replace("main:1", "main:1 no-cache"), "c");
    let foreseen = lock(&other.foreseen).clone();
    assert!(!foreseen.iter().any(|key| asked.contains(key)), "above a step that ignores records none counts");
}

/// A small generator of pseudo-random numbers (xorshift64*), so that a failure can be repeated by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % sides
    }
}

#[test]
fn machines_that_share_make_what_a_machine_alone_makes_and_mix_nothing() {
    for seed in 1..=150 {
        let mut dice = Dice(seed);
        let (worker, shared) = (FakeWorker::default(), Shared::default());
        let machines: Vec<Machine<'_>> = (0..3).map(|_| Machine::new(&shared)).collect();
        let count = 3 + dice.roll(6);
        let mut versions = vec![0; count];
        let lines: Vec<(Option<usize>, Option<usize>)> = (0..count)
            .map(|line| {
                let root = (line > 0 && dice.roll(4) > 0).then(|| dice.roll(line));
                (root, (line > 0 && dice.roll(3) == 0).then(|| dice.roll(line)))
            })
            .collect();
        for round in 0..10 {
            let fresh_key = dice.roll(count * 2);
            if fresh_key < count {
                versions[fresh_key] += 1;
            }
            let anew = dice.roll(count * 3);
            let mut text = "base image\n".to_owned();
            for (line, (root, source)) in lines.iter().enumerate() {
                let root = root.map_or_else(|| "base".to_owned(), |root| format!("s{root}"));
                let no_cache = if anew == line { " no-cache" } else { "" };
                text += &match source {
                    Some(source) => format!("s{line} copy {root} s{source}:x{no_cache}\n"),
                    None => format!("s{line} run {root} arg={}{no_cache}\n", versions[line]),
                };
            }
            let wanted = format!("s{}", dice.roll(count));
            let machine = &machines[dice.roll(machines.len())];
            let place = format!("seed {seed}, round {round}, {wanted} of\n{text}");
            let (_, built) = machine.build(&worker, &text, &wanted);

            let alone = Shared::default();
            let other = FakeWorker::default();
            let clean = Machine::new(&alone).build(&other, &text, &wanted).1;
            let graph = graph(&text);
            let id = graph.id(&wanted);
            let meanings =
                (worker.meaning(&built.results[&id].snapshot), other.meaning(&clean.results[&id].snapshot));
            assert_eq!(meanings.0, meanings.1, "{place}");
            for (step_id, step) in graph.graph.iter() {
                let root = step.op.root().and_then(|root| built.results.get(&root));
                if let (Some(finished), Some(root)) = (built.results.get(&step_id), root) {
                    let grown = finished.snapshot.layers.starts_with(&root.snapshot.layers);
                    assert!(grown, "{} is not made over its root: {place}", step.info.title);
                }
            }
        }
    }
}
