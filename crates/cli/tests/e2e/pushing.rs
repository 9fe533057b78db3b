//! Pushes that go on beside a build, are ended in the middle, or take along what is about an image.

use std::net::TcpListener;

use kiln_core::Digest;
use kiln_oci::{Document, MediaTypes, media};
use kiln_testkit::debian_registry::DebianRegistry;
use kiln_testkit::image::TestImage;
use kiln_testkit::registry::{FakeRegistry, Fault, Manners};
use kiln_testkit::tools::tool;
use rustix::process::Signal;
use serde_json::Value;

use crate::place::{Place, Ran, Running};
use crate::user::{User, for_each_user};

const TWO: &str = "RUN echo one > /one\nRUN echo two > /two\n";

/// Builds `demo:1`; returns the place and the digests of its layers.
fn built(user: User) -> (Place, Vec<String>) {
    let place = Place::with(user, TWO);
    place.build(&["-t", "demo:1"]).ok();
    let raw: Value =
        serde_json::from_str(&place.kiln(&["inspect", "--raw", "demo:1"]).ok().out()).expect("JSON");
    let layers = raw["layers"].as_array().expect("a list");
    let digests = layers.iter().map(|layer| layer["digest"].as_str().expect("a digest").to_owned()).collect();
    (place, digests)
}

/// Collects what is asked of a registry until all of these words were in some line.
fn asked_until(registry: &FakeRegistry, words: &[&str], running: &mut Running) -> Vec<String> {
    let mut asked: Vec<String> = Vec::new();
    while !words.iter().all(|words| asked.iter().any(|line| line.contains(words))) {
        assert!(!running.ended(), "it ended without {words:?}: {asked:#?}");
        asked.extend(registry.lines());
        std::thread::yield_now();
    }
    asked
}

fn ending_of(digest: &str) -> String {
    format!("digest={}", digest.replace(':', "%3A"))
}

#[test]
fn a_layer_is_pushed_while_the_next_step_runs() {
    for_each_user(|user| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let place = Place::with(
            user,
            &format!("RUN echo one > /one\nRUN busybox nc 127.0.0.1 {port} < /dev/null; echo two > /two\n"),
        );
        let registry = FakeRegistry::start();
        let names = ["a", "b"].map(|name| format!("{}/{name}:1", registry.host()));
        let mut running = place.start(&["--push", "-t", &names[0], "-t", &names[1]]);
        // The last step runs, and does not end before this is closed.
        let (connection, _) = listener.accept().expect("the step connects");
        let words = ["PUT /v2/a/blobs/uploads/", "POST /v2/b/blobs/uploads/?mount="];
        let mut asked = asked_until(&registry, &words, &mut running);
        drop(connection);
        let ran = running.wait().ok();
        asked.extend(registry.lines());
        // Nothing was asked twice, and the second repository had it from the first.
        let mut heads: Vec<&String> = asked.iter().filter(|line| line.starts_with("HEAD")).collect();
        let all = heads.len();
        heads.sort();
        heads.dedup();
        assert_eq!(heads.len(), all, "{asked:#?}\n{ran}");
        assert!(!asked.iter().any(|line| line.starts_with("PUT /v2/b/blobs")), "{asked:#?}");
        assert!(ran.stderr.contains("pushing layers"), "{ran}");
        assert_eq!(
            registry.manifest("a", "1").map(|found| found.1),
            registry.manifest("b", "1").map(|found| found.1)
        );
        // With nothing to do the root alone is asked for, by each name.
        place.dockerfile(&place.read("context/Dockerfile"));
        place.build(&["--push", "-t", &names[0], "-t", &names[1]]).ok();
        assert_eq!(registry.lines(), ["HEAD /v2/a/manifests/1", "HEAD /v2/b/manifests/1"]);
        place.fsck();
    });
}

