// A test that cannot run here says why.
#![allow(clippy::print_stderr)]

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;

/// Makes files from lines `path`, `path=content`, `path -> target` or `path/`.
pub(crate) fn plant(root: &Path, lines: &[&str]) {
    for line in lines {
        let path = line.split(" -> ").next().unwrap().split('=').next().unwrap();
        let at = root.join(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        if let Some((_, target)) = line.split_once(" -> ") {
            symlink(target, &at).unwrap();
        } else if line.ends_with('/') {
            fs::create_dir_all(&at).unwrap();
        } else {
            fs::write(&at, line.split_once('=').map_or(path, |(_, content)| content)).unwrap();
        }
    }
}

fn open(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

pub(super) fn context(path: &Path, ignore: &str) -> SourceTree {
    SourceTree::context(open(path), path, IgnoreList::parse(ignore).unwrap(), None)
}

pub(super) fn paths(selected: &Selected) -> Vec<String> {
    let mut paths = Vec::new();
    selected.visit(&mut |visit| paths.push(visit.path.to_string_lossy().into_owned()));
    paths
}

fn literal(path: &str) -> Selection {
    Selection::wildcard(path)
}

fn digest(tree: &SourceTree, path: &str) -> kiln_core::Digest {
    tree.select(&literal(path)).unwrap().digest(DigestRule::COPY).unwrap()
}

fn excluded_line(tree: &SourceTree, path: &str) -> Option<usize> {
    match tree.select(&literal(path)) {
        Err(TreeError::NotFound { excluded, .. }) => excluded.map(|excluded| excluded.line),
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn literal_paths_select_files_directories_and_what_links_lead_to() {
    let dir = tempfile::tempdir().unwrap();
    plant(
        dir.path(),
        &["a/b/f", "a/b/g", "a/z", "link -> a/b", "up -> ../../../a/z", "abs -> /a/b/f", "chain -> link/g"],
    );
    let tree = context(dir.path(), "");
    let table: [(&str, &[&str]); 8] = [
        ("a/z", &["z"]),
        ("a/b", &["b", "b/f", "b/g"]),
        ("link", &["link", "link/f", "link/g"]),
        ("link/f", &["f"]),
        // Links cannot lead out of the root: `..` stops there, and an absolute one starts there.
        ("up", &["up"]),
        ("abs", &["abs"]),
        ("chain", &["chain"]),
        ("a", &["a", "a/b", "a/b/f", "a/b/g", "a/z"]),
    ];
    for (path, expected) in table {
        assert_eq!(paths(&tree.select(&literal(path)).unwrap()), expected, "{path}");
    }
    assert_eq!(tree.all().unwrap().len(), 10);
}

#[test]
fn a_missing_source_says_what_is_nearby() {
    let dir = tempfile::tempdir().unwrap();
    plant(
        dir.path(),
        &["requirements.txt", "src/main.rs", "src/lib.rs", "loop -> loop", "dangling -> nowhere"],
    );
    let tree = context(dir.path(), "");
    let nearby = |path: &str| match tree.select(&literal(path)) {
        Err(TreeError::NotFound { nearby, excluded: None, .. }) => nearby,
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(nearby("requirement.txt"), ["requirements.txt"]);
    assert_eq!(nearby("src/mian.rs"), ["src/main.rs", "src/lib.rs"]);
    assert_eq!(nearby("srk/main.rs"), ["src"]);
    assert!(!nearby("dangling").is_empty());
    assert_eq!(tree.select(&literal("loop")).unwrap_err(), TreeError::LinkLoop { path: "loop".to_owned() });
    assert_eq!(
        tree.select(&literal("requirements.txt/x")).unwrap_err(),
        TreeError::NotDirectory { path: "requirements.txt/x".to_owned(), file: "requirements.txt".into() }
    );
}

#[test]
fn wildcards_match_by_component() {
    let dir = tempfile::tempdir().unwrap();
    plant(
        dir.path(),
        &[
            "a.txt",
            "b.txt",
            ".hidden.txt",
            "d/a.txt",
            "d/e/a.txt",
            "f/a.txt",
            "[x]",
            "l -> d",
            "dangling.x -> no",
        ],
    );
    let tree = context(dir.path(), "");
    let table: [(&str, &[&str]); 16] = [
        ("*.txt", &[".hidden.txt", "a.txt", "b.txt"]),
        ("?.txt", &["a.txt", "b.txt"]),
        ("[ab].txt", &["a.txt", "b.txt"]),
        // Neither does `*` cross a slash, nor is a link followed on the way.
        ("*/a.txt", &["a.txt", "a.txt"]),
        ("l/*.txt", &["a.txt"]),
        ("d/*", &["a.txt", "e", "e/a.txt"]),
        ("[[]x]", &["[x]"]),
        ("[^ab].txt", &[]),
        ("[a-c].txt", &["a.txt", "b.txt"]),
        ("[[]*", &["[x]"]),
        ("d/e/../*.txt", &["a.txt"]),
        ("*/e/*.txt", &["a.txt"]),
        // A link that a wildcard matches is followed like one that is named.
        ("l*", &["l", "l/a.txt", "l/e", "l/e/a.txt"]),
        ("nosuch*", &[]),
        ("nosuch/*", &[]),
        ("a.txt/*", &[]),
    ];
    for (pattern, expected) in table {
        assert_eq!(paths(&tree.select(&literal(pattern)).unwrap()), expected, "{pattern}");
    }
    assert!(
        matches!(tree.select(&literal("*.x")), Err(TreeError::NotFound { .. })),
        "a link that leads nowhere"
    );
    assert!(matches!(tree.select(&literal("[")), Err(TreeError::Pattern(_))));
    // An escape alone makes no wildcard: the name is looked up as it is written, and missed.
    assert!(matches!(tree.select(&literal(r"a\.txt")), Err(TreeError::NotFound { .. })));
    plant(dir.path(), &[r"a\.txt"]);
    assert_eq!(paths(&tree.select(&literal(r"a\.txt")).unwrap()), [r"a\.txt"]);
    assert_eq!(
        paths(&tree.select(&literal(r"[a]\.txt")).unwrap()),
        ["a.txt"],
        "in a wildcard it is an escape"
    );
    let exact = Selection::literal("[x]");
    assert_eq!(paths(&tree.select(&exact).unwrap()), ["[x]"]);
}

#[test]
fn dockerignore_leaves_out_and_brings_back() {
    let dir = tempfile::tempdir().unwrap();
    plant(
        dir.path(),
        &[
            "src/main.rs",
            "src/gen/a.rs",
            "src/gen/keep/b.rs",
            "target/x",
            "notes.md",
            "docs/in.md",
            "link -> target",
        ],
    );
    let ignore = "# comment\ntarget\n*.md\nsrc/gen\n!src/gen/keep\n";
    let tree = context(dir.path(), ignore);
    let all = tree.all().unwrap();
    let table = [
        "",
        "docs",
        "docs/in.md",
        "link",
        "src",
        "src/gen",
        "src/gen/keep",
        "src/gen/keep/b.rs",
        "src/main.rs",
    ];
    assert_eq!(paths(&all), table);
    assert_eq!(all.excluded(), 3);
    let excluded = |path: &str| excluded_line(&tree, path);
    assert_eq!(excluded("target"), Some(2));
    assert_eq!(excluded("target/x"), Some(2));
    assert_eq!(excluded("link"), Some(2), "what it leads to is not in the context");
    assert_eq!(excluded("notes.md"), Some(3));
    assert_eq!(excluded("src/gen/a.rs"), Some(4));
    assert_eq!(excluded("nosuch"), None);
    assert!(tree.select(&literal("*.md")).unwrap().is_empty(), "for a wildcard it is just not there");
    assert_eq!(
        tree.select(&literal("notes.md")).unwrap_err().to_string(),
        "\"notes.md\" not found: line 3 of .dockerignore excludes it"
    );
    // Nothing below it is brought back: then the directory is not there either.
    fs::remove_dir_all(dir.path().join("src/gen/keep")).unwrap();
    let tree = context(dir.path(), ignore);
    assert_eq!(paths(&tree.select(&literal("src")).unwrap()), ["src", "src/main.rs"]);
    assert_eq!(excluded_line(&tree, "src/gen"), Some(4));
    // What is left out changes no digest.
    let before = digest(&context(dir.path(), ignore), "");
    plant(dir.path(), &["target/y", "more.md"]);
    assert_eq!(digest(&context(dir.path(), ignore), ""), before);
}

#[test]
fn times_and_parents_names_do_not_count_but_all_else_does() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path(), &["a/f=1", "a/l -> f", "a/d/"]);
    let base = digest(&context(dir.path(), ""), "a");
    let again = || digest(&context(dir.path(), ""), "a");

    let file = File::options().write(true).open(dir.path().join("a/f")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    assert_eq!(again(), base, "mtime");
    fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
    assert_eq!(digest(&context(dir.path(), ""), "b"), base, "name of a copied directory");
    fs::rename(dir.path().join("b"), dir.path().join("a")).unwrap();
    fs::set_permissions(dir.path().join("a"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(again(), base, "mode of a copied directory itself");

    type Change = fn(&Path);
    let changes: [(&str, Change, Change); 6] = [
        (
            "mode",
            |a| fs::set_permissions(a.join("f"), fs::Permissions::from_mode(0o600)).unwrap(),
            |a| fs::set_permissions(a.join("f"), fs::Permissions::from_mode(0o644)).unwrap(),
        ),
        ("content", |a| fs::write(a.join("f"), "2").unwrap(), |a| fs::write(a.join("f"), "1").unwrap()),
        (
            "name",
            |a| fs::rename(a.join("f"), a.join("g")).unwrap(),
            |a| fs::rename(a.join("g"), a.join("f")).unwrap(),
        ),
        (
            "target",
            |a| {
                fs::remove_file(a.join("l")).unwrap();
                symlink("g", a.join("l")).unwrap();
            },
            |a| {
                fs::remove_file(a.join("l")).unwrap();
                symlink("f", a.join("l")).unwrap();
            },
        ),
        ("empty file", |a| fs::write(a.join("e"), "").unwrap(), |a| fs::remove_file(a.join("e")).unwrap()),
        (
            "framing",
            |a| fs::rename(a.join("f"), a.join("d/f")).unwrap(),
            |a| fs::rename(a.join("d/f"), a.join("f")).unwrap(),
        ),
    ];
    fs::set_permissions(dir.path().join("a/f"), fs::Permissions::from_mode(0o644)).unwrap();
    for (what, change, back) in changes {
        let a = dir.path().join("a");
        change(&a);
        assert_ne!(again(), base, "{what}");
        back(&a);
        assert_eq!(again(), base, "{what} put back");
    }
}

#[test]
fn a_single_file_counts_with_the_name_it_arrives_under() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path(), &["a/f=1", "b/f=1", "b/g=1", "l -> a/f"]);
    let tree = context(dir.path(), "");
    assert_eq!(digest(&tree, "a/f"), digest(&tree, "b/f"));
    assert_ne!(digest(&tree, "a/f"), digest(&tree, "b/g"));
    assert_ne!(digest(&tree, "a/f"), digest(&tree, "l"));
}

#[test]
fn moby_32816_a_checkout_under_another_umask_is_equal_in_gits_modes() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path(), &["s/f=1", "s/x=1", "s/d/g=2"]);
    let set = |modes: [(&str, u32); 4]| {
        for (path, mode) in modes {
            fs::set_permissions(dir.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    let git = || digest(&context(dir.path(), "").with_modes(Modes::Git), "s");
    let as_is = || digest(&context(dir.path(), ""), "s");
    set([("s/f", 0o664), ("s/x", 0o775), ("s/d", 0o775), ("s/d/g", 0o664)]);
    let before = (git(), as_is());
    set([("s/f", 0o644), ("s/x", 0o755), ("s/d", 0o755), ("s/d/g", 0o644)]);
    assert_eq!(git(), before.0);
    assert_ne!(as_is(), before.1);
    set([("s/f", 0o755), ("s/x", 0o755), ("s/d", 0o755), ("s/d/g", 0o644)]);
    assert_ne!(git(), before.0, "what may be executed still counts");
}

#[test]
fn user_attributes_count_and_kilns_own_do_not() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path(), &["s/f=1"]);
    let file = dir.path().join("s/f");
    let set = |name: &str| rustix::fs::setxattr(&file, name, b"v", rustix::fs::XattrFlags::empty());
    let base = digest(&context(dir.path(), ""), "s");
    if set("user.kiln.stat").is_err() {
        eprintln!("skipped: no user xattrs in the temporary directory");
        return;
    }
    set("user.overlay.opaque").unwrap();
    assert_eq!(digest(&context(dir.path(), ""), "s"), base);
    set("user.mine").unwrap();
    assert_ne!(digest(&context(dir.path(), ""), "s"), base);
}

/// Opens an index over `dir`, hashes all of it, saves, and returns the digest.
fn indexed(dir: &Path, indexes: &Path) -> kiln_core::Digest {
    let index = Arc::new(StatIndex::open(indexes, open(dir), dir).unwrap());
    let tree = SourceTree::context(open(dir), dir, IgnoreList::default(), Some(Arc::clone(&index)));
    let digest = tree.all().unwrap().digest(DigestRule::COPY).unwrap();
    index.save().unwrap();
    digest
}

fn index_file(indexes: &Path) -> PathBuf {
    let files: Vec<_> = fs::read_dir(indexes).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

/// Spins until the kernel's file clock is past what counts as racy; a file made before is settled then.
fn let_files_settle() {
    let start = stat_index::file_clock();
    let ms = |time: Time| time.secs * 1000 + i64::from(time.nanos / 1_000_000);
    while ms(stat_index::file_clock()) < ms(start) + 40 {
        std::thread::yield_now();
    }
}

#[test]
fn the_index_answers_for_settled_files_and_only_for_them() {
    let (dir, indexes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(dir.path(), &["f=1", "d/g=2", "l -> f"]);
    let_files_settle();
    let base = indexed(dir.path(), indexes.path());
    let file = index_file(indexes.path());
    let written = fs::metadata(&file).unwrap().modified().unwrap();
    assert_eq!(indexed(dir.path(), indexes.path()), base);
    assert_eq!(
        fs::metadata(&file).unwrap().modified().unwrap(),
        written,
        "all was known, nothing was written"
    );

    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, &bytes).unwrap();
    assert_eq!(indexed(dir.path(), indexes.path()), base, "a damaged file is not believed");
    for damaged in [&b""[..], b"kilnidx1", &[0; 4096]] {
        fs::write(&file, damaged).unwrap();
        assert_eq!(indexed(dir.path(), indexes.path()), base);
    }
}

/// <https://github.com/moby/buildkit/issues/4950>: two files of a checkout with the same size and times.
#[test]
fn buildkit_4950_a_change_of_the_same_size_and_mtime_is_seen() {
    let (dir, indexes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(dir.path(), &["f=1"]);
    let_files_settle();
    let base = indexed(dir.path(), indexes.path());
    let path = dir.path().join("f");
    let mtime = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "2").unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(mtime).unwrap();
    assert_ne!(indexed(dir.path(), indexes.path()), base);
}

#[test]
fn a_file_that_is_too_young_is_read_again() {
    let (dir, indexes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(dir.path(), &["f=1"]);
    let path = dir.path().join("f");
    // A time in the future never settles.
    let future = SystemTime::now() + Duration::from_secs(3600);
    File::options().write(true).open(&path).unwrap().set_modified(future).unwrap();
    indexed(dir.path(), indexes.path());
    assert_eq!(fs::read_dir(indexes.path()).unwrap().count(), 0, "nothing was worth remembering");
}

#[test]
fn many_files_are_hashed_by_several_threads_to_the_same_digest() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..600 {
        plant(dir.path(), &[&format!("d{}/f{i}={}", i % 7, "x".repeat(i * 10))]);
    }
    assert_eq!(digest(&context(dir.path(), ""), ""), digest(&context(dir.path(), ""), ""));
    let one = dir.path().join("d3/f10");
    let before = digest(&context(dir.path(), ""), "");
    let mut content = fs::read(&one).unwrap();
    content[5] = b'y';
    fs::write(&one, content).unwrap();
    assert_ne!(digest(&context(dir.path(), ""), ""), before);
}

#[test]
fn a_survey_sees_what_a_selection_sees_and_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    plant(
        dir.path(),
        &[
            "a.md",
            "docs/a.md",
            "docs/b.txt=12345",
            "docs/deep/c.md",
            "target/x/y=123",
            "target/z",
            "link -> docs",
            "e/",
        ],
    );
    for ignore in ["", "target\n", "docs\n!docs/deep\n", "**/*.md\n!docs/a.md\n", "*\n!docs/b*\n", "*\n"] {
        let list = IgnoreList::parse(ignore).unwrap();
        let tree = context(dir.path(), ignore);
        let mut sent = Vec::new();
        tree.all().unwrap().visit(&mut |visit| {
            if visit.kind != Kind::Dir {
                sent.push((visit.path.to_owned(), visit.size));
            }
        });
        let (mut kept, mut all) = (Vec::new(), 0);
        let unreadable = survey(tree.root(), dir.path(), &list, &mut |file| {
            all += 1;
            if !matches!(file.verdict, kiln_core::Verdict::Excluded { .. }) {
                kept.push((file.path.to_owned(), file.size));
            }
        });
        kept.sort();
        sent.sort();
        assert_eq!((kept, all, unreadable.unwrap().len()), (sent, 7, 0), "{ignore:?}");
    }
}
