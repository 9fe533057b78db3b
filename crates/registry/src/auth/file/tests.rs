use super::*;

fn read(text: &str) -> Result<AuthFile, RegistryError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    fs::write(&path, text).unwrap();
    AuthFile::read(&path)
}

#[test]
fn credentials_are_found_by_the_longest_name() {
    // u:p, a:b:c, n:s
    let file = read(
        r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}, "quay.io": {"auth": "YTpiOmM="},
            "quay.io/team/app": {"auth": "bjpz"}, "ghcr.io": {}, "plain.example:5000": {"username": "u", "password": "p"},
            "token.example": {"auth": "dTo=", "identitytoken": "t"}},
            "credHelpers": {"ecr.example": "ecr-login"}, "HttpHeaders": {"a": "b"}}"#,
    )
    .unwrap();
    let user = |host: &str, repository: &str| match file.find(host, repository) {
        Some(Found::Credential(Credential { user, password })) => format!("{user} {password}"),
        Some(Found::Unusable(why)) => why,
        None => "none".to_owned(),
    };
    let cases = [
        ("registry-1.docker.io", "library/python", "u p"),
        ("quay.io", "other/app", "a b:c"),
        ("quay.io", "team/app/deep", "n s"),
        ("quay.io", "team/apple", "a b:c"),
        ("ghcr.io", "x", "none"),
        ("plain.example:5000", "x", "u p"),
        ("plain.example", "x", "none"),
        ("token.example", "x", "its identity token is not supported yet"),
        (
            "ecr.example",
            "x",
            "its credentials are with docker-credential-ecr-login, which is not supported yet",
        ),
    ];
    for (host, repository, expected) in cases {
        assert_eq!(user(host, repository), expected, "{host}/{repository}");
    }
    let store = read(r#"{"auths": {"ghcr.io": {}}, "credsStore": "desktop"}"#).unwrap();
    assert!(matches!(store.find("ghcr.io", "x"), Some(Found::Unusable(_))));
}

#[test]
fn nothing_of_a_bad_file_is_shown() {
    for text in [
        r#"{"auths": {"h": {"auth": 7}}}"#,
        r#"{"auths": "c2VjcmV0"}"#,
        r#"{"auths": {"h": {"auth": "c2VjcmV0"}}}"#,
        r#"{"auths": {"h": {"auth": "!c2VjcmV0"}}}"#,
        "{",
    ] {
        let error = read(text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("c2VjcmV0"), "{error}");
    }
    let file = read(r#"{"auths": {"h": {"auth": "dTpzZWNyZXQ="}}}"#).unwrap();
    assert!(!format!("{file:?} {:?}", file.find("h", "x")).contains("secret"));
    assert!(AuthFile::read(Path::new("/nonexistent/config.json")).unwrap().find("h", "x").is_none());
}
