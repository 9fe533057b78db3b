use super::*;

#[test]
fn files_are_read_over_one_another_and_those_of_a_host_when_it_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let write = |name: &str, text: &str| {
        fs::create_dir_all(path(name).parent().unwrap()).unwrap();
        fs::write(path(name), text).unwrap();
    };
    let rule = |host: &str, to: &str| format!("[[registry]]\nprefix = '{host}'\nlocation = '{to}'\n");
    write("etc/registries.conf", &rule("never.example", "x"));
    write("home/registries.conf", &[rule("a.example", "home"), rule("b.example", "home")].concat());
    write("etc/registries.conf.d/50-x.conf", &rule("b.example", "fifty"));
    write("etc/registries.conf.d/10-x.conf", &[rule("b.example", "ten"), rule("c.example", "ten")].concat());
    write("etc/registries.conf.d/99-x.conf.bak", "not TOML");
    write("home/registries.conf.d/1.conf", &rule("c.example", "home"));
    write("aliases.conf", "[aliases]\n'x' = 'mine.example/x'\n");
    write("home/registries.conf.d/2.conf", "[aliases]\n'x' = 'home.example/x'\n'y' = 'home.example/y'\n");
    write("daemon.json", r#"{"registry-mirrors": ["https://m.example"]}"#);
    write("certs/h_5000_/hosts.toml", "[host.'m.example']\n");
    write("certs/h:5000/hosts.toml", "never read [");
    write("certs/bad/hosts.toml", "[host");
    write("pem/h:5000/ca.crt", "");
    write("pem/h:5000/client.cert", "");
    write("pem/h:5000/client.key", "");
    write("pem/half/client.cert", "");
    let files = HostFiles {
        daemon_json: vec![path("none.json"), path("daemon.json")],
        registries_conf: vec![path("none"), path("home/registries.conf"), path("etc/registries.conf")],
        registries_conf_dirs: vec![
            path("etc/registries.conf.d"),
            path("home/registries.conf.d"),
            path("no.d"),
        ],
        short_name_aliases: vec![path("none"), path("aliases.conf")],
        containerd: vec![path("none"), path("certs")],
        certs: vec![path("none"), path("pem")],
    };
    let hosts = Hosts::read(&files).unwrap();
    let location = |name: &str| hosts.containers.rule(name).map(|(rule, _)| rule.location.as_str());
    assert_eq!(location("a.example/x"), Some("home"));
    assert_eq!(location("b.example/x"), Some("fifty"));
    assert_eq!(location("c.example/x"), Some("home"));
    assert_eq!(location("never.example/x"), None);
    let short = |name: &str| hosts.containers.short(name).map(|short| short.value);
    assert_eq!(short("x"), Some(vec!["mine.example/x".to_owned()]));
    assert_eq!(short("y"), Some(vec!["home.example/y".to_owned()]));
    assert_eq!(hosts.docker.as_ref().unwrap().0.registry_mirrors, ["https://m.example"]);
    let of = hosts.of("h:5000").unwrap();
    assert_eq!(of.hosts.as_ref().unwrap().hosts[0].url.as_str(), "https://m.example/");
    let certificates = of.certificates.clone().unwrap();
    assert_eq!(certificates.ca, [path("pem/h:5000/ca.crt")]);
    assert_eq!(certificates.client, [(path("pem/h:5000/client.cert"), path("pem/h:5000/client.key"))]);
    let nothing = hosts.of("other").unwrap();
    assert!(nothing.hosts.is_none() && nothing.certificates.is_none());
    let nothing = hosts.of("..").unwrap();
    assert!(nothing.hosts.is_none() && nothing.certificates.is_none());
    let error = hosts.of("bad").unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: line 1: ", path("certs/bad/hosts.toml").display())), "{error}");
    let error = hosts.of("half").unwrap_err().to_string();
    assert!(error.contains("client.cert has no key"), "{error}");
    write("etc/registries.conf.d/60.conf", "[[registry]]\n");
    let error = Hosts::read(&files).unwrap_err().to_string();
    assert!(error.ends_with("60.conf: line 1: a [[registry]] needs a prefix or a location"), "{error}");
}
