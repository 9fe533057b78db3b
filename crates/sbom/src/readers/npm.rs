//! npm's packages: `package.json` of what is installed in a `node_modules`, and `package-lock.json`
//! (<https://docs.npmjs.com/cli/configuring-npm/package-lock-json>) for what is not there itself, as in a bundle.

use std::path::Path;

use serde_json::Value;

use crate::package::{Ecosystem, Package};
use crate::tree::Kind;
use crate::walk::Look;

/// Reads a `package.json`, if it is an installed package's: `node_modules/name`, `node_modules/@scope/name`.
pub(crate) fn installed(look: &mut Look<'_>, path: &Path) {
    let mut above = path.iter().rev().skip(2);
    let scoped = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b"@");
    let parent = match above.next() {
        Some(name) if scoped(name) => above.next(),
        other => other,
    };
    if parent.is_none_or(|name| name != "node_modules") {
        return;
    }
    let Some(json) = json(look, path) else { return };
    let (Some(name), Some(version)) = (text(&json, "name"), text(&json, "version")) else {
        look.found.note(path, "it names no package and version");
        return;
    };
    let package = Package {
        licence: licence(&json),
        supplier: author(&json),
        homepage: text(&json, "homepage"),
        download: text(&json, "_resolved"),
        ..Package::new(Ecosystem::Npm, name, version)
    };
    look.found.push(path, package);
}

/// Reads a lock file. Beside a `node_modules` only what is installed counts, of which it knows more; else all that is not
/// for development.
pub(crate) fn lock(look: &mut Look<'_>, path: &Path) {
    let Some(json) = json(look, path) else { return };
    let beside = path.with_file_name("node_modules");
    let here = path.parent().unwrap_or(Path::new(""));
    let installed = look.list(here).iter().any(|(path, kind)| *path == beside && *kind == Kind::Directory);
    let mut packages = Vec::new();
    if let Some(entries) = json.get("packages").and_then(Value::as_object) {
        for (place, entry) in entries {
            let Some((_, name)) = place.rsplit_once("node_modules/") else { continue };
            packages.extend(locked(&text(entry, "name").unwrap_or_else(|| name.to_owned()), entry));
        }
    } else if let Some(entries) = json.get("dependencies").and_then(Value::as_object) {
        dependencies(entries, &mut packages, 0);
    } else {
        look.found.note(path, "it is no lock file of npm");
    }
    for package in packages {
        if !installed || look.found.knows(Ecosystem::Npm, &package.name, &package.version) {
            look.found.push(path, package);
        }
    }
}

/// The first version's form: each with what is installed below it.
fn dependencies(entries: &serde_json::Map<String, Value>, packages: &mut Vec<Package>, depth: usize) {
    for (name, entry) in entries {
        packages.extend(locked(name, entry));
        // serde_json reads no deeper than 128 either.
        if let Some(inner) = entry.get("dependencies").and_then(Value::as_object)
            && depth < 128
        {
            dependencies(inner, packages, depth + 1);
        }
    }
}

fn locked(name: &str, entry: &Value) -> Option<Package> {
    let is = |key| entry.get(key).and_then(Value::as_bool).unwrap_or_default();
    if is("dev") || is("link") {
        return None;
    }
    Some(Package {
        licence: licence(entry),
        download: text(entry, "resolved"),
        ..Package::new(Ecosystem::Npm, name, text(entry, "version")?)
    })
}

fn json(look: &mut Look<'_>, path: &Path) -> Option<Value> {
    let text = look.small(path)?;
    match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
        Ok(json) => Some(json),
        Err(error) => {
            look.found.note(path, format!("it is no JSON: {error}"));
            None
        }
    }
}

fn text(json: &Value, key: &str) -> Option<String> {
    let text = json.get(key)?.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// `"MIT"`, and as it once was: `{"type": "MIT"}`, `[{"type": "MIT"}]`.
fn licence(json: &Value) -> Option<String> {
    let one = |value: &Value| value.as_str().map(str::to_owned).or_else(|| text(value, "type"));
    if let Some(found) = json.get("license").and_then(one) {
        return Some(found);
    }
    let several = json.get("licenses")?;
    let all: Vec<String> = several.as_array()?.iter().filter_map(one).collect();
    (!all.is_empty()).then(|| all.join(" OR "))
}

/// `"Name <address> (page)"` or an object of these.
fn author(json: &Value) -> Option<String> {
    let author = json.get("author")?;
    match (author.as_str(), text(author, "name"), text(author, "email")) {
        (Some(text), ..) => Some(text.split('(').next()?.trim().to_owned()).filter(|text| !text.is_empty()),
        (_, Some(name), Some(address)) => Some(format!("{name} <{address}>")),
        (_, name, _) => name,
    }
}