#[test]
fn a_registry_that_fails_meanwhile_fails_no_build_that_it_serves_in_the_end() {
    for_each_user(|user| {
        let place = Place::with(user, TWO);
        let registry = FakeRegistry::start();
        let denied = Fault::Status { status: 403, headers: Vec::new(), body: String::new() };
        registry.fault("POST /v2/a/blobs/uploads/", 1, denied);
        let name = format!("{}/a:1", registry.host());
        let digest = place.build(&["--push", "-t", &name]).ok().digest();
        let found = registry.manifest("a", "1").map(|(_, bytes)| Digest::of(&bytes).to_string());
        assert_eq!(found, Some(digest));
    });
}

#[test]
fn an_image_that_is_too_large_is_pushed_nowhere() {
    for_each_user(|user| {
        let place = Place::with(user, TWO);
        let registry = FakeRegistry::start();
        let name = format!("{}/a:1", registry.host());
        place.build(&["--push", "-t", &name, "--max-image-size=1k"]).code(1);
        assert_eq!(registry.lines(), [] as [String; 0]);
    });
}

#[test]
fn a_push_that_was_killed_goes_on_with_what_had_not_arrived() {
    for_each_user(|user| {
        let (place, layers) = built(user);
        let registry = FakeRegistry::start();
        // The last layer arrives, and the answer never: by then the others may be there, or not.
        registry.fault(ending_of(&layers[2]), 1, Fault::Mute);
        let name = format!("{}/demo:1", registry.host());
        let mut running = place.spawn(&mut place.command(&["push", "demo:1", &name]));
        let first = layers[1].parse().expect("a digest");
        while registry.blob("demo", first).is_none() {
            assert!(!running.ended(), "it did not wait");
            std::thread::yield_now();
        }
        asked_until(&registry, &[&ending_of(&layers[2])], &mut running);
        running.signal(Signal::KILL);
        drop(running);
        assert!(registry.manifest("demo", "1").is_none());
        registry.lines();
        let digest = place.kiln(&["push", "demo:1", &name]).ok().out();
        let asked = registry.lines();
        assert!(asked.contains(&format!("HEAD /v2/demo/blobs/{first}")), "{asked:#?}");
        assert!(!asked.iter().any(|line| line.contains(&ending_of(&layers[1]))), "{asked:#?}");
        let found = registry.manifest("demo", "1").map(|(_, bytes)| Digest::of(&bytes).to_string());
        assert_eq!(found.as_deref(), Some(digest.trim()));
        place.fsck();
        assert!(place.half_made().is_empty());
    });
}

#[test]
fn an_interrupt_ends_a_push_and_a_pull_in_the_middle() {
    for_each_user(|user| {
        let (place, layers) = built(user);
        let registry = FakeRegistry::start();
        let name = format!("{}/demo:1", registry.host());
        registry.fault(ending_of(&layers[2]), 1, Fault::Mute);
        let mut running = place.spawn(&mut place.command(&["push", "demo:1", &name]));
        asked_until(&registry, &[&ending_of(&layers[2])], &mut running);
        running.signal(Signal::INT);
        running.wait().code(130);
        assert!(registry.manifest("demo", "1").is_none());
        place.kiln(&["push", "demo:1", &name]).ok();
        // The other way.
        registry.lines();
        registry.fault(format!("GET /v2/demo/blobs/{}", layers[0]), 1, Fault::Hang(10));
        let pull = |store: &str| place.command_on(store, &["pull", &name]);
        let mut running = place.spawn(&mut pull("other"));
        asked_until(&registry, &[&format!("GET /v2/demo/blobs/{}", layers[0])], &mut running);
        running.signal(Signal::INT);
        running.wait().code(130);
        let images = Ran::of(&mut place.command_on("other", &["images", "-qa"])).ok();
        assert_eq!(images.out(), "");
        let half_made = std::fs::read_dir(place.path("other/tmp")).map_or(0, Iterator::count);
        assert_eq!(half_made, 0);
        Ran::of(&mut pull("other")).ok();
        let ran =
            Ran::of(&mut place.command_on("other", &["run", "--rm", &name, "cat", "/one", "/two"])).ok();
        assert_eq!(ran.out(), "one\ntwo\n");
        place.is_quiet();
    });
}

