//! Two trees are the same if this says the same of both.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// All that a step sees of a tree, by path; names of one file by the first of them.
pub(crate) fn look(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut first = BTreeMap::new();
    look_at(root, root, &mut first, &mut found);
    found
}

fn look_at(
    root: &Path,
    path: &Path,
    first: &mut BTreeMap<u64, PathBuf>,
    found: &mut BTreeMap<PathBuf, String>,
) {
    let stat = fs::symlink_metadata(path).unwrap();
    let inside = path.strip_prefix(root).unwrap().to_owned();
    let mut line = format!("{:o} {}:{} ", stat.mode(), stat.uid(), stat.gid());
    // When a deletion was written down means nothing.
    let deletion = stat.mode() & 0o170_000 == 0o020_000 && stat.rdev() == 0;
    if inside != Path::new("") && !deletion {
        line += &format!("{}.{:09} ", stat.mtime(), stat.mtime_nsec());
    }
    if stat.is_symlink() {
        line += &format!("-> {:?}", fs::read_link(path).unwrap());
    } else if stat.is_file() {
        line += &format!("{:?}", String::from_utf8_lossy(&fs::read(path).unwrap()).trim_end_matches('\0'));
    } else {
        line += &format!("{}", stat.rdev());
    }
    // A layer says of the root directory whose it is, and no more.
    if !stat.is_symlink() && inside != Path::new("") {
        let mut list = vec![0_u8; 4096];
        let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap();
        let mut names: Vec<_> = list[..length].split(|b| *b == 0).filter(|name| !name.is_empty()).collect();
        names.sort();
        for name in names.into_iter().filter(|name| !name.starts_with(b"security.selinux")) {
            let mut value = vec![0_u8; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            line += &format!(" {}={:?}", String::from_utf8_lossy(name), &value[..length]);
        }
    }
    if !stat.is_dir() {
        match first.get(&stat.ino()) {
            Some(first) => line += &format!(" name of {first:?}"),
            None => drop(first.insert(stat.ino(), inside.clone())),
        }
    }
    found.insert(inside, line);
    if stat.is_dir() {
        let mut paths: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            look_at(root, &path, first, found);
        }
    }
}
