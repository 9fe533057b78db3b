//! `ADD` of git repositories. No git runs but the server's.

use std::path::PathBuf;

use kiln_testkit::git::{GitServer, TestRepository, Trouble};
use tempfile::TempDir;

use crate::place::Place;
use crate::user::for_each_user;

struct Served {
    _root: TempDir,
    server: GitServer,
    repository: TestRepository,
}

/// A repository with a directory, a link, an executable file and a submodule.
fn served() -> Served {
    let root = tempfile::tempdir().expect("a directory");
    let lib = TestRepository::create(root.path(), "lib");
    let in_lib = lib.file("lib.txt", "library\n").commit("lib");
    let repository = TestRepository::create(root.path(), "repo");
    repository.file("README", "one\n").executable("sub/run", "#!/bin/sh\necho ran\n").link("sub/link", "run");
    repository.file(".gitmodules", "[submodule \"lib\"]\n\tpath = lib\n\turl = ../lib.git\n");
    repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{in_lib},lib")]);
    repository.commit("one");
    repository.git(&["tag", "-a", "v1", "-m", "v1"]);
    let server = GitServer::start(root.path());
    Served { _root: root, server, repository }
}

fn asked(server: &GitServer) -> Vec<String> {
    server.seen().into_iter().map(|seen| seen.line).collect()
}

/// What a step finds at `/src`.
fn add(place: &Place, line: &str) {
    place.base(&format!("{line}\nRUN cd /src && find . | sort && stat -c '%a %u:%g %Y %n' * && cat *.txt README run 2>/dev/null; true\n"));
}

#[test]
fn files_of_a_branch_are_there_and_asked_for_once() {
    for_each_user(|user| {
        let served = served();
        let (server, repository) = (&served.server, &served.repository);
        let (place, url) = (Place::new(user), server.url("repo"));
        add(&place, &format!("ADD {url}#main:sub /src"));
        let first = place.build(&[]).ok().prints(&["./link", "./run", "755 0:0 1700000000 run"]);
        assert!(asked(server).iter().any(|line| line.starts_with("POST")));
        // One look at the ref; the commit is here.
        place.build(&["--no-cache"]).ok();
        let again = asked(server);
        assert_eq!(again.len(), 2, "{again:?}");
        let cached = place.build(&[]).ok().lacks(&["#!/bin/sh"]);
        assert_eq!(cached.digest(), first.digest());
        asked(server);
        // A commit that changes other files only is another key, and the same image.
        repository.file("README", "two\n").commit("two");
        add(&place, &format!("ADD {url} /src"));
        place.build(&[]).ok().prints(&["two", "./lib/lib.txt", "./sub/run"]).lacks(&["./.git/"]);
        let commit = repository.git(&["rev-parse", "HEAD~1"]);
        asked(server);
        add(&place, &format!("ADD --checksum={} {url}?ref={commit}&submodules=false /src", &commit[..10]));
        place.build(&[]).ok().prints(&["one"]).lacks(&["./lib/lib.txt"]);
        // Nobody is asked what a whole commit means.
        place.build(&[]).ok();
        asked(server);
        place.build(&["--no-cache"]).ok();
        assert_eq!(asked(server), [] as [String; 0]);
        place.fsck();
        assert_eq!(place.half_made(), [] as [String; 0]);
    });
}

#[test]
fn a_kept_git_directory_tells_where_it_is_from() {
    for_each_user(|user| {
        let served = served();
        let server = &served.server;
        let (place, url) = (Place::new(user), server.url("repo"));
        let commit = served.repository.git(&["rev-parse", "HEAD"]);
        place.base(&format!(
            "ADD --keep-git-dir=true {url}#v1 /src\nRUN cat /src/.git/HEAD && grep -o 'refs/tags/v1' /src/.git/packed-refs && grep -o http.*repo.git /src/.git/config && ls /src/.git/modules /src/lib\n"
        ));
        place.build(&[]).ok().prints(&[&commit, "refs/tags/v1", &url, "lib", "lib.txt"]);
        place.fsck();
    });
}

#[test]
fn what_cannot_be_had_is_told_with_the_line() {
    for_each_user(|user| {
        let served = served();
        let (server, repository) = (&served.server, &served.repository);
        let (place, url) = (Place::new(user), server.url("repo"));
        let commit = repository.git(&["rev-parse", "HEAD"]);
        let cases: [(String, i32, Vec<&str>); 5] = [
            (format!("ADD {url}#mian /src"), 2, vec!["Dockerfile:3", "has no ref mian; there are main"]),
            (format!("ADD {url}#{} /src", &commit[..8]), 2, vec!["has no ref", "all of its 40 digits"]),
            (format!("ADD {url}#main:none /src"), 2, vec!["has no directory none"]),
            (
                format!("ADD --checksum=0123456789 {url}#main /src"),
                4,
                vec!["has commit", "does not begin with 0123456789"],
            ),
            (
                "ADD http://127.0.0.1:1/x.git /src".to_owned(),
                4,
                vec!["http://127.0.0.1:1/x.git cannot be reached"],
            ),
        ];
        for (line, code, words) in cases {
            add(&place, &line);
            place.build(&[]).code(code).says(&words);
        }
        place.fsck();
        assert_eq!(place.half_made(), [] as [String; 0]);
    });
}

#[test]
fn secrets_open_private_repositories_and_are_nowhere() {
    for_each_user(|user| {
        let served = served();
        let server = &served.server;
        server.trouble(Trouble::Secret("Bearer s3cr3t".to_owned()));
        let (place, url) = (Place::new(user), server.url("repo"));
        add(&place, &format!("ADD {url} /src"));
        place.build(&[]).code(4).says(&["does not exist or needs credentials", "GIT_AUTH_TOKEN"]);
        place.file("secret", "Bearer s3cr3t\n");
        let secret = format!("id=GIT_AUTH_HEADER,src={}", place.text("secret"));
        let ran = place.build(&["--secret", &secret]).ok().prints(&["./lib/lib.txt"]);
        ran.lacks(&["s3cr3t"]);
        let store = PathBuf::from(place.text("store"));
        let found = std::process::Command::new("grep").args(["-rqaF", "s3cr3t"]).arg(store).status();
        assert!(!found.expect("grep").success(), "the secret is in the store");
    });
}