/// NO_PROXY takes addresses with a mask, as curl and Go read it. What is called localhost is never asked for through a proxy, so
/// this machine gets a name that nobody calls so.
#[test]
fn a_proxy_is_passed_by_for_a_range_of_addresses() {
    for_each_user(|user| {
        let (place, _) = built(user);
        let Some(registry) = DebianRegistry::start(None) else { return };
        let host = format!("0.0.0.0:{}", registry.port());
        let push = |no_proxy: &str| {
            let name = format!("{host}/demo:1");
            let mut command = place.command(&["push", "--insecure-registry", &host, "demo:1", &name]);
            for scheme in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"] {
                command.env(scheme, "http://127.0.0.1:1");
            }
            Ran::of(command.env("NO_PROXY", no_proxy))
        };
        push("10.0.0.0/8,example.org").code(4);
        push("10.0.0.0/8, 0.0.0.0/8").ok();
    });
}

/// An image whose configuration says that its layer is another one.
fn lying() -> TestImage {
    let mut image = TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("etc/one", "one")]]);
    let right = image.image.layers[0].diff_id;
    let text = String::from_utf8(image.image.config.bytes.clone()).expect("JSON is text");
    let text = text.replace(&right.hex(), &Digest::of(b"another").hex());
    let config = Document::new(media::OCI_CONFIG, text.into_bytes());
    let manifest = kiln_oci::manifest(&config, &image.image.layers);
    image = image.with(&config).with(&manifest);
    (image.image.config, image.image.manifest) = (config, manifest);
    image
}

#[test]
fn a_configuration_with_other_diff_ids_is_found_out_wherever_files_are_needed() {
    for_each_user(|user| {
        let (registry, image) = (FakeRegistry::start(), lying());
        registry.put("team/lying", "1", &image);
        let name = format!("{}/team/lying:1", registry.host());
        let (right, wrong) = (image.image.layers[0].diff_id.to_string(), Digest::of(b"another").to_string());
        let manifest = image.image.manifest.digest.to_string();
        let place = Place::new(user);
        place.dockerfile(&format!("FROM {name}\nCOPY bin /bin\nRUN true\n"));
        place.build(&[]).code(4).says(&[&name, &manifest, &wrong, &right]);
        // Taken in as it is, by its digests; and then of no use.
        place.kiln(&["pull", &name]).ok();
        place.kiln(&["run", "--rm", &name, "/bin/sh"]).code(125).says(&[&wrong, &right]);
        place.kiln(&["save", "--format=oci-archive", "-o", "lying.tar", &name]).ok();
        Ran::of(&mut place.command_on("other", &["load", "-i", "lying.tar"])).code(2).says(&[
            "lying.tar, blob sha256:",
            &wrong,
            &right,
        ]);
        place.kiln(&["layers", &name]).code(4).says(&[&wrong, &right]);
        place.fsck();
    });
}

/// An artifact about a manifest, of one small blob.
fn about(registry: &FakeRegistry, subject: &Document, kind: &str) -> Document {
    let empty = registry.put_blob("app", b"{}");
    let content = registry.put_blob("app", kind.as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media::OCI_MANIFEST,
        "artifactType": kind,
        "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2 },
        "layers": [{ "mediaType": "text/plain", "digest": content, "size": kind.len() }],
        "subject": { "mediaType": subject.media_type, "digest": subject.digest, "size": subject.bytes.len() },
    });
    Document::new(media::OCI_MANIFEST, manifest.to_string().into_bytes())
}

/// The tag under which a registry without a list has what is about this one's subject.
fn tag_of(document: &Document) -> String {
    let subject = kiln_oci::subject(document).expect("JSON").expect("it has one");
    format!("sha256-{}", subject.hex())
}

fn list_of(document: &Document) -> Document {
    let entry = serde_json::json!({
        "mediaType": media::OCI_MANIFEST, "digest": document.digest, "size": document.bytes.len(),
    });
    let list = serde_json::json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [entry] });
    Document::new(media::OCI_INDEX, list.to_string().into_bytes())
}

