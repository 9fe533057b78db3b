//! Rust's crates: `Cargo.lock` (<https://doc.rust-lang.org/cargo/guide/cargo-toml-vs-cargo-lock.html>), and the list that
//! cargo-auditable leaves in programs (<https://github.com/rust-secure-code/cargo-auditable/blob/master/PARSING.md>).

use std::io::Read as _;
use std::path::Path;

use flate2::read::ZlibDecoder;
use serde::Deserialize;

use crate::found::Found;
use crate::package::{Checksum, Ecosystem, Package};
use crate::walk::Look;

/// What cargo-auditable's own readers take at most, unpacked.
const LARGEST_LIST: u64 = 8 << 20;

/// Reads a lock file. It is TOML, of which cargo writes so little that lines are enough: a table in brackets, a key and a
/// text without escapes a line, and lists, which are not looked at.
pub(crate) fn lock(look: &mut Look<'_>, path: &Path) {
    let Some(text) = look.small(path) else { return };
    let mut current: Option<Lines<'_>> = None;
    let mut seen = false;
    for line in text.lines().map(str::trim).chain(["[end]"]) {
        if line.starts_with('[') && line.ends_with(']') {
            if let Some(package) = current.take().and_then(Lines::package) {
                look.found.push(path, package);
            }
            current = (line == "[[package]]").then(Lines::default);
            seen |= current.is_some();
        } else if let (Some(lines), Some((key, value))) = (&mut current, line.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match key.trim() {
                "name" => lines.name = value,
                "version" => lines.version = value,
                "source" => lines.source = value,
                "checksum" => lines.checksum = value,
                _ => {}
            }
        }
    }
    if !seen && !text.contains("version = ") && !text.trim().is_empty() {
        look.found.note(path, "it is no lock file of cargo");
    }
}

#[derive(Default)]
struct Lines<'a> {
    name: &'a str,
    version: &'a str,
    source: &'a str,
    checksum: &'a str,
}

impl Lines<'_> {
    fn package(self) -> Option<Package> {
        let Self { name, version, source, checksum } = self;
        if name.is_empty() || version.is_empty() {
            return None;
        }
        let sha256 = checksum.len() == 64 && checksum.bytes().all(|byte| byte.is_ascii_hexdigit());
        Some(Package {
            vcs_url: source.strip_prefix("git+").map(|_| source.to_owned()),
            checksum: sha256.then(|| Checksum { algorithm: "SHA256", hex: checksum.to_lowercase() }),
            ..Package::new(Ecosystem::Cargo, name, version)
        })
    }
}

/// What cargo-auditable writes.
#[derive(Deserialize)]
struct Auditable {
    packages: Vec<AuditablePackage>,
}

#[derive(Deserialize)]
struct AuditablePackage {
    name: String,
    version: String,
    #[serde(default)]
    source: String,
    #[serde(default)]
    kind: String,
}

/// Reads a program's list: what runs, not what only its build scripts used.
pub(crate) fn auditable(found: &mut Found, path: &Path, section: &[u8]) {
    let mut json = Vec::new();
    let read = ZlibDecoder::new(section).take(LARGEST_LIST + 1).read_to_end(&mut json);
    if read.is_err() || json.len() as u64 > LARGEST_LIST {
        return found.note(path, "its list of crates cannot be unpacked, or is too large");
    }
    match serde_json::from_slice::<Auditable>(&json) {
        Ok(list) => {
            for one in list.packages.into_iter().filter(|one| one.kind != "build") {
                let vcs_url = one.source.strip_prefix("git+").map(|_| one.source.clone());
                let package = Package::new(Ecosystem::Cargo, one.name, one.version);
                found.push(path, Package { vcs_url, ..package });
            }
        }
        Err(error) => found.note(path, format!("its list of crates is malformed: {error}")),
    }
}
