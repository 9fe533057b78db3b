//! A model test: several processes build, tag, untag, use caches and prune at once, and are killed in the middle, in an order that
//! a seed decides. After each round the store must be whole, and hold what a simple model says that it must.
//!
//! `KILN_MODEL_SEED` and `KILN_MODEL_ROUNDS` repeat a run, or make it longer.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use kiln_core::{CacheScope, Cancel, Digest, Sharing, Snapshot};
use kiln_store::cache_mount::CacheRequest;
use kiln_store::{Claimed, Ids, LayerOptions, Problem, PruneOptions, RecordKind, Store, Waiting};
use kiln_testkit::random::{Random, number};

const ROLE: &str = "KILN_MODEL_CHILD";
const PROCESSES: usize = 3;
const ROUNDS: u64 = 40;
const NAMES: [&str; 3] = ["one", "two", "three"];

/// What one process does in one round.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    /// Builds a chain of steps, each over the one before, and names the image.
    Build {
        steps: String,
        name: Option<&'static str>,
    },
    Untag(&'static str),
    /// Adds a line to a cache mount, alone.
    Cache,
    DropCache,
    Prune {
        all: bool,
        keep: Option<u64>,
        dry: bool,
    },
}

impl Act {
    fn line(&self) -> String {
        match self {
            Self::Build { steps, name } => format!("build {steps} {}", name.unwrap_or("-")),
            Self::Untag(name) => format!("untag {name}"),
            Self::Cache => "cache".to_owned(),
            Self::DropCache => "drop-cache".to_owned(),
            Self::Prune { all, keep, dry } => {
                format!("prune {all} {dry} {}", keep.map_or("-".to_owned(), |keep| keep.to_string()))
            }
        }
    }

    fn takes_away(&self) -> bool {
        matches!(self, Self::Prune { dry: false, .. })
    }
}

/// No two processes do something with one name at once: who was last would be anybody's guess.
fn act(random: &mut Random, name: &'static str) -> Act {
    match random.below(20) {
        0..=9 => {
            let length = 1 + random.below(3);
            let steps = (0..length).map(|_| char::from(b'a' + random.below(3) as u8)).collect();
            Act::Build { steps, name: (random.below(3) > 0).then_some(name) }
        }
        10 | 11 => Act::Untag(name),
        12..=14 => Act::Cache,
        15 => Act::DropCache,
        16 => Act::Prune { all: false, keep: None, dry: false },
        17 => Act::Prune { all: true, keep: None, dry: false },
        18 => Act::Prune { all: true, keep: None, dry: true },
        _ => Act::Prune { all: false, keep: Some(150_000), dry: false },
    }
}

