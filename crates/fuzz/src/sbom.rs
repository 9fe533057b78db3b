//! The readers of package databases, held against what an SPDX document must be: whatever bytes a database has, there is
//! one, its ids are unique, what it refers to is there, and it is the same again.

use std::collections::HashSet;

use kiln_sbom::{MemoryTree, Subject, inventory, spdx};
use serde_json::Value;

/// Where a reader looks.
const PLACES: &[&str] = &[
    "etc/os-release",
    "var/lib/dpkg/status",
    "var/lib/dpkg/status.d/a",
    "usr/share/doc/a/copyright",
    "lib/apk/db/installed",
    "var/lib/rpm/rpmdb.sqlite",
    "a-1.dist-info/METADATA",
    "node_modules/a/package.json",
    "b/package-lock.json",
    "Cargo.lock",
    "bin/a",
];

/// The bytes are every database at once.
pub(crate) fn check(data: &[u8]) {
    let mut tree = MemoryTree::default();
    PLACES.iter().for_each(|place| tree.add(*place, data));
    let found = inventory(&tree);
    let document = spdx(&found, &Subject::directory("files"), 0);
    assert_eq!(document, spdx(&inventory(&tree), &Subject::directory("files"), 0));
    let packages = document["packages"].as_array().expect("a list");
    let mut ids: HashSet<&str> = HashSet::from(["SPDXRef-DOCUMENT"]);
    for package in packages {
        let id = text(package, "SPDXID");
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
        assert!(
            id.strip_prefix("SPDXRef-").is_some_and(|id| !id.is_empty() && id.chars().all(plain)),
            "{id:?}"
        );
        assert!(ids.insert(id), "{id} is there twice");
        assert!(!text(package, "name").is_empty());
        for reference in package["externalRefs"].as_array().into_iter().flatten() {
            let purl = text(reference, "referenceLocator");
            assert!(purl.starts_with("pkg:") && purl.bytes().all(|byte| byte.is_ascii_graphic()), "{purl:?}");
        }
    }
    for relation in document["relationships"].as_array().expect("a list") {
        assert!(ids.contains(text(relation, "spdxElementId")));
        assert!(ids.contains(text(relation, "relatedSpdxElement")));
    }
    let defined = document["hasExtractedLicensingInfos"].as_array().into_iter().flatten();
    let defined: HashSet<&str> = defined.map(|info| text(info, "licenseId")).collect();
    for package in packages {
        let words = text(package, "licenseDeclared").split([' ', '(', ')']);
        for word in words.filter(|word| word.starts_with("LicenseRef-")) {
            assert!(defined.contains(word), "{word} is not defined");
        }
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().expect("a text")
}
