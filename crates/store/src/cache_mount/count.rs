//! Counting a cache, as du(1) does: blocks on disk, hard links once.

use std::collections::HashSet;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::CWD;

use crate::tree::selected::open_dir;
use crate::tree::{FileStat, Kind, walk};

/// What a cache holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Bytes on disk.
    pub(super) size: u64,
    /// Files that are no directories.
    pub(super) files: u64,
}

/// Counts a tree; none if it has more than `limit` entries, or is gone. What vanishes meanwhile does not count.
pub(super) fn count(root: &Path, limit: u64) -> Option<Count> {
    let fd = rustix::fs::open(
        root,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .ok()?;
    let mut sum = Count { size: FileStat::at(CWD, root).ok()?.allocated, files: 0 };
    let mut linked = HashSet::new();
    let mut todo = vec![PathBuf::new()];
    let mut buffer = vec![MaybeUninit::uninit(); 64 << 10];
    let mut entries = 0;
    while let Some(dir) = todo.pop() {
        use std::os::fd::AsFd;
        let Ok(at) = open_dir(fd.as_fd(), &dir) else { continue };
        let seen = walk::list(&at, &mut buffer, &mut |name, _| {
            let Ok(stat) = FileStat::at(&at, name) else { return Ok(()) };
            entries += 1;
            if entries > limit {
                return Err(rustix::io::Errno::TOOBIG);
            }
            if stat.kind() == Kind::Dir {
                todo.push(dir.join(std::ffi::OsStr::new(
                    <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name.to_bytes()),
                )));
            } else {
                sum.files += 1;
                if stat.nlink > 1 && !linked.insert((stat.dev, stat.ino)) {
                    return Ok(());
                }
            }
            sum.size += stat.allocated;
            Ok(())
        });
        if seen == Err(rustix::io::Errno::TOOBIG) {
            return None;
        }
    }
    Some(sum)
}

/// Counts several trees, each on one of the machine's processors.
pub(super) fn count_all(roots: &[PathBuf]) -> Vec<Option<Count>> {
    let next = AtomicUsize::new(0);
    let counts = Mutex::new(vec![None; roots.len()]);
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(root) = roots.get(at) else { return };
            let found = count(root, u64::MAX);
            counts.lock().unwrap_or_else(PoisonError::into_inner)[at] = found;
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(roots.len().max(1));
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    counts.into_inner().unwrap_or_else(PoisonError::into_inner)
}
