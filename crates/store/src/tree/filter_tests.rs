//! `--exclude` and `--parents`: what is selected of a tree, and what of it counts.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;

use super::tests::{context, paths, plant};
use super::*;

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
        let pivots: Vec<_> =
            selected.matches.iter().map(|m| PathBuf::from(OsString::from_vec(m.name.clone()))).collect();
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
