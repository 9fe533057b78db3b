use std::fs;

use super::*;
use crate::HostFiles;

fn config() -> RegistryConfig {
    serde_json::from_str(
        r#"{"mirrors": {"docker.io": ["http://127.0.0.1:5000", "https://mirror.example/hub/"]},
            "insecure": ["plain.example:80", "10.0.0.0/8", "localhost:5001"]}"#,
    )
    .unwrap()
}

/// Files by name, below a directory that vanishes.
struct Machine {
    directory: tempfile::TempDir,
    config: RegistryConfig,
}

impl Machine {
    fn new(config: RegistryConfig, files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let path = |name: &str| vec![directory.path().join(name)];
        let files = HostFiles {
            daemon_json: path("daemon.json"),
            registries_conf: path("registries.conf"),
            registries_conf_dirs: path("registries.conf.d"),
            containerd: path("containerd"),
            certs: path("certs"),
            ..HostFiles::default()
        };
        Self { config: RegistryConfig { files, ..config }, directory }
    }

    fn endpoints(&self, image: &str) -> Result<Vec<Endpoint>, RegistryError> {
        let hosts = Hosts::read(&self.config.files).unwrap();
        endpoints(&self.config, &hosts, &image.parse().unwrap())
    }

    /// Addresses, each with what is special about it; without the directory's name.
    fn shown(&self, image: &str) -> Vec<String> {
        let endpoints = self.endpoints(image).unwrap();
        assert!(!endpoints.last().unwrap().mirror, "{image}");
        let shown = endpoints.iter().map(|endpoint| {
            let mut text = endpoint.url("manifests", "x").to_string();
            let flags = [
                (endpoint.either, " either"),
                (endpoint.trust.unverified, " unverified"),
                (!endpoint.resolve, " no-resolve"),
                (!endpoint.pull, " no-pull"),
                (!endpoint.trust.ca.is_empty(), " ca"),
                (!endpoint.trust.client.is_empty(), " client"),
            ];
            flags.iter().filter(|(is, _)| *is).for_each(|(_, flag)| text.push_str(flag));
            if !endpoint.from.is_empty() {
                text.push_str(&format!(" ({})", endpoint.from.join(", ")));
            }
            text.replace(&format!("{}/", self.directory.path().display()), "")
        });
        shown.collect()
    }
}

#[test]
fn mirrors_come_first_and_docker_io_is_elsewhere() {
    let cases: [(&str, &[&str]); 8] = [
        (
            "python:3.10",
            &[
                "http://127.0.0.1:5000/v2/library/python/manifests/x (kiln's configuration)",
                "https://mirror.example/v2/hub/library/python/manifests/x (kiln's configuration)",
                "https://registry-1.docker.io/v2/library/python/manifests/x",
            ],
        ),
        ("ghcr.io/astral-sh/uv", &["https://ghcr.io/v2/astral-sh/uv/manifests/x"]),
        (
            "plain.example:80/a",
            &[
                "https://plain.example:80/v2/a/manifests/x either unverified (insecure in kiln's configuration)",
            ],
        ),
        (
            "10.1.2.3:5000/a",
            &["https://10.1.2.3:5000/v2/a/manifests/x either unverified (insecure in kiln's configuration)"],
        ),
        ("localhost:5000/a", &["http://localhost:5000/v2/a/manifests/x"]),
        (
            "localhost:5001/a",
            &["https://localhost:5001/v2/a/manifests/x either unverified (insecure in kiln's configuration)"],
        ),
        ("127.8.0.1:5000/a", &["http://127.8.0.1:5000/v2/a/manifests/x"]),
        ("[::1]:5000/a", &["http://[::1]:5000/v2/a/manifests/x"]),
    ];
    let machine = Machine::new(config(), &[]);
    for (image, expected) in cases {
        assert_eq!(machine.shown(image), expected, "{image}");
    }
}

