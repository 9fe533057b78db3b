//! Claims: one does it, the others wait and know for whom; a wait ends when the holder does, or is called off.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kiln_core::{Cancel, Digest, Snapshot};
use kiln_store::{Claim, Claimed, Holder, Ids, LayerOptions, PruneOptions, Store, Waiting};
use support::store;

/// Waits, calling `on_wait` each time it is told for whom.
fn claim(store: &Store, what: &str, cancel: &Cancel, on_wait: &mut dyn FnMut(Option<&Holder>)) -> Claimed {
    let doing = "kiln build /somewhere";
    store.claim(what, &mut Waiting { doing, timeout: None, cancel, on_wait }).unwrap()
}

#[track_caller]
fn held(claimed: Claimed, after_wait: bool) -> Claim {
    match claimed {
        Claimed::Held { claim, waited } if waited == after_wait => claim,
        other => panic!("{other:?}"),
    }
}

fn locks(store: &Store) -> usize {
    std::fs::read_dir(store.root().join("locks")).unwrap().count()
}

#[test]
fn one_at_a_time_and_nothing_is_left_behind() {
    let (_dir, store) = store(Ids::Full);
    let (inside, turns) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let Claimed::Held { claim, .. } = claim(&store, "it", &Cancel::new(), &mut |_| ()) else {
                    panic!("nobody failed")
                };
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                std::thread::yield_now();
                inside.fetch_sub(1, Ordering::SeqCst);
                turns.fetch_add(1, Ordering::SeqCst);
                drop(claim);
            });
        }
    });
    assert_eq!(turns.into_inner(), 8);
    assert_eq!(locks(&store), 0);
}

#[test]
fn who_waits_is_told_for_whom_and_can_be_called_off_or_bounded() {
    let (_dir, store) = store(Ids::Full);
    let first = held(claim(&store, "it", &Cancel::new(), &mut |_| panic!("nobody has it")), false);
    drop(held(claim(&store, "another", &Cancel::new(), &mut |_| panic!("nobody has it")), false));
    // Called off as soon as it says for whom it waits.
    let cancel = Cancel::new();
    let mut told = Vec::new();
    let claimed = claim(&store, "it", &cancel, &mut |holder| {
        told.push(holder.cloned());
        cancel.cancel();
    });
    assert!(matches!(claimed, Claimed::Cancelled), "{claimed:?}");
    let [Some(holder)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((holder.process, holder.doing.as_str()), (std::process::id(), "kiln build /somewhere"));
    assert!(holder.since > 1_700_000_000);
    let mut patience = Waiting {
        doing: "",
        timeout: Some(Duration::from_millis(1)),
        cancel: &Cancel::new(),
        on_wait: &mut |_| (),
    };
    match store.claim("it", &mut patience).unwrap() {
        Claimed::TimedOut(Some(found)) => assert_eq!(found, *holder),
        other => panic!("{other:?}"),
    }
    drop(first);
    drop(held(store.claim("it", &mut patience).unwrap(), false));
    assert_eq!(locks(&store), 0);
}

#[test]
fn after_a_failure_those_who_waited_go_on_at_once() {
    let (_dir, store) = store(Ids::Full);
    let first = std::sync::Mutex::new(Some(held(claim(&store, "it", &Cancel::new(), &mut |_| ()), false)));
    let waiting = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        let waiter = || {
            let mut told = false;
            claim(&store, "it", &Cancel::new(), &mut |_| {
                // All of them wait; then one lets it fail.
                if !std::mem::replace(&mut told, true)
                    && waiting.wait().is_leader()
                    && let Some(claim) = first.lock().unwrap().take()
                {
                    claim.fail();
                }
            })
        };
        let waiters: Vec<_> = (0..4).map(|_| scope.spawn(waiter)).collect();
        for waiter in waiters {
            let claimed = waiter.join().unwrap();
            assert!(matches!(claimed, Claimed::Failed), "{claimed:?}");
        }
    });
    // Who comes later takes it as usual; and what the failure left is removed by collection.
    assert_eq!(locks(&store), 1);
    store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(locks(&store), 0);
    drop(held(claim(&store, "it", &Cancel::new(), &mut |_| ()), false));
}

#[test]
fn a_wait_for_who_is_killed_ends_with_the_claim() {
    let (_dir, store) = store(Ids::Full);
    // As kill(2) leaves it: a note, and no lock.
    std::fs::write(store.root().join("locks/it"), "{\"held\":{\"process\":1,\"doing\":\"x\",\"since\":1}}")
        .unwrap();
    drop(held(claim(&store, "it", &Cancel::new(), &mut |_| panic!("nobody has it")), false));
    // Or half a note.
    std::fs::write(store.root().join("locks/it"), "{\"held").unwrap();
    drop(held(claim(&store, "it", &Cancel::new(), &mut |_| panic!("nobody has it")), false));
}

#[test]
fn who_waits_for_a_layer_that_another_one_packs_says_so_and_in_the_end_packs_too() {
    let (_dir, store) = store(Ids::Full);
    let layer = store.begin_layer(&Snapshot::default()).unwrap();
    std::fs::write(layer.upper().join("file"), "content").unwrap();
    let layer = layer.commit().unwrap().unwrap();
    let options = LayerOptions::default();
    let key = format!("layer {layer}, {}, epoch none", options.compression.version());
    let name = format!("pack-full-{}", Digest::of(key.as_bytes()).hex());
    let cancel = Cancel::new();
    let mut first =
        Waiting { doing: "kiln build elsewhere", timeout: None, cancel: &cancel, on_wait: &mut |_| () };
    let Claimed::Held { claim, .. } = store.claim(&name, &mut first).unwrap() else { panic!("it is free") };
    let pack = |cancel: &Cancel| {
        let mut seen = Vec::new();
        let mut on_wait = |holder: Option<&Holder>| seen.extend(holder.map(|h| h.doing.clone()));
        let timeout = Some(Duration::ZERO);
        let mut waiting = Waiting { doing: "a test", timeout, cancel, on_wait: &mut on_wait };
        let mut gave_up = Vec::new();
        let mut note = |holder: Option<&Holder>| gave_up.extend(holder.map(|h| h.doing.clone()));
        let packed = store.layer_blob_beside(&layer, &options, None, &mut waiting, &mut note);
        (packed.map(|blob| blob.digest), seen, gave_up)
    };
    let interrupted = Cancel::new();
    interrupted.cancel();
    assert!(pack(&interrupted).0.is_err());
    assert!(!store.has_layer_blob(&layer, &options).unwrap());
    let (packed, seen, gave_up) = pack(&cancel);
    assert_eq!(
        (seen, gave_up),
        (vec!["kiln build elsewhere".to_owned()], vec!["kiln build elsewhere".to_owned()])
    );
    drop(claim);
    // It is known now.
    assert!(store.has_layer_blob(&layer, &options).unwrap());
    let (again, seen, gave_up) = pack(&cancel);
    assert_eq!((again.unwrap(), seen, gave_up), (packed.unwrap(), Vec::new(), Vec::new()));
}
