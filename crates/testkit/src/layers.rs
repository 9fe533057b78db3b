//! Layers of two images held against each other: what differs is named by layer, entry and field.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use kiln_core::Digest;
use serde_json::Value;

/// A layer as its tar has it.
#[derive(Debug)]
pub struct LayerTar {
    /// As the image's configuration says.
    pub diff_id: String,
    /// In the tar's order.
    pub entries: Vec<TarEntry>,
}

/// One entry of a tar: its name, and each thing it says under the name of that thing.
#[derive(Debug, PartialEq, Eq)]
pub struct TarEntry {
    /// Bytes that are no UTF-8 are shown as U+FFFD.
    pub name: String,
    /// `type`, `mode`, `uid`, `gid`, `mtime`, `size`, `link`, `device`, `content`, and `pax KEY` for each extension.
    pub fields: BTreeMap<String, String>,
}

/// Reads the layers of the only image in a layout directory, lowest first.
///
/// # Panics
/// It is no such layout, or a layer does not have the diff id that the configuration says.
pub fn read_layers(layout: &Path) -> Vec<LayerTar> {
    let path =
        |digest: &Value| layout.join("blobs").join(digest.as_str().expect("a digest").replace(':', "/"));
    let json = |path: &Path| -> Value {
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_reader(file).expect("JSON")
    };
    let index = json(&layout.join("index.json"));
    let manifest = json(&path(&index["manifests"][0]["digest"]));
    let config = json(&path(&manifest["config"]["digest"]));
    let blobs = manifest["layers"].as_array().expect("layers");
    let diff_ids = config["rootfs"]["diff_ids"].as_array().expect("diff ids");
    assert_eq!(blobs.len(), diff_ids.len(), "a diff id for each layer");
    let pairs = blobs.iter().zip(diff_ids);
    pairs
        .map(|(blob, diff_id)| {
            let mut tar = Vec::new();
            let file = File::open(path(&blob["digest"])).expect("a blob");
            flate2::read::GzDecoder::new(file).read_to_end(&mut tar).expect("gzip");
            let diff_id = diff_id.as_str().expect("a digest").to_owned();
            assert_eq!(Digest::of(&tar).to_string(), diff_id, "the layer is what the configuration says");
            LayerTar { diff_id, entries: read_tar(&tar) }
        })
        .collect()
}

/// Reads a tar.
///
/// # Panics
/// It is none.
pub fn read_tar(tar: &[u8]) -> Vec<TarEntry> {
    let mut archive = tar::Archive::new(tar);
    archive.entries().expect("a tar").map(|entry| read_entry(entry.expect("an entry"))).collect()
}

fn read_entry(mut entry: tar::Entry<'_, impl Read>) -> TarEntry {
    let mut fields = BTreeMap::new();
    if let Some(extensions) = entry.pax_extensions().expect("pax") {
        for extension in extensions {
            let extension = extension.expect("an extension");
            let key = format!("pax {}", extension.key().expect("UTF-8"));
            fields.insert(key, extension.value_bytes().escape_ascii().to_string());
        }
    }
    let mut content = Vec::new();
    entry.read_to_end(&mut content).expect("content");
    let header = entry.header();
    // Not every writer fills these in where there is no device.
    let part = |part: std::io::Result<Option<u32>>| number(part.map(|part| part.unwrap_or(0).to_string()));
    let device = format!("{}:{}", part(header.device_major()), part(header.device_minor()));
    let link = entry.link_name_bytes().unwrap_or_default();
    let more = [
        ("type", format!("{:?}", header.entry_type())),
        ("mode", number(header.mode().map(|mode| format!("{mode:o}")))),
        ("uid", number(header.uid().map(|id| id.to_string()))),
        ("gid", number(header.gid().map(|id| id.to_string()))),
        ("mtime", number(header.mtime().map(|time| time.to_string()))),
        ("size", content.len().to_string()),
        ("link", String::from_utf8_lossy(&link).into_owned()),
        ("device", device),
        ("content", shown(&content)),
    ];
    fields.extend(more.map(|(name, value)| (name.to_owned(), value)));
    TarEntry { name: String::from_utf8_lossy(&entry.path_bytes()).into_owned(), fields }
}