/// A process on the store.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(root: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_process", "--nocapture"])
            .env(ROLE, root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    /// Reads what it did next: `ran ab`, `hit ab`, `done`.
    fn said(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the process ended by itself");
            if let Some(said) = line.trim().strip_prefix("said ") {
                return said.to_owned();
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does nothing when run as a test; see [`Process`].
#[test]
fn child_process() {
    let Ok(root) = std::env::var(ROLE) else { return };
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        // As a command does: opened, used, closed.
        let store = Store::open(Path::new(&root), Ids::Full).unwrap();
        match words[..] {
            ["build", steps, name] => build(&store, steps, name),
            ["untag", name] => _ = store.untag(&name.parse().unwrap()).unwrap(),
            ["cache"] => use_cache(&store),
            ["drop-cache"] => _ = store.cache_mounts().remove("c", None),
            ["prune", all, dry, keep] => {
                let (all, dry_run) = (all == "true", dry == "true");
                let options =
                    PruneOptions { all, dry_run, keep_bytes: keep.parse().ok(), ..PruneOptions::default() };
                store.prune(&options).unwrap();
            }
            _ => panic!("{line}"),
        }
        say("done");
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\nsaid {text}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

fn key(steps: &str) -> String {
    Digest::of(steps.as_bytes()).hex()
}

/// What a step's file holds.
fn content(steps: &str) -> String {
    format!("{steps} ").repeat(10_000)
}

fn found(store: &Store, steps: &str) -> Option<Snapshot> {
    let snapshot: Snapshot = store.get_record(RecordKind::Step, &key(steps)).unwrap()?;
    snapshot.layers.iter().all(|layer| store.has_layer(layer)).then_some(snapshot)
}

/// A build as the engine does it: pinned, each step claimed and recorded, what it made packed, named and synced.
fn build(store: &Store, steps: &str, name: &str) {
    let _pin = store.pin().unwrap();
    let mut snapshot = Snapshot::default();
    for length in 1..=steps.len() {
        let steps = &steps[..length];
        let cancel = Cancel::new();
        let mut waiting =
            Waiting { doing: "the model", timeout: None, cancel: &cancel, on_wait: &mut |_| () };
        let Claimed::Held { claim, .. } = store.claim(&format!("step-{}", key(steps)), &mut waiting).unwrap()
        else {
            panic!("nobody fails or times out here")
        };
        let there = found(store, steps).filter(|found| found.layers.starts_with(&snapshot.layers));
        snapshot = match there {
            Some(there) => {
                say(&format!("hit {steps}"));
                there
            }
            None => {
                let layer = store.begin_layer(&snapshot).unwrap();
                std::fs::write(layer.upper().join(format!("f{length}")), content(steps)).unwrap();
                let made = snapshot.with(layer.commit().unwrap().unwrap());
                store.put_record(RecordKind::Step, &key(steps), &made).unwrap();
                say(&format!("ran {steps}"));
                made
            }
        };
        drop(claim);
    }
    let mut blobs = vec![store.put_blob(format!("{{\"config\":{steps:?}}}").as_bytes()).unwrap()];
    for (number, layer) in snapshot.layers.iter().enumerate() {
        let file = store.layer_dir(layer).join(format!("f{}", number + 1));
        assert_eq!(
            std::fs::read_to_string(file).unwrap(),
            content(&steps[..=number]),
            "another step's files"
        );
        blobs.push(store.layer_blob(layer, &LayerOptions::default(), &Cancel::new()).unwrap().digest);
    }
    let blobs: Vec<String> = blobs.iter().map(ToString::to_string).collect();
    let manifest =
        store.put_blob(serde_json::to_string(&serde_json::json!({ "blobs": blobs })).unwrap().as_bytes());
    if name != "-" {
        store.tag(&name.parse().unwrap(), &manifest.unwrap()).unwrap();
    }
    store.finish_build().unwrap();
}

fn use_cache(store: &Store) {
    let request = CacheRequest {
        id: "c".to_owned(),
        scope: CacheScope::Global,
        sharing: Sharing::Locked,
        mode: 0o755,
        uid: 0,
        gid: 0,
        read_only: false,
        target: "/c".to_owned(),
    };
    let held = store
        .cache_mounts()
        .acquire(&[request], "the model", &mut |_, _| (), &|_| Ok(None), &Cancel::new())
        .unwrap();
    let path = held.caches()[0].path.join("lines");
    let mut lines = std::fs::read_to_string(&path).unwrap_or_default();
    lines.push_str("x\n");
    std::fs::write(path, lines).unwrap();
    held.release(true).unwrap();
}

/// What must be there.
#[derive(Default)]
struct Model {
    /// Images that have a name, by it, with their steps.
    names: BTreeMap<&'static str, String>,
    /// Steps whose results nobody can have taken away.
    made: BTreeSet<String>,
}

impl Model {
    fn check(&self, store: &Store, round: &str) {
        let problems = store.fsck().unwrap();
        // What the killed left half-made goes when somebody opens the store.
        let problems: Vec<_> = problems.iter().filter(|p| !matches!(p, Problem::LeftOver { .. })).collect();
        assert!(problems.is_empty(), "{problems:#?} {round}");
        let tagged: BTreeMap<String, Digest> =
            store.images().unwrap().into_iter().map(|image| (image.name.familiar(), image.digest)).collect();
        let named: Vec<String> = self.names.keys().map(|name| format!("{name}:latest")).collect();
        assert_eq!(
            tagged.keys().collect::<Vec<_>>(),
            {
                let mut sorted: Vec<&String> = named.iter().collect();
                sorted.sort();
                sorted
            },
            "{round}"
        );
        for (name, steps) in &self.names {
            let digest = tagged[&format!("{name}:latest")];
            let text = std::fs::read(store.blob_path(&digest)).unwrap();
            let manifest: BTreeMap<String, Vec<Digest>> = serde_json::from_slice(&text).unwrap();
            assert_eq!(manifest["blobs"].len(), steps.len() + 1, "{name} {round}");
            for blob in &manifest["blobs"] {
                assert!(store.blob_path(blob).exists(), "{name} lost {blob} {round}");
            }
        }
        for steps in &self.made {
            let record: Option<Snapshot> = store.peek_record(RecordKind::Step, &key(steps)).unwrap();
            let layers = record.unwrap_or_else(|| panic!("the result of {steps} is gone {round}")).layers;
            assert!(layers.iter().all(|layer| store.layer_dir(layer).is_dir()), "{steps} {round}");
        }
    }
}

#[test]
fn whatever_several_processes_do_and_whenever_one_is_killed_the_store_is_whole() {
    let (mut random, seed) = Random::seeded("KILN_MODEL_SEED", 20_261_122);
    let (_dir, store) = support::store(Ids::Full);
    let start = || Process::start(store.root());
    let mut processes: Vec<Process> = (0..PROCESSES).map(|_| start()).collect();
    let mut model = Model::default();
    let (mut ran_in_all, mut killed_in_all, mut hits_in_all) = (0, 0, 0);
    for round in 0..number("KILN_MODEL_ROUNDS", ROUNDS) {
        let acts: Vec<Act> = NAMES.iter().map(|name| act(&mut random, name)).collect();
        let killed = (random.below(4) == 0).then(|| random.below(PROCESSES as u64) as usize);
        let told = format!("in round {round} of seed {seed}: {acts:?}, killed {killed:?}");
        for (process, act) in processes.iter_mut().zip(&acts) {
            writeln!(process.input, "{}", act.line()).unwrap();
        }
        let takes_away = acts.iter().any(Act::takes_away);
        let mut ran: Vec<String> = Vec::new();
        if let Some(victim) = killed {
            // At some step, or before the first, or when it has finished.
            for _ in 0..random.below(3) {
                if processes[victim].said() == "done" {
                    break;
                }
            }
            processes[victim] = start();
            killed_in_all += 1;
        }
        if takes_away {
            model.made.clear();
        }
        for (at, act) in acts.iter().enumerate() {
            let is_killed = killed == Some(at);
            if !is_killed {
                while let Some((what, steps)) = processes[at].said().split_once(' ') {
                    match what {
                        "ran" => ran.push(steps.to_owned()),
                        _ => hits_in_all += 1,
                    }
                }
            }
            match act {
                Act::Build { steps, name } => {
                    if !takes_away && !is_killed {
                        model.made.extend((1..=steps.len()).map(|length| steps[..length].to_owned()));
                    }
                    if let Some(name) = name {
                        model.names.insert(name, steps.clone());
                    }
                }
                Act::Untag(name) => _ = model.names.remove(name),
                Act::Cache | Act::DropCache | Act::Prune { .. } => {}
            }
            if let (true, Act::Build { name: Some(name), .. } | Act::Untag(name)) = (is_killed, act) {
                // It had come so far or not: what is there now is right, as long as it is whole.
                match store.image(&name.parse().unwrap()).unwrap() {
                    None => _ = model.names.remove(name),
                    Some(image) => {
                        let text = std::fs::read(store.blob_path(&image.digest)).unwrap();
                        let manifest: BTreeMap<String, Vec<Digest>> = serde_json::from_slice(&text).unwrap();
                        model.names.insert(name, "x".repeat(manifest["blobs"].len() - 1));
                    }
                }
            }
        }
        if !takes_away {
            let once: BTreeSet<&String> = ran.iter().collect();
            assert_eq!(once.len(), ran.len(), "a step ran twice: {ran:?} {told}");
        }
        ran_in_all += ran.len();
        model.check(&store, &told);
    }
    drop(processes);
    assert!(
        ran_in_all > 0 && hits_in_all > 0 && killed_in_all > 0,
        "{ran_in_all} {hits_in_all} {killed_in_all}"
    );
    // Nobody is left: what the killed had goes with the next open, and all else can go.
    let store = Store::open(store.root(), Ids::Full).unwrap();
    assert_eq!(store.fsck().unwrap(), []);
    for name in NAMES {
        store.untag(&name.parse().unwrap()).unwrap();
    }
    store.prune(&PruneOptions { all: true, ..PruneOptions::default() }).unwrap();
    let usage = store.usage().unwrap();
    assert!(usage.blobs + usage.layers < 64 << 10, "{usage:?}");
}
