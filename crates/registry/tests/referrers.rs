//! Manifests about manifests, with and without the registry's help.

use std::collections::BTreeMap;

use kiln_core::{Cancel, Digest, ImageRef};
use kiln_oci::{BlobInfo, Document, MediaTypes, media};
use kiln_registry::{Pushed, Referrer, RegistryClient, RegistryConfig};
use kiln_testkit::image::TestImage;
use kiln_testkit::registry::{FakeRegistry, Fault, Manners};

fn client() -> RegistryClient {
    RegistryClient::new(RegistryConfig::default(), Cancel::new()).unwrap()
}

fn name(registry: &FakeRegistry, rest: &str) -> ImageRef {
    format!("{}/{rest}", registry.host()).parse().unwrap()
}

/// An artifact manifest about a subject, whose blobs are there.
fn artifact(registry: &FakeRegistry, subject: &Document, kind: &str, note: &str) -> Document {
    let empty = registry.put_blob("a", b"{}");
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","artifactType":"{kind}","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{empty}","size":2}},"layers":[],"subject":{{"mediaType":"{}","digest":"{}","size":{}}},"annotations":{{"note":"{note}"}}}}"#,
        media::OCI_MANIFEST,
        subject.media_type,
        subject.digest,
        subject.bytes.len()
    );
    Document::new(media::OCI_MANIFEST, text.into_bytes())
}

fn by_digest(image: &ImageRef, digest: Digest) -> ImageRef {
    ImageRef { tag: None, digest: Some(digest), ..image.clone() }
}

fn expected(document: &Document, kind: &str, note: &str) -> Referrer {
    let info = BlobInfo {
        media_type: media::OCI_MANIFEST.to_owned(),
        digest: document.digest,
        size: document.bytes.len() as u64,
    };
    let annotations = BTreeMap::from([("note".to_owned(), note.to_owned())]);
    Referrer { info, artifact_type: kind.to_owned(), annotations }
}

#[test]
fn what_is_about_an_image_is_found_with_the_list_and_with_the_tag() {
    for page in [Some(10), Some(1), None] {
        let registry = FakeRegistry::start();
        registry.behave(Manners { page, ..Manners::default() });
        let image = TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("a", "b")]]);
        registry.put("a", "one", &image);
        let (client, one) = (client(), name(&registry, "a:one"));
        let subject = &image.image.manifest;
        assert_eq!(client.referrers(&one, &subject.digest, None).unwrap(), []);
        let first = artifact(&registry, subject, "application/x.sbom", "1");
        let second = artifact(&registry, subject, "application/x.signature", "2");
        for document in [&first, &second, &first] {
            let pushed = client.push_manifest(&by_digest(&one, document.digest), document).unwrap();
            assert_eq!(pushed, Pushed::Uploaded { bytes: document.bytes.len() as u64 });
        }
        let mut all = vec![
            expected(&first, "application/x.sbom", "1"),
            expected(&second, "application/x.signature", "2"),
        ];
        let mut found = client.referrers(&one, &subject.digest, None).unwrap();
        all.sort_by_key(|referrer| referrer.info.digest.to_string());
        found.sort_by_key(|referrer| referrer.info.digest.to_string());
        assert_eq!(found, all, "{page:?}");
        let sbom = client.referrers(&one, &subject.digest, Some("application/x.sbom")).unwrap();
        assert_eq!(sbom, [expected(&first, "application/x.sbom", "1")]);
        assert_eq!(
            registry.manifest("a", &format!("sha256-{}", subject.digest.hex())).is_some(),
            page.is_none()
        );
    }
}

#[test]
fn several_that_refer_at_once_are_all_in_the_list() {
    let registry = FakeRegistry::start();
    let image = TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("a", "b")]]);
    registry.put("a", "one", &image);
    let one = name(&registry, "a:one");
    let documents: Vec<_> = (0..3)
        .map(|n| artifact(&registry, &image.image.manifest, "application/x.sbom", &n.to_string()))
        .collect();
    let client = client();
    std::thread::scope(|scope| {
        for document in &documents {
            let (client, one) = (&client, by_digest(&one, document.digest));
            scope.spawn(move || client.push_manifest(&one, document).unwrap());
        }
    });
    let found = client.referrers(&one, &image.image.manifest.digest, None).unwrap();
    assert_eq!(found.len(), 3);
}

/// Two programs that each read the list before the other wrote it: who was overwritten notices, and adds himself again.
#[test]
fn two_programs_that_write_one_list_are_both_in_it() {
    let registry = FakeRegistry::start();
    let image = TestImage::new("linux/amd64", MediaTypes::Oci, &[&[("a", "b")]]);
    registry.put("a", "one", &image);
    let one = name(&registry, "a:one");
    let subject = &image.image.manifest;
    let documents = ["1", "2"].map(|note| artifact(&registry, subject, "application/x.sbom", note));
    let tag = format!("/manifests/sha256-{}", subject.digest.hex());
    // Two manifests, and then nobody has the list, which is not there yet, before both have asked; nor an answer to his PUT.
    registry.fault(format!("GET /v2/a{tag}"), 2, Fault::Await(4));
    registry.fault(format!("PUT /v2/a{tag}"), 2, Fault::Await(6));
    std::thread::scope(|scope| {
        for document in &documents {
            // Another client is another process: it shares no lock.
            let one = by_digest(&one, document.digest);
            scope.spawn(move || client().push_manifest(&one, document).unwrap());
        }
    });
    let mut found = client().referrers(&one, &subject.digest, None).unwrap();
    found.sort_by(|a, b| a.annotations.cmp(&b.annotations));
    let expected = [("1", &documents[0]), ("2", &documents[1])];
    assert_eq!(found, expected.map(|(note, document)| expected_of(document, note)));
}

fn expected_of(document: &Document, note: &str) -> Referrer {
    expected(document, "application/x.sbom", note)
}

#[test]
fn what_is_no_list_is_said() {
    let registry = FakeRegistry::start();
    registry.behave(Manners { page: Some(1), ..Manners::default() });
    let one = name(&registry, "a:one");
    let digest = Digest::of(b"x");
    // A page for people, and then the tag, which is not there.
    let page = Fault::Status { status: 200, headers: Vec::new(), body: "<html>".to_owned() };
    registry.fault("/referrers/", 1, page.clone());
    assert_eq!(client().referrers(&one, &digest, None).unwrap(), []);
    assert_eq!(registry.lines()[1], format!("GET /v2/a/manifests/sha256-{}", digest.hex()));
    registry.fault("/referrers/", 1, Fault::Status { status: 403, headers: Vec::new(), body: String::new() });
    assert!(client().referrers(&one, &digest, None).is_err());
    registry.behave(Manners::default());
    let wrong = Document::new(media::OCI_INDEX, b"[]".to_vec());
    registry.put_manifest("a", &[&format!("sha256-{}", digest.hex())], &wrong);
    let error = client().referrers(&one, &digest, None).unwrap_err().to_string();
    assert!(error.contains("is no list of manifests"), "{error}");
}