/// A field may be empty.
fn number(field: std::io::Result<String>) -> String {
    field.unwrap_or_else(|_| "no number".to_owned())
}

/// Text that is short enough to be read, else a digest.
fn shown(content: &[u8]) -> String {
    match std::str::from_utf8(content) {
        Ok(text) if text.len() <= 2000 => format!("{text:?}"),
        _ => Digest::of(content).to_string(),
    }
}

/// Says what differs between two images' layers, a line each; nothing if their diff ids are the same.
pub fn layer_differences(
    (left, ours): (&str, &[LayerTar]),
    (right, theirs): (&str, &[LayerTar]),
) -> Vec<String> {
    let mut found = Vec::new();
    if ours.len() != theirs.len() {
        found.push(format!("{left} has {} layers, {right} has {}", ours.len(), theirs.len()));
    }
    for (number, (a, b)) in ours.iter().zip(theirs).enumerate() {
        if a.diff_id == b.diff_id {
            continue;
        }
        let before = found.len();
        let in_layer = |name: &str, what: String| format!("layer {number}: {name}: {what}");
        for name in names(&a.entries, &b.entries) {
            let (one, other) = (named(&a.entries, name), named(&b.entries, name));
            match (one.first(), other.first()) {
                (Some(_), None) => found.push(in_layer(name, format!("only {left} has it"))),
                (None, Some(_)) => found.push(in_layer(name, format!("only {right} has it"))),
                _ if one.len() != other.len() => {
                    found.push(in_layer(name, format!("{} times, {} times", one.len(), other.len())));
                }
                _ => {
                    for (one, other) in one.iter().zip(&other) {
                        for (field, x, y) in fields(one, other) {
                            found.push(in_layer(name, format!("{field}: {left} {x}, {right} {y}")));
                        }
                    }
                }
            }
        }
        if found.len() == before {
            found.push(format!("layer {number}: the same entries in another order, or other bytes for them"));
        }
    }
    found
}

fn names<'a>(a: &'a [TarEntry], b: &'a [TarEntry]) -> impl Iterator<Item = &'a str> {
    let all: std::collections::BTreeSet<&str> = a.iter().chain(b).map(|entry| entry.name.as_str()).collect();
    all.into_iter()
}

fn named<'a>(entries: &'a [TarEntry], name: &str) -> Vec<&'a TarEntry> {
    entries.iter().filter(|entry| entry.name == name).collect()
}

fn fields<'a>(a: &'a TarEntry, b: &'a TarEntry) -> Vec<(&'a str, &'a str, &'a str)> {
    let keys: std::collections::BTreeSet<&String> = a.fields.keys().chain(b.fields.keys()).collect();
    let value = |entry: &'a TarEntry, key| entry.fields.get(key).map_or("nothing", String::as_str);
    let all = keys.into_iter().map(|key| (key.as_str(), value(a, key), value(b, key)));
    all.filter(|(_, x, y)| x != y).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tar_of;

    fn layer(files: &[(&str, &str)]) -> LayerTar {
        let tar = tar_of(files);
        LayerTar { diff_id: Digest::of(&tar).to_string(), entries: read_tar(&tar) }
    }

    #[test]
    fn what_differs_is_named() {
        let (one, other) = ([layer(&[("a", "x"), ("b", "")])], [layer(&[("a", "y"), ("c", "")])]);
        let found = layer_differences(("root", &one), ("sub", &other));
        let expected = [
            "layer 0: a: content: root \"x\", sub \"y\"",
            "layer 0: b: only root has it",
            "layer 0: c: only sub has it",
        ];
        assert_eq!(found, expected);
        assert_eq!(layer_differences(("root", &one), ("root", &one)), [] as [String; 0]);
        let turned = [layer(&[("b", ""), ("a", "x")])];
        assert!(layer_differences(("a", &one), ("b", &turned))[0].contains("another order"));
        assert!(layer_differences(("a", &one), ("b", &[]))[0].contains("1 layers"));
    }
}
