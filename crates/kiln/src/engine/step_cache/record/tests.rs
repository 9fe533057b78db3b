use std::sync::Arc;

use kiln_core::{Digest, Layer};
use kiln_oci::{Document, media};
use kiln_solver::{KeyPart, KeyParts};

use super::super::list::{list, read_list};
use super::{Entry, Facts, Packing, StepLayer, without_values};

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn layer(name: &str) -> StepLayer {
    let layer = Layer {
        media_type: media::OCI_LAYER_GZIP.to_owned(),
        digest: digest(name),
        size: 10,
        diff_id: digest(&format!("{name} tar")),
        annotations: [("a".to_owned(), name.to_owned())].into(),
    };
    StepLayer { layer, packing: "packer 1".to_owned() }
}

fn entry(key: &str, layers: &[&str]) -> Entry {
    let layers: Vec<StepLayer> = layers.iter().map(|name| layer(name)).collect();
    let packing =
        |layer: &StepLayer| Packing { diff_id: layer.layer.diff_id, packing: layer.packing.clone() };
    let facts = Facts {
        version: 1,
        key: digest(key),
        definitions: vec![digest(&format!("{key} as defined"))],
        title: "[1/2] RUN \u{1b}[31m".to_owned(),
        created: 5,
        duration_us: 7,
        layers: layers.iter().map(packing).collect(),
        parts: None,
        line: None,
    };
    Entry::new(facts, layers)
}

fn changed(entry: &Entry, change: impl Fn(&str) -> String) -> Document {
    let manifest = entry.manifest.as_ref().unwrap();
    let text = change(std::str::from_utf8(&manifest.bytes).unwrap());
    assert_ne!(text.as_bytes(), manifest.bytes, "nothing was changed");
    Document::new(media::OCI_MANIFEST, text.into_bytes())
}

#[test]
fn a_record_comes_back_as_it_was() {
    for layers in [&[][..], &["a"], &["a", "b", "c"]] {
        let made = entry("key", layers);
        let manifest = made.manifest.clone().unwrap();
        assert_eq!(Entry::read(manifest.clone()), Ok(made.clone()));
        assert_eq!(entry("key", layers).manifest, Some(manifest), "equal records are equal bytes");
        assert_eq!(made.blobs().len(), layers.len() + 1, "its layers, and the empty configuration");
    }
}

#[test]
fn a_record_answers_for_its_key_and_its_definitions_alone() {
    let made = entry("key", &["a"]);
    assert!(made.answers(&digest("key")) && made.answers(&digest("key as defined")));
    assert!(!made.answers(&digest("other")));
}

#[test]
fn a_record_that_cannot_be_right_is_refused_with_the_reason() {
    let made = entry("key", &["a", "b"]);
    let cases: [(&str, Document, &str); 6] = [
        ("not json", Document::new("", b"what".to_vec()), "no record"),
        ("an image", changed(&made, |text| text.replace(super::STEP, "application/x")), "no record, but"),
        ("a new version", changed(&made, |text| text.replace("version\\\":1", "version\\\":2")), "version 2"),
        (
            "a foreign layer",
            changed(&made, |text| text.replace(media::OCI_LAYER_GZIP, "application/x")),
            "a layer is",
        ),
        (
            "a layer less",
            changed(&made, |text| {
                let blob = format!("\"digest\":\"{}\"", digest("a"));
                let start = text[..text.find(&blob).unwrap()].rfind('{').unwrap();
                let end = start + text[start..].find("},").unwrap() + 2;
                format!("{}{}", &text[..start], &text[end..])
            }),
            "1 layers, and speaks of 2",
        ),
        (
            "a negative size",
            changed(&made, |text| text.replacen("\"size\":10", "\"size\":-1", 1)),
            "no record",
        ),
    ];
    for (name, document, part) in cases {
        let reason = Entry::read(document).unwrap_err();
        assert!(reason.contains(part), "{name}: {reason}");
    }
}

#[test]
fn a_list_has_each_record_once_and_damaged_ones_not_at_all() {
    let (one, two) = (Arc::new(entry("one", &["a"])), Arc::new(entry("two", &["a", "b"])));
    let document = list(&[one.clone(), two.clone(), one.clone()], None);
    let read_list = |document: &Document| read_list(document).map(|list| list.entries);
    assert_eq!(read_list(&document), Some(vec![one.clone(), two.clone()]));
    let digest = one.manifest.as_ref().unwrap().digest.to_string();
    let other = Digest::of(b"other").to_string();
    let text = String::from_utf8(document.bytes.clone()).unwrap().replace(&digest, &other);
    let damaged = Document::new(media::OCI_INDEX, text.into_bytes());
    assert_eq!(read_list(&damaged), Some(vec![two.clone()]), "bytes that are not those of the digest");
    assert_eq!(read_list(one.manifest.as_ref().unwrap()), None, "a record is no list");
    let index =
        br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    assert_eq!(read_list(&Document::new(media::OCI_INDEX, index.to_vec())), None, "an image's index is none");
}

#[test]
fn values_of_variables_do_not_leave_the_machine() {
    let part = |name: &str, value: &str| KeyPart { name: name.to_owned(), value: value.to_owned() };
    let parts = KeyParts(vec![
        part("arg 1", "make"),
        part("env TOKEN", "s3cret"),
        part("env order", "TOKEN"),
        part("env PATH", "/bin"),
    ]);
    let told = without_values(parts);
    assert_eq!(told.get("arg 1"), Some("make"));
    assert_eq!(told.get("env order"), Some("TOKEN"));
    assert_eq!(told.get("env TOKEN"), Some(Digest::of(b"s3cret").to_string().as_str()));
    assert!(!serde_json::to_string(&told).unwrap().contains("s3cret"));
}
