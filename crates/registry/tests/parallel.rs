//! A large blob over several connections.

use std::io::Read as _;
use std::time::Duration;

use kiln_core::{Cancel, Digest, DigestHasher, ImageRef};
use kiln_oci::{BlobInfo, media};
use kiln_registry::{RegistryClient, RegistryConfig, RegistryError, Resume};
use kiln_testkit::registry::{Access, FakeRegistry, Fault};

const MIB: usize = 1 << 20;

fn client() -> RegistryClient {
    let mut config = RegistryConfig::default();
    config.timeouts.again = Duration::from_millis(1);
    RegistryClient::new(config, Cancel::new()).unwrap()
}

fn name(registry: &FakeRegistry) -> ImageRef {
    format!("{}/a", registry.host()).parse().unwrap()
}

/// Bytes that do not repeat, so that a part at the wrong place is seen.
fn big(size: usize) -> Vec<u8> {
    (0..size as u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).take(size).collect()
}

fn info(bytes: &[u8]) -> BlobInfo {
    let (digest, size) = (Digest::of(bytes), bytes.len() as u64);
    BlobInfo { media_type: media::OCI_LAYER_GZIP.to_owned(), digest, size }
}

fn get(registry: &FakeRegistry, info: &BlobInfo, resume: Option<Resume>) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    let mut reader = client().blob(&name(registry), info, resume)?;
    match reader.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(RegistryError::of(&error).unwrap().clone()),
    }
}

fn ranges(registry: &FakeRegistry) -> Vec<String> {
    let mut ranges: Vec<_> = registry.seen().into_iter().filter_map(|seen| seen.range).collect();
    ranges.sort_by_key(|range| range[6..].split('-').next().unwrap().parse::<u64>().unwrap());
    ranges
}

#[test]
fn a_large_blob_comes_in_parts_at_once() {
    let registry = FakeRegistry::start();
    let bytes = big(21 * MIB + 5);
    registry.put_blob("a", &bytes);
    // Not a byte before four requests are there: who asks for one part after the other waits for ever.
    for _ in 0..3 {
        registry.fault("/blobs/", 1, Fault::Await(4));
    }
    assert!(get(&registry, &info(&bytes), None).unwrap() == bytes);
    let expected: Vec<_> = (0..6)
        .map(|n| match n {
            5 => "bytes=20971520-".to_owned(),
            n => format!("bytes={}-{}", n * 4 * MIB, (n + 1) * 4 * MIB - 1),
        })
        .collect();
    assert_eq!(ranges(&registry), expected);
    // From the middle on.
    let mut hasher = DigestHasher::new();
    hasher.update(&bytes[..3 * MIB]);
    let resume = Resume { offset: 3 * MIB as u64, hasher };
    assert!(get(&registry, &info(&bytes), Some(resume)).unwrap() == bytes[3 * MIB..]);
    assert_eq!(ranges(&registry)[0], format!("bytes={}-{}", 3 * MIB, 7 * MIB - 1));
}

#[test]
fn a_server_without_ranges_sends_all_at_once() {
    let bytes = big(17 * MIB);
    for fault in [
        Fault::IgnoreRange,
        Fault::Status { status: 416, headers: Vec::new(), body: String::new() },
        Fault::Status { status: 501, headers: Vec::new(), body: String::new() },
    ] {
        let registry = FakeRegistry::start();
        registry.put_blob("a", &bytes);
        registry.fault("/blobs/", 1, fault.clone());
        assert!(get(&registry, &info(&bytes), None).unwrap() == bytes, "{fault:?}");
    }
}

#[test]
fn a_part_that_breaks_goes_on() {
    let bytes = big(40 * MIB);
    let registry = FakeRegistry::start();
    registry.put_blob("a", &bytes);
    // How a part ends in its range; where it begins is another place after a cut.
    let end = |n: usize| format!("-{}", (n + 1) * 4 * MIB - 1);
    for cut in [0, 1, 100_000, 4 * MIB - 1] {
        // All of them once, and one as often as one part may.
        for n in 0..9 {
            registry.fault(end(n), 1, Fault::Cut(cut));
        }
        registry.fault(end(2), 3, Fault::Cut(0));
        registry.fault("bytes=37748736-", 1, Fault::Cut(cut));
        assert!(get(&registry, &info(&bytes), None).unwrap() == bytes, "{cut}");
        let asked = ranges(&registry);
        assert_eq!(asked.len(), 10 + 10 + 3, "{asked:?}");
    }
    // A server that knows ranges for the first part only.
    registry.access(Access::Token(None));
    registry.fault(end(0), 2, Fault::Cut(5));
    registry.fault(end(1), 1, Fault::IgnoreRange);
    assert!(get(&registry, &info(&bytes), None).unwrap() == bytes);
}

