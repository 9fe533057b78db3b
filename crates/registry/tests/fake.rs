//! The client against a registry that is as bad as needed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead as _, Read as _};
use std::path::Path;
use std::time::Duration;

use kiln_core::{Cancel, Digest, DigestHasher, ImageRef, Platform};
use kiln_oci::{BlobInfo, Document, MediaTypes, OciError, index, media};
use kiln_registry::{
    BlobReader, CredentialSource, Credentials, RegistryClient, RegistryConfig, RegistryError, Resume,
};
use kiln_testkit::image::TestImage;
use kiln_testkit::registry::{Access, FakeRegistry, Fault};

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn image() -> TestImage {
    TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("hello", "world")]])
}

fn client(config: RegistryConfig) -> RegistryClient {
    RegistryClient::new(config, Cancel::new()).unwrap()
}

fn plain() -> RegistryClient {
    client(RegistryConfig::default())
}

fn none(_: &Digest) -> Option<Vec<u8>> {
    None
}

fn name(registry: &FakeRegistry, rest: &str) -> ImageRef {
    format!("{}/{rest}", registry.host()).parse().unwrap()
}

fn status(status: u16, header: &str) -> Fault {
    let headers = if header.is_empty() { Vec::new() } else { vec![header.to_owned()] };
    Fault::Status { status, headers, body: String::new() }
}

fn all(mut reader: BlobReader) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    match reader.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(RegistryError::of(&error).unwrap().clone()),
    }
}

/// Bytes that do not repeat, so that a piece at the wrong place is seen.
fn big(size: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(|_| next()).collect()
}

fn info(bytes: &[u8]) -> BlobInfo {
    let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
    BlobInfo { media_type: media::OCI_LAYER_GZIP.to_owned(), digest, size }
}

#[test]
fn a_second_look_costs_one_head_request() {
    let (registry, image) = (FakeRegistry::start(), image());
    let arm = TestImage::new("linux/arm64", MediaTypes::Docker, &[&[("a", "b")]]);
    let index = index(&[&arm.image, &image.image], &BTreeMap::new());
    registry.put("a/b", "one", &image);
    registry.put("a/b", "arm", &arm);
    registry.put_manifest("a/b", &["both"], &index);
    let cache = RefCell::new(BTreeMap::new());
    let cached = |digest: &Digest| cache.borrow().get(digest).cloned();
    let both = name(&registry, "a/b:both");
    let first = plain().resolve(&both, &amd64(), &cached).unwrap();
    assert_eq!((&first.root, &first.manifest), (&index, &image.image.manifest));
    assert_eq!((&first.config, &first.layers), (&image.image.config, &image.image.layers));
    assert_eq!(
        registry.lines(),
        [
            "HEAD /v2/a/b/manifests/both".to_owned(),
            format!("GET /v2/a/b/manifests/{}", index.digest),
            format!("GET /v2/a/b/manifests/{}", image.image.manifest.digest),
            format!("GET /v2/a/b/blobs/{}", image.image.config.digest),
        ]
    );
    for document in [&first.root, &first.manifest, &first.config] {
        cache.borrow_mut().insert(document.digest, document.bytes.clone());
    }
    assert_eq!(plain().resolve(&both, &amd64(), &cached).unwrap(), first);
    assert_eq!(registry.lines(), ["HEAD /v2/a/b/manifests/both"]);
    // Pinned and cached: nothing.
    let pinned = name(&registry, &format!("a/b@{}", index.digest));
    assert_eq!(plain().resolve(&pinned, &amd64(), &cached).unwrap(), first);
    assert!(registry.lines().is_empty());
    // Bytes in the cache that are others are not used.
    cache.borrow_mut().insert(first.config.digest, b"{}".to_vec());
    assert_eq!(plain().resolve(&both, &amd64(), &cached).unwrap(), first);
    assert_eq!(registry.lines().len(), 2);
    // A registry that does not say the digest of a tag is read to know it.
    registry.fault("HEAD", 1, Fault::NoDigest);
    assert_eq!(plain().resolve_digest(&name(&registry, "a/b:one")).unwrap(), image.image.manifest.digest);
    assert_eq!(registry.lines(), ["HEAD /v2/a/b/manifests/one", "GET /v2/a/b/manifests/one"]);
}

