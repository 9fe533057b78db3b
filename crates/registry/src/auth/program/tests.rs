use super::super::testing::helper;
use super::*;

fn named(directory: &Path, name: &str) -> Helper {
    let programs = vec!["/nonexistent".into(), directory.to_owned()];
    Helper { name: name.to_owned(), programs, launcher: None, limit: Duration::from_secs(60) }
}

fn get(script: &str) -> Result<Option<Credential>, RegistryError> {
    let directory = tempfile::tempdir().unwrap();
    helper(directory.path(), "x", script);
    named(directory.path(), "x").get("ghcr.io", &Arc::default())
}

#[test]
fn what_a_helper_says_is_understood() {
    let answers = |text: &str| get(&format!("cat >/dev/null; cat <<'END'\n{text}\nEND")).unwrap();
    let cases = [
        (r#"{"ServerURL": "ghcr.io", "Username": "u", "Secret": "p"}"#, Some(Credential::of_login("u", "p"))),
        (r#"{"Username": "<token>", "Secret": "t"}"#, Some(Credential::of_identity("t"))),
        (r#"{"Username": "", "Secret": "t"}"#, None),
        (r#"{"Username": "", "Secret": ""}"#, None),
    ];
    for (text, expected) in cases {
        assert!(answers(text) == expected, "{text}");
    }
    // It is asked for the server, on its standard input, and nothing else.
    let asked = r#"[ "$#$1" = 1get ] && [ "$(cat)" = ghcr.io ] && echo '{"Username": "u", "Secret": "p"}'"#;
    assert!(get(asked).unwrap() == Some(Credential::of_login("u", "p")));
    // Whoever does not read is heard, too, and what it leaves running is not waited for.
    assert!(get(r#"echo '{"Username": "u", "Secret": "p"}'"#).unwrap().is_some());
    assert!(get(r#"echo '{"Username": "u", "Secret": "p"}'; sleep 9 & exit 0"#).unwrap().is_some());
}

#[test]
fn having_none_is_no_failure() {
    for said in ["credentials not found in native keychain", "no credentials server URL"] {
        assert_eq!(get(&format!("echo {said}; exit 1")).unwrap(), None);
        assert_eq!(get(&format!("echo {said} >&2; exit 1")).unwrap(), None);
    }
}

#[test]
fn a_failure_names_the_program_and_shows_no_secret() {
    let cases = [
        ("echo pass not initialized; exit 1", "it ends with exit code 1: pass not initialized"),
        ("echo no bus >&2; exit 3", "it ends with exit code 3: no bus"),
        ("exit 3", "it ends with exit code 3"),
        ("kill -9 $$", "it was killed"),
        ("echo hunter2", "it answers with something else than credentials"),
        (r#"echo '{"Username": 1, "Secret": "hunter2"}'"#, "it answers with something else than credentials"),
    ];
    for (script, reason) in cases {
        let error = get(script).unwrap_err();
        let expected = format!("docker-credential-x has no credentials for ghcr.io to give: {reason}");
        assert_eq!(error.to_string(), expected, "{script}");
    }
}

#[test]
fn one_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("docker-credential-plain"), "#!/bin/sh\n").unwrap();
    std::fs::create_dir(directory.path().join("docker-credential-dir")).unwrap();
    for name in ["nope", "plain", "dir"] {
        let error = named(directory.path(), name).get("h", &Arc::default()).unwrap_err();
        let expected =
            format!("docker-credential-{name} has no credentials for h to give: it is not in PATH");
        assert_eq!(error.to_string(), expected);
    }
    let error = named(directory.path(), "../../bin/sh").get("h", &Arc::default()).unwrap_err();
    assert!(error.to_string().contains("its name is not what follows"), "{error}");
}

#[test]
fn one_that_never_ends_is_ended() {
    let directory = tempfile::tempdir().unwrap();
    // It says who it is, and waits for what never comes.
    helper(directory.path(), "x", r#"echo $$ > "$0.pid"; exec sleep 1000"#);
    let mut patient = named(directory.path(), "x");
    let unwanted: Arc<AtomicBool> = Arc::default();
    let gone = || {
        let pid = std::fs::read_to_string(directory.path().join("docker-credential-x.pid")).unwrap();
        assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists());
    };
    let path = directory.path().join("docker-credential-x.pid");
    thread::scope(|scope| {
        scope.spawn(|| {
            while !std::fs::read_to_string(&path).is_ok_and(|pid| pid.ends_with('\n')) {
                thread::yield_now();
            }
            unwanted.store(true, Ordering::Relaxed);
        });
        patient.get("h", &unwanted).unwrap_err();
    });
    gone();
    patient.limit = Duration::from_millis(300);
    let error = patient.get("h", &Arc::default()).unwrap_err();
    assert!(error.to_string().contains("it took longer than"), "{error}");
}

#[test]
fn it_is_told_through_its_standard_input() {
    let directory = tempfile::tempdir().unwrap();
    helper(directory.path(), "x", r#"cat > "$0.$1""#);
    let told = |verb: &str| {
        std::fs::read_to_string(directory.path().join(format!("docker-credential-x.{verb}"))).unwrap()
    };
    let x = named(directory.path(), "x");
    x.store("h", &Credential::of_login("u", "p\"q")).unwrap();
    assert_eq!(told("store"), r#"{"ServerURL":"h","Username":"u","Secret":"p\"q"}"#);
    x.store("h", &Credential::of_identity("t")).unwrap();
    assert_eq!(told("store"), r#"{"ServerURL":"h","Username":"<token>","Secret":"t"}"#);
    x.erase("h").unwrap();
    assert_eq!(told("erase"), "h");
    // More than a pipe holds, to one that does not listen.
    helper(directory.path(), "deaf", "exit 0");
    named(directory.path(), "deaf").store("h", &Credential::of_login("u", "p".repeat(1 << 20))).unwrap();
    helper(directory.path(), "empty", "echo credentials not found in native keychain; exit 1");
    named(directory.path(), "empty").erase("h").unwrap();
    named(directory.path(), "empty").store("h", &Credential::of_login("u", "p")).unwrap_err();
}
