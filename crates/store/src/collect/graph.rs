//! What is in the store and what needs what.
//!
//! A record needs whatever it mentions: each string in it that is the name of a layer or of a fetched source, or the
//! digest of a blob that is there. A blob that is JSON (an index, a manifest) needs the blobs it mentions. So nobody has to declare anything,
//! and the worst that a chance mention does is to keep something longer.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kiln_core::{IoError, IoResultExt as _};

use super::ThingKind;
use crate::durable::children;
use crate::error::StoreError;
use crate::layer::kept::{KEPT_FILE, is_kept};
use crate::layout::{self, Ids, Layout};
use crate::{image, record};

/// One thing.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: ThingKind,
    pub(super) path: PathBuf,
    /// Of a file: bytes on disk.
    pub(super) bytes: u64,
    /// When it was last used itself.
    pub(super) own_use: SystemTime,
    /// When it, or something that needs it, was last used.
    pub(super) used: SystemTime,
    needs: Vec<usize>,
    /// Whether a record, an image name or what a failed step left needs it, perhaps through others.
    needed: bool,
    protected: bool,
    /// Larger than that of all it needs.
    height: usize,
    /// Whether it counts as forgotten, though it is a record.
    released: bool,
}

pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    /// Nodes that names of images mean.
    images: Vec<usize>,
}

/// Manifests and indexes are smaller: registries take 4 MiB at most.
const MAX_JSON: u64 = 4 << 20;

impl Graph {
    /// Reads all records and all JSON blobs. Some records count as forgotten.
    pub(super) fn read(layout: &Layout, released: &HashSet<PathBuf>) -> Result<Self, StoreError> {
        let mut nodes = Vec::new();
        let mut names = HashMap::new();
        let mut failed = Vec::new();
        for path in children(&layout.at(layout::BLOBS))? {
            let name = format!("sha256:{}", name(&path));
            names.extend(push(&mut nodes, ThingKind::Blob, path)?.map(|index| (name, index)));
        }
        for path in children(&layout.at(layout::SOURCES))? {
            let name = name(&path).into_owned();
            names.extend(push(&mut nodes, ThingKind::Source, path)?.map(|index| (name, index)));
        }
        for ids in [Ids::Full, Ids::Single] {
            for path in children(&layout.at(ids.dir()).join(layout::LAYERS))? {
                // A base layer may be there in both forms; records of one say nothing about the other.
                let name = format!("{} {}", ids.dir(), name(&path));
                if is_kept(&path) {
                    failed.extend(push(&mut nodes, ThingKind::Failed, path)?.map(|index| (index, ids)));
                    continue;
                }
                names.extend(push(&mut nodes, ThingKind::Layer, path)?.map(|index| (name, index)));
            }
        }
        for node in nodes.iter_mut().filter(|node| node.kind == ThingKind::Blob) {
            if is_json(&node.path)? {
                read_needs(&mut node.needs, &node.path, &names, None)?;
            }
        }
        for (_, ids, path) in records(layout)? {
            if let Some(index) = push(&mut nodes, ThingKind::Record, path)? {
                let node = &mut nodes[index];
                node.released = released.contains(&node.path);
                read_needs(&mut node.needs, &node.path, &names, ids)?;
            }
        }
        for (index, ids) in failed {
            let node = &mut nodes[index];
            read_needs(&mut node.needs, &node.path.join(KEPT_FILE), &names, Some(ids))?;
        }
        let mut images = Vec::new();
        for path in image::files(layout)? {
            let Ok(text) = std::fs::read(path) else { continue };
            record::mentions(&text, &mut |word| images.extend(names.get(word)));
        }
        let mut graph = Self { nodes, images };
        graph.settle();
        Ok(graph)
    }

    /// Protects what names of images reach.
    pub(super) fn protect_images(&mut self) {
        for index in self.images.clone() {
            self.protect(index);
        }
    }

    /// Protects what was used at that time or later, with all it needs.
    pub(super) fn protect_used_since(&mut self, cutoff: SystemTime) {
        for index in 0..self.nodes.len() {
            if self.nodes[index].own_use >= cutoff {
                self.protect(index);
            }
        }
    }

    /// Protects a thing with all it needs.
    pub(super) fn protect(&mut self, index: usize) {
        let mut left = vec![index];
        while let Some(index) = left.pop() {
            if !std::mem::replace(&mut self.nodes[index].protected, true) {
                left.extend(&self.nodes[index].needs);
            }
        }
    }

    pub(super) fn is_protected(&self, index: usize) -> bool {
        self.nodes[index].protected
    }

