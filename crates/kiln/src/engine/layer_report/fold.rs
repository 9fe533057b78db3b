//! Layers over one another: what each adds, changes and deletes, and what of it a later one hides. No files are looked at here.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;

use kiln_store::Said;

/// What a layer does to those below it. Directories are not counted: archives name those that they only pass through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Bytes of its files, unpacked.
    pub(super) bytes: u64,
    /// Files that were not there.
    pub(super) added: u64,
    /// Files that were.
    pub(super) changed: u64,
    /// Files of lower layers that are gone.
    pub(super) deleted: u64,
    /// Bytes of it that later layers hide or delete.
    pub(super) wasted: u64,
}

/// A file that no longer counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hidden {
    pub(super) path: Vec<u8>,
    pub(super) bytes: u64,
    /// The layer that has it.
    pub(super) layer: usize,
    /// The layer that hides it.
    pub(super) by: usize,
}

/// The merged tree so far.
#[derive(Debug, Default)]
pub(super) struct Fold {
    tree: BTreeMap<Vec<u8>, Node>,
    contents: Vec<Content>,
    layers: Vec<Counts>,
    pub(super) hidden: Vec<Hidden>,
    /// Paths that the layer at hand deleted: what comes back was changed.
    deleted: HashSet<Vec<u8>>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    layer: usize,
    /// None for a directory.
    content: Option<usize>,
}

/// The bytes of a file, which may have several names.
#[derive(Debug)]
struct Content {
    layer: usize,
    bytes: u64,
    names: u64,
}

impl Fold {
    /// Begins with the next layer.
    pub(super) fn next_layer(&mut self) {
        self.layers.push(Counts::default());
        self.deleted.clear();
    }

    /// Takes in what the layer at hand says of a path.
    pub(super) fn see(&mut self, path: &[u8], said: Said) {
        match said {
            Said::Directory => {
                match self.tree.get(path) {
                    // What was in it stays.
                    Some(Node { content: None, .. }) => {}
                    Some(_) => {
                        self.remove(path);
                        self.counts().deleted += 1;
                    }
                    None => {}
                }
                let layer = self.at();
                self.tree.insert(path.to_vec(), Node { layer, content: None });
            }
            Said::File { size } => {
                self.counts().bytes += size;
                let layer = self.at();
                self.contents.push(Content { layer, bytes: size, names: 0 });
                self.name(path, self.contents.len() - 1);
            }
            Said::HardLink { target } => {
                match self.tree.get(&target).and_then(|node| node.content) {
                    Some(content) => self.name(path, content),
                    // Of what nobody said: no bytes that we know.
                    None => self.see(path, Said::Other),
                }
            }
            Said::Other => {
                let layer = self.at();
                self.contents.push(Content { layer, bytes: 0, names: 0 });
                self.name(path, self.contents.len() - 1);
            }
            Said::Deleted => self.delete(path, true),
            Said::Opaque => self.delete(path, false),
        }
    }

    /// Returns what each layer does.
    pub(super) fn layers(&self) -> &[Counts] {
        &self.layers
    }

    /// Returns the bytes of the merged tree.
    pub(super) fn visible(&self) -> u64 {
        self.contents.iter().filter(|content| content.names > 0).map(|content| content.bytes).sum()
    }

    fn at(&self) -> usize {
        self.layers.len() - 1
    }

    fn counts(&mut self) -> &mut Counts {
        let at = self.at();
        &mut self.layers[at]
    }

    /// Gives a content a name, in place of what has it.
    fn name(&mut self, path: &[u8], content: usize) {
        let layer = self.at();
        // Before the old one goes: it may be the same.
        self.contents[content].names += 1;
        let own = self.tree.get(path).is_some_and(|node| node.layer == layer && node.content.is_some());
        let known = self.tree.get(path).is_some_and(|node| node.content.is_some());
        if self.tree.contains_key(path) {
            self.delete(path, false);
            self.remove(path);
        }
        let came_back = self.deleted.remove(path);
        let counts = self.counts();
        match (own, known || came_back) {
            // Said twice by one layer.
            (true, _) => {}
            (false, true) => counts.changed += 1,
            (false, false) => counts.added += 1,
        }
        counts.deleted -= u64::from(came_back);
        self.tree.insert(path.to_vec(), Node { layer, content: Some(content) });
    }

    /// Takes away what lower layers have at or in a path; never what this layer brings.
    fn delete(&mut self, path: &[u8], itself: bool) {
        let mut gone = self.below(path);
        if itself {
            gone.push(path.to_vec());
        }
        let layer = self.at();
        for path in gone {
            let Some(node) = self.tree.get(&path).filter(|node| node.layer < layer) else { continue };
            if node.content.is_some() {
                self.counts().deleted += 1;
                self.deleted.insert(path.clone());
            }
            self.remove(&path);
        }
    }

    /// What is in a directory, however deep.
    fn below(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let inside = [path, b"/"].concat();
        let range = self.tree.range::<[u8], _>((Bound::Excluded(&inside[..]), Bound::Unbounded));
        range.take_while(|(path, _)| path.starts_with(&inside)).map(|(path, _)| path.clone()).collect()
    }

    fn remove(&mut self, path: &[u8]) {
        let Some(Node { content: Some(content), .. }) = self.tree.remove(path) else { return };
        let by = self.at();
        let Content { layer, bytes, names } = &mut self.contents[content];
        *names -= 1;
        if *names == 0 && *bytes > 0 {
            self.layers[*layer].wasted += *bytes;
            self.hidden.push(Hidden { path: path.to_vec(), bytes: *bytes, layer: *layer, by });
        }
    }
}

#[cfg(test)]
mod tests;
