//! Facts say what the digest of the same rule counts, and where they differ, which files changed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;

use super::tests::{context, plant};
use super::*;

fn facts(root: &Path, rule: DigestRule) -> (Facts, kiln_core::Digest) {
    let tree = context(root, "ignored\n");
    let selected = tree.all().unwrap();
    (selected.facts(rule).unwrap(), selected.digest(rule).unwrap())
}

fn changes(before: &Facts, now: &Facts) -> Vec<(String, Changed)> {
    let change = |change: FileChange| (change.path.to_string_lossy().into_owned(), change.what);
    before.changes(now).map(change).collect()
}

const CONTENT: Changed = Changed::Parts { mode: None, owner: None, attributes: false, content: true };

#[test]
fn moby_32816_a_change_of_mode_alone_is_told_from_all_others() {
    let dir = tempfile::tempdir().unwrap();
    plant(
        dir.path(),
        &["a/mode", "a/content", "a/kind", "a/gone/x", "a/gone/y", "same", "link -> a", "ignored", "x"],
    );
    let set = |path: &str, mode| fs::set_permissions(dir.path().join(path), PermissionsExt::from_mode(mode));
    set("a/mode", 0o664).unwrap();
    let (before, _) = facts(dir.path(), DigestRule::COPY);
    assert_eq!(changes(&before, &before), []);
    assert!(before.iter().all(|fact| fact.path != Path::new("ignored")));

    set("a/mode", 0o644).unwrap();
    fs::write(dir.path().join("a/content"), "other").unwrap();
    fs::remove_file(dir.path().join("a/kind")).unwrap();
    fs::create_dir(dir.path().join("a/kind")).unwrap();
    fs::remove_dir_all(dir.path().join("a/gone")).unwrap();
    fs::write(dir.path().join("a-new"), "").unwrap();
    fs::remove_file(dir.path().join("link")).unwrap();
    symlink("same", dir.path().join("link")).unwrap();
    fs::write(dir.path().join("ignored"), "other").unwrap();
    fs::File::open(dir.path().join("same")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let (now, _) = facts(dir.path(), DigestRule::COPY);
    let mode = Changed::Parts { mode: Some((0o664, 0o644)), owner: None, attributes: false, content: false };
    let found = changes(&before, &now);
    assert_eq!(
        found,
        [
            ("a/content".to_owned(), CONTENT),
            ("a/gone".to_owned(), Changed::Removed),
            ("a/gone/x".to_owned(), Changed::Removed),
            ("a/gone/y".to_owned(), Changed::Removed),
            ("a/kind".to_owned(), Changed::Kind { was: Kind::File, is: Kind::Dir }),
            ("a/mode".to_owned(), mode),
            // A directory's files come before a name that only begins as it does.
            ("a-new".to_owned(), Changed::Added),
            ("link".to_owned(), CONTENT),
        ]
    );
    let only_modes: Vec<&str> =
        found.iter().filter(|(_, what)| what.is_mode_only()).map(|(path, _)| path.as_str()).collect();
    assert_eq!(only_modes, ["a/mode"]);

    // Where modes do not count they are no facts.
    let unseen = DigestRule { modes: false, ..DigestRule::COPY };
    let (before, _) = facts(dir.path(), unseen);
    set("a/mode", 0o600).unwrap();
    assert_eq!(changes(&before, &facts(dir.path(), unseen).0), []);
}

#[test]
fn facts_are_read_as_they_were_written_and_damage_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path(), &["a/b/c/d", "a/b/c/e", "a/b/ce", "b", "link -> a"]);
    let (facts, _) = facts(dir.path(), DigestRule::BIND_STAGE);
    let bytes = facts.to_bytes();
    assert_eq!(Facts::from_bytes(&bytes).as_ref(), Some(&facts));
    assert_eq!(Facts::from_bytes(&Facts::default().to_bytes()), Some(Facts::default()));
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert_eq!(Facts::from_bytes(&damaged), None, "byte {at}");
        assert_eq!(Facts::from_bytes(&bytes[..at]), None, "cut at {at}");
    }
}

/// Files of a few names, each with one of a few contents and modes.
fn trees() -> impl Strategy<Value = Vec<(&'static str, u8, u32)>> {
    let name = prop::sample::select(vec!["a", "a-", "a.d/x", "a.d/y", "b/c/d", "b/c.d", "b/e"]);
    prop::collection::vec((name, 0..3_u8, prop::sample::select(vec![0o644, 0o755, 0o600])), 0..7)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// One kept by digest can therefore stand for every tree of that digest.
    #[test]
    fn facts_differ_where_digests_do(a in trees(), b in trees()) {
        let made = [a, b].map(|files| {
            let dir = tempfile::tempdir().unwrap();
            for (path, content, mode) in files {
                let at = dir.path().join(path);
                fs::create_dir_all(at.parent().unwrap()).unwrap();
                fs::write(&at, [content]).unwrap();
                fs::set_permissions(&at, PermissionsExt::from_mode(mode)).unwrap();
            }
            let (facts, digest) = facts(dir.path(), DigestRule::COPY);
            let back = Facts::from_bytes(&facts.to_bytes()).unwrap();
            (back, digest)
        });
        let [(was, before), (is, after)] = &made;
        prop_assert_eq!(was == is, before == after);
        prop_assert_eq!(changes(was, is).is_empty(), before == after);
        // Each path that differs, once, in order.
        let paths: Vec<_> = changes(was, is).into_iter().map(|(path, _)| path.replace('/', "\0")).collect();
        prop_assert!(paths.is_sorted_by(|a, b| a < b));
    }
}
