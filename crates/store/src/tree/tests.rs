// A test that cannot run here says why.
#![allow(clippy::print_stderr)]

use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
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

fn context(path: &Path, ignore: &str) -> SourceTree {
    SourceTree::context(open(path), path, IgnoreList::parse(ignore).unwrap(), None)
}

fn paths(selected: &Selected) -> Vec<String> {
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
    let table: [(&str, &[&str]); 10] = [
        ("*.txt", &[".hidden.txt", "a.txt", "b.txt"]),
        ("?.txt", &["a.txt", "b.txt"]),
        ("[ab].txt", &["a.txt", "b.txt"]),
        // Neither does `*` cross a slash, nor is a link followed on the way.
        ("*/a.txt", &["a.txt", "a.txt"]),
        ("l/*.txt", &["a.txt"]),
        ("d/*", &["a.txt", "e", "e/a.txt"]),
        ("[[]x]", &["[x]"]),
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

#[test]
fn a_change_of_the_same_size_and_mtime_is_seen() {
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

/// Lines of a tree that `--exclude` and `--parents` are tried on.
const FILES: [&str; 12] = [
    "a.txt",
    "b.md",
    "dir/a.txt",
    "dir/b.md",
    "dir/sub/c.txt",
    "dir/sub/d.md",
    "dir2/e.txt",
    "dir2/empty/",
    "l -> dir",
    "m -> a.txt",
    "x/y/z/deep.txt",
    "x/y2/z/deep.md",
];

fn excluding(path: &str, exclude: &[&str]) -> Selection {
    let exclude = exclude.iter().map(|pattern| (*pattern).to_owned()).collect();
    Selection { exclude, ..Selection::wildcard(path) }
}

#[test]
fn excluded_files_are_not_selected() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path(), &FILES);
    let tree = context(dir.path(), "");
    let table: [(&str, &[&str], &[&str]); 17] = [
        // Patterns are relative to what is copied, and those without `**` match in its top directory only
        // (buildkit#5509).
        ("dir", &["*.txt"], &["dir", "dir/b.md", "dir/sub", "dir/sub/c.txt", "dir/sub/d.md"]),
        (
            "dir",
            &["dir/*.txt"],
            &["dir", "dir/a.txt", "dir/b.md", "dir/sub", "dir/sub/c.txt", "dir/sub/d.md"],
        ),
        ("dir", &["**/*.txt"], &["dir", "dir/b.md", "dir/sub", "dir/sub/d.md"]),
        ("dir", &["*.txt", "*.md"], &["dir", "dir/sub", "dir/sub/c.txt", "dir/sub/d.md"]),
        ("dir", &["sub"], &["dir", "dir/a.txt", "dir/b.md"]),
        ("dir", &["sub/"], &["dir", "dir/a.txt", "dir/b.md"]),
        // A leading slash means itself: so does it in BuildKit, which matches no path then.
        ("dir2", &["/e.txt"], &["dir2", "dir2/e.txt", "dir2/empty"]),
        // The last match wins; what is brought back brings its directories along, and nothing does not.
        ("dir", &["*", "!sub/d.md"], &["dir", "dir/sub", "dir/sub/d.md"]),
        ("dir", &["*", "!sub/nosuch"], &["dir"]),
        ("dir", &["!sub/d.md", "*"], &["dir"]),
        // Each match of a wildcard is a directory of its own, which is never left out itself.
        (
            "dir*",
            &["*.txt"],
            &["dir", "dir/b.md", "dir/sub", "dir/sub/c.txt", "dir/sub/d.md", "dir2", "dir2/empty"],
        ),
        ("dir*", &["*"], &["dir", "dir2"]),
        (
            "dir*",
            &["dir*"],
            &[
                "dir",
                "dir/a.txt",
                "dir/b.md",
                "dir/sub",
                "dir/sub/c.txt",
                "dir/sub/d.md",
                "dir2",
                "dir2/e.txt",
                "dir2/empty",
            ],
        ),
        ("l", &["sub", "*.md"], &["l", "l/a.txt"]),
        // Files that are named by the source are left out by their name (buildkit#5489).
        ("*.*", &["*.txt"], &["b.md"]),
        ("a.txt", &["*.txt"], &[]),
        ("m", &["a.txt"], &["m"]),
    ];
    for (path, exclude, expected) in table {
        let selected = tree.select(&excluding(path, exclude)).unwrap();
        assert_eq!(paths(&selected), expected, "{path} without {exclude:?}");
    }
    assert!(matches!(tree.select(&excluding("dir", &["["])), Err(TreeError::Pattern(_))));
    assert!(matches!(tree.select(&excluding("nosuch", &["*"])), Err(TreeError::NotFound { .. })));
}

#[test]
fn what_is_excluded_changes_no_digest() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path(), &FILES);
    let digest = |exclude: &[&str]| {
        let tree = context(dir.path(), "*.md\n");
        tree.select(&excluding("dir", exclude)).unwrap().digest(DigestRule::COPY).unwrap()
    };
    let (without, with) = (digest(&["**/*.txt"]), digest(&[]));
    assert_ne!(without, with);
    assert_ne!(digest(&["sub/*.txt"]), with);
    assert_ne!(digest(&["*", "!sub"]), digest(&["*", "!sub/*"]), "a directory on the way is not all of it");
    fs::write(dir.path().join("dir/sub/c.txt"), "other").unwrap();
    fs::write(dir.path().join("dir/new.txt"), "").unwrap();
    assert_eq!(digest(&["**/*.txt"]), without);
    assert_ne!(digest(&[]), with);
}

