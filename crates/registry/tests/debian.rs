//! The client against Debian's docker-registry, filled by skopeo.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use kiln_core::{Cancel, Digest, ImageRef, Platform};
use kiln_oci::{BlobInfo, LoadedImage, MediaTypes, Root, write_layout_dir};
use kiln_registry::{RegistryClient, RegistryConfig, RegistryError};
use kiln_testkit::debian_registry::DebianRegistry;
use kiln_testkit::image::TestImage;
use kiln_testkit::tools::{run, tool};

/// Names the test that runs again in a process with other roots of trust.
const INNER: &str = "KILN_TEST_TLS_MIRROR";

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn pull(client: &RegistryClient, image: &ImageRef) -> Result<LoadedImage, RegistryError> {
    let loaded = client.resolve(image, &amd64(), &|_: &Digest| None)?;
    for layer in &loaded.layers {
        let info = BlobInfo { media_type: layer.media_type.clone(), digest: layer.digest, size: layer.size };
        let mut bytes = Vec::new();
        client.blob(image, &info, None)?.read_to_end(&mut bytes).unwrap();
        assert_eq!(Digest::of(&bytes), layer.digest);
    }
    Ok(loaded)
}

fn push(image: &TestImage, directory: &Path, to: &str, options: &[&str]) -> bool {
    let layout = directory.join("layout");
    let root = Root {
        document: &image.image.manifest,
        platform: Some(&image.image.platform),
        names: &[],
        annotations: None,
        tag: None,
    };
    write_layout_dir(&layout, &[root], image).unwrap();
    let Some(mut skopeo) = tool("skopeo") else { return false };
    let from = format!("oci:{}", layout.display());
    run(skopeo.args(["copy", "-q"]).args(options).args([&from, &format!("docker://{to}")]));
    true
}

#[test]
fn what_skopeo_pushed_is_pulled() {
    let Some(registry) = DebianRegistry::start(None) else { return };
    let directory = tempfile::tempdir().unwrap();
    let image = TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("a", "1")], &[("b", "2")]]);
    let host = format!("127.0.0.1:{}", registry.port());
    let client = RegistryClient::new(RegistryConfig::default(), Cancel::new()).unwrap();
    let (oci, docker) = (format!("{host}/demo/oci:1"), format!("{host}/demo/docker:1"));
    if !push(&image, directory.path(), &oci, &["--dest-tls-verify=false"]) {
        return;
    }
    push(&image, directory.path(), &docker, &["--dest-tls-verify=false", "--format=v2s2"]);
    let loaded = pull(&client, &oci.parse().unwrap()).unwrap();
    assert_eq!(loaded.manifest, image.image.manifest);
    assert_eq!(loaded.layers, image.image.layers);
    let loaded = pull(&client, &docker.parse().unwrap()).unwrap();
    assert_eq!(loaded.manifest.media_type, kiln_oci::media::DOCKER_MANIFEST);
    // As a mirror of docker.io, which is never asked.
    push(&image, directory.path(), &format!("{host}/library/demo:latest"), &["--dest-tls-verify=false"]);
    let mirrors = [("docker.io".to_owned(), vec![format!("http://{host}")])];
    let config = RegistryConfig { mirrors: mirrors.into(), ..RegistryConfig::default() };
    let client = RegistryClient::new(config, Cancel::new()).unwrap();
    assert_eq!(pull(&client, &"demo".parse().unwrap()).unwrap().manifest, image.image.manifest);
    let missing: ImageRef = format!("{host}/demo/oci:2").parse().unwrap();
    let error = client.resolve_digest(&missing).unwrap_err();
    assert_eq!(error.to_string(), format!("{host} has no demo/oci:2"));
}

#[test]
fn a_certificate_is_trusted_when_its_authority_is() {
    if let Ok(mirror) = std::env::var(INNER) {
        return tls_inner(&mirror);
    }
    let Some(mut openssl) = tool("openssl") else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    // rustls takes no certificate that is its own authority, so: an authority and a server.
    let (ca, ca_key) = (path("ca.pem"), path("ca.key"));
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    run(openssl
        .args(["req", "-x509", "-subj", "/CN=kiln test"])
        .args(new_key)
        .arg("-keyout")
        .arg(&ca_key)
        .arg("-out")
        .arg(&ca));
    let (certificate, key) = (path("server.pem"), path("server.key"));
    run(tool("openssl")
        .unwrap()
        .args(["req", "-x509", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(new_key)
        .arg("-CA")
        .arg(&ca)
        .arg("-CAkey")
        .arg(&ca_key)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate));
    let Some(registry) = DebianRegistry::start(Some((&certificate, &key))) else { return };
    let image = TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("a", "1")]]);
    let host = format!("localhost:{}", registry.port());
    if !push(&image, directory.path(), &format!("{host}/library/demo:latest"), &["--dest-tls-verify=false"]) {
        return;
    }
    // Another process, because the environment of one with threads cannot be changed.
    let inner = |name: &str, value: &Path| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "a_certificate_is_trusted_when_its_authority_is", "--nocapture"]);
        command.env(INNER, format!("https://{host}")).env_remove("SSL_CERT_DIR").env_remove("SSL_CERT_FILE");
        run(command.env(name, value))
    };
    let empty = path("empty");
    fs::write(&empty, "").unwrap();
    assert!(inner("SSL_CERT_FILE", &ca).contains("outcome: pulled"));
    let other = path("other.pem");
    run(tool("openssl")
        .unwrap()
        .args(["req", "-x509", "-subj", "/CN=other"])
        .args(new_key)
        .arg("-keyout")
        .arg(path("other.key"))
        .arg("-out")
        .arg(&other));
    let untrusted = inner("SSL_CERT_FILE", &other);
    assert!(untrusted.contains("outcome: no secure connection to localhost:"), "{untrusted}");
    assert!(untrusted.contains("UnknownIssuer"), "{untrusted}");
    let none = inner("SSL_CERT_FILE", &empty);
    assert!(none.contains("no certificate authorities to trust"), "{none}");
}

#[expect(clippy::print_stdout, reason = "the outer process reads it")]
fn tls_inner(mirror: &str) {
    // The mirror is tried by https; the registry itself would be, too, but is closed.
    let registry = "localhost:1";
    let mirrors = [(registry.to_owned(), vec![mirror.to_owned()])];
    let config = RegistryConfig { mirrors: mirrors.into(), ..RegistryConfig::default() };
    let client = RegistryClient::new(config, Cancel::new()).unwrap();
    match pull(&client, &format!("{registry}/library/demo").parse().unwrap()) {
        Ok(_) => println!("outcome: pulled"),
        Err(RegistryError::Mirrors { tried, .. }) => println!("outcome: {}", tried[0].error),
        Err(error) => println!("outcome: {error}"),
    }
}
