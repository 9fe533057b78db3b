//! What people have: branches, tags, commits, many files, deltas.

use std::io::BufRead;
use std::process::{Child, Command, Stdio};

use kiln_core::Cancel;
use kiln_git::{Auth, Credentials, GitError, resolve};
use kiln_testkit::git::{DATE, TestRepository, Trouble, git, git_command};

use super::support::{Options, Place, listing, tree_id};

/// Two commits on main, a branch, tags of both kinds.
fn history(place: &Place) -> (TestRepository, String, String) {
    let repository = place.repository("a");
    repository.file("README", "one\n").file("sub/dir/file", "deep\n").executable("run.sh", "#!/bin/sh\n");
    repository.link("link", "../else where");
    repository
        .file("ign", "x")
        .file(".gitignore", "ign\n")
        .file("sub/empty", "")
        .file("sub-x", "sorted before sub/");
    let first = repository.commit("one");
    repository.git(&["tag", "light"]);
    repository.git(&["tag", "-a", "v1", "-m", "a tag"]);
    repository.git(&["branch", "feature/x"]);
    repository.file("README", "two\n");
    let second = repository.commit("two");
    (repository, first, second)
}

/// A `git daemon` on a port of its own, ended when dropped.
struct Daemon(Child, u16);

impl Daemon {
    fn start(place: &Place) -> Self {
        // The daemon chooses no port itself; a taken one makes it end at once, and another is tried.
        for _ in 0..20 {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let root = place.directory.path().join("repositories");
            let mut command = git_command(&root);
            command.args(["daemon", "--verbose", "--export-all", "--reuseaddr", "--listen=127.0.0.1"]);
            command.arg(format!("--port={port}")).arg(format!("--base-path={}", root.display())).arg(&root);
            let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
            let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("Ready to rumble"));
            if ready {
                // It goes on writing; a closed pipe would end it.
                std::thread::spawn(move || lines.count());
                return Self(child, port);
            }
            child.wait().unwrap();
        }
        panic!("no port for git daemon");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Its child does the serving, and ends with it if git can tell it so.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

#[test]
fn every_name_and_every_transport_brings_the_tree_that_git_has() {
    let place = Place::new();
    let (repository, first, second) = history(&place);
    let daemon = Daemon::start(&place);
    let remotes = [place.server.url("a"), format!("git://127.0.0.1:{}/a.git", daemon.1), place.file_url("a")];
    let cases = [
        (None, &second),
        (Some("main"), &second),
        (Some("HEAD"), &second),
        (Some("refs/heads/feature/x"), &first),
        (Some("feature/x"), &first),
        (Some("light"), &first),
        (Some("v1"), &first),
        (Some("refs/tags/v1"), &first),
        (Some(first.as_str()), &first),
    ];
    for remote in &remotes {
        for (reference, commit) in &cases {
            let wanted = resolve(&place.access, remote, *reference).unwrap();
            assert_eq!(&wanted.commit.to_string(), *commit, "{remote} {reference:?}");
            let target = place.checkout_resolved(remote, &wanted, &place.options()).unwrap();
            let tree = repository.git(&["rev-parse", &format!("{commit}^{{tree}}")]);
            assert_eq!(tree_id(&place, &target), tree, "{remote} {reference:?}");
            assert!(!target.join(".git").exists());
        }
    }
}

#[test]
fn modes_times_and_links_are_fixed() {
    let place = Place::new();
    history(&place);
    let target = place.checkout(&place.server.url("a"), None, &place.options()).unwrap();
    let expected = [
        format!(".gitignore 644 {DATE}"),
        format!("README 644 {DATE}"),
        format!("ign 644 {DATE}"),
        format!("link -> ../else where {DATE}"),
        format!("run.sh 755 {DATE}"),
        format!("sub-x 644 {DATE}"),
        format!("sub/ 755 {DATE}"),
        format!("sub/dir/ 755 {DATE}"),
        format!("sub/dir/file 644 {DATE}"),
        format!("sub/empty 644 {DATE}"),
    ];
    assert_eq!(listing(&target), expected);
}

#[test]
fn what_a_name_means_is_told_whole() {
    let place = Place::new();
    let (repository, first, second) = history(&place);
    for remote in [place.server.url("a"), place.file_url("a")] {
        let head = resolve(&place.access, &remote, None).unwrap();
        assert_eq!(head.full_ref.as_deref(), Some("refs/heads/main"));
        assert_eq!((head.commit.to_string(), head.tag), (second.clone(), None));
        let tag = resolve(&place.access, &remote, Some("v1")).unwrap();
        assert_eq!(tag.full_ref.as_deref(), Some("refs/tags/v1"));
        let object = repository.git(&["rev-parse", "refs/tags/v1"]);
        assert_eq!(tag.tag.map(|id| id.to_string()), Some(object.clone()));
        assert!(
            tag.matches(&first[..7]) && tag.matches(&object[..12].to_uppercase()) && !tag.matches(&second)
        );
    }
    let commit = resolve(&place.access, "https://127.0.0.1:1/never/asked", Some(&first)).unwrap();
    assert_eq!((commit.commit.to_string(), commit.full_ref), (first, None));
}

#[test]
fn a_directory_of_it() {
    let place = Place::new();
    history(&place);
    for remote in [place.server.url("a"), place.file_url("a")] {
        let options = Options { subdir: "sub".to_owned(), keep: true, ..place.options() };
        let target = place.checkout(&remote, None, &options).unwrap();
        let names: Vec<String> =
            listing(&target).iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(names, ["dir/", "dir/file", "empty"]);
        assert!(!target.join(".git").exists(), "as BuildKit: not for a directory of it");
        for wrong in ["sub/none", "README", "sub/empty", "link"] {
            let options = Options { subdir: wrong.to_owned(), ..place.options() };
            let error = place.checkout(&remote, None, &options).unwrap_err();
            assert!(matches!(error, GitError::NoSuchDirectory { .. }), "{wrong}: {error}");
        }
    }
}

#[test]
fn a_commit_that_no_name_points_to() {
    let place = Place::new();
    let (repository, first, _) = history(&place);
    repository.git(&["checkout", "-q", "--detach", &first]);
    repository.file("lost", "x");
    let lost = repository.commit("lost");
    repository.git(&["checkout", "-q", "main"]);
    let absent = "0123456789012345678901234567890123456789";
    for remote in [place.server.url("a"), place.file_url("a")] {
        let target = place.checkout(&remote, Some(&lost), &place.options()).unwrap();
        assert!(target.join("lost").exists());
        let error = place.checkout(&remote, Some(absent), &place.options()).unwrap_err();
        assert_eq!(error.to_string(), format!("{remote} has no commit {absent}"));
    }
}

#[test]
fn an_old_server_gives_what_names_lead_to() {
    let place = Place::new();
    let (repository, first, second) = history(&place);
    repository.git(&["branch", "-D", "feature/x"]);
    repository.git(&["tag", "-d", "light", "v1"]);
    repository.git(&["tag", "-a", "v2", "-m", "a tag"]);
    place.server.trouble(Trouble::Old);
    let remote = place.server.url("a");
    for (reference, commit) in [(None, &second), (Some("v2"), &second), (Some(first.as_str()), &first)] {
        let target = place.checkout(&remote, reference, &place.options()).unwrap();
        let tree = repository.git(&["rev-parse", &format!("{commit}^{{tree}}")]);
        assert_eq!(tree_id(&place, &target), tree, "{reference:?}");
    }
    let absent = "0123456789012345678901234567890123456789";
    let error = place.checkout(&remote, Some(absent), &place.options()).unwrap_err();
    assert!(matches!(error, GitError::NoSuchCommit { .. }), "{error}");
}

#[test]
fn deltas_and_thousands_of_files() {
    let place = Place::new();
    let repository = place.repository("many");
    let mut text = String::new();
    for number in 0..5_000 {
        let path = repository.path.join(format!("d{}/e{}", number % 7, number % 13));
        std::fs::create_dir_all(&path).unwrap();
        text.push_str(&format!("line {number}\n"));
        // Each is like the one before, which makes long chains.
        std::fs::write(path.join(format!("f{number}")), &text[text.len().saturating_sub(20_000)..]).unwrap();
    }
    repository.git(&["add", "-A"]);
    repository.commit("many");
    repository.git(&["repack", "-q", "-adf", "--depth=50", "--window=20"]);
    let tree = repository.git(&["rev-parse", "HEAD^{tree}"]);
    for remote in [place.server.url("many"), place.file_url("many")] {
        let target = place.checkout(&remote, None, &place.options()).unwrap();
        assert_eq!(tree_id(&place, &target), tree, "{remote}");
    }
}

#[test]
fn local_repositories_in_every_shape() {
    let place = Place::new();
    let (repository, _, second) = history(&place);
    let root = place.directory.path().join("repositories");
    let source = repository.path.to_str().unwrap();
    git(&root, &["clone", "-q", "--bare", source, "bare.git"]);
    git(&root, &["clone", "-q", "--shared", source, "shared.git"]);
    repository.git(&["worktree", "add", "-q", "--detach", "../linked.git", "HEAD"]);
    git(&root.join("bare.git"), &["pack-refs", "--all"]);
    for name in ["bare", "shared", "linked"] {
        let wanted = resolve(&place.access, &place.file_url(name), None).unwrap();
        assert_eq!(wanted.commit.to_string(), second, "{name}");
        place.checkout_resolved(&place.file_url(name), &wanted, &place.options()).unwrap();
    }
    let packed = resolve(&place.access, &place.file_url("bare"), Some("v1")).unwrap();
    assert!(packed.tag.is_some());
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let place = Place::new();
    history(&place);
    place.repository("empty");
    for (empty, full) in
        [(place.server.url("empty"), place.server.url("a")), (place.file_url("empty"), place.file_url("a"))]
    {
        for reference in [None, Some("main")] {
            let error = resolve(&place.access, &empty, reference).unwrap_err();
            assert_eq!(error.to_string(), format!("{empty} has no commits"));
        }
        let error = resolve(&place.access, &full, Some("mian")).unwrap_err();
        assert_eq!(error.to_string(), format!("{full} has no ref mian; there are main"));
        let error = resolve(&place.access, &full, Some("refs/tags/v2")).unwrap_err();
        assert_eq!(error.to_string(), format!("{full} has no ref refs/tags/v2; there are v1"));
    }
    for remote in [place.server.url("none"), place.file_url("none")] {
        let error = resolve(&place.access, &remote, None).unwrap_err();
        assert!(matches!(error, GitError::NoRepository { .. }), "{error}");
    }
    let error = resolve(&place.access, "http://127.0.0.1:1/a.git", None).unwrap_err();
    assert_eq!(error.to_string(), "http://127.0.0.1:1/a.git cannot be reached: Connection refused");
}

#[test]
fn credentials_go_to_their_host_and_nowhere_else() {
    let place = Place::new();
    history(&place);
    let elsewhere = kiln_testkit::git::GitServer::start(&place.directory.path().join("repositories"));
    let secret = "basic eC1hY2Nlc3MtdG9rZW46czNjcmV0";
    place.server.trouble(Trouble::Secret(secret.to_owned()));
    let remote = place.server.url("a");
    let error = resolve(&place.access, &remote, None).unwrap_err();
    assert_eq!(error, GitError::Unauthorized { remote: remote.clone(), credentials: Credentials::None });

    let mut place = place;
    place.access.auth.insert(place.server.host(), Auth::token("wrong"));
    let error = resolve(&place.access, &remote, None).unwrap_err();
    assert_eq!(error, GitError::Unauthorized { remote: remote.clone(), credentials: Credentials::Sent });
    place.access.auth.insert(place.server.host(), Auth::token("s3cret\n"));
    place.checkout(&remote, None, &place.options()).unwrap();
    let text = format!("{:?}", place.access.auth);
    assert!(!text.contains("czNjcmV0") && !text.contains("s3cret"), "{text}");

    // In the URL too; a wrong one is not shown.
    let written = remote.replace("http://", "http://x-access-token:s3cret@");
    place.access.auth.clear();
    place.checkout(&written, None, &place.options()).unwrap();
    let written = remote.replace("http://", "http://me:hush@");
    let error = resolve(&place.access, &written, None).unwrap_err().to_string();
    assert_eq!(error, format!("{remote} does not accept the credentials that it got"));

    // A redirect to another host takes nothing along.
    place.server.trouble(Trouble::Redirect(format!("http://{}", elsewhere.host())));
    let written = remote.replace("http://", "http://x-access-token:s3cret@");
    place.checkout(&written, None, &place.options()).unwrap();
    let seen = elsewhere.seen();
    assert!(seen.len() >= 4 && seen.iter().all(|one| one.authorization.is_none()), "{seen:?}");
}

#[test]
fn a_cancelled_checkout_ends() {
    let place = Place::new();
    history(&place);
    let mut place = place;
    let wanted = resolve(&place.access, &place.server.url("a"), None).unwrap();
    place.access.cancel = Cancel::new();
    place.access.cancel.cancel();
    for remote in [place.server.url("a"), place.file_url("a")] {
        let error = place.checkout_resolved(&remote, &wanted, &place.options()).unwrap_err();
        assert_eq!(error, GitError::Cancelled);
    }
}

/// Denies everything, and remembers what it was shown.
struct Gate(std::sync::Mutex<Vec<String>>);

impl kiln_git::Http for Gate {
    fn exchange(
        &self,
        request: kiln_git::HttpRequest,
        _: &Cancel,
    ) -> std::io::Result<kiln_git::HttpResponse> {
        let shown = request.headers.iter().find(|(name, _)| *name == "Authorization");
        let shown = shown.map_or("nothing", |(_, value)| value);
        self.0.lock().unwrap().push(format!("{} {shown}", request.url.split("/info").next().unwrap()));
        let body: Box<dyn std::io::Read + Send> = Box::new(std::io::empty());
        Ok(kiln_git::HttpResponse { status: 401, location: None, content_type: None, body })
    }
}

#[test]
fn credentials_are_not_for_those_who_listen() {
    let gate = Gate(std::sync::Mutex::default());
    let mut place = Place::new();
    let auth = |host: &str| (host.to_owned(), Auth::header("Bearer x"));
    let access = kiln_git::Access {
        http: &gate,
        auth: [auth("example.com"), auth("localhost:80"), auth("[::1]")].into(),
        ssh: std::mem::take(&mut place.access.ssh),
        files: false,
        limits: place.access.limits,
        cancel: Cancel::new(),
    };
    for (remote, credentials, shown) in [
        ("http://example.com/a", Credentials::Withheld, "nothing"),
        ("http://me:pw@example.com/a", Credentials::Withheld, "nothing"),
        ("https://example.com/a", Credentials::Sent, "Bearer x"),
        ("https://example.com:8443/a", Credentials::None, "nothing"),
        ("http://localhost:80/a", Credentials::Sent, "Bearer x"),
        ("http://[::1]/a", Credentials::Sent, "Bearer x"),
        ("https://sub.example.com/a", Credentials::None, "nothing"),
    ] {
        let error = resolve(&access, remote, None).unwrap_err();
        assert!(
            matches!(&error, GitError::Unauthorized { credentials: told, .. } if *told == credentials),
            "{remote}: {error}"
        );
        assert!(gate.0.lock().unwrap().pop().unwrap().ends_with(&format!("/a {shown}")), "{remote}");
    }
}
