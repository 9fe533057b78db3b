use super::*;

fn config() -> RegistryConfig {
    serde_json::from_str(
        r#"{"mirrors": {"docker.io": ["http://127.0.0.1:5000", "https://mirror.example/hub/"]},
            "insecure": ["plain.example:80"]}"#,
    )
    .unwrap()
}

#[test]
fn mirrors_come_first_and_docker_io_is_elsewhere() {
    let cases: [(&str, &[&str]); 6] = [
        (
            "python:3.10",
            &[
                "http://127.0.0.1:5000/v2/library/python/manifests/x",
                "https://mirror.example/v2/hub/library/python/manifests/x",
                "https://registry-1.docker.io/v2/library/python/manifests/x",
            ],
        ),
        ("ghcr.io/astral-sh/uv", &["https://ghcr.io/v2/astral-sh/uv/manifests/x"]),
        ("plain.example:80/a", &["http://plain.example/v2/a/manifests/x"]),
        ("localhost:5000/a", &["http://localhost:5000/v2/a/manifests/x"]),
        ("127.8.0.1:5000/a", &["http://127.8.0.1:5000/v2/a/manifests/x"]),
        ("[::1]:5000/a", &["http://[::1]:5000/v2/a/manifests/x"]),
    ];
    for (image, expected) in cases {
        let endpoints = endpoints(&config(), &image.parse().unwrap()).unwrap();
        let actual: Vec<String> =
            endpoints.iter().map(|endpoint| endpoint.url("manifests", "x").to_string()).collect();
        assert_eq!(actual, expected, "{image}");
        assert!(!endpoints.last().unwrap().mirror);
    }
}

#[test]
fn bad_mirrors_are_refused_and_passwords_not_shown() {
    for mirror in [
        "127.0.0.1:5000",
        "ftp://x",
        "http://",
        "http://user:secret@host/",
        "user:secret@host",
        "http://h?a=b",
    ] {
        let mirrors = [("docker.io".to_owned(), vec![mirror.to_owned()])];
        let config = RegistryConfig { mirrors: mirrors.into(), ..RegistryConfig::default() };
        let error = check(&config).unwrap_err();
        assert!(matches!(error, RegistryError::Mirror { .. }), "{mirror}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
    }
}

#[test]
fn a_misspelt_setting_is_refused() {
    assert!(serde_json::from_str::<RegistryConfig>(r#"{"mirror": {}}"#).is_err());
    assert_eq!(serde_json::from_str::<RegistryConfig>("{}").unwrap(), RegistryConfig::default());
}
