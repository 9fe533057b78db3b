//! In-toto statements (<https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>).

use kiln_core::{Digest, ImageRef, Platform};
use kiln_sbom::Purl;
use serde_json::{Value, json};

/// What a statement is about: what it is called, and its bytes.
pub(super) type StatedOf = (String, Digest);

/// Predicate types.
pub(super) const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
pub(super) const SPDX: &str = "https://spdx.dev/Document";

/// Makes a statement. Equal arguments give equal bytes.
pub(super) fn statement(predicate_type: &str, subjects: &[StatedOf], predicate: &Value) -> Vec<u8> {
    let subject = |(name, digest): &StatedOf| json!({"name": name, "digest": {"sha256": digest.hex()}});
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "predicateType": predicate_type,
        "subject": subjects.iter().map(subject).collect::<Vec<_>>(),
        "predicate": predicate,
    });
    format!("{statement:#}").into_bytes()
}

/// Returns an image as subjects: once for each name, and as BuildKit calls it if it has none.
pub(super) fn image(names: &[ImageRef], platform: &Platform, digest: Digest) -> Vec<StatedOf> {
    match names {
        [] => vec![("_".to_owned(), digest)],
        names => names.iter().map(|name| (purl(name, platform), digest)).collect(),
    }
}

/// Returns an image's package URL, as BuildKit makes it:
/// <https://github.com/moby/buildkit/blob/master/util/purl/image.go>.
pub(super) fn purl(name: &ImageRef, platform: &Platform) -> String {
    let plain = ImageRef { tag: None, digest: None, ..name.clone() };
    let familiar = plain.familiar();
    let (namespace, last) = familiar.rsplit_once('/').unwrap_or(("", &familiar));
    let tag = match (&name.tag, &name.digest) {
        (Some(tag), _) => tag,
        (None, None) => "latest",
        (None, Some(_)) => "",
    };
    Purl::new("docker")
        .namespace(namespace)
        .name(last)
        .version(tag)
        .qualifier("digest", name.digest.map(|digest| digest.to_string()).as_deref())
        .qualifier("platform", Some(&platform.to_string()))
        .to_string()
}