#[test]
fn what_is_about_an_image_goes_where_it_goes() {
    for_each_user(|user| {
        for page in [Some(10), None] {
            let place = Place::new(user);
            let registry = FakeRegistry::start();
            registry.behave(Manners { page, ..Manners::default() });
            let image = TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("a", "b")]]);
            registry.put("app", "1", &image);
            let sbom = about(&registry, &image.image.manifest, "application/x.sbom");
            let signature = about(&registry, &sbom, "application/x.signature");
            for document in [&sbom, &signature] {
                registry.put_manifest("app", &[], document);
                if page.is_none() {
                    registry.put_manifest("app", &[&tag_of(document)], &list_of(document));
                }
            }
            let at = |name: &str| format!("docker://{}/{name}", registry.host());
            let copy = |from: &str, to: &str| place.kiln(&["copy", "--referrers", from, to]).ok().out();
            // From registry to registry, into a layout, an archive, and back.
            let digest = copy(&at("app:1"), &at("other:1"));
            copy(&at("app:1"), "oci:layout:1");
            copy("oci:layout:1", "oci-archive:all.tar");
            copy("oci-archive:all.tar", &at("back:1"));
            for repository in ["other", "back"] {
                for document in [&sbom, &signature] {
                    let found = registry.manifest(repository, &document.digest.to_string());
                    assert_eq!(
                        found.map(|found| found.1).as_deref(),
                        Some(&document.bytes[..]),
                        "{repository}"
                    );
                    // A registry with a list of its own makes it of what it has.
                    if page.is_none() {
                        let (_, list) = registry.manifest(repository, &tag_of(document)).expect("a list");
                        assert!(String::from_utf8_lossy(&list).contains(&document.digest.to_string()));
                    }
                }
            }
            // Without the flag the image alone goes, and what is about it is no image of the layout.
            assert_eq!(place.kiln(&["copy", "oci:layout", "only:1"]).ok().out(), digest);
            place.kiln(&["copy", &at("app:1"), &at("alone:1")]).ok();
            assert!(registry.manifest("alone", &sbom.digest.to_string()).is_none());
            place
                .kiln(&["copy", "--referrers", &at("app:1"), "kept:1"])
                .code(2)
                .says(&["nothing about an image is kept"]);
            place.fsck();
        }
    });
}

/// Debian's registry checks what an index names; skopeo reads it as others would.
#[test]
fn attestations_are_pushed_with_their_image() {
    for_each_user(|user| {
        let Some(registry) = DebianRegistry::start(None) else { return };
        let place = Place::with(user, TWO);
        let name = format!("127.0.0.1:{}/demo:1", registry.port());
        let digest = place.build(&["--push", "--provenance=true", "--sbom=true", "-t", &name]).ok().digest();
        let other = |args: &[&str]| Ran::of(&mut place.command_on("other", args)).ok().out();
        assert_eq!(other(&["pull", "-q", "--all-platforms", &name]).trim(), digest);
        let raw: Value = serde_json::from_str(&other(&["inspect", "--raw", &name])).expect("JSON");
        let entries = raw["manifests"].as_array().expect("a list");
        assert_eq!(entries.len(), 2, "{raw}");
        assert_eq!(entries[1]["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
        assert_eq!(entries[1]["annotations"]["vnd.docker.reference.digest"], entries[0]["digest"]);
        assert_eq!(other(&["run", "--rm", &name, "cat", "/two"]), "two\n");
        // Again: one question.
        assert_eq!(
            place.build(&["--push", "--provenance=true", "--sbom=true", "-t", &name]).ok().count("CACHED"),
            3
        );
        if tool("skopeo").is_none() {
            return;
        }
        let at = format!("docker://{name}");
        let mut skopeo = place.as_user("skopeo", "store", &["inspect", "--raw", "--tls-verify=false", &at]);
        let ran = Ran::of(skopeo.env("XDG_RUNTIME_DIR", place.path("home"))).ok();
        assert_eq!(Digest::of(&ran.stdout).to_string(), digest);
    });
}
