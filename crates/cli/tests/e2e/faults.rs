//! Registries that fail, as a user sees them: each failure is said with registry, repository and digest or tag, nothing wrong is
//! kept, and what came whole is not fetched again. That every one of them ends, at whichever byte, is the business of
//! `crates/registry/tests/`.

use kiln_core::Digest;
use kiln_oci::{Document, MediaTypes, media};
use kiln_testkit::image::{TestImage, tar_of};
use kiln_testkit::registry::{FakeRegistry, Fault};
use serde_json::json;

use crate::place::{Place, Ran};
use crate::user::{User, users};

/// How often something goes wrong that does so always.
const ALWAYS: usize = 1000;

fn image() -> TestImage {
    TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("one", "one")], &[("two", "two")]])
}

/// What is said depends on nobody's ids: one user will do, the one that most have.
fn user() -> User {
    *users().iter().find(|user| **user == User::Sub).unwrap_or(&users()[0])
}

fn status(status: u16, headers: &[&str], body: &str) -> Fault {
    let headers = headers.iter().map(|line| (*line).to_owned()).collect();
    Fault::Status { status, headers, body: body.to_owned() }
}

/// Compares what was said; all rows are looked at before a test fails.
fn missing(ran: &Ran, what: &str, words: &[&str]) -> Vec<String> {
    let mut wrong: Vec<String> = Vec::new();
    if ran.code != Some(4) {
        wrong.push(format!("{what}: exit {:?}", ran.code));
    }
    let lacks = words.iter().filter(|word| !ran.stderr.contains(**word));
    wrong.extend(lacks.map(|word| format!("{what}: no {word:?} in {}", ran.stderr)));
    wrong
}

/// A way to fail: requests that go wrong, how, and what is said besides the image's name.
type Row<'a> = (&'a str, String, Fault, &'a [&'a str]);

