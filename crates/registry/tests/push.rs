//! Pushing to a registry that is as bad as needed.

use std::sync::Mutex;

use kiln_core::{Cancel, Digest, ImageRef};
use kiln_oci::{BlobInfo, BlobSource as _, Document, MediaTypes, media};
use kiln_registry::{Pushed, RegistryClient, RegistryConfig, RegistryError};
use kiln_testkit::image::TestImage;
use kiln_testkit::registry::{Access, FakeRegistry, Fault, Manners};

fn client() -> RegistryClient {
    RegistryClient::new(RegistryConfig::default(), Cancel::new()).unwrap()
}

fn name(registry: &FakeRegistry, rest: &str) -> ImageRef {
    format!("{}/{rest}", registry.host()).parse().unwrap()
}

fn image() -> TestImage {
    TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("hello", "world")]])
}

/// One blob, and its description.
fn blob(bytes: Vec<u8>) -> (TestImage, BlobInfo) {
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
    let mut source = image();
    source.blobs.insert(digest, bytes);
    (source, BlobInfo { media_type: media::OCI_LAYER_GZIP.to_owned(), digest, size })
}

/// Bytes that do not repeat, so that a piece at the wrong place is seen.
fn big(size: usize) -> Vec<u8> {
    (0..size as u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(size).collect()
}

fn push(client: &RegistryClient, to: &ImageRef, image: &TestImage) -> Result<Vec<Pushed>, RegistryError> {
    let mut all = Vec::new();
    for info in image.blob_infos() {
        all.push(client.push_blob(to, &info, image, &[], &|_| {})?);
    }
    all.push(client.push_manifest(to, &image.image.manifest)?);
    Ok(all)
}

fn status(status: u16, header: &str) -> Fault {
    let headers = if header.is_empty() { Vec::new() } else { vec![header.to_owned()] };
    Fault::Status { status, headers, body: String::new() }
}

#[test]
fn an_image_is_pushed_once() {
    let (registry, image) = (FakeRegistry::start(), image());
    let (client, one) = (client(), name(&registry, "a/b:one"));
    let sizes: Vec<u64> = image
        .blob_infos()
        .iter()
        .map(|info| info.size)
        .chain([image.image.manifest.bytes.len() as u64])
        .collect();
    let uploaded: Vec<_> = sizes.iter().map(|bytes| Pushed::Uploaded { bytes: *bytes }).collect();
    assert_eq!(push(&client, &one, &image).unwrap(), uploaded);
    let layer = image.image.layers[0].digest;
    let config = image.image.config.digest;
    let upload = |n: usize, digest: &Digest| {
        [
            format!("HEAD /v2/a/b/blobs/{digest}"),
            "POST /v2/a/b/blobs/uploads/".to_owned(),
            format!("PUT /v2/a/b/blobs/uploads/upload-{n}?_state=0&digest=sha256%3A{}", digest.hex()),
        ]
    };
    let manifests = ["HEAD /v2/a/b/manifests/one".to_owned(), "PUT /v2/a/b/manifests/one".to_owned()];
    assert_eq!(registry.lines(), [&upload(1, &layer)[..], &upload(2, &config), &manifests].concat());
    assert_eq!(registry.uploads(), 0);
    let loaded = client.resolve(&one, &"linux/amd64".parse().unwrap(), &|_: &Digest| None).unwrap();
    assert_eq!((loaded.manifest, loaded.layers), (image.image.manifest.clone(), image.image.layers.clone()));
    // Again: one request for each.
    registry.lines();
    assert_eq!(push(&client, &one, &image).unwrap(), [Pushed::There, Pushed::There, Pushed::There]);
    assert_eq!(registry.lines().len(), 3);
    assert_eq!(client.push_manifest(&one, &image.image.manifest).unwrap(), Pushed::There);
    assert!(client.has_blob(&one, &layer).unwrap());
    assert!(!client.has_blob(&name(&registry, "a/c"), &layer).unwrap());
    // Under its digest alone.
    let digest = image.image.manifest.digest;
    let bare = ImageRef { tag: None, digest: Some(digest), ..one.clone() };
    assert_eq!(client.push_manifest(&bare, &image.image.manifest).unwrap(), Pushed::There);
    let other = ImageRef { digest: Some(layer), ..one };
    let error = client.push_manifest(&other, &image.image.manifest).unwrap_err();
    assert!(matches!(error, RegistryError::Source { .. }), "{error}");
}

#[test]
fn a_blob_is_taken_from_another_repository() {
    let (source, info) = blob(big(1000));
    let cases = [(Manners::default(), true), (Manners { mounts: false, ..Manners::default() }, false)];
    for (manners, mounted) in cases {
        for access in [Access::Open, Access::Token(None)] {
            let registry = FakeRegistry::start();
            registry.put_blob("base", &source.blobs[&info.digest]);
            registry.behave(manners.clone());
            registry.access(access);
            let elsewhere: ImageRef = "127.0.0.1:1/base".parse().unwrap();
            let mounts =
                [elsewhere, name(&registry, "app"), name(&registry, "none"), name(&registry, "base")];
            let to = name(&registry, "app");
            let client = client();
            let pushed = client.push_blob(&to, &info, &source, &mounts, &|_| {}).unwrap();
            let expected = if mounted {
                Pushed::Mounted { from: "base".to_owned() }
            } else {
                Pushed::Uploaded { bytes: 1000 }
            };
            assert_eq!(pushed, expected);
            assert_eq!(registry.blob("app", info.digest).unwrap(), source.blobs[&info.digest]);
            assert_eq!(registry.uploads(), 0, "what is not needed is given up");
            // Each mount needs a token of its own; then all is known.
            let tokens = registry.lines().iter().filter(|line| line.contains("/token?")).count();
            assert!(tokens == 0 || tokens == 3, "{tokens}");
            client.push_blob(&to, &info, &source, &mounts, &|_| {}).unwrap();
            assert_eq!(registry.lines(), [format!("HEAD /v2/app/blobs/{}", info.digest)]);
        }
    }
}

#[test]
fn a_push_needs_one_token() {
    let (registry, image) = (FakeRegistry::start(), image());
    registry.access(Access::Token(None));
    let (client, one) = (client(), name(&registry, "a/b:one"));
    push(&client, &one, &image).unwrap();
    let lines = registry.lines();
    let tokens: Vec<_> = lines.iter().filter(|line| line.contains("/token?")).collect();
    assert_eq!(tokens, ["GET /token?service=fake&scope=repository%3Aa%2Fb%3Apull%2Cpush"]);
    assert_eq!(lines.len(), 10, "{lines:#?}");
    // It is good for reading, too.
    client.resolve_digest(&one).unwrap();
    assert_eq!(registry.lines().len(), 1);
    // A token for reading is none for writing.
    let client = self::client();
    client.resolve_digest(&one).unwrap();
    assert_eq!(push(&client, &one, &image).unwrap()[2], Pushed::There);
    let tokens = registry.lines().iter().filter(|line| line.contains("/token?")).count();
    assert_eq!(tokens, 2);
}

#[test]
fn who_may_not_push_is_told_where() {
    let (registry, image) = (FakeRegistry::start(), image());
    let one = name(&registry, "a/b:one");
    let denied = |error: RegistryError| {
        assert!(matches!(&error, RegistryError::PushDenied { .. }), "{error:?}");
        let expected = format!("{} denies pushing to a/b", registry.host());
        assert!(error.to_string().starts_with(&expected), "{error}");
    };
    for access in [Access::ReadOnly, Access::Basic("a".to_owned(), "b".to_owned())] {
        registry.access(access);
        denied(push(&client(), &one, &image).unwrap_err());
        denied(client().push_manifest(&one, &image.image.manifest).unwrap_err());
    }
    registry.access(Access::Open);
    for code in [401, 403] {
        registry.fault("POST", 1, status(code, ""));
        denied(push(&client(), &one, &image).unwrap_err());
        registry.fault("PUT", 1, status(code, ""));
        denied(client().push_manifest(&one, &image.image.manifest).unwrap_err());
    }
    // What is missing is the registry's to say.
    let error = client().push_manifest(&one, &image.image.manifest).unwrap_err();
    assert!(error.to_string().contains("MANIFEST_BLOB_UNKNOWN"), "{error}");
}

#[test]
fn a_token_that_ends_in_the_middle_is_renewed() {
    let registry = FakeRegistry::start();
    registry.access(Access::Token(None));
    registry.behave(Manners { most: Some(20 << 20), ..Manners::default() });
    let (source, info) = blob(big(50 << 20));
    let client = client();
    let forgotten = Mutex::new(Vec::from([16_u64 << 20, 32 << 20, 48 << 20]));
    let progress = |at: u64| {
        // Not at the first try, in one piece, which is too large.
        let mut forgotten = forgotten.lock().unwrap();
        if at < 50 << 20 && forgotten.first().is_some_and(|next| at >= *next) {
            forgotten.remove(0);
            registry.forget_tokens();
        }
    };
    let to = name(&registry, "a");
    let pushed = client.push_blob(&to, &info, &source, &[], &progress).unwrap();
    assert_eq!(pushed, Pushed::Uploaded { bytes: 50 << 20 });
    assert!(registry.blob("a", info.digest).is_some());
}

#[test]
fn an_upload_goes_on_where_it_broke_off() {
    let (source, info) = blob(big(40 << 20));
    let upload = |registry: &FakeRegistry| {
        let pushed = client().push_blob(&name(registry, "a"), &info, &source, &[], &|_| {});
        let ranges: Vec<_> = registry.seen().into_iter().filter_map(|seen| seen.content_range).collect();
        if pushed.is_ok() {
            assert_eq!(registry.blob("a", info.digest).unwrap(), source.blobs[&info.digest]);
            assert_eq!(registry.uploads(), 0);
        }
        (pushed, ranges)
    };
    // The registry keeps what came.
    let registry = FakeRegistry::start();
    registry.fault("PUT", 1, Fault::Drop(30_000_000));
    let (pushed, ranges) = upload(&registry);
    assert_eq!(pushed.unwrap(), Pushed::Uploaded { bytes: 40 << 20 });
    assert_eq!(ranges, ["30000000-41943039"]);
    // It does not, and the next try is in parts, of which one breaks.
    let registry = FakeRegistry::start();
    registry.fault("PUT", 1, Fault::DropAll(30_000_000));
    registry.fault("_state=1", 1, Fault::Drop(5));
    let (pushed, ranges) = upload(&registry);
    assert!(pushed.is_ok());
    assert_eq!(ranges, ["0-16777215", "16777216-33554431", "16777221-33554436", "33554437-41943039"]);
    // It takes no parts.
    let registry = FakeRegistry::start();
    registry.behave(Manners { chunks: false, ..Manners::default() });
    registry.fault("PUT", 1, Fault::Drop(1_000));
    let (pushed, ranges) = upload(&registry);
    assert!(pushed.is_ok(), "{pushed:?}");
    assert_eq!(ranges, ["1000-16778215"]);
    // It takes no more than so much at once, or no less.
    let registry = FakeRegistry::start();
    registry.behave(Manners { most: Some(5 << 20), ..Manners::default() });
    let (pushed, ranges) = upload(&registry);
    assert!(pushed.is_ok(), "{pushed:?}");
    assert_eq!(ranges.len(), 11, "{ranges:?}");
    let registry = FakeRegistry::start();
    registry.behave(Manners { least: Some(30 << 20), ..Manners::default() });
    registry.fault("PUT", 1, Fault::DropAll(1));
    let (pushed, ranges) = upload(&registry);
    assert!(pushed.is_ok(), "{pushed:?}");
    assert_eq!(ranges, ["0-31457279", "31457280-41943039"]);
    // The answer to the last request is lost.
    let registry = FakeRegistry::start();
    registry.fault("PUT", 1, Fault::NoAnswer);
    assert!(upload(&registry).0.is_ok());
    assert_eq!(registry.lines().len(), 0);
    // Each time: an end.
    let registry = FakeRegistry::start();
    registry.fault("/uploads/upload-", 99, Fault::DropAll(1_000));
    assert!(matches!(upload(&registry).0.unwrap_err().root(), RegistryError::Unreachable { .. }));
}

#[test]
fn passing_failures_of_a_push_pass() {
    let faults = [
        (2, status(500, "Retry-After: 0")),
        (1, status(429, "Retry-After: 0")),
        (2, status(503, "Retry-After: 0")),
        (1, Fault::NoAnswer),
        (1, Fault::Drop(3)),
        (1, Fault::DropAll(3)),
    ];
    for (times, fault) in faults {
        let (registry, image) = (FakeRegistry::start(), image());
        for on in ["HEAD", "POST", "PUT /v2/a/blobs", "PUT /v2/a/manifests"] {
            registry.fault(on, times, fault.clone());
        }
        let one = name(&registry, "a:one");
        push(&client(), &one, &image).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(client().resolve_digest(&one).unwrap(), image.image.manifest.digest);
    }
    // Lasting ones end.
    for (fault, expected) in [
        (status(429, "Retry-After: 100000"), "limits the rate of requests; it answers again in 100000 s"),
        (status(502, "Retry-After: 0"), "answers 502"),
        (status(507, ""), "answers 507"),
    ] {
        for on in ["POST", "PUT /v2/a/blobs", "PUT /v2/a/manifests"] {
            let (registry, image) = (FakeRegistry::start(), image());
            registry.fault(on, 999, fault.clone());
            let error = push(&client(), &name(&registry, "a:one"), &image).unwrap_err();
            assert!(error.to_string().contains(expected), "{on} {fault:?}: {error}");
            let subject = format!("{}/a@sha256:", registry.host());
            assert!(error.to_string().contains(&subject), "{error}");
        }
    }
}

#[test]
fn uploads_go_elsewhere_without_credentials() {
    let (registry, storage) = (FakeRegistry::start(), FakeRegistry::start());
    let (source, info) = blob(big(100_000));
    registry.access(Access::Token(None));
    // The storage is strict about credentials that nobody asked for.
    let elsewhere = format!("Location: http://{}/v2/a/blobs/uploads/upload-1?_state=0", storage.host());
    let begun = client().push_blob(&name(&storage, "a"), &info, &source, &[], &|_| {});
    assert!(begun.is_ok());
    // Once by the address that it names, once by a redirect of what is sent.
    for (on, code) in [("POST", 202), ("PUT", 307)] {
        let storage_upload = reqwest_begin(&storage);
        let location = elsewhere.replace("upload-1", &storage_upload);
        let location =
            if on == "PUT" { format!("{location}&digest=sha256:{}", info.digest.hex()) } else { location };
        registry.fault(on, 1, status(code, &location));
        let pushed = client().push_blob(&name(&registry, "a"), &info, &source, &[], &|_| {}).unwrap();
        assert_eq!(pushed, Pushed::Uploaded { bytes: 100_000 });
        assert!(storage.seen().iter().all(|seen| !seen.authorized));
    }
    assert!(storage.blob("a", info.digest).is_some());
    // In a circle.
    let circle = format!("Location: http://{}/v2/a/blobs/uploads/upload-1", registry.host());
    registry.fault("PUT", 99, status(308, &circle));
    let error = client().push_blob(&name(&registry, "b"), &info, &source, &[], &|_| {}).unwrap_err();
    assert!(error.to_string().contains("answers 308"), "{error}");
}

/// Begins an upload at the storage, as the registry before it would.
fn reqwest_begin(storage: &FakeRegistry) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(storage.host()).unwrap();
    let head = format!(
        "POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: {}\r\nUser-Agent: test\r\nContent-Length: 0\r\n\r\n",
        storage.host()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let start = answer.find("upload-").unwrap();
    answer[start..].split('?').next().unwrap().to_owned()
}

#[test]
fn a_source_that_is_not_what_it_says_is_named() {
    let registry = FakeRegistry::start();
    let to = name(&registry, "a");
    let (mut source, info) = blob(big(1_000_000));
    let error = |source: &TestImage, info: &BlobInfo| {
        client().push_blob(&to, info, source, &[], &|_| {}).unwrap_err().to_string()
    };
    let short = BlobInfo { size: 1_000_001, ..info.clone() };
    assert!(error(&source, &short).ends_with("it has less than 1000001 bytes here"));
    let long = BlobInfo { size: 999_999, ..info.clone() };
    assert!(error(&source, &long).ends_with("it has more than 999999 bytes here"));
    source.blobs.get_mut(&info.digest).unwrap()[5] ^= 1;
    assert!(error(&source, &info).contains("DIGEST_INVALID"));
    source.blobs.remove(&info.digest);
    assert!(source.open(&info.digest).is_err());
    assert!(error(&source, &info).contains("cannot be pushed"));
}

#[test]
fn mirrors_are_never_pushed_to() {
    let (registry, mirror, image) = (FakeRegistry::start(), FakeRegistry::start(), image());
    let mirrors = [(registry.host(), vec![format!("http://{}", mirror.host())])];
    let config = RegistryConfig { mirrors: mirrors.into(), ..RegistryConfig::default() };
    let client = RegistryClient::new(config, Cancel::new()).unwrap();
    push(&client, &name(&registry, "a:one"), &image).unwrap();
    assert!(mirror.lines().is_empty());
}

#[test]
fn many_pushes_at_once_share_a_client() {
    let registry = FakeRegistry::start();
    registry.access(Access::Token(None));
    let blobs: Vec<_> = (1..9).map(|n| blob(big(n * 300_000))).collect();
    let (client, to) = (client(), name(&registry, "a"));
    std::thread::scope(|scope| {
        for (source, info) in &blobs {
            let (client, to) = (&client, &to);
            scope.spawn(move || client.push_blob(to, info, source, &[], &|_| {}).unwrap());
        }
    });
    for (source, info) in &blobs {
        assert_eq!(registry.blob("a", info.digest).unwrap(), source.blobs[&info.digest]);
    }
    let tokens = registry.lines().iter().filter(|line| line.contains("/token?")).count();
    assert_eq!(tokens, 1);
}

#[test]
fn docker_manifests_and_indexes_keep_their_type() {
    let registry = FakeRegistry::start();
    let docker = TestImage::new("linux/arm64", MediaTypes::Docker, &[&[("a", "b")]]);
    let one = name(&registry, "a:one");
    push(&client(), &one, &docker).unwrap();
    assert_eq!(registry.manifest("a", "one").unwrap().0, media::DOCKER_MANIFEST);
    let index = kiln_oci::index(&[&docker.image], &std::collections::BTreeMap::new());
    client().push_manifest(&name(&registry, "a:both"), &index).unwrap();
    assert_eq!(registry.manifest("a", "both").unwrap(), (media::DOCKER_LIST.to_owned(), index.bytes));
    // A document that says its type itself.
    let bytes = docker.image.manifest.bytes.clone();
    client().push_manifest(&name(&registry, "a:two"), &Document::new("", bytes)).unwrap();
    assert_eq!(registry.manifest("a", "two").unwrap().0, media::DOCKER_MANIFEST);
}

#[test]
fn cancelling_ends_a_push() {
    let registry = FakeRegistry::start();
    let (source, info) = blob(big(3_000_000));
    let cancel = Cancel::new();
    let client = RegistryClient::new(RegistryConfig::default(), cancel.clone()).unwrap();
    let to = name(&registry, "a");
    let pushed = client.push_blob(&to, &info, &source, &[], &|_| cancel.cancel());
    assert_eq!(pushed, Err(RegistryError::Cancelled));
    assert_eq!(client.push_blob(&to, &info, &source, &[], &|_| {}), Err(RegistryError::Cancelled));
}
