//! Repositories in repositories.

use kiln_git::{GitError, resolve};
use kiln_testkit::git::{TestRepository, git};

use super::support::{Options, Place, listing, tree_id};

/// Adds a submodule without git's help, which would fetch it: a commit's id at a path, and its URL.
fn add(repository: &TestRepository, path: &str, url: &str, commit: &str) {
    let known = std::fs::read_to_string(repository.path.join(".gitmodules")).unwrap_or_default();
    let text = format!("{known}[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n");
    repository.file(".gitmodules", text);
    repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
}

/// `a` holds `b` twice, by a relative and by an absolute URL; `b` holds `c`.
fn nested(place: &Place) -> TestRepository {
    let c = place.repository("c");
    c.file("deepest", "c");
    let in_c = c.commit("c");
    let b = place.repository("b");
    b.file("file", "b");
    add(&b, "inner/c", "../c.git", &in_c);
    let in_b = b.commit("b");
    // The tree names a commit; what the branch has later does not matter.
    b.file("file", "later");
    b.commit("later");
    let a = place.repository("a");
    a.file("top", "a");
    add(&a, "libs/b", "../b.git", &in_b);
    add(&a, "other", &place.server.url("b"), &in_b);
    a.commit("a");
    a
}

#[test]
fn submodules_are_fetched_at_the_commit_that_is_named() {
    let place = Place::new();
    nested(&place);
    let target = place.checkout(&place.server.url("a"), None, &place.options()).unwrap();
    let read = |path: &str| std::fs::read_to_string(target.join(path)).unwrap();
    assert_eq!((read("libs/b/file"), read("other/file"), read("top")), ("b".into(), "b".into(), "a".into()));
    assert_eq!(read("libs/b/inner/c/deepest"), "c");
    assert!(!target.join("libs/b/.git").exists());
    let clone = place.directory.path().join("clone");
    git(place.directory.path(), &["clone", "-q", "--recurse-submodules", &place.server.url("a"), "clone"]);
    for path in ["libs/b", "other", "libs/b/inner/c"] {
        let theirs = git(&clone.join(path), &["rev-parse", "HEAD:"]);
        if path == "libs/b/inner/c" {
            assert_eq!(tree_id(&place, &target.join(path)), theirs, "{path}");
        }
        assert!(target.join(path).is_dir());
    }
}

#[test]
fn a_directory_brings_only_its_submodules() {
    let place = Place::new();
    nested(&place);
    place.server.seen();
    let options = Options { subdir: "libs".to_owned(), ..place.options() };
    let target = place.checkout(&place.server.url("a"), None, &options).unwrap();
    assert!(target.join("b/inner/c/deepest").exists() && target.join("b/file").exists());
}

#[test]
fn without_submodules_there_are_empty_directories() {
    let place = Place::new();
    nested(&place);
    place.server.seen();
    let options = Options { submodules: false, ..place.options() };
    let target = place.checkout(&place.server.url("a"), None, &options).unwrap();
    assert_eq!(std::fs::read_dir(target.join("libs/b")).unwrap().count(), 0);
    assert!(place.server.seen().iter().all(|seen| seen.line.contains("/a.git/")));
}

#[test]
fn kept_submodules_are_repositories_too() {
    let place = Place::new();
    nested(&place);
    let options = Options { keep: true, ..place.options() };
    let target = place.checkout(&place.server.url("a"), None, &options).unwrap();
    assert_eq!(git(&target, &["status", "--porcelain"]), "");
    let status = git(&target, &["submodule", "status", "--recursive"]);
    let states: Vec<(&str, &str)> = status
        .lines()
        .map(|line| (&line[..1], line.split(' ').nth(if line.starts_with(' ') { 2 } else { 1 }).unwrap()))
        .collect();
    assert_eq!(
        states,
        [(" ", "libs/b"), (" ", "libs/b/inner/c"), (" ", "other"), (" ", "other/inner/c")],
        "{status}"
    );
    std::fs::write(target.join("libs/b/inner/c/deepest"), "changed").unwrap();
    assert_eq!(git(&target.join("libs/b/inner/c"), &["status", "--porcelain"]), " M deepest");
    // The directory can be moved: its links are relative.
    let moved = place.directory.path().join("moved");
    std::fs::rename(&target, &moved).unwrap();
    assert_eq!(git(&moved, &["status", "--porcelain"]), " M libs/b");
    let times = listing(&moved.join("other"));
    assert!(!times.is_empty());
}

