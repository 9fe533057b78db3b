use kiln_core::{Cancel, GitOp, Op, Selection};
use kiln_store::PruneOptions;
use kiln_testkit::git::{GitServer, TestRepository, Trouble};

use super::{Bench, Seen, everything, holds};
use crate::{Error, ErrorKind, GitError};

/// A repository with one commit, and a server of it.
struct Remote {
    _dir: tempfile::TempDir,
    repository: TestRepository,
    server: GitServer,
    commit: String,
}

impl Remote {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repository = TestRepository::create(dir.path(), "a");
        repository.file("src/b.txt", "one").file("c.txt", "top");
        let commit = repository.commit("first");
        repository.git(&["branch", "stable"]);
        let server = GitServer::start(dir.path());
        Self { _dir: dir, repository, server, commit }
    }

    fn op(&self, reference: &str) -> GitOp {
        GitOp {
            remote: self.server.url("a"),
            reference: Some(reference.to_owned()),
            subdir: String::new(),
            checksum: None,
            keep_git_dir: false,
            submodules: false,
        }
    }

    /// Moves the branch on.
    fn advance(&self, text: &str) {
        self.repository.file("src/b.txt", text);
        self.repository.commit("next");
        self.repository.git(&["branch", "-f", "stable"]);
    }
}

/// One build that needs the files, and what is in one of them.
fn read(bench: &Bench, op: &GitOp, path: &str) -> (String, Seen) {
    let mut text = String::new();
    let seen = bench.build(|remotes, _| {
        let remote = remotes.get(&Op::Git(op.clone()), &Cancel::new())?;
        text = std::fs::read_to_string(remote.path.join(path)).unwrap();
        Ok(remote.content)
    });
    (text, seen)
}

#[test]
fn a_commit_is_asked_for_and_checked_out_only_if_it_is_needed() {
    let (bench, remote) = (Bench::new(), Remote::new());
    let op = remote.op("stable");
    let asked = bench.digest(&Op::Git(op.clone()));
    assert_eq!((asked.told(), asked.late), (vec![format!("declared {}#stable", op.remote)], 0));
    let resolving = remote.server.seen().len();
    assert!(!bench.store.root().join("sources").exists());
    let (text, first) = read(&bench, &op, "src/b.txt");
    assert_eq!(text, "one");
    assert_eq!(first.told()[1], "started");
    assert_eq!(first.told().last().unwrap(), "done");
    assert!(remote.server.seen().len() > resolving);
    // The same commit is not fetched again.
    let (_, second) = read(&bench, &op, "src/b.txt");
    assert_eq!(second.told()[1..], ["cached"]);
    assert_eq!(remote.server.seen().len(), resolving);
    // One that is named in full is not even asked for, and is worth the same under any name.
    let named = bench.digest(&Op::Git(remote.op(&remote.commit)));
    assert_eq!(named.result.unwrap(), asked.result.unwrap());
    assert_eq!(remote.server.seen(), []);
    assert_eq!(bench.store.fsck().unwrap(), []);
}

#[test]
fn a_branch_that_moved_on_is_another_source() {
    let (bench, remote) = (Bench::new(), Remote::new());
    let op = remote.op("stable");
    let (_, first) = read(&bench, &op, "c.txt");
    remote.advance("two");
    let (text, second) = read(&bench, &op, "src/b.txt");
    assert_eq!(text, "two");
    assert_ne!(first.result.unwrap(), second.result.unwrap());
    // What the name meant before is needed by nobody.
    let report = bench.store.prune(&PruneOptions::default()).unwrap();
    assert_eq!(report.removed.len(), 1, "{report:?}");
    let (_, third) = read(&bench, &op, "src/b.txt");
    assert_eq!(third.told()[1..], ["cached"]);
    // One that moved back means what is there, and keeps it.
    let named = remote.op(&remote.commit);
    read(&bench, &named, "c.txt");
    remote.repository.git(&["branch", "-f", "stable", &remote.commit]);
    assert_eq!(read(&bench, &op, "src/b.txt").1.told()[1..], ["cached"]);
    assert_eq!(
        bench.store.prune(&PruneOptions::default()).unwrap().removed.len(),
        1,
        "the second commit alone"
    );
    assert_eq!(read(&bench, &op, "src/b.txt").1.told()[1..], ["cached"]);
}

