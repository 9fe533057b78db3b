//! Walks down trees as deep as a path allows: two thousand levels, with neither a stack nor descriptors for as many.

use std::os::fd::OwnedFd;
use std::path::Path;

use kiln_core::IoResultExt as _;
use rustix::fs::{Mode, openat};

use crate::error::StoreError;
use crate::layer::DIRECTORY;

/// Levels from which on a walk does not keep the directory above open; few trees are as deep.
pub(crate) const DEEP: usize = 128;

/// Bytes for as many levels as a path can have: half as many as bytes. Only what is used costs memory.
const STACK: usize = 256 << 20;

/// Does something on a stack that is large enough for every tree.
pub(crate) fn with_stack<T: Send>(
    work: impl FnOnce() -> Result<T, StoreError> + Send,
) -> Result<T, StoreError> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(STACK);
        let thread = builder.spawn_scoped(scope, work).at("start", "a thread")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Goes into `child`, which is in `dir`, and comes back: `dir` is closed meanwhile if it is at a `depth` that many walks never
/// reach. Nobody else may move directories there.
pub(crate) fn below<T>(
    dir: OwnedFd,
    child: OwnedFd,
    depth: usize,
    label: &Path,
    walk: impl FnOnce(OwnedFd) -> Result<(T, OwnedFd), StoreError>,
) -> Result<(T, OwnedFd, OwnedFd), StoreError> {
    if depth < DEEP {
        let (found, child) = walk(child)?;
        return Ok((found, dir, child));
    }
    drop(dir);
    let (found, child) = walk(child)?;
    let dir = openat(&child, c"..", DIRECTORY, Mode::empty()).at("open", label)?;
    Ok((found, dir, child))
}
