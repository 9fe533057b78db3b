//! Whom one believes, and what one shows: certificates, against Debian's docker-registry.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_core::{Cancel, Digest, ImageRef};
use kiln_oci::{BlobInfo, MediaTypes};
use kiln_registry::{HostFiles, RegistryClient, RegistryConfig, RegistryError};
use kiln_testkit::certificates::Authority;
use kiln_testkit::debian_registry::{DebianRegistry, Doors};
use kiln_testkit::image::TestImage;
use kiln_testkit::registry::FakeRegistry;

/// What a registry says of an image that it has not: then one was let in.
fn ask(host: &str, config: RegistryConfig) -> RegistryError {
    let client = RegistryClient::new(config, Cancel::new()).unwrap();
    let image: ImageRef = format!("{host}/demo:1").parse().unwrap();
    client.resolve_digest(&image).unwrap_err()
}

fn is_let_in(host: &str, config: RegistryConfig) {
    let error = ask(host, config);
    assert!(matches!(error.root(), RegistryError::NotFound { .. }), "{error}");
}

fn files(files: HostFiles) -> RegistryConfig {
    RegistryConfig { files, ..RegistryConfig::default() }
}

/// `certs.d/HOST/` with copies of these files.
fn certs(directory: &Path, host: &str, of: &[(&Path, &str)]) -> RegistryConfig {
    let root = tempfile::Builder::new().prefix("certs").tempdir_in(directory).unwrap().keep();
    fs::create_dir(root.join(host)).unwrap();
    for (from, name) in of {
        fs::copy(from, root.join(host).join(name)).unwrap();
    }
    files(HostFiles { certs: vec![root], ..HostFiles::default() })
}

fn hosts_toml(directory: &Path, host: &str, text: &str) -> RegistryConfig {
    let root = tempfile::Builder::new().prefix("hosts").tempdir_in(directory).unwrap().keep();
    fs::create_dir(root.join(host)).unwrap();
    fs::write(root.join(host).join("hosts.toml"), text).unwrap();
    files(HostFiles { containerd: vec![root], ..HostFiles::default() })
}

#[test]
fn a_certificate_is_trusted_for_the_host_it_was_given_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let Some(authority) = Authority::new(path) else { return };
    let (certificate, key) = authority.sign("server");
    let Some(registry) = DebianRegistry::start(Some((&certificate, &key))) else { return };
    let host = format!("localhost:{}", registry.port());
    let ca = authority.certificate();
    is_let_in(&host, certs(path, &host, &[(&ca, "ca.crt")]));
    // Not for another, which is asked over the same way.
    let other = certs(path, "other", &[(&ca, "ca.crt")]);
    let mirrors = [("docker.io".to_owned(), vec![format!("https://{host}")])].into();
    let RegistryError::Mirrors { tried, .. } = ask("docker.io", RegistryConfig { mirrors, ..other }) else {
        panic!("a certificate was believed that nobody vouched for")
    };
    assert!(
        matches!(&tried[0].error, RegistryError::Tls { cause, .. } if cause.contains("UnknownIssuer")),
        "{tried:?}"
    );
    // By containerd's file, with a path that starts where the file is.
    let server = format!("server = 'https://{host}'\n");
    is_let_in(&host, hosts_toml(path, &host, &format!("{server}ca = '{}'\n", ca.display())));
    is_let_in(&host, hosts_toml(path, &host, &format!("{server}skip_verify = true\n")));
    let error = ask(&host, hosts_toml(path, &host, &server));
    assert!(matches!(error.root(), RegistryError::Tls { .. }), "{error}");
    // A file that is none is named.
    fs::write(path.join("bad.crt"), "-----BEGIN").unwrap();
    let error = ask(&host, certs(path, &host, &[(&path.join("bad.crt"), "ca.crt")]));
    assert!(error.to_string().contains("ca.crt: there is no certificate in it"), "{error}");
}

#[test]
fn a_server_that_vouches_for_itself_is_believed_if_it_was_given_by_hand() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let Some(authority) = Authority::new(path) else { return };
    let (certificate, key) = authority.alone("alone");
    let Some(registry) = DebianRegistry::start(Some((&certificate, &key))) else { return };
    let host = format!("localhost:{}", registry.port());
    is_let_in(&host, certs(path, &host, &[(&certificate, "ca.crt")]));
    // Under its own name alone.
    let host = format!("127.0.0.1:{}", registry.port());
    let error = ask(&host, certs(path, &host, &[(&certificate, "ca.crt")]));
    assert!(matches!(error.root(), RegistryError::Tls { cause, .. } if cause.contains("name")), "{error}");
    // Another that vouches for itself is not it.
    let (other, _) = authority.alone("other");
    let host = format!("localhost:{}", registry.port());
    let error = ask(&host, certs(path, &host, &[(&other, "ca.crt")]));
    assert!(matches!(error.root(), RegistryError::Tls { .. }), "{error}");
}

