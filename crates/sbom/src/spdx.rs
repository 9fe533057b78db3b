//! What was found, as SPDX 2.3 in JSON (<https://spdx.github.io/spdx-spec/v2.3/>).
//!
//! Equal inventories give equal documents: all is sorted, and the namespace is made of the contents.

use std::collections::{HashMap, HashSet};

use kiln_core::Digest;
use serde_json::{Map, Value, json};

use crate::found::Inventory;
use crate::licence::{References, expression};
use crate::os_release::Distribution;
use crate::package::{Ecosystem, Package};
use crate::purl::Purl;

const NO_ASSERTION: &str = "NOASSERTION";

/// What a document describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    name: String,
    digest: Option<Digest>,
    platform: Option<String>,
}

impl Subject {
    /// An image: its name, or what to call it without one, its manifest's digest and its platform.
    pub fn image(name: impl Into<String>, digest: Digest, platform: impl Into<String>) -> Self {
        Self { name: named(name.into()), digest: Some(digest), platform: Some(platform.into()) }
    }

    /// Files without an image around them.
    pub fn directory(name: impl Into<String>) -> Self {
        Self { name: named(name.into()), digest: None, platform: None }
    }
}

/// A document without a name is none.
fn named(name: String) -> String {
    if name.trim().is_empty() { "_".to_owned() } else { name }
}

/// Makes the document. `created` is in seconds since 1970.
pub fn spdx(inventory: &Inventory, subject: &Subject, created: u64) -> Value {
    let mut references = References::new();
    let distribution = inventory.distribution.as_ref();
    let mut packages = vec![root(subject)];
    packages.extend(distribution.map(system));
    let own = packages.len();
    packages
        .extend(inventory.packages.iter().map(|package| described(package, distribution, &mut references)));
    give_ids(&mut packages[own..]);
    let relation = |from: &str, kind: &str, to: &Value| json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to});
    let mut relationships = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", &packages[0]["SPDXID"])];
    relationships
        .extend(packages[1..].iter().map(|package| relation("SPDXRef-Root", "CONTAINS", &package["SPDXID"])));
    let mut document = Map::new();
    document.insert("spdxVersion".to_owned(), json!("SPDX-2.3"));
    document.insert("dataLicense".to_owned(), json!("CC0-1.0"));
    document.insert("SPDXID".to_owned(), json!("SPDXRef-DOCUMENT"));
    document.insert("name".to_owned(), json!(subject.name));
    document.insert("documentNamespace".to_owned(), Value::Null);
    let tool = format!("Tool: kiln-{}", env!("CARGO_PKG_VERSION"));
    let mut creation = json!({"created": rfc3339(created), "creators": [tool]});
    if !inventory.notes.is_empty() {
        let notes: Vec<String> = inventory.notes.iter().map(ToString::to_string).collect();
        creation["comment"] = json!(format!("not read: {}", notes.join("; ")));
    }
    document.insert("creationInfo".to_owned(), creation);
    document.insert("packages".to_owned(), Value::Array(packages));
    document.insert("relationships".to_owned(), Value::Array(relationships));
    if !references.is_empty() {
        let infos = references.into_iter().map(|(id, text)| {
            let name: String = text.chars().take(80).collect();
            json!({"licenseId": id, "extractedText": text, "name": name})
        });
        document.insert("hasExtractedLicensingInfos".to_owned(), infos.collect());
    }
    let digest = Digest::of(Value::Object(document.clone()).to_string().as_bytes());
    document.insert("documentNamespace".to_owned(), json!(namespace(&subject.name, &digest)));
    Value::Object(document)
}

/// A name that nobody else gives: made of the contents, so that the same document has it again. The host is the one that
/// the specification has for who owns none (section 6.5).
fn namespace(name: &str, digest: &Digest) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '-' };
    let name: String = name.chars().map(plain).collect();
    // A UUID of one's own making (RFC 9562, version 8).
    let hex = digest.hex();
    let uuid = format!("{}-{}-8{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32]);
    format!("https://spdx.org/spdxdocs/{name}-{uuid}")
}

fn root(subject: &Subject) -> Value {
    let mut package = blank("SPDXRef-Root", &subject.name);
    package["primaryPackagePurpose"] = json!(if subject.digest.is_some() { "CONTAINER" } else { "ARCHIVE" });
    if let Some(digest) = &subject.digest {
        package["versionInfo"] = json!(digest.to_string());
        package["checksums"] = json!([{"algorithm": "SHA256", "checksumValue": digest.hex()}]);
        let name = subject.name.rsplit('/').next().unwrap_or_default();
        let name = name.split(['@', ':']).next().unwrap_or_default().to_lowercase();
        let purl = Purl::new("oci").name(if name.is_empty() { "image" } else { &name });
        let purl = purl.version(&digest.to_string());
        package["externalRefs"] = purl_reference(&purl.to_string());
    }
    if let Some(platform) = &subject.platform {
        package["comment"] = json!(format!("platform: {platform}"));
    }
    package
}