fn keeping(path: &str, exclude: &[&str]) -> Selection {
    // As a person writes it: `pivot/./rest`.
    let (pivot, rest) = path.split_once("/./").unwrap_or(("", path));
    let path = [pivot, rest].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/");
    Selection { parents: Some(pivot.to_owned()), ..excluding(&path, exclude) }
}

#[test]
fn parents_keep_the_directories_of_a_path() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path(), &FILES);
    plant(dir.path(), &["s/[1]/f", "s/1/f"]);
    let tree = context(dir.path(), "");
    let table: [(&str, &[&str], &[&str]); 17] = [
        ("a.txt", &[], &["a.txt"]),
        ("dir/sub", &[], &["dir", "dir/sub", "dir/sub/c.txt", "dir/sub/d.md"]),
        ("dir/./sub", &[], &["sub", "sub/c.txt", "sub/d.md"]),
        ("dir/sub/./d.md", &[], &["d.md"]),
        ("/./dir/a.txt", &[], &["dir", "dir/a.txt"]),
        ("dir/*.txt", &[], &["dir", "dir/a.txt"]),
        (
            "**/*.md",
            &[],
            &["b.md", "dir", "dir/b.md", "dir/sub", "dir/sub/d.md", "x", "x/y2", "x/y2/z", "x/y2/z/deep.md"],
        ),
        ("x/*/z", &[], &["x", "x/y", "x/y/z", "x/y/z/deep.txt", "x/y2", "x/y2/z", "x/y2/z/deep.md"]),
        // Each directory that the part before the pivot names, by way of a link too; files are none.
        ("x/y*/./z/*", &[], &["z", "z/deep.txt", "z", "z/deep.md"]),
        ("*/./*.txt", &[], &["a.txt", "e.txt", "a.txt"]),
        ("l/./sub/c.txt", &[], &["sub", "sub/c.txt"]),
        // Links on the way are not followed, those at the end stay links.
        ("l", &[], &["l"]),
        ("l*/sub", &[], &[]),
        ("nosuch*/x", &[], &[]),
        ("s/[[]1]/f", &[], &["s", "s/[1]", "s/[1]/f"]),
        // Patterns are relative to the pivot.
        ("dir/sub", &["**/*.md"], &["dir", "dir/sub", "dir/sub/c.txt"]),
        ("dir/./sub", &["dir/sub/*.md", "sub/*.txt"], &["sub", "sub/d.md"]),
    ];
    for (path, exclude, expected) in table {
        let selected = tree.select(&keeping(path, exclude)).unwrap();
        // Of a pivot only what it holds is copied.
        let pivots: Vec<_> = selected
            .matches
            .iter()
            .map(|m| PathBuf::from(std::ffi::OsString::from_vec(m.name.clone())))
            .collect();
        let got: Vec<String> = paths(&selected)
            .iter()
            .map(|path| pivots.iter().find_map(|pivot| Path::new(path).strip_prefix(pivot).ok()).unwrap())
            .filter(|path| !path.as_os_str().is_empty())
            .map(|path| path.to_string_lossy().into_owned())
            .collect();
        assert_eq!(got, expected, "{path} without {exclude:?}");
    }
    let all = tree.select(&keeping("", &["s"])).unwrap();
    assert_eq!(paths(&all).len(), tree.all().unwrap().len() - 5, "the context itself is all of it");
    let literal = Selection { wildcard: false, ..keeping("s/[1]/f", &[]) };
    assert_eq!(paths(&tree.select(&literal).unwrap()), ["", "s", "s/[1]", "s/[1]/f"]);
}

#[test]
fn parents_of_a_literal_path_that_is_not_there_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path(), &FILES);
    let tree = context(dir.path(), "dir2\n");
    let table = [
        ("nosuch", "\"nosuch\" not found"),
        ("dir/nosuch/./x", "\"dir/nosuch/x\" not found"),
        ("dir/./nosuch", "\"dir/nosuch\" not found"),
        ("dir2/e.txt", "\"dir2/e.txt\" not found: line 1 of .dockerignore excludes it"),
        ("dir2/./e.txt", "\"dir2/e.txt\" not found: line 1 of .dockerignore excludes it"),
        ("l/sub", "\"l/sub\" leads through the symbolic link l, which --parents does not follow"),
        ("a.txt/x", "\"a.txt/x\" cannot be reached: a.txt is not a directory"),
    ];
    for (path, expected) in table {
        let error = tree.select(&keeping(path, &[])).unwrap_err().to_string();
        assert_eq!(error.split(';').next().unwrap(), expected, "{path}");
    }
    assert_eq!(
        paths(&tree.select(&keeping("dir2/*", &[])).unwrap()),
        [""],
        "for a wildcard it is just not there"
    );
}

#[test]
fn parents_kept_names_count() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path(), &["a/b/f=1", "c/b/f=1", "c/d/f=1"]);
    let tree = context(dir.path(), "");
    let digest = |path: &str| tree.select(&keeping(path, &[])).unwrap().digest(DigestRule::COPY).unwrap();
    assert_eq!(digest("a/./b/f"), digest("c/./b/f"));
    assert_ne!(digest("a/b/f"), digest("c/b/f"));
    assert_ne!(digest("c/./b/f"), digest("c/./d/f"));
}
