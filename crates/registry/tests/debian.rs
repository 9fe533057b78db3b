//! The client against Debian's docker-registry, filled by skopeo.

use std::fs;
use std::io::Read as _;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use kiln_core::{Cancel, Digest, ImageRef, Platform};
use kiln_oci::{BlobInfo, Document, LoadedImage, MediaTypes, Root, write_layout_dir};
use kiln_registry::{Pushed, RegistryClient, RegistryConfig, RegistryError};
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
fn what_is_pushed_is_pulled_by_skopeo() {
    let Some(registry) = DebianRegistry::start(None) else { return };
    let host = format!("127.0.0.1:{}", registry.port());
    let client = RegistryClient::new(RegistryConfig::default(), Cancel::new()).unwrap();
    for (media_types, tag) in [(MediaTypes::Oci, "oci"), (MediaTypes::Docker, "docker")] {
        let image = TestImage::new("linux/amd64", media_types, &[&[("a", "1")], &[("b", tag)]]);
        let name: ImageRef = format!("{host}/demo/one:{tag}").parse().unwrap();
        let other: ImageRef = format!("{host}/demo/other:{tag}").parse().unwrap();
        for info in image.blob_infos() {
            let bytes = info.size;
            let push =
                |to, mounts: &[ImageRef]| client.push_blob(to, &info, &image, mounts, &|_| {}).unwrap();
            let first = push(&name, &[]);
            assert!(first == Pushed::Uploaded { bytes } || tag == "docker" && first == Pushed::There);
            assert_eq!(push(&name, &[]), Pushed::There);
            let mounted = push(&other, std::slice::from_ref(&name));
            let from = "demo/one".to_owned();
            assert!(mounted == Pushed::Mounted { from } || tag == "docker" && mounted == Pushed::There);
        }
        let manifest = &image.image.manifest;
        for to in [&name, &other] {
            assert!(!client.has_manifest(to, manifest).unwrap());
            let bytes = manifest.bytes.len() as u64;
            assert_eq!(client.push_manifest(to, manifest).unwrap(), Pushed::Uploaded { bytes });
            assert!(client.has_manifest(to, manifest).unwrap());
            assert_eq!(client.push_manifest(to, manifest).unwrap(), Pushed::There);
            assert_eq!(pull(&client, to).unwrap().manifest, *manifest);
            let Some(mut skopeo) = tool("skopeo") else { return };
            let raw = run(skopeo.args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{to}")]));
            assert_eq!(raw.into_bytes(), manifest.bytes);
            let directory = tempfile::tempdir().unwrap();
            let layout = format!("dir:{}", directory.path().join("image").display());
            let mut skopeo = tool("skopeo").unwrap();
            run(skopeo.args(["copy", "-q", "--src-tls-verify=false", &format!("docker://{to}"), &layout]));
            for info in image.blob_infos() {
                let file = directory.path().join("image").join(info.digest.hex());
                assert_eq!(fs::read(file).unwrap(), image.blobs[&info.digest]);
            }
        }
    }
}

/// It keeps nothing of a part that broke, and parts that are whole.
#[test]
fn a_large_blob_is_pushed_through_cuts() {
    let Some(registry) = DebianRegistry::start(None) else { return };
    let bytes: Vec<u8> =
        (0..10_u32 << 20).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let digest = Digest::of(&bytes);
    let (media_type, size) = (kiln_oci::media::OCI_LAYER.to_owned(), bytes.len() as u64);
    let info = BlobInfo { media_type, digest, size };
    let mut source = TestImage::new("linux/amd64", MediaTypes::Oci, &[]);
    source.blobs.insert(digest, bytes);
    // First all at once, then a part, and then the rest: each request is cut but the last ones.
    let proxy = CuttingProxy::start(registry.port(), vec![30 << 20, 10 << 20, 20 << 20]);
    let to: ImageRef = format!("127.0.0.1:{}/big", proxy.port).parse().unwrap();
    let client = RegistryClient::new(RegistryConfig::default(), Cancel::new()).unwrap();
    let pushed = client.push_blob(&to, &info, &source, &[], &|_| {}).unwrap();
    assert_eq!(pushed, Pushed::Uploaded { bytes: size });
    let mut read = Vec::new();
    client.blob(&to, &info, None).unwrap().read_to_end(&mut read).unwrap();
    assert!(read == source.blobs[&digest]);
}

/// Passes connections on, and cuts the first ones after so many bytes.
struct CuttingProxy {
    port: u16,
}

impl CuttingProxy {
    fn start(to: u16, cuts: Vec<u64>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut cuts = cuts.into_iter();
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(("127.0.0.1", to)) else { return };
                let most = cuts.next().unwrap_or(u64::MAX);
                let (mut near_read, mut far_write) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                std::thread::spawn(move || {
                    // An end is an end, however it came.
                    let _ = std::io::copy(&mut (&mut near_read).take(most), &mut far_write);
                    let _ = far_write.shutdown(Shutdown::Both);
                    let _ = near_read.shutdown(Shutdown::Both);
                });
                let (mut near, mut far) = (near, far);
                std::thread::spawn(move || drop(std::io::copy(&mut far, &mut near)));
            }
        });
        Self { port }
    }
}

#[test]
fn artifacts_are_found_by_their_subject() {
    let Some(registry) = DebianRegistry::start(None) else { return };
    let client = RegistryClient::new(RegistryConfig::default(), Cancel::new()).unwrap();
    let name: ImageRef = format!("127.0.0.1:{}/demo:one", registry.port()).parse().unwrap();
    let image = TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("a", "1")]]);
    for info in image.blob_infos() {
        client.push_blob(&name, &info, &image, &[], &|_| {}).unwrap();
    }
    client.push_manifest(&name, &image.image.manifest).unwrap();
    let (subject, config) = (&image.image.manifest, &image.image.config);
    let descriptor = |document: &Document| {
        let Document { media_type, digest, bytes } = document;
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}}}"#, bytes.len())
    };
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","artifactType":"application/x.note","config":{},"layers":[],"subject":{}}}"#,
        subject.media_type,
        descriptor(config),
        descriptor(subject)
    );
    let artifact = Document::new(subject.media_type.clone(), text.into_bytes());
    let by_digest = ImageRef { tag: None, digest: Some(artifact.digest), ..name.clone() };
    assert_eq!(client.referrers(&name, &subject.digest, None).unwrap(), []);
    client.push_manifest(&by_digest, &artifact).unwrap();
    let found = client.referrers(&name, &subject.digest, Some("application/x.note")).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].info, artifact.info());
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
