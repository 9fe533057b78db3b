use super::*;

#[test]
fn challenges_are_read() {
    let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
        realm: realm.to_owned(),
        service: service.map(str::to_owned),
        scope: scope.map(str::to_owned),
    };
    let cases: [(&[&str], Option<Challenge>); 9] = [
        (
            &[
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
            ],
            Some(bearer(
                "https://auth.docker.io/token",
                Some("registry.docker.io"),
                Some("repository:a/b:pull,push"),
            )),
        ),
        (
            &[r#"bearer Realm = "http://x/a\"b" , service=plain,error="insufficient_scope""#],
            Some(bearer("http://x/a\"b", Some("plain"), None)),
        ),
        (&["Basic realm=\"Registry Realm\""], Some(Challenge::Basic)),
        (&["Basic realm=x", "Bearer realm=\"http://x\""], Some(bearer("http://x", None, None))),
        (&["basic"], Some(Challenge::Basic)),
        (&["Bearer service=\"x\""], None),
        (&["Bearer realm=\"never closed"], None),
        (&["Negotiate"], None),
        (&[], None),
    ];
    for (texts, expected) in cases {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(WWW_AUTHENTICATE, text.parse().unwrap());
        }
        assert_eq!(parse(&headers), expected, "{texts:?}");
    }
}
