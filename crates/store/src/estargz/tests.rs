//! Blobs are read here as the specification says that they may be read: from the footer to the TOC, from the TOC to members.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use kiln_core::{Cancel, Layer, Snapshot};
use serde_json::Value;

use super::*;
use crate::compress::Compression;
use crate::layer::pack::LayerOptions;
use crate::layout::Ids;
use crate::store::Store;

const OPTIONS: LayerOptions =
    LayerOptions { compression: Compression::Estargz { level: 6 }, epoch: Some(1_566_297_043) };

/// Packs what `fill` makes, as many times as one likes: times are part of the bytes, and so all the same.
fn packed(fill: impl Fn(&std::path::Path), threads: usize) -> Result<(Vec<u8>, Layer), StoreError> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Ids::Full).unwrap();
    let layer = store.begin_layer(&Snapshot::default()).unwrap();
    fill(layer.upper());
    let id = layer.commit().unwrap().unwrap();
    let layer = store.pack_on(&id, &OPTIONS, threads, &Cancel::new())?.layer;
    let bytes = std::fs::read(store.blob_path(&layer.digest)).unwrap();
    Ok((bytes, layer))
}

/// Files of sizes about the limit of a chunk, and what has no content.
fn everything(root: &std::path::Path) {
    let write = |name: &str, size: usize| {
        let bytes: Vec<u8> = (0..size).map(|at| (at / 3 % 251) as u8 ^ name.as_bytes()[0]).collect();
        std::fs::write(root.join(name), bytes).unwrap();
    };
    std::fs::create_dir_all(root.join("d/e")).unwrap();
    write("empty", 0);
    write("one", 1);
    write("block", 512);
    write("chunk", CHUNK);
    write("more", CHUNK + 1);
    write("large", 2 * CHUNK + 12_345);
    write("two", 2 * CHUNK);
    write("d/e/last", 100);
    std::fs::set_permissions(root.join("one"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    std::os::unix::fs::symlink("one", root.join("link")).unwrap();
    std::fs::hard_link(root.join("one"), root.join("zhard")).unwrap();
    rustix::fs::setxattr(root.join("one"), "user.a", b"\0\xff", rustix::fs::XattrFlags::empty()).unwrap();
    // More headers than one member has room for.
    std::fs::create_dir(root.join("many")).unwrap();
    for number in 0..9_000 {
        std::os::unix::fs::symlink("x", root.join(format!("many/{number}"))).unwrap();
    }
}

fn member(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::bufread::GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}

/// What is written at an offset, over as many members as it takes.
fn content(blob: &[u8], offset: u64, size: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let members = flate2::bufread::MultiGzDecoder::new(&blob[offset as usize..]);
    members.take(size).read_to_end(&mut out).unwrap();
    out
}

fn tar_of(blob: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::bufread::MultiGzDecoder::new(blob).read_to_end(&mut out).unwrap();
    out
}

/// Returns the TOC, and where it begins.
fn toc(blob: &[u8], layer: &Layer) -> (Value, usize) {
    let footer = &blob[blob.len() - 51..];
    assert_eq!(member(footer), b"", "the footer is an empty member");
    let decoder = flate2::bufread::GzDecoder::new(footer);
    let extra = decoder.header().unwrap().extra().unwrap().to_vec();
    assert_eq!((&extra[..4], &extra[20..]), (&b"SG\x16\0"[..], &b"STARGZ"[..]));
    let offset = usize::from_str_radix(std::str::from_utf8(&extra[4..20]).unwrap(), 16).unwrap();
    let tar = member(&blob[offset..]);
    let mut archive = tar::Archive::new(&tar[..]);
    let mut entries = archive.entries().unwrap();
    let mut entry = entries.next().unwrap().unwrap();
    assert_eq!(&*entry.path_bytes(), b"stargz.index.json");
    let mut json = Vec::new();
    entry.read_to_end(&mut json).unwrap();
    assert!(entries.next().is_none(), "it is the last entry");
    assert_eq!(layer.annotations[TOC_DIGEST], Digest::of(&json).to_string());
    (serde_json::from_slice(&json).unwrap(), offset)
}

#[test]
fn every_file_is_where_the_toc_says() {
    let (blob, layer) = packed(everything, 2).unwrap();
    let tar = tar_of(&blob);
    assert_eq!(layer.diff_id, Digest::of(&tar), "of the whole tar, the list of contents included");
    assert_eq!(layer.annotations[UNCOMPRESSED_SIZE], tar.len().to_string());
    assert_eq!(layer.media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
    let (toc, toc_offset) = toc(&blob, &layer);
    assert_eq!(toc["version"], 1);
    let entries = toc["entries"].as_array().unwrap();
    assert_eq!(entries[0]["name"], ".no.prefetch.landmark");
    assert_eq!(content(&blob, entries[0]["offset"].as_u64().unwrap(), 1), [0xf]);

    let mut lines = entries.iter();
    let mut offsets = std::collections::BTreeSet::new();
    let mut line = lines.next();
    for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let Some(first) = line else {
            assert_eq!(name, "stargz.index.json");
            break;
        };
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        assert_eq!(first["name"], name);
        assert_eq!(first["mode"], entry.header().mode().unwrap());
        assert_eq!(first["uid"], entry.header().uid().unwrap());
        assert_eq!(first["gid"], entry.header().gid().unwrap());
        let kind = match entry.header().entry_type() {
            tar::EntryType::Directory => "dir",
            tar::EntryType::Symlink => "symlink",
            tar::EntryType::Link => "hardlink",
            _ => "reg",
        };
        assert_eq!(first["type"], kind, "{name}");
        if let Some(link) = entry.link_name_bytes() {
            assert_eq!(first["linkName"].as_str().unwrap().as_bytes(), &*link);
        }
        line = lines.next();
        if bytes.is_empty() {
            assert_eq!((first.get("offset"), first.get("size")), (None, None), "{name}");
            continue;
        }
        assert_eq!(first["digest"], Digest::of(&bytes).to_string(), "{name}");
        assert_eq!(first["size"], bytes.len());
        let (mut chunk, mut at) = (first, 0);
        loop {
            assert_eq!(chunk.get("chunkOffset").and_then(Value::as_u64).unwrap_or(0), at as u64, "{name}");
            let next = line.filter(|line| line["type"] == "chunk");
            let size = chunk.get("chunkSize").and_then(Value::as_u64);
            assert_eq!(size.is_some(), next.is_some(), "{name}: only the last goes to the end");
            let size = size.map_or(bytes.len() - at, |size| size as usize);
            assert!(size <= CHUNK);
            let offset = chunk["offset"].as_u64().unwrap();
            assert!(offsets.insert(offset) && (offset as usize) < toc_offset, "{name}");
            assert_eq!(blob[offset as usize..][..3], [0x1f, 0x8b, 8], "{name}: a member begins there");
            assert!(content(&blob, offset, size as u64) == bytes[at..at + size], "{name} at {at}");
            assert_eq!(chunk["chunkDigest"], Digest::of(&bytes[at..at + size]).to_string());
            at += size;
            let Some(next) = next else { break };
            (chunk, line) = (next, lines.next());
        }
        assert_eq!(at, bytes.len(), "{name}");
    }
    assert!(line.is_none(), "nothing is in the list that is not in the tar");
    let find =
        |name: &str| entries.iter().find(|entry| entry["name"] == name && entry["type"] != "chunk").unwrap();
    assert_eq!(find("one")["xattrs"], serde_json::json!({ "user.a": "AP8=" }));
    assert_eq!(find("one")["mode"], 0o4755);
    assert_eq!(find("one")["modtime"], "2019-08-20T10:30:43Z");
    assert_eq!(find("zhard")["linkName"], "one");
    let chunks = |name: &str| entries.iter().filter(|entry| entry["name"] == name).count();
    assert_eq!([chunks("chunk"), chunks("more"), chunks("large"), chunks("two")], [1, 2, 3, 2]);
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let [one, two, eight] = [1, 2, 8].map(|threads| packed(everything, threads).unwrap());
    assert!(one == two && one == eight);
}

#[test]
fn what_the_format_brings_itself_is_there_once() {
    let fill = |root: &std::path::Path| {
        for name in ["stargz.index.json", ".no.prefetch.landmark", ".prefetch.landmark", "kept"] {
            std::fs::write(root.join(name), "old").unwrap();
        }
        std::fs::create_dir(root.join("d")).unwrap();
        std::fs::write(root.join("d/stargz.index.json"), "a file like others").unwrap();
    };
    let (blob, layer) = packed(fill, 2).unwrap();
    let (toc, _) = toc(&blob, &layer);
    let names: Vec<&str> =
        toc["entries"].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, [".no.prefetch.landmark", "d/", "d/stargz.index.json", "kept"]);
}

#[test]
fn a_name_that_json_cannot_hold_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let fill = |root: &std::path::Path| {
        std::fs::write(root.join(std::ffi::OsStr::from_bytes(b"a\xff")), "x").unwrap();
    };
    let error = packed(fill, 1).unwrap_err();
    assert_eq!(error, StoreError::Estargz { path: "a\u{fffd}".to_owned(), what: "its name".to_owned() });
}

#[test]
fn times_are_dates() {
    let rows = [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (1_566_297_043, "2019-08-20T10:30:43Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
    ];
    for (seconds, text) in rows {
        assert_eq!(rfc3339(seconds), text);
    }
}
