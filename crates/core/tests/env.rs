//! Environments: sharing changes neither what they say nor what their digest is.

use kiln_core::{Canonical, Digest, Encode as _, Env};

#[test]
fn a_changed_clone_leaves_the_original_alone() {
    let original = numbered(100);
    let mut clone = original.clone();
    let before = digest(&original);
    clone.set_at(40, "other");
    assert_eq!(clone.push("NEW", "x"), 100);
    assert_eq!(original, numbered(100));
    assert_eq!(digest(&original), before);
    assert_eq!(clone.len(), 101);
    assert_eq!(clone.at(40), Some(&("N40".to_owned(), "other".to_owned())));
    assert_ne!(digest(&clone), before);
}

#[test]
fn equal_environments_have_equal_digests_however_they_came_about() {
    let mut changed = numbered(70);
    changed.set_at(3, "x");
    assert_ne!(digest(&changed), digest(&numbered(70)));
    changed.set_at(3, "3");
    assert_eq!(changed, numbered(70));
    assert_eq!(digest(&changed), digest(&numbered(70)));
}

#[test]
fn every_difference_is_in_the_digest() {
    let all: Vec<Env> = vec![
        Env::new(),
        pairs(&[("A", "B")]),
        pairs(&[("AB", "")]),
        pairs(&[("", "AB")]),
        pairs(&[("A", "1"), ("B", "2")]),
        pairs(&[("B", "2"), ("A", "1")]),
        numbered(31),
        numbered(32),
        numbered(33),
        numbered(64),
        numbered(65),
    ];
    for (i, one) in all.iter().enumerate() {
        for other in &all[..i] {
            assert_ne!(digest(one), digest(other), "{one:?} {other:?}");
            assert_ne!(one, other);
        }
        assert_eq!(one.to_vec().len(), one.len());
    }
}

/// What differs from an earlier environment, put into that one, gives this one: whatever the two are.
#[test]
fn what_differs_is_enough_to_make_the_other() {
    let mut changed = numbered(70);
    changed.set_at(40, "x");
    let mut renamed = numbered(3);
    renamed.put(1, "OTHER", "1");
    let mut all: Vec<Env> = [0, 1, 31, 32, 33, 64, 65, 70].into_iter().map(numbered).collect();
    all.extend([changed.clone(), renamed]);
    for one in &all {
        for other in &all {
            let mut made = other.clone();
            for place in one.places_that_differ(other) {
                let (name, value) = one.at(place).expect("a place of it");
                made.put(place, name, value);
            }
            made.truncate(one.len());
            assert_eq!(&made, one, "from {other:?}");
            assert_eq!((made.len(), made.is_empty()), (one.len(), one.is_empty()));
            assert_eq!(digest(&made), digest(one));
        }
        assert_eq!(one.places_that_differ(&one.clone()), [0_usize; 0]);
    }
    assert_eq!(changed.places_that_differ(&numbered(70)), [40]);
}

#[test]
fn json_is_a_list_of_pairs() {
    let json = serde_json::to_string(&numbered(2)).unwrap();
    assert_eq!(json, r#"[["N0","0"],["N1","1"]]"#);
    assert_eq!(serde_json::from_str::<Env>(&json).unwrap(), numbered(2));
}

fn digest(env: &Env) -> Digest {
    let mut out = Canonical::new("test");
    env.encode(&mut out);
    out.finish()
}

fn numbered(count: usize) -> Env {
    (0..count).map(|i| (format!("N{i}"), i.to_string())).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Env {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
