//! dpkg's status file (<https://manpages.debian.org/dpkg-query>, deb-control(5)), and the directory of pieces of it that
//! images without dpkg have (<https://github.com/GoogleContainerTools/distroless>).

use std::path::Path;

use crate::package::{Ecosystem, Package};
use crate::stanza::{Stanza, stanzas};
use crate::tree::Kind;
use crate::walk::Look;

/// States of a package whose files are there.
const THERE: &[&str] = &["installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending"];

pub(crate) fn look(look: &mut Look<'_>) {
    let status = Path::new("var/lib/dpkg/status");
    if let Some(text) = look.database(status) {
        read(look, status, &text);
    }
    for (path, kind) in look.list(Path::new("var/lib/dpkg/status.d")) {
        let sums = path.extension().is_some_and(|extension| extension == "md5sums");
        if matches!(kind, Kind::File { .. })
            && !sums
            && let Some(text) = look.small(&path)
        {
            read(look, &path, &text);
        }
    }
    let names: Vec<String> = look.found.of(Ecosystem::Deb).map(|package| package.name.clone()).collect();
    let licences: Vec<_> = names.iter().map(|name| licence(look, name)).collect();
    for (package, licence) in look.found.of(Ecosystem::Deb).zip(licences) {
        package.licence = licence;
    }
}

fn read(look: &mut Look<'_>, path: &Path, text: &str) {
    let mut seen = false;
    for stanza in stanzas(text) {
        seen = true;
        let there = stanza.get("status").is_none_or(|status| {
            status.split_whitespace().nth(2).is_some_and(|state| THERE.contains(&state))
        });
        if let Some(package) = package(&stanza).filter(|_| there) {
            look.found.push(path, package);
        }
    }
    if !seen && !text.trim().is_empty() {
        look.found.note(path, "it is no status file of dpkg");
    }
}

fn package(stanza: &Stanza) -> Option<Package> {
    let (name, version) = (stanza.get("package")?, stanza.get("version")?);
    Some(Package {
        architecture: stanza.owned("architecture"),
        upstream: stanza.get("source").and_then(|source| upstream(source, name)),
        supplier: stanza.owned("maintainer"),
        homepage: stanza.owned("homepage"),
        ..Package::new(Ecosystem::Deb, name, version)
    })
}

/// `Source: gcc-12 (12.2.0-14)`; the version is there if it is another than the package's.
fn upstream(source: &str, name: &str) -> Option<String> {
    match source.split_once('(') {
        Some((source, version)) => {
            Some(format!("{}@{}", source.trim(), version.trim_end_matches(')').trim()))
        }
        None => (source != name).then(|| source.to_owned()),
    }
}

/// Reads the licences of a package's files, if its copyright file is one that can be read by machines
/// (<https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/>): all of them hold.
fn licence(look: &mut Look<'_>, name: &str) -> Option<String> {
    if name.contains('/') {
        return None;
    }
    let text = look.small(&Path::new("usr/share/doc").join(name).join("copyright"))?;
    if !text.trim_start().to_lowercase().starts_with("format:") {
        return None;
    }
    let mut all: Vec<String> = Vec::new();
    for stanza in stanzas(&text).filter(|stanza| stanza.get("files").is_some()) {
        // The first line is the name, those below are the text.
        let Some(licence) = stanza.get("license").and_then(|licence| licence.lines().next()) else {
            continue;
        };
        let licence = licence.trim();
        let licence = match licence.contains(' ') {
            true => format!("({licence})"),
            false => licence.to_owned(),
        };
        if licence != "()" && !licence.is_empty() && !all.contains(&licence) {
            all.push(licence);
        }
    }
    all.sort();
    (!all.is_empty()).then(|| all.join(" AND "))
}
