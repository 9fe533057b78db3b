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