#[test]
fn what_is_not_there_is_named() {
    let (registry, image) = (FakeRegistry::start(), image());
    registry.put("a/b", "one", &image);
    registry.put_manifest("a/b", &["old"], &Document::new("", br#"{"schemaVersion":1}"#.to_vec()));
    let host = registry.host();
    let missing = image.blobs.keys().next().copied().unwrap();
    let old = Digest::of(br#"{"schemaVersion":1}"#);
    let cases = [
        ("a/b:two", format!("{host} has no a/b:two")),
        ("none:two", format!("{host} has no none:two")),
        (
            "a/b@sha256:0000000000000000000000000000000000000000000000000000000000000000",
            format!(
                "{host} has no a/b@sha256:0000000000000000000000000000000000000000000000000000000000000000 (MANIFEST_UNKNOWN: manifest unknown)"
            ),
        ),
        (
            "a/b:old",
            format!(
                "{host}/a/b:old@{old}: the image has a docker schema 1 manifest, which is not supported; push it again with a current docker"
            ),
        ),
    ];
    for (rest, expected) in cases {
        let error = plain().resolve(&name(&registry, rest), &amd64(), &none).unwrap_err();
        assert_eq!(error.to_string(), expected);
        let json = serde_json::to_string(&error).unwrap();
        assert_eq!(serde_json::from_str::<RegistryError>(&json).unwrap(), error);
    }
    let error = plain()
        .resolve(&name(&registry, "a/b:one"), &"linux/s390x".parse().unwrap(), &none)
        .map(|image| image.image.architecture);
    assert_eq!(error.unwrap(), "amd64", "a manifest without an index is taken as it is");
    let index = index(&[&image.image], &BTreeMap::new());
    registry.put_manifest("a/b", &["index"], &index);
    let error =
        plain().resolve(&name(&registry, "a/b:index"), &"linux/s390x".parse().unwrap(), &none).unwrap_err();
    assert!(
        matches!(error, RegistryError::Image { error: OciError::NoPlatform { ref available, .. }, .. } if available == &["linux/amd64"])
    );
    let gone = BlobInfo { digest: Digest::of(&missing.as_bytes()[..]), ..info(b"x") };
    let error = plain().blob(&name(&registry, "a/b:one"), &gone, None).unwrap_err();
    assert!(
        matches!(error, RegistryError::NotFound { ref detail, .. } if detail.as_deref() == Some("BLOB_UNKNOWN: blob unknown to registry")),
        "{error}"
    );
}

#[test]
fn passing_failures_pass() {
    let (registry, image) = (FakeRegistry::start(), image());
    registry.put("a/b", "one", &image);
    let one = name(&registry, "a/b:one");
    let faults = [
        (2, status(500, "")),
        (1, status(429, "Retry-After: 0")),
        (4, status(503, "Retry-After: 0")),
        (1, Fault::Cut(0)),
        (2, Fault::Cut(5)),
    ];
    for (times, fault) in faults {
        for on in ["HEAD", "manifests/sha256:", "/blobs/"] {
            registry.fault(on, times, fault.clone());
        }
        let loaded =
            plain().resolve(&one, &amd64(), &none).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(loaded.manifest, image.image.manifest);
        registry.fault("/blobs/", times, fault.clone());
        let layer = &image.image.layers[0];
        let info = BlobInfo { media_type: layer.media_type.clone(), digest: layer.digest, size: layer.size };
        assert_eq!(
            all(plain().blob(&one, &info, None).unwrap()).unwrap(),
            image.blobs[&layer.digest],
            "{fault:?}"
        );
    }
}

#[test]
fn lasting_failures_end_with_their_name() {
    type Check = fn(&RegistryError) -> bool;
    let cases: [(Fault, Check); 8] = [
        (status(429, "Retry-After: 100000"), |e| {
            matches!(e, RegistryError::RateLimited { retry_after: Some(100_000), .. })
        }),
        (status(502, "Retry-After: 0"), |e| matches!(e, RegistryError::Status { status: 502, .. })),
        (status(418, ""), |e| matches!(e, RegistryError::Status { status: 418, .. })),
        (status(403, ""), |e| matches!(e, RegistryError::Unauthorized { .. })),
        (status(401, ""), |e| matches!(e, RegistryError::Unauthorized { .. })),
        (Fault::Corrupt, |e| matches!(e, RegistryError::DigestMismatch { .. })),
        (Fault::Shorten(10), |e| matches!(e, RegistryError::DigestMismatch { .. })),
        (Fault::Endless, |e| matches!(e, RegistryError::TooLarge { .. })),
    ];
    for (fault, check) in cases {
        let (registry, image) = (FakeRegistry::start(), image());
        registry.put("a/b", "one", &image);
        registry.fault("manifests/sha256:", 99, fault.clone());
        let error = plain().resolve(&name(&registry, "a/b:one"), &amd64(), &none).unwrap_err();
        assert!(check(error.root()), "{fault:?}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(&registry.host()) && text.contains("a/b"), "{text}");
    }
    // A redirect in a circle.
    let (registry, image) = (FakeRegistry::start(), image());
    registry.put("a/b", "one", &image);
    let location = format!("Location: http://{}/v2/a/b/manifests/one", registry.host());
    registry.fault("manifests/one", 99, status(307, &location));
    let error = plain().resolve_digest(&name(&registry, "a/b:one")).unwrap_err();
    assert!(error.to_string().contains("too many redirects"), "{error:?}");
}

#[test]
fn a_blob_goes_on_where_it_broke_off() {
    let registry = FakeRegistry::start();
    let bytes = big(3_000_000);
    registry.put_blob("a", &bytes);
    let (image, info) = (name(&registry, "a"), info(&bytes));
    let read = |client: RegistryClient| all(client.blob(&image, &info, None)?);
    // Cut, and cut again further on.
    registry.fault("/blobs/", 1, Fault::Cut(1_000_000));
    registry.fault("/blobs/", 1, Fault::Cut(500_000));
    assert_eq!(read(plain()).unwrap(), bytes);
    let ranges: Vec<_> = registry.seen().into_iter().map(|seen| seen.range).collect();
    assert_eq!(ranges, [None, Some("bytes=1000000-".to_owned()), Some("bytes=1500000-".to_owned())]);
    // A server that knows no ranges.
    registry.fault("/blobs/", 1, Fault::Cut(1_000_000));
    registry.fault("/blobs/", 1, Fault::IgnoreRange);
    assert_eq!(read(plain()).unwrap(), bytes);
    // Broken each time: an end, with how far it got.
    registry.fault("/blobs/", 99, Fault::Cut(10));
    let error = read(plain()).unwrap_err();
    assert!(
        matches!(*error.root(), RegistryError::Interrupted { received: 50, size: 3_000_000, .. }),
        "{error:?}"
    );
}

#[test]
fn a_small_blob_survives_a_cut_at_every_byte() {
    let registry = FakeRegistry::start();
    let bytes = big(40);
    registry.put_blob("a", &bytes);
    let image = name(&registry, "a");
    let client = plain();
    for cut in 0..=bytes.len() {
        registry.fault("/blobs/", 1, Fault::Cut(cut));
        assert_eq!(all(client.blob(&image, &info(&bytes), None).unwrap()).unwrap(), bytes, "cut at {cut}");
    }
}

#[test]
fn wrong_bytes_are_never_the_end_of_a_blob() {
    let registry = FakeRegistry::start();
    let bytes = big(100_000);
    let image = name(&registry, "a");
    let cases = [
        (Fault::Corrupt, info(&bytes), "sends wrong bytes for"),
        (Fault::Shorten(99_999), info(&bytes), "sends 99999 bytes for"),
        (Fault::IgnoreRange, BlobInfo { size: 99_999, ..info(&bytes) }, "sends 100000 bytes for"),
        (Fault::Endless, info(&bytes), "bytes for"),
    ];
    registry.put_blob("a", &bytes);
    for (fault, info, expected) in cases {
        registry.fault("/blobs/", 1, fault.clone());
        let error = plain().blob(&image, &info, None).and_then(all).unwrap_err();
        assert!(error.to_string().contains(expected), "{fault:?}: {error}");
        registry.fault("/blobs/", 1, fault);
        assert!(plain().blob(&image, &info, None).and_then(BlobReader::finish).is_err());
    }
    let whole = plain().blob(&image, &info(&bytes), None).unwrap();
    whole.finish().unwrap();
}

#[test]
fn a_blob_starts_in_the_middle_and_is_verified_as_a_whole() {
    let registry = FakeRegistry::start();
    let bytes = big(10_000);
    registry.put_blob("a", &bytes);
    let image = name(&registry, "a");
    let resume = |start: &[u8]| {
        let mut hasher = DigestHasher::new();
        hasher.update(start);
        Some(Resume { offset: start.len() as u64, hasher })
    };
    let rest = all(plain().blob(&image, &info(&bytes), resume(&bytes[..4_000])).unwrap()).unwrap();
    assert_eq!(rest, bytes[4_000..]);
    let wrong = all(plain().blob(&image, &info(&bytes), resume(&[0; 4_000])).unwrap()).unwrap_err();
    assert!(matches!(wrong.root(), RegistryError::DigestMismatch { .. }), "{wrong}");
    // All of it is there already.
    assert!(all(plain().blob(&image, &info(&bytes), resume(&bytes)).unwrap()).unwrap().is_empty());
}

#[test]
fn mirrors_are_tried_in_order_and_named() {
    let (first, second, image) = (FakeRegistry::start(), FakeRegistry::start(), image());
    second.put("hub/library/demo", "latest", &image);
    // Nobody listens there, and nobody gets it as a free port.
    let dead = "127.0.0.1:1";
    let mirrors = vec![
        format!("http://{dead}"),
        format!("http://{}", first.host()),
        format!("http://{}/hub", second.host()),
    ];
    let config = RegistryConfig {
        mirrors: [("docker.io".to_owned(), mirrors.clone())].into(),
        ..RegistryConfig::default()
    };
    let demo: ImageRef = "demo".parse().unwrap();
    let client = client(config);
    assert_eq!(client.resolve(&demo, &amd64(), &none).unwrap().manifest, image.image.manifest);
    assert_eq!(first.lines().len(), 3);
    assert_eq!(second.lines()[0], "HEAD /v2/hub/library/demo/manifests/latest");
    // A mirror that sends wrong bytes is passed over: at once for documents, the next time for blobs.
    first.put("library/demo", "latest", &image);
    let layer = &image.image.layers[0];
    let info = BlobInfo { media_type: layer.media_type.clone(), digest: layer.digest, size: layer.size };
    first.fault("manifests/sha256:", 1, Fault::Corrupt);
    assert!(client.manifest(&demo, image.image.manifest.digest).is_ok());
    first.fault("/blobs/", 99, Fault::Corrupt);
    let wrong = all(client.blob(&demo, &info, None).unwrap()).unwrap_err();
    assert!(
        matches!(wrong.root(), RegistryError::DigestMismatch { host, .. } if *host == first.host()),
        "{wrong:?}"
    );
    assert_eq!(all(client.blob(&demo, &info, None).unwrap()).unwrap(), image.blobs[&layer.digest]);
    // Everybody fails: everybody is named, the registry itself last.
    let registry = FakeRegistry::start();
    let mirrors = vec![format!("http://{dead}"), format!("http://{}", first.host())];
    let config = RegistryConfig { mirrors: [(registry.host(), mirrors)].into(), ..RegistryConfig::default() };
    let error = self::client(config).resolve_digest(&name(&registry, "none:1")).unwrap_err();
    let text = error.to_string();
    let expected = [
        format!("{}/none cannot be had", registry.host()),
        format!("; {dead} cannot be reached: connection refused"),
        format!("; {} has no none:1", first.host()),
        format!("; {} has no none:1", registry.host()),
    ];
    assert_eq!(text, expected.concat());
    assert!(matches!(error.root(), RegistryError::NotFound { host, .. } if *host == registry.host()));
    drop(second);
}

#[test]
fn another_mirror_goes_on_with_a_broken_blob() {
    let (first, second) = (FakeRegistry::start(), FakeRegistry::start());
    let bytes = big(100_000);
    first.put_blob("a", &bytes);
    second.put_blob("a", &bytes);
    first.fault("/blobs/", 99, Fault::Cut(1_000));
    let mirrors = [(second.host(), vec![format!("http://{}", first.host())])];
    let client = client(RegistryConfig { mirrors: mirrors.into(), ..RegistryConfig::default() });
    assert_eq!(all(client.blob(&name(&second, "a"), &info(&bytes), None).unwrap()).unwrap(), bytes);
    assert_eq!(second.seen()[0].range.as_deref(), Some("bytes=5000-"));
}

#[test]
fn tokens_are_fetched_once_and_again_when_void() {
    let (registry, image) = (FakeRegistry::start(), image());
    registry.put("a/b", "one", &image);
    registry.access(Access::Token(None));
    let (client, one) = (plain(), name(&registry, "a/b:one"));
    client.resolve(&one, &amd64(), &none).unwrap();
    let lines = registry.lines();
    assert_eq!(lines.iter().filter(|line| line.starts_with("GET /token?")).count(), 1, "{lines:?}");
    assert_eq!(lines.len(), 5, "{lines:?}");
    registry.forget_tokens();
    client.resolve_digest(&one).unwrap();
    assert_eq!(registry.lines().len(), 3, "refused, token, again");
    registry.forget_tokens();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| client.resolve_digest(&one).unwrap());
        }
    });
    let lines = registry.lines();
    assert_eq!(lines.iter().filter(|line| line.starts_with("GET /token?")).count(), 1, "{lines:?}");
}

