//! Counting a cache, as du(1) does.

use std::path::{Path, PathBuf};

use crate::disk::{self, Taken};

/// What a cache holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Bytes on disk.
    pub(super) size: u64,
    /// Files that are no directories.
    pub(super) files: u64,
}

impl From<Taken> for Count {
    fn from(taken: Taken) -> Self {
        Self { size: taken.total(), files: taken.files }
    }
}

/// Counts a cache in passing; none if it has more than `most` entries, or is gone.
pub(super) fn count_small(root: &Path, most: u64) -> Option<Count> {
    disk::count_small(root, most).ok()?.map(Count::from)
}

/// Counts a cache beside other work; none if it is gone.
pub(super) fn count(root: &Path) -> Option<Count> {
    disk::count(root).ok()?.map(Count::from)
}

/// Counts several caches, on all of the machine's processors.
pub(super) fn count_all(roots: &[PathBuf]) -> Vec<Option<Count>> {
    let roots: Vec<&Path> = roots.iter().map(PathBuf::as_path).collect();
    let counts = disk::count_all(&roots).unwrap_or_else(|_| vec![None; roots.len()]);
    counts.into_iter().map(|taken| taken.map(Count::from)).collect()
}
