//! Connections that break at every byte, clocks that are wrong, storms that do not end.

use std::io::Read as _;
use std::time::Duration;

use kiln_core::{Cancel, Digest, ImageRef, Platform};
use kiln_oci::{BlobInfo, LoadedImage, MediaTypes};
use kiln_registry::{RegistryClient, RegistryConfig, RegistryError};
use kiln_testkit::image::TestImage;
use kiln_testkit::registry::{Access, Direction, FakeRegistry, Fault};

/// Waits next to nothing between tries.
fn client() -> RegistryClient {
    let mut config = RegistryConfig::default();
    config.timeouts.again = Duration::from_micros(10);
    RegistryClient::new(config, Cancel::new()).unwrap()
}

fn image() -> TestImage {
    TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("hello", "world")]])
}

fn name(registry: &FakeRegistry, rest: &str) -> ImageRef {
    format!("{}/{rest}", registry.host()).parse().unwrap()
}

fn push(to: &ImageRef, image: &TestImage) -> Result<(), RegistryError> {
    let client = client();
    for info in image.blob_infos() {
        client.push_blob(to, &info, image, &[], &|_| {})?;
    }
    client.push_manifest(to, &image.image.manifest).map(drop)
}

fn pull(from: &ImageRef) -> Result<(LoadedImage, Vec<Vec<u8>>), RegistryError> {
    let client = client();
    let platform: Platform = "linux/amd64".parse().unwrap();
    let loaded = client.resolve(from, &platform, &|_: &Digest| None)?;
    let mut blobs = Vec::new();
    for layer in &loaded.layers {
        let info = BlobInfo { media_type: layer.media_type.clone(), digest: layer.digest, size: layer.size };
        let mut bytes = Vec::new();
        match client.blob(from, &info, None)?.read_to_end(&mut bytes) {
            Ok(_) => blobs.push(bytes),
            Err(error) => return Err(RegistryError::of(&error).unwrap().clone()),
        }
    }
    Ok((loaded, blobs))
}

/// One break is survived at any byte. Where each connection breaks there, all comes through or an error names the image;
/// never is there another image, and never no end.
fn at_every_byte(access: &Access, run: impl Fn(&FakeRegistry) -> Result<(), RegistryError> + Sync) {
    let registry = FakeRegistry::start();
    registry.access(access.clone());
    registry.cut(Direction::In, 0, 0);
    run(&registry).unwrap();
    let (came, went) = registry.traffic();
    drop(registry);
    assert!(came > 500 && went > 500, "{came} {went}");
    let all: Vec<_> =
        (0..came).map(|n| (Direction::In, n)).chain((0..went).map(|n| (Direction::Out, n))).collect();
    std::thread::scope(|scope| {
        for part in all.chunks(all.len().div_ceil(4)) {
            let run = &run;
            scope.spawn(move || {
                for (direction, byte) in part {
                    let registry = FakeRegistry::start();
                    registry.access(access.clone());
                    registry.cut(*direction, *byte, 1);
                    run(&registry).unwrap_or_else(|error| panic!("{direction:?} {byte}: {error}"));
                    registry.cut(*direction, *byte, usize::MAX);
                    if let Err(error) = run(&registry) {
                        let text = error.to_string();
                        assert!(text.contains(&registry.host()) && text.contains("a/b"), "{text}");
                    }
                }
            });
        }
    });
}

#[test]
fn a_pull_that_is_cut_at_any_byte_is_right_or_an_error() {
    let image = image();
    at_every_byte(&Access::Token(None), |registry| {
        registry.put("a/b", "one", &image);
        let (loaded, blobs) = pull(&name(registry, "a/b:one"))?;
        assert_eq!(loaded.manifest, image.image.manifest);
        assert_eq!(blobs, [image.blobs[&loaded.layers[0].digest].clone()]);
        Ok(())
    });
}

#[test]
fn a_push_that_is_cut_at_any_byte_is_right_or_an_error() {
    let image = image();
    at_every_byte(&Access::Open, |registry| {
        let pushed = push(&name(registry, "a/b:one"), &image);
        match registry.manifest("a/b", "one") {
            Some((_, bytes)) => {
                assert_eq!(bytes, image.image.manifest.bytes);
                for info in image.blob_infos() {
                    assert_eq!(registry.blob("a/b", info.digest).unwrap(), image.blobs[&info.digest]);
                }
            }
            None => assert!(pushed.is_err()),
        }
        pushed
    });
}

#[test]
fn nobodys_clock_matters_to_a_token() {
    let image = image();
    for life in [
        r#""expires_in":300,"issued_at":"1999-01-01T00:00:00Z""#,
        r#""expires_in":300,"issued_at":"2999-01-01T00:00:00Z""#,
        r#""expires_in":0"#,
        r#""expires_in":-1000000"#,
        r#""expires_in":1e300"#,
        r#""expires_in":59.5"#,
        r#""expires_in":null"#,
        r#""issued_at":"soon""#,
    ] {
        let registry = FakeRegistry::start();
        registry.access(Access::Token(None));
        registry.token_life(life);
        push(&name(&registry, "a/b:one"), &image).unwrap_or_else(|error| panic!("{life}: {error}"));
        let tokens = registry.lines().iter().filter(|line| line.contains("/token?")).count();
        assert_eq!(tokens, 1, "{life}");
        pull(&name(&registry, "a/b:one")).unwrap();
    }
}

#[test]
fn storms_end() {
    let image = image();
    for status in [401, 403, 404, 408, 429, 500, 502, 503, 504, 599, 300, 101] {
        let registry = FakeRegistry::start();
        registry.put("a/b", "one", &image);
        let fault = Fault::Status { status, headers: Vec::new(), body: "no".to_owned() };
        registry.fault("/v2/", usize::MAX, fault);
        for error in [pull(&name(&registry, "a/b:one")).map(drop), push(&name(&registry, "a/b:two"), &image)]
        {
            let text = error.unwrap_err().to_string();
            assert!(text.contains(&registry.host()) && text.contains("a/b"), "{status}: {text}");
        }
        let requests = registry.lines().len();
        assert!(requests <= 20, "{status}: {requests}");
    }
}

#[test]
fn a_registry_that_stalls_in_a_push_is_left() {
    let image = image();
    let mut config = RegistryConfig::default();
    // Each is waited out; but one that answers must be heard within it on a busy machine, too.
    config.timeouts.stall = Duration::from_millis(500);
    config.timeouts.connect = Duration::from_millis(1500);
    let client = RegistryClient::new(config, Cancel::new()).unwrap();
    let check = |on: &str| {
        let registry = FakeRegistry::start();
        registry.fault(on, 1, Fault::Mute);
        let to = name(&registry, "a/b:one");
        for info in image.blob_infos() {
            client
                .push_blob(&to, &info, &image, &[], &|_| {})
                .unwrap_or_else(|error| panic!("{on}: {error}"));
        }
        registry.fault(on, 99, Fault::Mute);
        let error = client.push_manifest(&to, &image.image.manifest);
        match on {
            "POST" => drop(error.unwrap()),
            _ => assert!(matches!(error.unwrap_err().root(), RegistryError::Stalled { .. })),
        }
    };
    std::thread::scope(|scope| {
        for on in ["HEAD", "POST", "PUT"] {
            let check = &check;
            scope.spawn(move || check(on));
        }
    });
}
