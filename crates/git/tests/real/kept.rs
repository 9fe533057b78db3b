//! The `.git` that is left, judged by git.

use std::path::Path;

use kiln_testkit::git::{DATE, git};

use super::support::{Options, Place, listing};

fn judged(target: &Path, arguments: &[&str]) -> String {
    git(target, arguments)
}

#[test]
fn git_works_in_a_kept_checkout() {
    let place = Place::new();
    let repository = place.repository("a");
    repository.file("a", "1").executable("sub/b", "2").link("c", "a");
    repository.commit("one");
    repository.file("a", "2");
    let second = repository.commit("two");
    repository.git(&["tag", "-a", "v1", "-m", "first"]);
    repository.git(&["tag", "light"]);
    let options = || Options { keep: true, ..place.options() };
    for remote in [place.server.url("a"), place.file_url("a")] {
        for (reference, described) in [
            (None, None),
            (Some("main"), Some("heads/main")),
            (Some("v1"), Some("v1")),
            (Some("light"), Some("light")),
            (Some(second.as_str()), None),
        ] {
            let target = place.checkout(&remote, reference, &options()).unwrap();
            assert_eq!(judged(&target, &["status", "--porcelain"]), "", "{reference:?}");
            assert_eq!(judged(&target, &["log", "--format=%H %s"]), format!("{second} two"));
            assert_eq!(judged(&target, &["rev-parse", "--is-shallow-repository"]), "true");
            assert_eq!(judged(&target, &["config", "remote.origin.url"]), remote);
            judged(&target, &["fsck", "--strict"]);
            if let Some(described) = described {
                assert_eq!(
                    judged(&target, &["describe", "--all", "--exact-match"]),
                    if described == "v1" {
                        "tags/v1"
                    } else if described == "light" {
                        "tags/light"
                    } else {
                        described
                    }
                );
            }
            if reference == Some("v1") {
                assert_eq!(judged(&target, &["describe"]), "v1");
            }
            // It goes on from here as any clone does.
            std::fs::write(target.join("a"), "3").unwrap();
            assert_eq!(judged(&target, &["status", "--porcelain"]), " M a");
            judged(&target, &["commit", "-q", "-a", "-m", "three"]);
        }
    }
}

#[test]
fn the_time_of_everything_is_the_commits() {
    let place = Place::new();
    let repository = place.repository("a");
    repository.file("a", "1");
    repository.commit("one");
    let options = Options { keep: true, ..place.options() };
    let target = place.checkout(&place.server.url("a"), None, &options).unwrap();
    for line in listing(&target.join(".git")).into_iter().chain(listing(&target)) {
        assert!(line.ends_with(&DATE.to_string()), "{line}");
    }
}

#[test]
fn a_password_is_not_kept() {
    let place = Place::new();
    let repository = place.repository("a");
    repository.file("a", "1");
    repository.commit("one");
    let remote = place.server.url("a").replace("http://", "http://me:s3cret@");
    let options = Options { keep: true, ..place.options() };
    let target = place.checkout(&remote, None, &options).unwrap();
    let config = std::fs::read_to_string(target.join(".git/config")).unwrap();
    assert!(config.contains(&place.server.url("a")) && !config.contains("s3cret"), "{config}");
}
