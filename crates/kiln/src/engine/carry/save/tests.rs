use kiln_core::{CacheScope, ContextOp};

use super::*;

fn name(id: &str) -> CacheName {
    CacheName { id: id.to_owned(), scope: CacheScope::Global }
}

/// Two steps with caches of theirs, the first uses both.
fn saves() -> (Saves, StepId, StepId) {
    let [one, two] = ["1", "2"].map(|name| StepId::of(&Op::Context(ContextOp { name: name.to_owned() })));
    let users = vec![(one, vec![name("a"), name("b")]), (two, vec![name("b")])];
    let saves = Saves { users, state: Mutex::default(), changed: Condvar::new(), stop: Cancel::new() };
    (saves, one, two)
}

fn is_ready(saves: &Saves, names: &[&str], whole: bool) -> bool {
    let names: Vec<CacheName> = names.iter().copied().map(name).collect();
    saves.is_ready(&saves.lock(), &names, whole)
}

#[test]
fn a_cache_is_ready_when_its_last_step_has_ended() {
    let (saves, one, two) = saves();
    assert!(!is_ready(&saves, &["a"], false));
    saves.step_ended(one);
    assert!(is_ready(&saves, &["a"], false) && !is_ready(&saves, &["a", "b"], false));
    saves.step_ended(two);
    assert!(is_ready(&saves, &["a", "b"], false));
    // Something may still come into it.
    saves.restoring(true);
    assert!(!is_ready(&saves, &["a"], false));
    saves.restoring(false);
    // Into a pipe goes only what stays.
    assert!(is_ready(&saves, &["a"], false) && !is_ready(&saves, &["a"], true));
    saves.built(true);
    assert!(is_ready(&saves, &["a"], true));
}

#[test]
fn steps_that_never_run_hold_nothing_up() {
    let (saves, ..) = saves();
    assert!(!is_ready(&saves, &["b"], false));
    saves.steps_over();
    assert!(is_ready(&saves, &["b"], false));
}

#[test]
fn nothing_becomes_known_of_a_build_that_failed_or_began_again() {
    let (first, one, _) = saves();
    first.step_ended(one);
    let attempt = first.ready(&[name("a")], false).unwrap();
    first.again();
    assert!(matches!(first.confirm(attempt), Err(Error::Interrupted)) && first.is_stale(attempt));
    // The step is to be done again.
    assert!(!is_ready(&first, &["a"], false));
    first.step_ended(one);
    let attempt = first.ready(&[name("a")], false).unwrap();
    first.built(true);
    // What was said first counts.
    drop(first.ending());
    assert!(first.confirm(attempt).is_ok());

    let (second, one, _) = saves();
    second.step_ended(one);
    let attempt = second.ready(&[name("a")], false).unwrap();
    drop(second.ending());
    assert!(matches!(second.confirm(attempt), Err(Error::Interrupted)));
    // Also for who is told before he is stopped.
    let (third, ..) = saves();
    third.lock().built = Some(false);
    assert!(matches!(third.confirm(0), Err(Error::Interrupted)));
}