#[test]
fn wrong_parts_are_never_a_blob() {
    let bytes = big(20 * MIB);
    let registry = FakeRegistry::start();
    registry.put_blob("a", &bytes);
    let text = |error: RegistryError| {
        let text = error.to_string();
        assert!(text.starts_with(&format!("{}/a@sha256:", registry.host())), "{text}");
        text
    };
    for (times, fault, expected) in [
        (1, Fault::Corrupt, "sends wrong bytes for"),
        (1, Fault::Shorten(4 * MIB - 1), "bytes up to byte"),
        (99, Fault::Cut(10), "broke off"),
        (1, Fault::Endless, "bytes up to byte"),
    ] {
        registry.fault("/blobs/", times, fault.clone());
        let error = text(get(&registry, &info(&bytes), None).unwrap_err());
        assert!(error.contains(expected), "{fault:?}: {error}");
        // What is left of the faults is used up by whoever asks next.
        while times > 1 && get(&registry, &info(&bytes), None).is_err() {}
    }
    let longer = BlobInfo { size: 20 * MIB as u64 + 1, ..info(&bytes) };
    let error = text(get(&registry, &longer, None).unwrap_err());
    assert!(error.contains("sends 20971520 bytes for"), "{error}");
}

#[test]
fn many_large_blobs_share_what_may_be_ahead() {
    let registry = FakeRegistry::start();
    let blobs: Vec<_> = (0..5).map(|n| big((18 + n) * MIB)).collect();
    for bytes in &blobs {
        registry.put_blob("a", bytes);
    }
    let (client, image) = (client(), name(&registry));
    // One reader that reads nothing must not hold up the others.
    let idle = client.blob(&image, &info(&blobs[4]), None).unwrap();
    std::thread::scope(|scope| {
        for bytes in &blobs {
            let (client, image) = (&client, &image);
            scope.spawn(move || {
                let mut read = Vec::new();
                client.blob(image, &info(bytes), None).unwrap().read_to_end(&mut read).unwrap();
                assert!(read == *bytes);
            });
        }
    });
    drop(idle);
}

#[test]
fn parts_are_asked_for_where_the_first_one_was() {
    let (registry, storage) = (FakeRegistry::start(), FakeRegistry::start());
    let bytes = big(30 * MIB);
    storage.put_blob("a", &bytes);
    registry.access(Access::Token(None));
    let digest = Digest::of(&bytes);
    let headers = vec![format!("Location: http://{}/v2/a/blobs/{digest}", storage.host())];
    registry.fault("/blobs/", 99, Fault::Status { status: 307, headers, body: String::new() });
    assert!(get(&registry, &info(&bytes), None).unwrap() == bytes);
    assert_eq!(registry.lines().len(), 1);
    let seen = storage.seen();
    assert_eq!(seen.len(), 8);
    assert!(seen.iter().all(|seen| !seen.authorized));
    // An address that is no longer good is asked for again, by each part that is refused there. Once: one that is refused
    // at a new address too is refused.
    let refusal = Fault::Status { status: 403, headers: Vec::new(), body: String::new() };
    storage.fault("bytes=0-", 1, Fault::Cut(5));
    storage.fault("bytes=4194304-", 1, refusal.clone());
    storage.fault("bytes=8388608-", 1, refusal.clone());
    assert!(get(&registry, &info(&bytes), None).unwrap() == bytes);
    let lines = registry.lines();
    assert!(lines.len() >= 3, "{lines:?}");
    storage.fault("bytes=4194304-", 2, refusal);
    let error = get(&registry, &info(&bytes), None).unwrap_err();
    assert!(matches!(error.root(), RegistryError::Unauthorized { .. }), "{error}");
}
