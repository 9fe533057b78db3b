//! Caps: what is too old stays behind, and then the least recently used, until the rest fits.

use std::collections::HashSet;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use crate::{Kind, Tree};

/// How much of a cache travels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fit {
    /// Files that were neither written nor read since then stay behind, seconds since 1970.
    pub since: Option<i64>,
    /// Bytes of all files of all trees together.
    pub bytes: Option<u64>,
}

/// Takes out of the trees what does not fit; returns how many files and bytes that were. Directories that become empty go
/// with their files; those that were empty stay.
pub fn fit(trees: &mut [Tree], fit: &Fit) -> (u64, u64) {
    let mut files: Vec<(i64, u64, usize, PathBuf)> = Vec::new();
    for (number, tree) in trees.iter().enumerate() {
        for (path, entry) in &tree.entries {
            if let Kind::File { size, .. } = entry.kind {
                files.push((entry.last_use(), size, number, path.clone()));
            }
        }
    }
    // Newest first; of one age the smaller first, which are more.
    files.sort_by(|a, b| (b.0, a.1, &a.3).cmp(&(a.0, b.1, &b.3)));
    let (mut room, mut out) = (fit.bytes.unwrap_or(u64::MAX), (0, 0));
    let mut full = false;
    let mut left = HashSet::new();
    for (time, size, number, path) in files {
        full |= size > room;
        if !full && fit.since.is_none_or(|since| time >= since) {
            room -= size;
            continue;
        }
        out = (out.0 + 1, out.1 + size);
        leave_behind(&mut trees[number], &path);
        left.insert((number, path));
    }
    // Other names of a file are nothing without it.
    for (number, tree) in trees.iter_mut().enumerate().filter(|_| !left.is_empty()) {
        tree.entries.retain(|_, entry| match &entry.kind {
            Kind::Hard { to } => !left.contains(&(number, to.clone())),
            _ => true,
        });
    }
    out
}

fn leave_behind(tree: &mut Tree, path: &Path) {
    tree.entries.remove(path);
    let mut parent = path.parent();
    while let Some(dir) = parent.filter(|dir| !dir.as_os_str().is_empty()) {
        let next = tree.entries.range::<Path, _>((Bound::Excluded(dir), Bound::Unbounded)).next();
        if next.is_some_and(|(next, _)| next.starts_with(dir)) {
            break;
        }
        tree.entries.remove(dir);
        parent = dir.parent();
    }
}
