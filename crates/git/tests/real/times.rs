//! When the commit of a work tree was made.

use kiln_git::{GitError, commit_time};
use kiln_testkit::git::{TestRepository, git, git_command};

#[test]
fn a_work_tree_has_the_time_that_git_says() {
    let dir = tempfile::tempdir().unwrap();
    let repository = TestRepository::create(dir.path(), "work");
    let tree = repository.path.clone();
    let error = commit_time(&tree).unwrap_err();
    assert!(matches!(error, GitError::Empty { .. }), "{error}");
    repository.file("deep/below/file", "x");
    repository.commit("one");
    let said =
        |tree: &std::path::Path| git(tree, &["log", "-1", "--format=%ct"]).trim().parse::<u64>().unwrap();
    let first = said(&tree);
    assert_eq!(commit_time(&tree).unwrap(), first);
    assert_eq!(commit_time(&tree.join("deep/below")).unwrap(), first, "from anywhere inside");
    // A detached head, another time, all in packs, and a linked work tree.
    let status = git_command(&tree)
        .args(["commit", "--quiet", "--allow-empty", "-m", "two"])
        .envs([("GIT_COMMITTER_DATE", "1234567890 +0200"), ("GIT_AUTHOR_DATE", "999999999 +0000")])
        .status();
    assert!(status.unwrap().success());
    assert_eq!(commit_time(&tree).unwrap(), 1_234_567_890);
    git(&tree, &["checkout", "--quiet", "--detach", "HEAD~1"]);
    git(&tree, &["gc", "--quiet"]);
    assert_eq!(commit_time(&tree).unwrap(), first);
    git(&tree, &["worktree", "add", "--quiet", "../linked", "main"]);
    let linked = dir.path().join("linked");
    assert_eq!(commit_time(&linked).unwrap(), said(&linked));
    assert_eq!(commit_time(&linked).unwrap(), 1_234_567_890);
}

#[test]
fn a_directory_of_no_repository_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = commit_time(dir.path()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{} is no git repository", dir.path().display())), "{error}");
    let error = commit_time(&dir.path().join("none")).unwrap_err().to_string();
    assert!(error.contains("none"), "{error}");
}
