//! What an index must be before anything is done with it.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use crate::{CarryError, Index, Kind, MAX_CHUNK, MAX_FRAME, MAX_PACK, Tree};

/// Refuses an index whose numbers do not add up, and one with entries that would lead out of the cache.
pub(crate) fn check(index: &Index) -> Result<(), CarryError> {
    for pack in &index.packs {
        let wrong =
            |reason: &str| Err(CarryError::damaged(format!("pack {}: {reason}", pack.digest.short())));
        if pack.size > MAX_PACK {
            return wrong("it is larger than a pack may be");
        }
        if pack.frames.iter().map(|frame| u64::from(frame.size)).sum::<u64>() != pack.size {
            return wrong("its frames do not add up to it");
        }
        for frame in &pack.frames {
            if frame.raw() > MAX_FRAME || frame.chunks.iter().any(|chunk| chunk.length as usize > MAX_CHUNK) {
                return wrong("a frame or a chunk of it is larger than one may be");
            }
        }
    }
    let lengths = index.locations();
    for (number, tree) in index.trees.iter().enumerate() {
        if index.trees[..number].iter().any(|other| (&other.id, &other.scope) == (&tree.id, &tree.scope)) {
            return Err(CarryError::damaged(format!("cache {:?} is in it twice", tree.id)));
        }
        paths(tree)?;
        for (path, entry) in &tree.entries {
            let Kind::File { size, chunks } = &entry.kind else { continue };
            let sum: u64 = chunks.iter().map(|id| lengths.get(id).map_or(0, |at| u64::from(at.length))).sum();
            if sum != *size {
                return Err(CarryError::damaged(format!("the chunks of {path:?} do not add up to its size")));
            }
        }
    }
    Ok(())
}

/// Every parent is a directory of the same tree: so nothing is ever written through a link.
fn paths(tree: &Tree) -> Result<(), CarryError> {
    if tree.entries.get(Path::new("")).is_none_or(|root| root.kind != Kind::Directory) {
        return Err(CarryError::damaged(format!("cache {:?} has no root directory", tree.id)));
    }
    for (path, entry) in &tree.entries {
        let refuse = |reason: &str| {
            Err(CarryError::Hostile { path: path.display().to_string(), reason: reason.to_owned() })
        };
        if !is_plain(path) {
            return refuse("leads out of the cache, or is no path");
        }
        if let Some(parent) = path.parent()
            && tree.entries.get(parent).is_none_or(|parent| parent.kind != Kind::Directory)
        {
            return refuse("lies in what is no directory");
        }
        if entry.mode & !0o7777 != 0 || entry.mtime.1 >= 1_000_000_000 {
            return refuse("has a mode or a time that no file has");
        }
        match &entry.kind {
            Kind::Hard { to } => {
                let first =
                    to < path && tree.entries.get(to).is_some_and(|to| matches!(to.kind, Kind::File { .. }));
                if !first {
                    return refuse("is a hard link to what is not there before it");
                }
            }
            Kind::Link { target } => {
                let text = target.as_os_str().as_bytes();
                if text.is_empty() || text.len() > 4095 || text.contains(&0) {
                    return refuse("is a link that no file system has");
                }
            }
            Kind::Directory | Kind::File { .. } | Kind::Fifo => {}
        }
    }
    Ok(())
}

/// Names only, in their one spelling: `a/b`, not `/a`, `a//b`, `a/./b`, `a/` or `a/../b`.
fn is_plain(path: &Path) -> bool {
    let text = path.as_os_str().as_bytes();
    let spelled: usize = path.components().map(|part| part.as_os_str().len() + 1).sum();
    text.len() < 4096
        && !text.contains(&0)
        && path.components().all(|part| matches!(part, Component::Normal(name) if name.len() <= 255))
        && (text.is_empty() || spelled == text.len() + 1)
}