fn system(distribution: &Distribution) -> Value {
    let mut package = blank("SPDXRef-OperatingSystem", &distribution.id);
    package["primaryPackagePurpose"] = json!("OPERATING-SYSTEM");
    if let Some(version) = &distribution.version {
        package["versionInfo"] = json!(version);
    }
    if let Some(name) = &distribution.name {
        package["description"] = json!(name);
    }
    if let Some(page) = distribution.homepage.as_deref().filter(|page| is_page(page)) {
        package["homepage"] = json!(page);
    }
    package
}

fn described(package: &Package, distribution: Option<&Distribution>, references: &mut References) -> Value {
    let mut out = blank(&id(package), &package.name);
    if !package.version.is_empty() {
        out["versionInfo"] = json!(package.version);
    }
    if let Some(supplier) = package.supplier.as_deref().and_then(one_line) {
        out["supplier"] = json!(agent(&supplier, package.from_organization));
    }
    if let Some(place) = package.download.as_deref().filter(|place| is_page(place)) {
        out["downloadLocation"] = json!(place);
    }
    if let Some(page) = package.homepage.as_deref().filter(|page| is_page(page)) {
        out["homepage"] = json!(page);
    }
    if let Some(stated) = package.licence.as_deref().filter(|text| !text.trim().is_empty()) {
        out["licenseDeclared"] = json!(expression(stated, references));
    }
    if let Some(checksum) = &package.checksum {
        out["checksums"] = json!([{"algorithm": checksum.algorithm, "checksumValue": checksum.hex}]);
    }
    let places: Vec<String> = package.found_in.iter().map(|path| format!("/{path}")).collect();
    out["sourceInfo"] = json!(format!("found in {}", places.join(", ")));
    out["externalRefs"] = purl_reference(&package.purl(distribution));
    out
}

/// A package of which nothing is claimed.
fn blank(id: &str, name: &str) -> Value {
    json!({
        "SPDXID": id,
        "name": name,
        "downloadLocation": NO_ASSERTION,
        "filesAnalyzed": false,
        "licenseConcluded": NO_ASSERTION,
        "licenseDeclared": NO_ASSERTION,
        "copyrightText": NO_ASSERTION,
        "supplier": NO_ASSERTION,
    })
}

fn purl_reference(purl: &str) -> Value {
    json!([{
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": purl,
    }])
}

/// A readable id: letters, digits, dots and dashes are allowed.
fn id(package: &Package) -> String {
    let Package { ecosystem, name, version, .. } = package;
    let kind = match ecosystem {
        Ecosystem::Pypi => "python",
        Ecosystem::Golang => "go",
        other => other.purl_type(),
    };
    let text = format!("SPDXRef-Package-{kind}-{name}-{version}");
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '-' };
    text.trim_end_matches('-').chars().map(plain).take(200).collect()
}

/// Numbers those that would be called the same: other machines' packages, `a_b` and `a-b`.
fn give_ids(packages: &mut [Value]) {
    let mut seen = HashSet::new();
    // Where to go on counting: thousands may be called the same.
    let mut next: HashMap<String, usize> = HashMap::new();
    for package in packages {
        let first = package["SPDXID"].as_str().unwrap_or_default().to_owned();
        let mut id = first.clone();
        while !seen.insert(id.clone()) {
            let number = next.entry(first.clone()).or_insert(1);
            *number += 1;
            id = format!("{first}-{number}");
        }
        package["SPDXID"] = json!(id);
    }
}

/// `Name <address>` becomes SPDX's `Person: Name (address)`.
fn agent(supplier: &str, organization: bool) -> String {
    let kind = if organization { "Organization" } else { "Person" };
    match supplier.split_once('<') {
        Some((name, address)) => {
            let (name, address) = (name.trim(), address.split('>').next().unwrap_or_default().trim());
            let name = if name.is_empty() { address } else { name.trim_matches('"') };
            format!("{kind}: {name} ({address})")
        }
        None => format!("{kind}: {supplier}"),
    }
}

fn one_line(text: &str) -> Option<String> {
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

/// Whether it is a URL that the schema's readers take.
fn is_page(text: &str) -> bool {
    let host = ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    host.is_some_and(|host| host.starts_with(|c: char| c.is_ascii_alphanumeric()))
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"{}|\\^`".contains(&byte))
}

/// Returns seconds since 1970 as RFC 3339 writes them, the only form that SPDX takes.
pub fn rfc3339(seconds: u64) -> String {
    // Years of more than four digits have no form.
    let seconds = i64::try_from(seconds.min(253_402_207_200)).unwrap_or_default();
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |time| time.to_string())
}