/// Credentials in one file.
fn file(path: &Path) -> Credentials {
    Credentials { sources: vec![CredentialSource::File(path.to_owned())], ..Credentials::default() }
}

#[test]
fn credentials_go_where_they_belong_and_nowhere_else() {
    let (registry, storage, image) = (FakeRegistry::start(), FakeRegistry::start(), image());
    registry.put("a/b", "one", &image);
    storage.put("a/b", "one", &image);
    let one = name(&registry, "a/b:one");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    let write = |auth: &str| {
        std::fs::write(&path, format!(r#"{{"auths": {{"{}": {auth}}}}}"#, registry.host())).unwrap();
        client(RegistryConfig { credentials: file(&path), ..RegistryConfig::default() })
    };
    let good = || write(r#"{"username": "user", "password": "hunter2"}"#);
    let pair = ("user".to_owned(), "hunter2".to_owned());
    for access in [Access::Basic(pair.0.clone(), pair.1.clone()), Access::Token(Some(pair))] {
        registry.access(access);
        assert_eq!(good().resolve(&one, &amd64(), &none).unwrap().manifest, image.image.manifest);
        // Blobs lie elsewhere, and that host gets no credentials (its access is open: it is strict about it).
        let layer = &image.image.layers[0];
        let info = BlobInfo { media_type: layer.media_type.clone(), digest: layer.digest, size: layer.size };
        let location = format!("Location: http://{}/v2/a/b/blobs/{}", storage.host(), layer.digest);
        registry.fault(
            format!("/blobs/{}", layer.digest),
            1,
            Fault::Status { status: 307, headers: vec![location], body: String::new() },
        );
        assert_eq!(all(good().blob(&one, &info, None).unwrap()).unwrap(), image.blobs[&layer.digest]);
        assert!(storage.seen().iter().all(|seen| !seen.authorized));
        for bad in [write(r#"{"username": "user", "password": "wrong-hunter2"}"#), write("{}"), plain()] {
            let error = bad.resolve_digest(&one).unwrap_err();
            assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error:?}");
            assert!(!format!("{error} {error:?} {bad:?}").contains("hunter2"), "{error:?} {bad:?}");
        }
        let sent = format!("sent were the credentials of auths {:?} in", registry.host());
        let error =
            write(r#"{"username": "user", "password": "wrong-hunter2"}"#).resolve_digest(&one).unwrap_err();
        assert!(error.to_string().contains(&sent), "{error}");
        let none = format!("no credentials for {} are known", registry.host());
        let error = plain().resolve_digest(&one).unwrap_err();
        assert!(error.to_string().contains(&none), "{error}");
    }
}

#[test]
fn a_stall_ends() {
    let registry = FakeRegistry::start();
    let bytes = big(100_000);
    registry.put_blob("a", &bytes);
    registry.fault("/v2/", 99, Fault::Stall);
    let mut config = RegistryConfig::default();
    config.timeouts.stall = Duration::from_millis(50);
    let client = client(config);
    let error = client.blob(&name(&registry, "a"), &info(&bytes), None).and_then(all).unwrap_err();
    assert!(matches!(error.root(), RegistryError::Stalled { .. }), "{error:?}");
    let error = client.manifest(&name(&registry, "a"), Digest::of(&bytes)).unwrap_err();
    // The head says so, only the words for it do not come.
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
}

#[test]
fn cancelling_ends_what_waits() {
    let registry = FakeRegistry::start();
    let bytes = big(5_000_000);
    registry.put_blob("a", &bytes);
    let image = name(&registry, "a");
    let cancel = Cancel::new();
    let client = RegistryClient::new(RegistryConfig::default(), cancel.clone()).unwrap();
    // One that is full of what nobody reads, one that waits for a server that says nothing.
    let mut started = client.blob(&image, &info(&bytes), None).unwrap();
    started.fill_buf().unwrap();
    registry.fault("/blobs/", 1, Fault::Stall);
    let waiting = client.blob(&image, &info(&bytes), None).unwrap();
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || all(waiting));
        cancel.cancel();
        assert_eq!(reading.join().unwrap(), Err(RegistryError::Cancelled));
    });
    assert_eq!(all(started), Err(RegistryError::Cancelled));
    assert_eq!(client.resolve_digest(&name(&registry, "a:1")), Err(RegistryError::Cancelled));
}

#[test]
fn a_reader_that_goes_away_frees_the_client() {
    let registry = FakeRegistry::start();
    let bytes = big(5_000_000);
    registry.put_blob("a", &bytes);
    let (client, image) = (plain(), name(&registry, "a"));
    for _ in 0..20 {
        let mut reader = client.blob(&image, &info(&bytes), None).unwrap();
        reader.fill_buf().unwrap();
    }
    assert_eq!(all(client.blob(&image, &info(&bytes), None).unwrap()).unwrap(), bytes);
    // A reader outlives its client only to learn that.
    let reader = client.blob(&image, &info(&bytes), None).unwrap();
    drop(client);
    let end = all(reader);
    assert!(end.is_err() || end == Ok(bytes));
}

#[test]
fn many_blobs_at_once_share_a_client() {
    let registry = FakeRegistry::start();
    let blobs: Vec<_> = (1..9).map(|n| big(n * 100_000)).collect();
    for bytes in &blobs {
        registry.put_blob("a", bytes);
    }
    let (client, image) = (plain(), name(&registry, "a"));
    std::thread::scope(|scope| {
        for bytes in &blobs {
            let (client, image) = (&client, &image);
            scope.spawn(move || {
                assert_eq!(all(client.blob(image, &info(bytes), None).unwrap()).unwrap(), *bytes)
            });
        }
    });
}
