//! Owners of symbolic links, fifos and devices across layers, where the file system cannot hold them.
//!
//! Each layer lists its own ([`LinkOwners`]). A merged view needs those of the layer that it shows; and what overlay copies
//! up from below into a step's layer (a link that was moved, a fifo whose mode was changed) is still whose it was.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_core::{IoError, IoResultExt as _, Snapshot};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, openat, readlinkat, statat};
use rustix::io::Errno;

use super::DIRECTORY;
use super::active::ActiveLayer;
use crate::error::StoreError;
use crate::layout::{Ids, TREE};
use crate::owner::LinkOwners;
use crate::store::Store;
use crate::tree::selected::open_dir;

impl Store {
    /// Returns the owners of links, fifos and devices that a merged view of a snapshot cannot show, by path in the view. Empty
    /// where the store holds owners.
    ///
    /// # Errors
    /// A layer's list cannot be read.
    pub fn link_owners(&self, snapshot: &Snapshot) -> Result<LinkOwners, StoreError> {
        let mut merged = LinkOwners::default();
        if self.ids() == Ids::Full {
            return Ok(merged);
        }
        for layer in &snapshot.layers {
            let dir = self.0.layout.layer(layer);
            let tree = dir.join(TREE);
            // What the layer has at the same place, a deletion too, is what shows.
            merged.0.retain(|path, _| std::fs::symlink_metadata(tree.join(path)).is_err());
            merged.0.extend(LinkOwners::read(&dir)?.0);
        }
        Ok(merged)
    }
}

impl ActiveLayer {
    /// Records the owners of what overlay copied up from below, if the file system cannot hold them: for a layer that a
    /// process has changed, after what is known otherwise ([`record_links`](Self::record_links)). A copy keeps type, link
    /// target and time of change to the nanosecond, by which it is known even if it was moved.
    ///
    /// # Errors
    /// The layer, or a list of one below, cannot be read.
    pub fn record_copied_links(&self) -> Result<(), StoreError> {
        let below = self.store.link_owners(&self.below)?;
        if below.0.is_empty() {
            return Ok(());
        }
        let known = LinkOwners::read(&self.dir)?;
        let mut found = nodes(&self.upper)?;
        found.retain(|(path, _)| !known.0.contains_key(path));
        if found.is_empty() {
            return Ok(());
        }
        let mut owners: HashMap<Node, Vec<Owned<'_>>> = HashMap::new();
        for (path, ids) in &below.0 {
            if let Some(node) = self.node_below(path)? {
                owners.entry(node).or_default().push((path, *ids));
            }
        }
        let copied = found.iter().filter_map(|(path, node)| {
            let candidates = owners.get(node)?;
            // Of several that look alike, the one that was here.
            let here = candidates.iter().find(|(other, _)| *other == path);
            here.or(candidates.first()).map(|(_, ids)| (path.clone(), *ids))
        });
        self.record_links(&LinkOwners(copied.collect()))
    }

    /// Looks at a node of the topmost layer below that has it.
    fn node_below(&self, path: &Path) -> Result<Option<Node>, IoError> {
        for layer in self.below.layers.iter().rev() {
            let full = self.store.layer_dir(layer).join(path);
            match Node::at(CWD, &full) {
                Ok(node) => return Ok(node),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(error).at("stat", full),
            }
        }
        Ok(None)
    }
}

/// A path below, and whose it is.
type Owned<'a> = (&'a PathBuf, (u32, u32));

/// What a copy of a node has in common with it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Node {
    /// The type's bits of a mode.
    kind: u32,
    target: Vec<u8>,
    mtime: (i64, i64),
}

impl Node {
    /// None for what can hold its own owner: files and directories.
    fn at(
        dir: impl std::os::fd::AsFd,
        name: impl rustix::path::Arg + Copy,
    ) -> rustix::io::Result<Option<Self>> {
        let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let target = match kind {
            FileType::RegularFile | FileType::Directory | FileType::Socket => return Ok(None),
            FileType::Symlink => readlinkat(&dir, name, Vec::new())?.into_bytes(),
            _ => Vec::new(),
        };
        Ok(Some(Self { kind: kind.as_raw_mode(), target, mtime: (stat.st_mtime, stat.st_mtime_nsec as i64) }))
    }
}

/// Finds the nodes of a tree. By hand and not by recursion: how deep it goes is for the step to say.
fn nodes(tree: &Path) -> Result<Vec<(PathBuf, Node)>, IoError> {
    let root = openat(CWD, tree, DIRECTORY, Mode::empty()).at("open", tree)?;
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let full = tree.join(&path);
        let dir = open_dir(root.as_fd(), &path).at("open", &full)?;
        for entry in Dir::read_from(&dir).at("read", &full)? {
            let entry = entry.at("read", &full)?;
            let name = entry.file_name();
            if name == c"." || name == c".." || entry.file_type() == FileType::RegularFile {
                continue;
            }
            let inside = path.join(OsStr::from_bytes(name.to_bytes()));
            if entry.file_type() == FileType::Directory {
                todo.push(inside);
            } else if let Some(node) = Node::at(&dir, name).at("stat", tree.join(&inside))? {
                found.push((inside, node));
            }
        }
    }
    Ok(found)
}