#[test]
fn what_other_programs_are_told_is_heeded() {
    let conf = r#"
[[registry]]
prefix = "a.example/foo"
location = "inside.example/bar"
insecure = true
[[registry.mirror]]
location = "m0.example/foo"
[[registry.mirror]]
location = "localhost:5000/foo"
insecure = true
pull-from-mirror = "tag-only"
[[registry]]
prefix = "*.wild.example"
[[registry]]
prefix = "hub.example"
location = "docker.io/library"
"#;
    let daemon = r#"{"registry-mirrors": ["https://d.example/cache/"], "insecure-registries": ["10.0.0.0/8", "d.example"]}"#;
    let hosts = "server = 'https://c.example:8443/api'\nskip_verify = true\n\
                 [host.'http://m.example/p']\ncapabilities = ['pull']\nca = 'x.pem'\n\
                 [host.'https://n.example/odd']\noverride_path = true\nheader = {a = 'b'}\n";
    let files = [
        ("registries.conf", conf),
        ("daemon.json", daemon),
        ("containerd/c.example/hosts.toml", hosts),
        ("certs/s.example:5000/ca.crt", ""),
        ("certs/s.example:5000/me.cert", ""),
        ("certs/s.example:5000/me.key", ""),
        ("certs/localhost:5002/ca.crt", ""),
    ];
    let digest = format!("@sha256:{}", "0".repeat(64));
    let by_digest = format!("a.example/foo/i{digest}");
    let cases: [(&str, &[&str]); 9] = [
        (
            "a.example/foo/i:1",
            &[
                "https://m0.example/v2/foo/i/manifests/x (registries.conf:6)",
                "https://localhost:5000/v2/foo/i/manifests/x either unverified (registries.conf:8, insecure at registries.conf:8)",
                "https://inside.example/v2/bar/i/manifests/x either unverified (registries.conf:2, insecure at registries.conf:2)",
            ],
        ),
        (
            &by_digest,
            &[
                "https://m0.example/v2/foo/i/manifests/x (registries.conf:6)",
                "https://inside.example/v2/bar/i/manifests/x either unverified (registries.conf:2, insecure at registries.conf:2)",
            ],
        ),
        ("x.wild.example/i", &["https://x.wild.example/v2/i/manifests/x (registries.conf:12)"]),
        (
            "python",
            &[
                "https://d.example/v2/cache/library/python/manifests/x unverified (registry-mirrors in daemon.json, insecure-registries \"d.example\" in daemon.json)",
                "https://registry-1.docker.io/v2/library/python/manifests/x",
            ],
        ),
        (
            "hub.example/python",
            &[
                "https://d.example/v2/cache/library/python/manifests/x unverified (registry-mirrors in daemon.json, insecure-registries \"d.example\" in daemon.json)",
                "https://registry-1.docker.io/v2/library/python/manifests/x (registries.conf:14)",
            ],
        ),
        (
            "10.1.2.3/a",
            &[
                "https://10.1.2.3/v2/a/manifests/x either unverified (insecure-registries \"10.0.0.0/8\" in daemon.json)",
            ],
        ),
        (
            "c.example/a/b",
            &[
                "http://m.example/p/v2/a/b/manifests/x?ns=c.example no-resolve ca (containerd/c.example/hosts.toml:3)",
                "https://n.example/odd/a/b/manifests/x?ns=c.example (containerd/c.example/hosts.toml:6)",
                "https://c.example:8443/api/v2/a/b/manifests/x unverified (containerd/c.example/hosts.toml:1)",
            ],
        ),
        (
            "s.example:5000/a",
            &["https://s.example:5000/v2/a/manifests/x ca client (certificates in certs/s.example:5000)"],
        ),
        (
            "localhost:5002/a",
            &["https://localhost:5002/v2/a/manifests/x ca (certificates in certs/localhost:5002)"],
        ),
    ];
    let machine = Machine::new(RegistryConfig::default(), &files);
    for (image, expected) in cases {
        assert_eq!(machine.shown(image), expected, "{image}");
    }
    assert_eq!(machine.endpoints("c.example/a").unwrap()[1].headers, [("a".to_owned(), "b".to_owned())]);
    // What kiln itself is told wins.
    let machine = Machine::new(config(), &files);
    assert!(
        machine.shown("python")[0].starts_with("http://127.0.0.1:5000/"),
        "{:?}",
        machine.shown("python")
    );
    assert_eq!(machine.shown("python").len(), 3);
}

#[test]
fn what_is_blocked_is_refused_by_name() {
    let conf = "\n[[registry]]\nlocation = 'docker.io/library'\nblocked = true\n";
    let machine = Machine::new(config(), &[("registries.conf", conf)]);
    let error = machine.endpoints("python").unwrap_err().to_string();
    let from = machine.directory.path().join("registries.conf");
    assert_eq!(error, format!("docker.io/library/python is blocked by {}:2", from.display()));
    machine.endpoints("docker.io/other/python").unwrap();
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