    /// Returns what may go, in the order of going: `everything`, or only what nothing needs and is no record; used
    /// before `latest`.
    pub(super) fn candidates(&self, everything: bool, latest: Option<SystemTime>) -> Vec<usize> {
        let images: HashSet<usize> = self.images.iter().copied().collect();
        let mut found: Vec<usize> = (0..self.nodes.len())
            .filter(|index| {
                let node = &self.nodes[*index];
                let held = node.kind == ThingKind::Record && !node.released;
                let dangling = !node.needed && !held && !images.contains(index);
                !node.protected && (everything || dangling) && latest.is_none_or(|latest| node.used < latest)
            })
            .collect();
        found.sort_by(|a, b| {
            let key = |index: usize| {
                let node = &self.nodes[index];
                (node.used, std::cmp::Reverse(node.height), &node.path)
            };
            key(*a).cmp(&key(*b))
        });
        found
    }

    /// Returns what has a name that begins with one of these, and all that needs it.
    pub(super) fn named(&self, ids: &[String]) -> HashSet<usize> {
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by_key(|&index| self.nodes[index].height);
        let mut found = HashSet::new();
        for index in order {
            let node = &self.nodes[index];
            let name = name(&node.path);
            let is_it = |id: &String| name.starts_with(id.strip_prefix("sha256:").unwrap_or(id));
            if ids.iter().any(is_it) || node.needs.iter().any(|need| found.contains(need)) {
                found.insert(index);
            }
        }
        found
    }

    /// Passes uses down to what is needed, and finds out what is needed at all.
    fn settle(&mut self) {
        // What only a thing needs that nothing needs goes with it: the layers of an image that lost its name.
        let holds = |index: &usize| {
            let node = &self.nodes[*index];
            matches!(node.kind, ThingKind::Record | ThingKind::Failed) && !node.released
        };
        let mut left: Vec<usize> = (0..self.nodes.len()).filter(holds).chain(self.images.clone()).collect();
        while let Some(index) = left.pop() {
            for need in self.nodes[index].needs.clone() {
                if !std::mem::replace(&mut self.nodes[need].needed, true) {
                    left.push(need);
                }
            }
        }
        // Nothing needs itself by a detour: a digest cannot be known before what it is of. Records come last in the
        // list and blobs need only blobs, so heights settle in as many rounds as indexes nest.
        loop {
            let mut changed = false;
            for index in 0..self.nodes.len() {
                let needs = &self.nodes[index].needs;
                let height = needs.iter().map(|&need| self.nodes[need].height + 1).max().unwrap_or(0);
                changed |= std::mem::replace(&mut self.nodes[index].height, height) != height;
            }
            if !changed {
                break;
            }
        }
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(self.nodes[index].height));
        for index in order {
            let used = self.nodes[index].used;
            for need in self.nodes[index].needs.clone() {
                self.nodes[need].used = self.nodes[need].used.max(used);
            }
        }
    }
}

/// All records, with their kind and the ids they depend on.
pub(crate) fn records(
    layout: &Layout,
) -> Result<Vec<(record::RecordKind, Option<Ids>, PathBuf)>, StoreError> {
    let mut found = Vec::new();
    for kind in record::RecordKind::ALL {
        for ids in [Ids::Full, Ids::Single] {
            let layout = Layout { root: layout.root.clone(), ids };
            let owned = kind.is_owned();
            // One that does not depend on the ids is found under both.
            if owned || ids == Ids::Full {
                let files = record::files(&layout, kind)?;
                found.extend(files.into_iter().map(|path| (kind, owned.then_some(ids), path)));
            }
        }
    }
    Ok(found)
}

fn push(nodes: &mut Vec<Node>, kind: ThingKind, path: PathBuf) -> Result<Option<usize>, IoError> {
    let found = std::fs::symlink_metadata(&path);
    let found = found.and_then(|metadata| Ok((metadata.modified()?, metadata.blocks() * 512)));
    let (used, bytes) = match found {
        Ok(found) => found,
        // Taken away by somebody else.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("stat", path),
    };
    let (needs, own_use) = (Vec::new(), used);
    nodes.push(Node {
        kind,
        path,
        bytes,
        own_use,
        used,
        needs,
        needed: false,
        protected: false,
        height: 0,
        released: false,
    });
    Ok(Some(nodes.len() - 1))
}

fn read_needs(
    needs: &mut Vec<usize>,
    path: &Path,
    names: &HashMap<String, usize>,
    ids: Option<Ids>,
) -> Result<(), IoError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).at("read", path),
    };
    record::mentions(&text, &mut |word| {
        needs.extend(names.get(word));
        if let Some(ids) = ids {
            needs.extend(names.get(&format!("{} {word}", ids.dir())));
        }
    });
    needs.sort_unstable();
    needs.dedup();
    Ok(())
}

fn is_json(path: &Path) -> Result<bool, IoError> {
    let mut start = [0];
    let read = std::fs::File::open(path).and_then(|mut file| {
        Ok(file.metadata()?.len() <= MAX_JSON && file.read(&mut start)? == 1 && start == *b"{")
    });
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        other => other.at("read", path),
    }
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}
