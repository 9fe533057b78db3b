//! The SPDX document of an inventory, and what holds for any bytes.

use std::collections::BTreeSet;

use kiln_core::Digest;
use kiln_sbom::{MemoryTree, Subject, inventory, rfc3339, spdx};
use proptest::prelude::*;
use serde_json::{Value, json};

fn some() -> MemoryTree {
    let mut tree = MemoryTree::default();
    tree.add(
        "etc/os-release",
        "ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian 12\"\nHOME_URL=https://www.debian.org/\n",
    );
    tree.add(
        "var/lib/dpkg/status",
        "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36\n\
         Maintainer: GNU Libc <libc@example.com>\nHomepage: https://example.com/\n\n\
         Package: libc6\nStatus: install ok installed\nArchitecture: i386\nVersion: 2.36\nHomepage: none\n",
    );
    tree.add("a_b-1.dist-info/METADATA", "Name: a_b\nVersion: 1\nLicense: Custom text\n");
    tree.add("a-b-1.dist-info/METADATA", "Name: a-b\nVersion: 1\nLicense: MIT\n");
    tree
}

#[test]
fn a_document_says_what_was_found() {
    let digest = Digest::of(b"manifest");
    let found = inventory(&some());
    let document = spdx(&found, &Subject::image("example.com/app:1", digest, "linux/amd64"), 86_400);
    assert_eq!(document["spdxVersion"], "SPDX-2.3");
    assert_eq!(document["dataLicense"], "CC0-1.0");
    assert_eq!(document["name"], "example.com/app:1");
    assert_eq!(document["creationInfo"]["created"], "1970-01-02T00:00:00Z");
    assert_eq!(document["creationInfo"].get("comment"), None);
    let ids: Vec<&str> = packages(&document).map(|package| text(package, "SPDXID")).collect();
    assert_eq!(
        ids,
        [
            "SPDXRef-Root",
            "SPDXRef-OperatingSystem",
            "SPDXRef-Package-deb-libc6-2.36",
            "SPDXRef-Package-deb-libc6-2.36-2",
            "SPDXRef-Package-python-a-b-1",
            "SPDXRef-Package-python-a-b-1-2",
        ]
    );
    let all: Vec<&Value> = packages(&document).collect();
    assert_eq!(all[0]["versionInfo"], json!(digest.to_string()));
    assert_eq!(
        all[0]["externalRefs"][0]["referenceLocator"],
        json!(format!("pkg:oci/app@sha256:{}", digest.hex()))
    );
    assert_eq!(all[1]["homepage"], "https://www.debian.org/");
    assert_eq!(all[2]["supplier"], "Person: GNU Libc (libc@example.com)");
    assert_eq!(all[2]["homepage"], "https://example.com/");
    assert_eq!(all[2]["sourceInfo"], "found in /var/lib/dpkg/status");
    assert_eq!(all[3].get("homepage"), None, "what is no page is left out");
    assert_eq!(
        all[2]["externalRefs"][0],
        json!({
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": "pkg:deb/debian/libc6@2.36?arch=amd64&distro=debian-12",
        })
    );
    assert_eq!(all[4]["licenseDeclared"], "MIT");
    assert_eq!(all[5]["licenseDeclared"], "LicenseRef-Custom-text");
    assert_eq!(
        document["hasExtractedLicensingInfos"],
        json!([{"licenseId": "LicenseRef-Custom-text", "extractedText": "Custom text", "name": "Custom text"}])
    );
    assert_eq!(
        document["relationships"][0],
        json!({"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-Root"})
    );
    holds(&document);
}

#[test]
fn the_namespace_is_the_contents() {
    let found = inventory(&some());
    let of = |name: &str, created| {
        text(&spdx(&found, &Subject::directory(name), created), "documentNamespace").to_owned()
    };
    assert_eq!(of("files", 5), of("files", 5));
    assert_ne!(of("files", 5), of("files", 6));
    assert_ne!(of("files", 5), of("other", 5));
    assert!(of("a b/c", 5).starts_with("https://spdx.org/spdxdocs/a-b-c-"));
}

#[test]
fn what_was_not_read_is_said_in_the_document() {
    let mut tree = some();
    tree.add("var/lib/rpm/Packages", "x");
    let document = spdx(&inventory(&tree), &Subject::directory("files"), 0);
    let comment = text(&document["creationInfo"], "comment");
    assert!(comment.starts_with("not read: /var/lib/rpm/Packages: "), "{comment}");
}

#[test]
fn times_have_four_digits_of_year() {
    assert_eq!(rfc3339(1_700_000_000), "2023-11-14T22:13:20Z");
    assert_eq!(rfc3339(u64::MAX), "9999-12-30T22:00:00Z");
}

/// What the schema of SPDX 2.3 asks for, and what it cannot say: that what is referred to is there.
fn holds(document: &Value) {
    let mut ids = BTreeSet::new();
    for package in packages(document) {
        let id = text(package, "SPDXID");
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
        assert!(
            id.strip_prefix("SPDXRef-").is_some_and(|id| !id.is_empty() && id.chars().all(plain)),
            "{id:?}"
        );
        assert!(ids.insert(id), "{id} is there twice");
        assert!(!text(package, "name").is_empty() && !text(package, "downloadLocation").is_empty());
        for reference in package["externalRefs"].as_array().into_iter().flatten() {
            let purl = text(reference, "referenceLocator");
            assert!(purl.starts_with("pkg:") && purl.bytes().all(|byte| byte.is_ascii_graphic()), "{purl:?}");
        }
    }
    ids.insert("SPDXRef-DOCUMENT");
    for relation in document["relationships"].as_array().expect("a list") {
        assert!(
            ids.contains(text(relation, "spdxElementId"))
                && ids.contains(text(relation, "relatedSpdxElement"))
        );
    }
    let defined: BTreeSet<&str> = document["hasExtractedLicensingInfos"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|info| text(info, "licenseId"))
        .collect();
    for package in packages(document) {
        let declared = text(package, "licenseDeclared");
        let words = declared.split([' ', '(', ')']).filter(|word| word.starts_with("LicenseRef-"));
        words.for_each(|word| assert!(defined.contains(word), "{word} is not defined"));
    }
}

fn packages(document: &Value) -> impl Iterator<Item = &Value> {
    document["packages"].as_array().expect("a list").iter()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().expect("a text")
}

/// Every file that a reader looks for, with the same bytes.
fn everywhere(bytes: &[u8]) -> MemoryTree {
    let mut tree = MemoryTree::default();
    for path in [
        "etc/os-release",
        "var/lib/dpkg/status",
        "usr/share/doc/a/copyright",
        "lib/apk/db/installed",
        "var/lib/rpm/rpmdb.sqlite",
        "a-1.dist-info/METADATA",
        "node_modules/a/package.json",
        "b/package-lock.json",
        "Cargo.lock",
        "bin/a",
    ] {
        tree.add(path, bytes);
    }
    tree
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_make_a_document(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        holds(&spdx(&inventory(&everywhere(&bytes)), &Subject::directory("any"), 0));
    }

    #[test]
    fn any_fields_make_a_document(
        name in "\\PC{0,12}", version in "\\PC{0,12}", licence in "[()A-Za-z0-9+. -]{0,30}", other in "\\PC{0,20}",
    ) {
        let text = format!(
            "Package: {name}\nName: {name}\nVersion: {version}\nLicense: {licence}\nMaintainer: {other}\n\
             Architecture: {other}\nHomepage: {other}\nSource: {other}\n\n"
        );
        holds(&spdx(&inventory(&everywhere(text.as_bytes())), &Subject::directory(&*other), 0));
    }
}