#[test]
fn what_of_a_commit_is_taken_decides() {
    let (bench, remote) = (Bench::new(), Remote::new());
    let whole = remote.op("stable");
    let part = GitOp { subdir: "src".to_owned(), ..whole.clone() };
    let kept = GitOp { keep_git_dir: true, ..whole.clone() };
    let digest = |op: &GitOp| bench.digest(&Op::Git(op.clone())).result.unwrap();
    assert!(digest(&whole) != digest(&part) && digest(&whole) != digest(&kept));
    let seen = bench.build(|remotes, late| {
        remotes.digest(&Op::Git(whole.clone()), &Selection::literal("src"), late, &Cancel::new())
    });
    assert_ne!(seen.result.unwrap(), digest(&whole));
    assert_eq!(read(&bench, &part, "b.txt").0, "one");
    assert!(read(&bench, &kept, ".git/HEAD").0.len() > 4);
}

#[test]
fn a_commit_that_is_another_one_is_refused() {
    let (bench, remote) = (Bench::new(), Remote::new());
    let right = GitOp { checksum: Some(remote.commit[..7].to_owned()), ..remote.op("stable") };
    bench.digest(&Op::Git(right.clone())).result.unwrap();
    remote.advance("two");
    let seen = bench.digest(&Op::Git(right));
    let told = seen.told();
    let error = seen.result.unwrap_err();
    assert!(error.to_string().contains(&format!("does not begin with {}", &remote.commit[..7])), "{error}");
    assert_eq!((error.kind(), told.last().unwrap()), (ErrorKind::Network, &format!("failed: {error}")));
    let missing = bench.digest(&Op::Git(remote.op("nowhere"))).result.unwrap_err();
    assert!(matches!(missing, Error::Git(GitError::NoSuchRef { .. })), "{missing}");
}

#[test]
fn a_token_for_the_host_opens_and_is_nowhere() {
    let (mut bench, remote) = (Bench::new(), Remote::new());
    // What `x-access-token:s3cr3t` is in base64.
    let header = "basic eC1hY2Nlc3MtdG9rZW46czNjcjN0";
    remote.server.trouble(Trouble::Secret(header.to_owned()));
    let op = GitOp { keep_git_dir: true, ..remote.op("stable") };
    let denied = bench.digest(&Op::Git(op.clone())).result.unwrap_err();
    assert!(matches!(denied, Error::Git(GitError::Unauthorized { .. })), "{denied}");
    let host = remote.server.host();
    let suffixed = |name: &str| -> &'static str { format!("{name}.{host}").leak() };
    for secrets in [
        vec![("GIT_AUTH_TOKEN", "s3cr3t\n")],
        vec![("GIT_AUTH_HEADER", header)],
        vec![(suffixed("GIT_AUTH_TOKEN"), "s3cr3t"), ("GIT_AUTH_HEADER", "for others")],
        vec![(suffixed("GIT_AUTH_HEADER"), header), (suffixed("GIT_AUTH_TOKEN"), "another")],
        vec![("GIT_AUTH_HEADER", header), ("GIT_AUTH_TOKEN", "another")],
    ] {
        bench.secrets = secrets;
        bench.digest(&Op::Git(op.clone())).result.unwrap();
    }
    let (text, seen) = read(&bench, &op, "src/b.txt");
    assert_eq!(text, "one");
    let store = everything(bench.store.root());
    for secret in ["s3cr3t", &header[6..]] {
        assert!(!holds(&store, secret) && !format!("{:?}", seen.events).contains(secret), "{secret}");
    }
    assert!(holds(&store, "c.txt"), "the store was looked through");
    // Others get nothing.
    bench.secrets = vec![("GIT_AUTH_TOKEN.example.org", "s3cr3t")];
    remote.server.seen();
    bench.digest(&Op::Git(op)).result.unwrap_err();
    assert!(remote.server.seen().iter().all(|seen| seen.authorization.is_none()));
}