#[test]
fn what_a_repository_may_not_name() {
    let place = Place::new();
    let secret = place.repository("secret");
    secret.file("s", "s");
    let commit = secret.commit("s");
    let cases = [
        (place.file_url("secret"), "must not be a directory of this machine"),
        ("/srv/secret".to_owned(), "it is no http, https, git, ssh or file URL"),
        ("ext::sh -c true".to_owned(), "remote helpers are not run"),
        ("-u/x:y".to_owned(), "it is no http, https, git, ssh or file URL"),
        ("ssh://-oProxyCommand=true/x".to_owned(), "could be taken for an option"),
        ("../../../../x".to_owned(), "leads out of"),
    ];
    for (number, (url, reason)) in cases.iter().enumerate() {
        let repository = place.repository(&format!("r{number}"));
        add(&repository, "m", url, &commit);
        repository.commit("x");
        let error = place.checkout(&place.server.url(&format!("r{number}")), None, &place.options());
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("submodule m: ") && error.contains(reason), "{url}: {error}");
    }
    // A relative URL in a repository on this machine leads to this machine too.
    let local = place.repository("local");
    add(&local, "m", "../secret.git", &commit);
    local.commit("x");
    let error = place.checkout(&place.file_url("local"), None, &place.options()).unwrap_err();
    assert!(error.to_string().contains("must not be a directory of this machine"), "{error}");
}

#[test]
fn what_gitmodules_does_not_say() {
    let place = Place::new();
    let c = place.repository("c");
    c.file("f", "c");
    let commit = c.commit("c");
    let a = place.repository("a");
    a.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},lost")]);
    a.commit("no file");
    let remote = place.server.url("a");
    let error = place.checkout(&remote, None, &place.options()).unwrap_err();
    assert_eq!(error.to_string(), format!(".gitmodules of {remote}: it has no url for lost"));
    a.file(".gitmodules", "[submodule \"x\"]\n\tpath = lost\n\turl = ../c.git\n\tupdate = none\n");
    a.commit("left out");
    let target = place.checkout(&remote, None, &place.options()).unwrap();
    assert_eq!(std::fs::read_dir(target.join("lost")).unwrap().count(), 0);
    a.file(".gitmodules", "[submodule \"x\"\n");
    a.commit("broken");
    let error = place.checkout(&remote, None, &place.options()).unwrap_err();
    assert_eq!(error.to_string(), format!(".gitmodules of {remote}: line 1 cannot be read"));
    a.file(".gitmodules", "[submodule \"../../x\"]\n\tpath = lost\n\turl = ../c.git\n");
    a.commit("a name that is a way out");
    place.checkout(&remote, None, &place.options()).unwrap();
    let options = Options { keep: true, ..place.options() };
    let error = place.checkout(&remote, None, &options).unwrap_err();
    assert!(error.to_string().contains("cannot be the name of a submodule"), "{error}");
}

#[test]
fn submodules_without_end() {
    let place = Place::new();
    let mut commit = {
        let first = place.repository("m0");
        first.file("f", "x");
        first.commit("x")
    };
    for number in 1..6 {
        let next = place.repository(&format!("m{number}"));
        add(&next, "m", &format!("../m{}.git", number - 1), &commit);
        commit = next.commit("x");
    }
    let mut place = place;
    place.access.limits.submodules = 3;
    let remote = place.server.url("m5");
    resolve(&place.access, &remote, None).unwrap();
    let error = place.checkout(&remote, None, &place.options()).unwrap_err();
    assert!(error.to_string().ends_with("submodules are more than 3 deep"), "{error}");
    assert!(matches!(error, GitError::Submodule { .. }));
}
