//! What pip and others leave beside installed Python packages: `*.dist-info/METADATA`
//! (<https://packaging.python.org/en/latest/specifications/core-metadata/>) and the older `*.egg-info`.

use std::ffi::OsStr;
use std::path::Path;

use crate::package::{Ecosystem, Package};
use crate::stanza::{Stanza, stanzas};
use crate::walk::Look;

/// Looks at a directory, if it is one with metadata.
pub(crate) fn directory(look: &mut Look<'_>, dir: &Path) {
    let file = match dir.extension().and_then(OsStr::to_str) {
        Some("dist-info") => "METADATA",
        Some("egg-info") => "PKG-INFO",
        _ => return,
    };
    metadata(look, &dir.join(file));
}

/// Reads a file with metadata.
pub(crate) fn metadata(look: &mut Look<'_>, path: &Path) {
    let Some(text) = look.small(path) else { return };
    // Behind the first empty line comes a description.
    let package = stanzas(&text).next().as_ref().and_then(package);
    match package {
        Some(package) => look.found.push(path, package),
        None => look.found.note(path, "it names no Python package and version"),
    }
}

fn package(stanza: &Stanza) -> Option<Package> {
    let (name, version) = (stanza.get("name")?, stanza.get("version")?);
    let author = stanza.get("author-email").or(stanza.get("author"));
    Some(Package {
        licence: licence(stanza),
        supplier: author.map(str::to_owned),
        homepage: stanza.owned("home-page"),
        ..Package::new(Ecosystem::Pypi, name, version)
    })
}

/// The expression (PEP 639), else what `License` says in one line, else the classifiers.
fn licence(stanza: &Stanza) -> Option<String> {
    let unknown = |text: &&str| !text.eq_ignore_ascii_case("unknown");
    if let Some(expression) = stanza.get("license-expression") {
        return Some(expression.to_owned());
    }
    if let Some(line) = stanza.get("license").filter(unknown).and_then(|text| text.lines().next()) {
        return Some(line.to_owned());
    }
    let mut names: Vec<&str> = stanza
        .all("classifier")
        .filter(|classifier| classifier.starts_with("License ::"))
        .filter_map(|classifier| classifier.rsplit("::").next().map(str::trim))
        .filter(|name| *name != "OSI Approved")
        .collect();
    names.sort_unstable();
    names.dedup();
    (!names.is_empty()).then(|| names.join(" AND "))
}
