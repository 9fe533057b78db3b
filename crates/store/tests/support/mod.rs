//! Trees and tars as text: one line an entry, so that a test's input and result can be read.
//!
//! `dir etc 755`, `file etc/a 644 content`, `link a -> b`, `hard b => a`, `fifo p 600`, `char c 600 1:3`,
//! `block b 660 8:0`, `gone x` (a whiteout), `opaque d`; then any of `uid=1`, `gid=2`, `mtime=3`,
//! `xattr:user.a=b`. Names and contents have no spaces.
#![allow(dead_code, reason = "each test binary uses some of it")]

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use kiln_core::Digest;
use kiln_store::owner;

pub(crate) const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// A store in a temporary directory.
pub(crate) fn store(ids: kiln_store::Ids) -> (tempfile::TempDir, kiln_store::Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = kiln_store::Store::open(&dir.path().join("store"), ids).unwrap();
    (dir, store)
}

/// Makes a tar of the lines.
pub(crate) fn tar(lines: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        append(&mut out, line);
    }
    out.extend([0; 1024]);
    out
}

fn append(out: &mut Vec<u8>, line: &str) {
    let mut words: Vec<&str> = line.split(' ').collect();
    let mut options = BTreeMap::new();
    while let Some((key, value)) = words.last().and_then(|word| word.split_once('=')) {
        if !matches!(key, "uid" | "gid" | "mtime" | "path" | "linkpath") && !key.starts_with("xattr:") {
            break;
        }
        options.insert(key.to_owned(), value.to_owned());
        words.pop();
    }
    let number = |key: &str| options.get(key).map_or(0, |value| value.parse::<u64>().unwrap());
    let mode =
        |word: Option<&&str>, default| word.map_or(default, |text| u32::from_str_radix(text, 8).unwrap());
    let name = words[1];
    let (flag, mode, link, content) = match words[0] {
        "dir" => (b'5', mode(words.get(2), 0o755), "", ""),
        "file" => (b'0', mode(words.get(2), 0o644), "", words.get(3).copied().unwrap_or("")),
        "link" => (b'2', 0o777, words[3], ""),
        "hard" => (b'1', 0o644, words[3], ""),
        "fifo" => (b'6', mode(words.get(2), 0o644), "", ""),
        "char" => (b'3', mode(words.get(2), 0o644), "", ""),
        "block" => (b'4', mode(words.get(2), 0o644), "", ""),
        other => panic!("{other:?}"),
    };
    let mut pax = Vec::new();
    for (key, value) in &options {
        let key = match key.strip_prefix("xattr:") {
            Some(name) => format!("SCHILY.xattr.{name}"),
            None if matches!(key.as_str(), "path" | "linkpath") => key.clone(),
            None => continue,
        };
        pax.extend(pax_record(&key, value.as_bytes()));
    }
    if !pax.is_empty() {
        entry(out, b'x', b"pax", &pax, b"", 0, (0, 0, 0), None);
    }
    let device = words.get(3).filter(|_| matches!(flag, b'3' | b'4')).map(|text| {
        let (major, minor) = text.split_once(':').unwrap();
        (major.parse().unwrap(), minor.parse().unwrap())
    });
    let ids = (number("uid"), number("gid"), number("mtime"));
    entry(out, flag, name.as_bytes(), content.as_bytes(), link.as_bytes(), mode, ids, device);
}

/// One PAX record.
pub(crate) fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

/// One raw entry: GNU headers, so that names are as long as given (up to 100).
#[allow(clippy::too_many_arguments, reason = "the fields of a tar header")]
pub(crate) fn entry(
    out: &mut Vec<u8>,
    flag: u8,
    name: &[u8],
    content: &[u8],
    link: &[u8],
    mode: u32,
    (uid, gid, mtime): (u64, u64, u64),
    device: Option<(u32, u32)>,
) {
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
    header.set_entry_type(tar::EntryType::new(flag));
    header.set_mode(mode);
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_mtime(mtime);
    header.set_size(content.len() as u64);
    if let Some((major, minor)) = device {
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
    }
    header.set_cksum();
    out.extend(header.as_bytes());
    out.extend(content);
    out.resize(out.len().next_multiple_of(512), 0);
}

