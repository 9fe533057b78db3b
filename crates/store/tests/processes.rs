//! Several processes on one store, and processes that die.

mod support;

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kiln_core::Digest;
use kiln_store::{Ids, PruneOptions, Store};
use support::{PLAIN, list, store, tar};

const ROLE: &str = "KILN_STORE_TEST_CHILD";

/// This program again, as a child that unpacks what comes on standard input into the store at `root`. It says `half` after
/// that many bytes, and at the end how many it read.
fn child(root: &Path, diff_id: Digest, half: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_process", "--nocapture"])
        .env(ROLE, format!("{} {diff_id} {half}", root.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Does nothing when run as a test; see [`child`].
#[test]
fn child_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut words = role.split(' ');
    let mut word = || words.next().unwrap();
    let (root, diff_id, half) = (word().to_owned(), word().parse().unwrap(), word().parse().unwrap());
    let store = Store::open(Path::new(&root), Ids::Full).unwrap();
    let mut reader = Telling { read: 0, half };
    store.unpack(&diff_id, PLAIN, &mut reader).unwrap();
    say(&format!("read {}", reader.read));
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{text}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Standard input that says when half of it was read.
struct Telling {
    read: usize,
    half: usize,
}

impl Read for Telling {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = std::io::stdin().read(buffer)?;
        if self.read < self.half && self.read + length >= self.half {
            say("half");
        }
        self.read += length;
        Ok(length)
    }
}

/// Reads the child's output until a line starts with `word`, and returns the rest of it.
fn wait_for(child: &mut Child, word: &str) -> String {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let line = lines.by_ref().map(Result::unwrap).find(|line| line.starts_with(word));
    line.expect("the child said nothing")[word.len()..].trim().to_owned()
}

fn big() -> Vec<u8> {
    let text = "x".repeat(20_000);
    tar(&(0..200).map(|n| format!("file d{}/f{n} 644 {text}\n", n % 9)).collect::<String>())
}

#[test]
fn one_process_unpacks_and_the_others_wait() {
    let (_dir, store) = store(Ids::Full);
    let bytes = big();
    let diff_id = Digest::of(&bytes);
    let mut first = child(store.root(), diff_id, bytes.len() / 2);
    let mut input = first.stdin.take().unwrap();
    input.write_all(&bytes[..bytes.len() / 2 + 1]).unwrap();
    wait_for(&mut first, "half");
    // The first is in the middle of it. The others must wait and read nothing.
    let mut others: Vec<_> = (0..3).map(|_| child(store.root(), diff_id, usize::MAX)).collect();
    let feeders: Vec<_> = others.iter_mut().map(|other| other.stdin.take().unwrap()).collect();
    input.write_all(&bytes[bytes.len() / 2 + 1..]).unwrap();
    drop(input);
    assert_eq!(wait_for(&mut first, "read"), bytes.len().to_string());
    for other in &mut others {
        assert_eq!(wait_for(other, "read"), "0");
    }
    drop(feeders);
    for child in others.iter_mut().chain([&mut first]) {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(store.fsck().unwrap(), []);
}

#[test]
fn a_killed_process_leaves_nothing_behind() {
    let (_dir, store) = store(Ids::Full);
    let bytes = big();
    let diff_id = Digest::of(&bytes);
    for part in [1, 3, 5, 7, 9] {
        let half = bytes.len() * part / 10;
        let mut child = child(store.root(), diff_id, half);
        let mut input = child.stdin.take().unwrap();
        input.write_all(&bytes[..half + 1]).unwrap();
        wait_for(&mut child, "half");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(store.fsck().unwrap().len(), 1, "its directory");
        let opened = Store::open(store.root(), Ids::Full).unwrap();
        assert_eq!(opened.fsck().unwrap(), []);
        assert!(!opened.has_layer(&kiln_core::LayerId(diff_id.hex())));
    }
    // Locks died with it.
    let layer = store.unpack(&diff_id, PLAIN, &bytes[..]).unwrap();
    assert_eq!(list(&store.layer_dir(&layer)).lines().count(), 209);
}

#[test]
fn collection_beside_builds_takes_nothing_they_use() {
    let (_dir, store) = store(Ids::Full);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pruner = scope.spawn(|| {
            let store = Store::open(store.root(), Ids::Full).unwrap();
            let mut removed = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let all = PruneOptions { all: true, ..PruneOptions::default() };
                removed += store.prune(&all).unwrap().removed.len();
            }
            removed
        });
        let builders: Vec<_> = (0..3)
            .map(|builder| {
                let root = store.root();
                scope.spawn(move || {
                    for round in 0..20 {
                        let store = Store::open(root, Ids::Full).unwrap();
                        let _pin = store.pin().unwrap();
                        let bytes = tar(&format!("file a 644 {}", (builder + round) % 4));
                        let layer = store.unpack(&Digest::of(&bytes), PLAIN, &bytes[..]).unwrap();
                        let key = layer.0.clone();
                        store.put_record(kiln_store::RecordKind::Step, &key, &layer).unwrap();
                        let packed = store
                            .layer_blob(
                                &layer,
                                &kiln_store::LayerOptions::default(),
                                &kiln_core::Cancel::new(),
                            )
                            .unwrap();
                        assert!(store.layer_dir(&layer).join("a").exists());
                        assert!(store.blob_path(&packed.digest).exists());
                        store.finish_build().unwrap();
                    }
                })
            })
            .collect();
        let results: Vec<_> = builders.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        pruner.join().unwrap();
        results.into_iter().for_each(|result| result.unwrap());
    });
    assert_eq!(store.fsck().unwrap(), []);
}
