//! Requests as they are, answered by git's own server.

use std::io::Read as _;

use kiln_core::Cancel;
use kiln_registry::{Exchanger, Question, RegistryError, Reply, Timeouts};
use kiln_testkit::git::{GitServer, TestRepository, Trouble};

const GREETING: &str = "/info/refs?service=git-upload-pack";

fn ask(url: String, body: Option<&str>) -> Result<Reply, RegistryError> {
    let headers = vec![
        ("Git-Protocol", "version=2".to_owned()),
        ("Content-Type", "application/x-git-upload-pack-request".to_owned()),
    ];
    let question = Question { url, headers, body: body.map(|body| body.as_bytes().to_vec()) };
    Exchanger::new(None, Timeouts::default()).ask(question, &Cancel::new())
}

fn served() -> (tempfile::TempDir, GitServer) {
    let root = tempfile::tempdir().unwrap();
    let repository = TestRepository::create(root.path(), "a");
    repository.file("f", "x".repeat(100_000)).commit("one");
    let server = GitServer::start(root.path());
    (root, server)
}

#[test]
fn a_question_with_and_without_a_body() {
    let (_root, server) = served();
    let mut greeting = ask(server.url("a") + GREETING, None).unwrap();
    assert_eq!(greeting.status, 200);
    assert_eq!(greeting.header("content-type"), Some("application/x-git-upload-pack-advertisement"));
    let mut text = String::new();
    greeting.body.read_to_string(&mut text).unwrap();
    assert!(text.contains("version 2"), "{text}");
    let body = "0014command=ls-refs\n00010000";
    let mut refs = ask(server.url("a") + "/git-upload-pack", Some(body)).unwrap();
    text.clear();
    refs.body.read_to_string(&mut text).unwrap();
    assert!(text.contains("refs/heads/main"), "{text}");
    let lines: Vec<String> = server.seen().into_iter().map(|seen| seen.line).collect();
    assert_eq!(lines, [format!("GET /a.git{GREETING}"), "POST /a.git/git-upload-pack".to_owned()]);
}

#[test]
fn answers_are_shown_as_they_are() {
    let (_root, server) = served();
    assert_eq!(ask(server.url("none") + GREETING, None).unwrap().status, 404);
    server.trouble(Trouble::Redirect("http://127.0.0.1:1".to_owned()));
    let reply = ask(server.url("a") + GREETING, None).unwrap();
    assert_eq!(
        (reply.status, reply.header("location")),
        (302, Some(format!("http://127.0.0.1:1/a.git{GREETING}").as_str()))
    );
    server.trouble(Trouble::Secret("Bearer x".to_owned()));
    assert_eq!(ask(server.url("a") + "/git-upload-pack", Some("0000")).unwrap().status, 401);
}

#[test]
fn what_is_no_answer_is_an_error() {
    let (_root, server) = served();
    let error = ask("http://127.0.0.1:1/a".to_owned(), None).unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    for url in ["file:///etc/passwd", "git://127.0.0.1/a", "a"] {
        assert!(matches!(ask(url.to_owned(), None).unwrap_err(), RegistryError::Client { .. }), "{url}");
    }
    // A body that ends early says so.
    server.trouble(Trouble::Cut(10));
    let body = "0014command=ls-refs\n00010000";
    let mut reply = ask(server.url("a") + "/git-upload-pack", Some(body)).unwrap();
    let error = reply.body.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(error.get_ref().unwrap().is::<RegistryError>(), "{error}");
    // So does one that nobody waits for any more.
    let cancel = Cancel::new();
    cancel.cancel();
    let question = Question { url: server.url("a") + GREETING, headers: vec![], body: None };
    let error = Exchanger::new(None, Timeouts::default()).ask(question, &cancel).unwrap_err();
    assert_eq!(error, RegistryError::Cancelled);
}