#[test]
fn a_pull_that_fails_says_of_what_and_goes_on_with_what_came_whole() {
    let image = image();
    let (blob, other) = (image.image.layers[0].digest, image.image.layers[1].digest);
    let config = image.image.config.digest;
    let layer = |fault: Fault, says: &'static [&'static str]| -> Row<'static> {
        ("a layer", format!("GET /v2/team/app/blobs/{blob}"), fault, says)
    };
    let tag = |fault: Fault, says: &'static [&'static str]| -> Row<'static> {
        ("a tag", "/v2/team/app/manifests/1".to_owned(), fault, says)
    };
    let manifest = |fault: Fault, says: &'static [&'static str]| -> Row<'static> {
        ("a manifest", format!("GET /v2/team/app/manifests/{}", image.image.manifest.digest), fault, says)
    };
    let rows = [
        layer(Fault::Shorten(20), &["sends 20 bytes for", "which has"]),
        layer(Fault::Cut(0), &["broke off", "after 0 of", "bytes: "]),
        layer(Fault::Corrupt, &["sends wrong bytes for", "their digest is"]),
        layer(Fault::Endless, &["bytes for", "which has"]),
        layer(Fault::NoAnswer, &["cannot be reached: ", "closed"]),
        layer(status(401, &[], ""), &["denies access", "does not exist, or needs other credentials"]),
        layer(
            status(403, &[], "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"not yours\"}]}"),
            &["denies access", "not yours"],
        ),
        layer(status(404, &[], ""), &["has no team/app@sha256:"]),
        layer(status(429, &["Retry-After: 0"], ""), &["limits the rate of requests"]),
        layer(
            status(429, &["Retry-After: 3600"], ""),
            &["limits the rate of requests", "it answers again in 3600 s"],
        ),
        layer(status(500, &[], "<html>oops</html>"), &["answers 500"]),
        layer(status(503, &["Retry-After: 3600"], ""), &["answers 503"]),
        layer(status(307, &[&format!("Location: /v2/team/app/blobs/{blob}")], ""), &["redirect"]),
        layer(status(302, &[], ""), &["answers 302"]),
        layer(status(307, &["Location: http://127.0.0.1:1/x"], ""), &["cannot be reached"]),
        tag(status(401, &[], ""), &["denies access"]),
        tag(status(404, &[], ""), &["has no team/app:1"]),
        tag(status(502, &[], ""), &["answers 502"]),
        tag(status(429, &["Retry-After: 3600"], ""), &["limits the rate of requests", "3600 s"]),
        tag(status(301, &["Location: /v2/team/app/manifests/1"], ""), &["redirect"]),
        (
            "a portal",
            "/v2/team/app/manifests/".to_owned(),
            status(200, &["Content-Type: text/html"], "<html>log in to the hotel</html>"),
            &["cannot be read"],
        ),
        manifest(Fault::Corrupt, &["sends wrong bytes for", "their digest is"]),
        manifest(Fault::Endless, &["sends more than 8388608 bytes for"]),
        manifest(Fault::Cut(10), &["cannot be reached"]),
        manifest(status(404, &[], ""), &["has no team/app@sha256:"]),
    ];
    let place = Place::new(user());
    let mut wrong = Vec::new();
    for (at, (what, on, fault, says)) in rows.into_iter().enumerate() {
        let registry = FakeRegistry::start();
        registry.put("team/app", "1", &image);
        registry.fault(on, ALWAYS, fault.clone());
        let name = format!("{}/team/app", registry.host());
        let on = |args: &[&str]| Ran::of(&mut place.command_on(&format!("store-{at}"), args));
        let subject = match what {
            // Of what is not there it is said who has none of it.
            _ if says[0].starts_with("has no") || (what == "a tag" && says[0].starts_with("denies")) => {
                registry.host()
            }
            "a layer" => format!("{name}@{blob}"),
            "a manifest" => format!("{name}@{}", image.image.manifest.digest),
            _ => format!("{name}:1"),
        };
        let ran = on(&["pull", "-q", &format!("{name}:1")]);
        wrong.extend(missing(
            &ran,
            &format!("{what}, {fault:?}"),
            &[says, &[subject.as_str(), "team/app"]].concat(),
        ));
        assert_eq!(on(&["images", "-q"]).ok().out(), "", "{fault:?}");
        registry.heal();
        let first = registry.lines();
        on(&["pull", "-q", &format!("{name}:1")]).ok();
        let second = registry.lines();
        // The others may not have been begun when this one failed; those that were have come whole.
        for digest in [other, config].map(|digest| digest.to_string()) {
            let asked = |lines: &[String]| lines.iter().any(|line| line.ends_with(&digest));
            assert_ne!(asked(&first), asked(&second), "{fault:?}: {first:#?} {second:#?}");
        }
        on(&["debug", "fsck"]).ok();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Documents that are what their digests say, and no image all the same.
#[test]
fn documents_that_are_no_image_are_refused_with_their_name() {
    let image = image();
    let config = json!({
        "mediaType": media::OCI_CONFIG, "digest": image.image.config.digest, "size": image.image.config.bytes.len(),
    });
    let layers: Vec<_> = image
        .image
        .layers
        .iter()
        .map(|layer| json!({ "mediaType": layer.media_type, "digest": layer.digest, "size": layer.size }))
        .collect();
    let manifest = |config: &serde_json::Value, layers: &[serde_json::Value]| json!({ "schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "config": config, "layers": layers });
    let sized = |of: &serde_json::Value, size: serde_json::Value| {
        let mut of = of.clone();
        of["size"] = size;
        of
    };
    let entry = |platform: &str, size: u64| {
        json!({
            "mediaType": media::OCI_MANIFEST, "digest": image.image.manifest.digest, "size": size,
            "platform": { "os": "linux", "architecture": platform },
        })
    };
    let index = |entries: &[serde_json::Value]| json!({ "schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": entries });
    let another = tar_of(&[("another", "another")]);
    let plain = json!({
        "mediaType": media::OCI_LAYER, "digest": Digest::of(&another), "size": another.len(),
    });
    let rows: [(serde_json::Value, &[&str]); 13] = [
        (
            index(&[entry("arm64", 7), entry("s390x", 7)]),
            &["there is no image for linux/amd64; there is linux/arm64, linux/s390x"],
        ),
        (index(&[]), &["there is no image for linux/amd64; there is nothing"]),
        (index(&[entry("amd64", 1 << 40)]), &["is said to have 1099511627776 bytes"]),
        (index(&[entry("amd64", 7)]), &["bytes"]),
        (manifest(&sized(&config, json!(1_u64 << 40)), &layers), &["1099511627776"]),
        (
            manifest(&config, &[sized(&layers[0], json!(1_u64 << 62)), layers[1].clone()]),
            &["bytes for sha256:", "which has 4611686018427387904"],
        ),
        (manifest(&config, &[sized(&layers[0], json!(-1)), layers[1].clone()]), &["cannot be read"]),
        (manifest(&config, &[sized(&layers[0], json!(1e300)), layers[1].clone()]), &["cannot be read"]),
        (manifest(&config, &layers[..1]), &["the manifest has 1 layers, its configuration 2"]),
        (manifest(&config, &[plain, layers[1].clone()]), &["has other contents than its image says"]),
        (json!({ "schemaVersion": 1, "name": "x", "fsLayers": [], "history": [] }), &["schema 1"]),
        (json!({}), &["cannot be read"]),
        (json!([1]), &["cannot be read"]),
    ];
    let place = Place::new(user());
    let mut wrong = Vec::new();
    for (at, (document, says)) in rows.into_iter().enumerate() {
        let registry = FakeRegistry::start();
        registry.put("team/app", "1", &image);
        let media_type = document["mediaType"].as_str().unwrap_or_default().to_owned();
        let document = Document::new(media_type, document.to_string().into_bytes());
        registry.put_manifest("team/app", &["1"], &document);
        registry.put_blob("team/app", &another);
        let subject = format!("{}/team/app", registry.host());
        let name = format!("{subject}:1");
        let document = String::from_utf8(document.bytes).expect("JSON is text");
        let on = |args: &[&str]| Ran::of(&mut place.command_on(&format!("store-{at}"), args));
        let named = [subject.as_str(), "sha256:"];
        let words = [says, &named].concat();
        wrong.extend(missing(&on(&["pull", "-q", &name]), &format!("pull of {document}"), &words));
        assert_eq!(on(&["images", "-q"]).ok().out(), "", "{document}");
        place.dockerfile(&format!("FROM {name}\nRUN true\n"));
        let ran = Ran::of(&mut place.build_command(&format!("store-{at}"), &[]));
        wrong.extend(missing(&ran, &format!("build on {document}"), &named));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_push_that_fails_says_of_what_and_goes_on_with_what_came_whole() {
    let image = image();
    let digest = image.image.layers[0].digest;
    let begin = || "POST /v2/team/app/blobs/uploads/".to_owned();
    let put = || "PUT /v2/team/app/blobs/uploads/".to_owned();
    let tag = || "PUT /v2/team/app/manifests/".to_owned();
    let rows: [Row<'_>; 17] = [
        ("blob", format!("HEAD /v2/team/app/blobs/{digest}"), status(500, &[], ""), &["answers 500"]),
        ("blob", begin(), status(401, &[], ""), &["denies pushing to team/app"]),
        (
            "blob",
            begin(),
            status(403, &[], "{\"errors\":[{\"code\":\"DENIED\",\"message\":\"not yours\"}]}"),
            &["denies pushing to team/app", "not yours"],
        ),
        ("blob", begin(), status(404, &[], ""), &["has no team/app"]),
        (
            "blob",
            begin(),
            status(429, &["Retry-After: 3600"], ""),
            &["limits the rate of requests", "3600 s"],
        ),
        ("blob", begin(), status(503, &[], ""), &["answers 503"]),
        ("blob", begin(), status(202, &[], ""), &["answers wrongly"]),
        (
            "blob",
            begin(),
            status(307, &["Location: /v2/team/app/blobs/uploads/"], ""),
            &["too many redirects"],
        ),
        ("blob", put(), status(500, &[], ""), &["answers 500"]),
        ("blob", put(), status(413, &[], ""), &["answers 413"]),
        (
            "blob",
            put(),
            status(400, &[], "{\"errors\":[{\"code\":\"DIGEST_INVALID\",\"message\":\"no\"}]}"),
            &["answers 400", "DIGEST_INVALID"],
        ),
        ("blob", put(), Fault::Drop(7), &["cannot be reached"]),
        (
            "tag",
            tag(),
            status(400, &[], "{\"errors\":[{\"code\":\"MANIFEST_INVALID\",\"message\":\"no\"}]}"),
            &["answers 400", "MANIFEST_INVALID"],
        ),
        ("tag", tag(), status(500, &[], ""), &["answers 500"]),
        ("tag", tag(), status(403, &[], ""), &["denies pushing to team/app"]),
        ("tag", tag(), Fault::Drop(7), &["cannot be reached"]),
        ("tag", "/v2/team/app/manifests/1".to_owned(), status(401, &[], ""), &["denies"]),
    ];
    let place = Place::new(user());
    let from = FakeRegistry::start();
    from.put("team/app", "1", &image);
    let name = format!("{}/team/app:1", from.host());
    place.kiln(&["pull", "-q", &name]).ok();
    let mut wrong = Vec::new();
    for (what, on, fault, says) in rows {
        let registry = FakeRegistry::start();
        registry.fault(on, ALWAYS, fault.clone());
        let host = registry.host();
        let to = format!("docker://{host}/team/app:1");
        let ran = place.kiln(&["push", "-q", &name, &to]);
        // Who may not write there may not write anything.
        let digest = if what == "blob" && says[0].starts_with("answers") { "sha256:" } else { "team/app" };
        let words = [says, &[host.as_str(), "team/app", digest]].concat();
        wrong.extend(missing(&ran, &format!("push, {what}, {fault:?}"), &words));
        assert!(
            registry.manifest("team/app", "1").is_none() || matches!(fault, Fault::NoAnswer),
            "{fault:?}"
        );
        registry.heal();
        registry.lines();
        place.kiln(&["push", "-q", &name, &to]).ok();
        let uploads = registry.lines().iter().filter(|line| line.starts_with("POST")).count();
        assert!(what == "blob" || uploads == 0, "{fault:?}: {uploads} blobs were sent again");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
