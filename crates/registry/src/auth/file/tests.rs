use super::*;

fn parse(text: &str) -> Result<AuthFile, String> {
    AuthFile::parse(text.as_bytes())
}

#[test]
fn credentials_are_found_by_the_longest_name() {
    // u:p, a:b:c, n:s
    let file = parse(
        r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}, "quay.io": {"auth": "YTpiOmM="},
            "quay.io/team/app": {"auth": "bjpz"}, "ghcr.io": {}, "plain.example:5000": {"username": "u", "password": "p"},
            "token.example": {"auth": "dTo=", "identitytoken": "t"}, "ready.example": {"registrytoken": "r"},
            "nobody.example": {"auth": "", "username": "", "password": ""}},
            "credHelpers": {"ecr.example": "ecr-login", "none.example": "", "https://index.docker.io/v1/": "hub"},
            "credsStore": "", "HttpHeaders": {"a": "b"}}"#,
    )
    .unwrap();
    let find = |host: &str, repository: &str| {
        let Some((Entry { key, value }, narrow)) = file.find(host, repository) else {
            return "none".to_owned();
        };
        let Credential { login, identity, bearer } = value;
        format!("{key} {login:?} {identity:?} {bearer:?} {narrow}")
    };
    let hub = r#"https://index.docker.io/v1/ Some(("u", "p")) None None false"#;
    let cases = [
        ("registry-1.docker.io", "library/python", hub),
        ("docker.io", "library/python", hub),
        ("quay.io", "other/app", r#"quay.io Some(("a", "b:c")) None None false"#),
        ("quay.io", "team/app/deep", r#"quay.io/team/app Some(("n", "s")) None None true"#),
        ("quay.io", "team/apple", r#"quay.io Some(("a", "b:c")) None None false"#),
        ("ghcr.io", "x", "none"),
        ("nobody.example", "x", "none"),
        ("plain.example:5000", "x", r#"plain.example:5000 Some(("u", "p")) None None false"#),
        ("plain.example", "x", "none"),
        ("token.example", "x", r#"token.example Some(("u", "")) Some("t") None false"#),
        ("ready.example", "x", r#"ready.example None None Some("r") false"#),
        ("ecr.example", "x", "none"),
    ];
    for (host, repository, expected) in cases {
        assert_eq!(find(host, repository), expected, "{host}/{repository}");
    }
    let helper = |host| file.helper(host).map(|entry| entry.value.as_str());
    assert_eq!(helper("ecr.example"), Some("ecr-login"));
    assert_eq!(helper("registry-1.docker.io"), Some("hub"));
    assert_eq!(helper("none.example"), None);
    assert_eq!(file.store, None);
    assert_eq!(parse(r#"{"credsStore": "desktop"}"#).unwrap().store.as_deref(), Some("desktop"));
}

#[test]
fn an_empty_file_has_none() {
    for text in ["", " \n", "{}", r#"{"auths": null, "credHelpers": null, "credsStore": null}"#] {
        assert!(parse(text).unwrap().find("h", "x").is_none(), "{text:?}");
    }
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
        let error = parse(text).unwrap_err();
        assert!(!error.contains("c2VjcmV0"), "{error}");
    }
    let file = parse(r#"{"auths": {"h": {"auth": "dTpzZWNyZXQ=", "identitytoken": "secret"}}}"#).unwrap();
    let (entry, _) = file.find("h", "x").unwrap();
    assert!(!format!("{file:?} {:?}", entry.value).contains("secret"));
}