/// Unpacks a plain tar.
pub(crate) fn unpack(
    store: &kiln_store::Store,
    tar: &[u8],
) -> Result<kiln_core::LayerId, kiln_store::StoreError> {
    store.unpack(&Digest::of(tar), PLAIN, tar)
}

/// Lists a layer's tree in the words above, sorted; hard links within it are told from the first name on.
pub(crate) fn list(dir: &Path) -> String {
    let mut lines = Vec::new();
    walk(dir, dir, &mut BTreeMap::new(), &mut lines);
    lines.join("\n")
}

fn walk(root: &Path, dir: &Path, inodes: &mut BTreeMap<u64, String>, lines: &mut Vec<String>) {
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let links = owner::LinkOwners::read(root.parent().unwrap()).unwrap();
    for path in paths {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        if kind.is_char_device() && metadata.rdev() == 0 {
            lines.push(format!("gone {name}"));
            continue;
        }
        if !kind.is_dir() && metadata.nlink() > 1 {
            if let Some(first) = inodes.get(&metadata.ino()) {
                lines.push(format!("hard {name} => {first}"));
                continue;
            }
            inodes.insert(metadata.ino(), name.clone());
        }
        let stat = rustix::fs::lstat(&path).unwrap();
        let mut owner = owner::of_path(&path, &stat).unwrap();
        if let Some((uid, gid)) = links.0.get(Path::new(&name)) {
            (owner.uid, owner.gid) = (*uid, *gid);
        }
        let mode = owner.mode & 0o7777;
        let mut line = match owner.file_type() {
            rustix::fs::FileType::Directory => format!("dir {name} {mode:o}"),
            rustix::fs::FileType::Symlink => {
                format!("link {name} -> {}", path.read_link().unwrap().display())
            }
            rustix::fs::FileType::Fifo => format!("fifo {name} {mode:o}"),
            rustix::fs::FileType::CharacterDevice => {
                format!("char {name} {mode:o} {}:{}", owner.device.0, owner.device.1)
            }
            rustix::fs::FileType::BlockDevice => {
                format!("block {name} {mode:o} {}:{}", owner.device.0, owner.device.1)
            }
            _ => format!("file {name} {mode:o} {}", String::from_utf8_lossy(&std::fs::read(&path).unwrap())),
        };
        for (key, value) in
            [("uid", i64::from(owner.uid)), ("gid", i64::from(owner.gid)), ("mtime", metadata.mtime())]
        {
            if value != 0 {
                line += &format!(" {key}={value}");
            }
        }
        let file = kind.is_file() || kind.is_dir();
        if file {
            let open = std::fs::File::open(&path).unwrap();
            for (key, value) in owner::xattrs(&open).unwrap() {
                let (key, value) = (std::ffi::OsStr::from_bytes(&key), String::from_utf8_lossy(&value));
                line += &format!(" xattr:{}={value}", key.display());
            }
        }
        lines.push(line.trim_end().to_owned());
        if kind.is_dir() {
            let mut value = [0; 4];
            if rustix::fs::lgetxattr(&path, "user.overlay.opaque", &mut value) == Ok(1) {
                lines.push(format!("opaque {name}"));
            }
            walk(root, &path, inodes, lines);
        }
    }
}

/// The kinds of stores that can be tried here: without the right to give files away, only one. As root it is both.
pub(crate) fn kinds() -> Vec<kiln_store::Ids> {
    let file = tempfile::NamedTempFile::new().unwrap();
    match std::os::unix::fs::chown(file.path(), Some(1), Some(1)) {
        Ok(()) => vec![kiln_store::Ids::Full, kiln_store::Ids::Single],
        Err(_) => vec![kiln_store::Ids::Single],
    }
}
