use std::path::Path;

use kiln_core::Secret;

use super::super::testing::helper;
use super::*;

/// Credentials in these files, with the programs of a directory.
fn keychain(directory: &Path, texts: &[&str]) -> Keychain {
    let sources = texts.iter().enumerate().map(|(number, text)| CredentialSource::Text {
        name: format!("file {number}"),
        text: Secret::new(text.as_bytes().to_vec()).unwrap(),
    });
    let programs = vec![directory.to_owned(), "/usr/bin".into(), "/bin".into()];
    Keychain::new(Credentials { sources: sources.collect(), programs, ..Credentials::default() })
}

/// `USER SOURCE`, then what failed.
fn found(keychain: &Keychain, host: &str, repository: &str) -> String {
    let search = match keychain.search(host, repository, &Arc::default()) {
        Ok(search) => search,
        Err(error) => return error.to_string(),
    };
    let found = search.found.map_or_else(
        || "none".to_owned(),
        |found| format!("{} of {}", found.credential.login.unwrap_or_default().0, found.source),
    );
    [vec![found], search.failed].concat().join("; ")
}

#[test]
fn the_first_source_that_knows_a_registry_decides() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    // One that has credentials for one host alone, under its own name as user, and writes down what it is asked.
    for (name, host) in [("helper", "quay.io"), ("store", "ghcr.io"), ("hub", "https://index.docker.io/v1/")]
    {
        let script = format!(
            r#"server=$(cat); echo "$server" >> "$0.asked"
            [ "$server" = {host} ] || {{ echo credentials not found in native keychain; exit 1; }}
            echo '{{"Username": "{name}", "Secret": "s"}}'"#
        );
        helper(path, name, &script);
    }
    let one = |user: &str| format!(r#"{{"username": "{user}", "password": "p"}}"#);
    let (a, b, c) = (one("a"), one("b"), one("c"));
    let first = format!(
        r#"{{"auths": {{"quay.io": {a}, "quay.io/team": {b}, "ghcr.io": {c}, "ghcr.io/team": {b}, "x.example": {c}}},
            "credHelpers": {{"quay.io": "helper", "gone.example": "gone", "y.example": "helper"}}, "credsStore": "store"}}"#
    );
    let second = format!(
        r#"{{"auths": {{"x.example": {a}, "y.example": {a}, "docker.io": {b}}}, "credsStore": "gone"}}"#
    );
    let keychain = keychain(path, &["", &first, &second]);
    let cases = [
        // A program for this very host, whatever else there is.
        ("quay.io", "team/app", "helper of docker-credential-helper, by credHelpers \"quay.io\" in file 1"),
        // More than a host, then the program for all, then the host.
        ("ghcr.io", "team/app", "b of auths \"ghcr.io/team\" in file 1"),
        ("ghcr.io", "other/app", "store of docker-credential-store, by credsStore in file 1"),
        ("x.example", "app", "c of auths \"x.example\" in file 1"),
        // The next file. A program that is asked for all hosts may be missing, but it is told.
        (
            "y.example",
            "app",
            "a of auths \"y.example\" in file 2; docker-credential-gone has no credentials for y.example to give: it is not in PATH; credsStore in file 2 names it",
        ),
        (
            "registry-1.docker.io",
            "library/a",
            "b of auths \"docker.io\" in file 2; docker-credential-gone has no credentials for \
             https://index.docker.io/v1/ to give: it is not in PATH; credsStore in file 2 names it",
        ),
        (
            "z.example",
            "app",
            "none; docker-credential-gone has no credentials for z.example to give: it is not in PATH; credsStore in file 2 names it",
        ),
        // One for this host may not.
        (
            "gone.example",
            "app",
            "docker-credential-gone has no credentials for gone.example to give: it is not in PATH; credHelpers \"gone.example\" in file 1 names it",
        ),
    ];
    for (host, repository, expected) in cases {
        assert_eq!(found(&keychain, host, repository), expected, "{host}/{repository}");
        assert_eq!(found(&keychain, host, repository), expected, "{host}/{repository} again");
    }
    // Each was asked once for a server, and docker.io's has a name of its own.
    let asked = |name: &str| {
        let text = fs::read_to_string(path.join(format!("docker-credential-{name}.asked"))).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(asked("helper"), ["quay.io", "y.example"]);
    let all = ["ghcr.io", "x.example", "y.example", "https://index.docker.io/v1/", "z.example"];
    assert_eq!(asked("store"), all);
}

#[test]
fn a_key_of_credhelpers_is_what_the_program_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    helper(directory.path(), "x", r#"echo "{\"Username\": \"$(cat)\", \"Secret\": \"s\"}""#);
    for key in ["docker.io", "https://index.docker.io/v1/"] {
        let keychain = keychain(directory.path(), &[&format!(r#"{{"credHelpers": {{"{key}": "x"}}}}"#)]);
        let found = found(&keychain, "registry-1.docker.io", "library/a");
        assert!(found.starts_with(&format!("{key} of ")), "{found}");
    }
}

#[test]
fn files_that_are_not_there_have_none_and_bad_ones_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    let below = path.join("auth.json");
    let keychain = || {
        let sources = [&below, &path].map(|path| CredentialSource::File(path.clone())).into();
        Keychain::new(Credentials { sources, ..Credentials::default() })
    };
    assert_eq!(found(&keychain(), "h", "x"), "none");
    fs::write(&path, r#"{"auths": {"h": {"username": "u", "password": "p"}}}"#).unwrap();
    assert_eq!(found(&keychain(), "h", "x"), format!("u of auths \"h\" in {}", path.display()));
    fs::write(&path, r#"{"auths": []"#).unwrap();
    let said = found(&keychain(), "h", "x");
    assert!(
        said.starts_with(&format!("credentials in {} cannot be read: line 1,", path.display())),
        "{said}"
    );
}