#[test]
fn who_need_not_be_secure_is_reached_by_https_or_by_http() {
    let directory = tempfile::tempdir().unwrap();
    let Some(authority) = Authority::new(directory.path()) else { return };
    let (certificate, key) = authority.sign("server");
    let Some(secure) = DebianRegistry::start(Some((&certificate, &key))) else { return };
    let Some(plain) = DebianRegistry::start(None) else { return };
    for (port, scheme) in [(secure.port(), "https"), (plain.port(), "http")] {
        let host = format!("localhost:{port}");
        let insecure =
            |entry: &str| RegistryConfig { insecure: vec![entry.to_owned()], ..RegistryConfig::default() };
        is_let_in(&host, insecure(&host));
        is_let_in(&format!("127.0.0.1:{port}"), insecure("127.0.0.0/8"));
        let write = |name: &str, text: &str| {
            let path = directory.path().join(format!("{scheme}-{name}"));
            fs::write(&path, text).unwrap();
            vec![path]
        };
        let daemon_json = write("daemon.json", &format!(r#"{{"insecure-registries": ["{host}"]}}"#));
        is_let_in(&host, files(HostFiles { daemon_json, ..HostFiles::default() }));
        let conf = format!("[[registry]]\nlocation = '{host}'\ninsecure = true\n");
        let registries_conf = write("registries.conf", &conf);
        is_let_in(&host, files(HostFiles { registries_conf, ..HostFiles::default() }));
        // A push finds the same way.
        let client = RegistryClient::new(insecure(&host), Cancel::new()).unwrap();
        let name: ImageRef = format!("{host}/demo:1").parse().unwrap();
        assert!(!client.has_blob(&name, &Digest::of(b"x")).unwrap());
        let image = TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("a", "1")]]);
        let layer = &image.image.layers[0];
        let info = BlobInfo { media_type: layer.media_type.clone(), digest: layer.digest, size: layer.size };
        client.push_blob(&name, &info, &image, &[], &|_| {}).unwrap();
        assert!(client.has_blob(&name, &info.digest).unwrap());
    }
}

#[test]
fn a_server_that_wants_to_know_who_one_is_is_shown_a_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let Some(authority) = Authority::new(path) else { return };
    let ((certificate, key), (mine, my_key)) = (authority.sign("server"), authority.sign("client"));
    let ca = authority.certificate();
    let doors = Doors { tls: Some((&certificate, &key)), clients: Some(&ca), ..Doors::default() };
    let Some(registry) = DebianRegistry::behind(doors) else { return };
    let host = format!("localhost:{}", registry.port());
    let both: [(&Path, &str); 3] = [(&ca, "ca.crt"), (&mine, "client.cert"), (&my_key, "client.key")];
    is_let_in(&host, certs(path, &host, &both));
    let toml = |client: &str| {
        hosts_toml(
            path,
            &host,
            &format!("server = 'https://{host}'\nca = '{}'\nclient = {client}\n", ca.display()),
        )
    };
    is_let_in(&host, toml(&format!("[['{}', '{}']]", mine.display(), my_key.display())));
    let one: PathBuf = path.join("one.pem");
    fs::write(&one, [fs::read(&mine).unwrap(), fs::read(&my_key).unwrap()].concat()).unwrap();
    is_let_in(&host, toml(&format!("'{}'", one.display())));
    // Without one the server breaks off; whether its reason arrives is a race, once the handshake is over.
    let error = ask(&host, certs(path, &host, &both[..1]));
    assert!(matches!(error.root(), RegistryError::Unreachable { .. } | RegistryError::Tls { .. }), "{error}");
    let error = ask(&host, certs(path, &host, &[(&ca, "ca.crt"), (&mine, "client.cert")])).to_string();
    assert!(error.contains("client.cert has no key"), "{error}");
    let wrong: [(&Path, &str); 3] = [(&ca, "ca.crt"), (&mine, "client.cert"), (&key, "client.key")];
    let error = ask(&host, certs(path, &host, &wrong)).to_string();
    assert!(error.contains("client.key: it does not fit"), "{error}");
}

/// <https://github.com/containerd/containerd/blob/main/docs/hosts.md#capabilities-field>: only who lists `push` takes it.
#[test]
fn a_host_with_the_capability_takes_what_is_pushed() {
    for (capabilities, elsewhere) in [("['pull', 'push']", true), ("['pull', 'resolve']", false)] {
        let (itself, host) = (FakeRegistry::start(), FakeRegistry::start());
        let directory = tempfile::tempdir().unwrap();
        let toml = format!("[host.'http://{}']\ncapabilities = {capabilities}\n", host.host());
        let config = hosts_toml(directory.path(), &(itself.host().replace(':', "_") + "_"), &toml);
        let client = RegistryClient::new(config, Cancel::new()).unwrap();
        let image = TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("a", "b")]]);
        let to: ImageRef = format!("{}/a:1", itself.host()).parse().unwrap();
        for info in image.blob_infos() {
            client.push_blob(&to, &info, &image, &[], &|_| {}).unwrap();
        }
        client.push_manifest(&to, &image.image.manifest).unwrap();
        assert_eq!(
            (host.manifest("a", "1").is_some(), itself.manifest("a", "1").is_some()),
            (elsewhere, !elsewhere)
        );
    }
}
